//! Where models are kept and how they are asked for.
//!
//! A plain struct: the library reads no environment variable. A program that wants to share its cache and its login with
//! the Python tools hands its variables over, `HubOptions::from_vars(std::env::vars_os())`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Result};

/// Where models are kept on this machine, which hub has them, and how patiently it is asked.
#[derive(Clone)]
#[non_exhaustive]
pub struct HubOptions {
    /// The cache folder, shared with every other tool that uses the Hugging Face layout.
    pub cache: PathBuf,
    /// The hub: scheme, host and perhaps a path, without a slash at the end.
    pub endpoint: String,
    /// Access token; sent to `endpoint` and to no other host.
    pub token: Option<String>,
    /// Never ask the hub; what is not on this machine is an error.
    pub offline: bool,
    /// Point from snapshots to blobs with symbolic links. Without them (or where the file system refuses) the file itself
    /// moves into the snapshot, as the Python tools do it.
    pub symlinks: bool,
    /// Proxy for all requests, as `http://user:password@host:port`.
    pub proxy: Option<String>,
    /// The longest silence of a server, when connecting and in the middle of a file.
    pub timeout: Duration,
    /// How often a file is tried without a byte of progress before it is given up.
    pub attempts: u32,
    /// Pause after the first failure; it doubles with every further one, up to half a minute.
    pub backoff: Duration,
}

impl HubOptions {
    /// The public hub, cached in `cache`.
    pub fn new(cache: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            endpoint: "https://huggingface.co".to_owned(),
            token: None,
            offline: false,
            symlinks: true,
            proxy: None,
            timeout: Duration::from_secs(15),
            attempts: 5,
            backoff: Duration::from_secs(1),
        }
    }

    /// The public hub, cached where the Python tools keep their cache by default: `.cache/huggingface/hub` in the home
    /// directory.
    ///
    /// # Errors
    /// [`Error::NoHome`] if the system does not say where that is.
    pub fn in_home() -> Result<Self> {
        Self::from_vars(std::iter::empty())
    }

    /// Settings from variables as the Python tools understand them, usually `std::env::vars_os()`.
    ///
    /// `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`,
    /// `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT` (seconds), `HF_HUB_DISABLE_SYMLINKS`, their older spellings,
    /// `XDG_CACHE_HOME`, and `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`. Without `HF_TOKEN` the token is read
    /// from the file that `hf auth login` writes. Empty variables count as unset.
    ///
    /// # Errors
    /// [`Error::NoHome`] if no variable and not the system say where the home directory is, [`Error::Io`] if there is a
    /// token file that cannot be read.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self> {
        let vars: HashMap<OsString, OsString> = vars.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let raw = |names: &[&str]| names.iter().find_map(|name| vars.get(OsString::from(*name).as_os_str()));
        let text = |names: &[&str]| raw(names).and_then(|value| value.to_str()).map(str::trim).map(str::to_owned);
        let on = |names: &[&str]| {
            text(names).is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_ascii_uppercase().as_str()))
        };
        let user = raw(&["HOME", "USERPROFILE"]).map(PathBuf::from).or_else(std::env::home_dir);
        let folder = |names: &[&str]| raw(names).map(|value| under_home(Path::new(value), user.as_deref()));

        let home = folder(&["HF_HOME"])
            .or_else(|| folder(&["XDG_CACHE_HOME"]).map(|cache| cache.join("huggingface")))
            .or_else(|| user.as_ref().map(|user| user.join(".cache").join("huggingface")));
        let cache = folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or(Error::NoHome)?;

        let mut options = Self::new(cache);
        if let Some(endpoint) = text(&["HF_ENDPOINT"]) {
            options.endpoint = endpoint.trim_end_matches('/').to_owned();
        }
        options.token = match text(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).filter(|token| !token.is_empty()) {
            Some(token) => Some(token),
            None if on(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]) => None,
            None => match folder(&["HF_TOKEN_PATH"]).or_else(|| home.map(|home| home.join("token"))) {
                Some(file) => token_in(&file)?,
                None => None,
            },
        };
        options.offline = on(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
        options.symlinks = !on(&["HF_HUB_DISABLE_SYMLINKS"]);
        if let Some(seconds) = text(&["HF_HUB_DOWNLOAD_TIMEOUT"]).and_then(|value| value.parse().ok())
            && seconds > 0
        {
            options.timeout = Duration::from_secs(seconds);
        }
        let direct = text(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
        if !is_direct(&options.endpoint, &direct) {
            let names: &[&str] = if options.endpoint.starts_with("https:") {
                &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
            } else {
                &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
            };
            options.proxy = text(names);
        }
        Ok(options)
    }
}

