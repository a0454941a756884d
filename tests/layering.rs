//! The layering of ARCHITECTURE.md, checked against what each module imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Reads the table of ARCHITECTURE.md that begins after `heading`: module → modules that it may use.
fn allowed(heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    let document = include_str!("../ARCHITECTURE.md");
    let section = document.split_once(heading).unwrap_or_else(|| panic!("no heading {heading:?}")).1;
    let rows = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let mut table = BTreeMap::new();
    for row in rows.skip(2) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let uses: BTreeSet<String> = names(cells[2]).into_iter().collect();
        for module in names(cells[0]) {
            table.insert(module, uses.clone());
        }
    }
    assert!(table.len() > 5, "the table after {heading:?} could not be read");
    table
}

/// Every Rust file below `dir`.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// Top-level modules that the non-test part of a file imports through `crate::`.
fn imports(text: &str, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or("");
    let mut found = BTreeSet::new();
    for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(list) => list.split(&[',', '}'][..]).map(str::trim).collect(),
                None => vec![rest],
            };
            for name in names {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if modules.contains(&name) {
                    found.insert(name);
                }
            }
        }
    }
    found
}

fn check(source: &Path, heading: &str) {
    let table = allowed(heading);
    let modules: BTreeSet<String> = table.keys().cloned().collect();
    let mut faults = Vec::new();
    for file in sources(source) {
        let relative = file.strip_prefix(source).unwrap();
        if relative.starts_with("bin") || relative == Path::new("lib.rs") || relative == Path::new("error.rs") {
            continue;
        }
        let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        let Some(may_use) = table.get(module) else {
            faults.push(format!("{} is not in ARCHITECTURE.md", relative.display()));
            continue;
        };
        for import in imports(&fs::read_to_string(&file).unwrap(), &modules) {
            if import != module && import != "error" && !may_use.contains(&import) {
                faults.push(format!("{} uses {import}", relative.display()));
            }
        }
    }
    assert!(faults.is_empty(), "against the layering:\n{}", faults.join("\n"));
}

#[test]
fn the_engine_keeps_its_layers() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "## The engine");
}

#[test]
fn the_index_keeps_its_layers() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("index/src"), "## The index");
}

#[test]
fn imports_are_found_in_every_form() {
    let modules = ["image", "query", "search"].map(str::to_owned).into();
    let text = "use crate::image::Photo;\nuse crate::{query::Query, search};\n// use crate::engine\n#[cfg(test)]\nmod tests { use crate::engine; }\n";
    assert_eq!(imports(text, &modules), ["image", "query", "search"].map(str::to_owned).into());
}

#[test]
fn the_program_sees_only_the_public_library() {
    for file in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/tintype")) {
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("#[path"), "{} reaches into the library", file.display());
    }
}
