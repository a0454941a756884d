//! Notes which commit of the index this is, so that results can say so whenever they are measured.

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).args(["--", "../../index/src"]).output().ok();
        output.filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let commit = git(&["log", "-1", "--format=%h"]).unwrap_or_else(|| "unknown".into());
    let changed = git(&["status", "--porcelain"]).is_some_and(|changes| !changes.is_empty());
    println!("cargo:rustc-env=INDEX_COMMIT={commit}{}", if changed { " with changes" } else { "" });
    println!("cargo:rerun-if-changed=../../index/src");
}