impl fmt::Debug for HubOptions {
    /// Everything but the token and the proxy's password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("cache", &self.cache)
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .field("symlinks", &self.symlinks)
            .field("proxy", &self.proxy.as_ref().map(|_| "…"))
            .field("timeout", &self.timeout)
            .field("attempts", &self.attempts)
            .field("backoff", &self.backoff)
            .finish()
    }
}

/// `path` with a leading `~` replaced by the home directory.
fn under_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

fn token_in(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|token| !token.is_empty())),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(Error::io(file)(error)),
    }
}

/// Whether `NO_PROXY` names the endpoint's host: itself, a domain above it, or `*`.
fn is_direct(endpoint: &str, no_proxy: &str) -> bool {
    let host = endpoint.split("://").nth(1).unwrap_or(endpoint).split(['/', ':']).next().unwrap_or_default();
    no_proxy.split(',').map(|entry| entry.trim().trim_start_matches('.')).filter(|entry| !entry.is_empty()).any(
        |entry| {
            entry == "*"
                || host.eq_ignore_ascii_case(entry)
                || host.to_ascii_lowercase().ends_with(&format!(".{}", entry.to_ascii_lowercase()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_vars(vars.iter().map(|(name, value)| (name.into(), value.into()))).unwrap()
    }

    #[test]
    fn the_cache_is_where_the_python_tools_look() {
        assert_eq!(options(&[("HOME", "/u")]).cache, Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(options(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(options(&[("HOME", "/u"), ("HF_HOME", "~/hf")]).cache, Path::new("/u/hf/hub"));
        assert_eq!(options(&[("HOME", "/u"), ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
        assert_eq!(options(&[("HOME", "/u"), ("HF_HOME", "")]).cache, Path::new("/u/.cache/huggingface/hub"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_from_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).token, None);
        std::fs::write(dir.path().join("token"), "from-file\n").unwrap();
        assert_eq!(options(&[("HF_HOME", home)]).token.as_deref(), Some("from-file"));
        assert_eq!(options(&[("HF_HOME", home), ("HF_TOKEN", " direct ")]).token.as_deref(), Some("direct"));
        assert_eq!(options(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        assert!(!format!("{:?}", options(&[("HF_HOME", home)])).contains("from-file"), "no token in debug output");
    }

    #[test]
    fn switches_endpoint_and_timeout_are_honoured() {
        let set = options(&[
            ("HOME", "/u"),
            ("HF_ENDPOINT", "https://mirror.example/"),
            ("HF_HUB_OFFLINE", "yes"),
            ("HF_HUB_DISABLE_SYMLINKS", "1"),
            ("HF_HUB_DOWNLOAD_TIMEOUT", "42"),
        ]);
        assert_eq!(set.endpoint, "https://mirror.example");
        assert!(set.offline && !set.symlinks);
        assert_eq!(set.timeout, Duration::from_secs(42));
        assert!(!options(&[("HOME", "/u"), ("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn a_proxy_is_used_unless_the_host_is_excepted() {
        let proxy = ("HTTPS_PROXY", "http://proxy:3128");
        assert_eq!(options(&[("HOME", "/u"), proxy]).proxy.as_deref(), Some("http://proxy:3128"));
        for except in ["huggingface.co", "*", "localhost, .co"] {
            assert_eq!(options(&[("HOME", "/u"), proxy, ("NO_PROXY", except)]).proxy, None, "{except}");
        }
        assert_eq!(options(&[("HOME", "/u"), proxy, ("HF_ENDPOINT", "http://127.0.0.1:1")]).proxy, None);
    }
}
