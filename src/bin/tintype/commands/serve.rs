//! `tintype serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueHint};
use tintype::server::{Fetch, Library, Server, ServerOptions};
use tintype::{Engine, Error};

use crate::args::{Common, share};
use crate::interrupt::Interrupt;
use crate::library;
use crate::output::{Outcome, Talk, printable};

/// `tintype serve`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ServeArgs {
    /// Libraries, each with the name to serve it under [default: the library]
    #[arg(value_name = "[NAME=]DIR", value_hint = ValueHint::DirPath)]
    libraries: Vec<String>,
    /// Address and port to listen at, or a port of this machine alone
    #[arg(long, short, value_name = "[ADDRESS:]PORT", default_value = "127.0.0.1:1234", value_parser = address)]
    listen: SocketAddr,
    /// A name that browsers may know this server by, besides localhost; repeatable
    #[arg(long, value_name = "NAME")]
    host_name: Vec<String>,
    /// Let pages of this origin use the server from a browser (`*`: any); repeatable
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,
    /// Answer only requests that bring this token; open the page once as /?token=…
    #[arg(long, value_name = "TOKEN", env = "TINTYPE_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Fetch pictures that requests name by address, from the public network
    #[arg(long)]
    allow_image_url: bool,
    /// Also fetch from private addresses, such as those of the local network
    #[arg(long, requires = "allow_image_url")]
    allow_private_url: bool,
    /// Where thumbnails are kept [default: in the cache directory of this system]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    thumbnails: Option<PathBuf>,
    /// Room for thumbnails in MB; 0 keeps none
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    thumbnail_room: u64,
    /// The largest request in MB
    #[arg(long, value_name = "MB", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max_body: u32,
    /// The share of the true nearest neighbours that /knn-service finds, 0 to 1; at 1 it scans everything
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = share)]
    recall: f32,
    /// Where clip-retrieval's front finds this server [default: where it was asked]
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    default_backend: Option<String>,
    /// The column of metadata with the address of a picture, for clip-retrieval's front
    #[arg(long, value_name = "NAME", default_value = "url")]
    url_column: String,
    /// The columns of metadata that clip-retrieval's clients get, with commas between them [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    columns_to_return: Vec<String>,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    deadline: u32,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or("neither a port nor ADDRESS:PORT")?;
    let ip: IpAddr = match host {
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        host => {
            host.parse().map_err(|_| format!("{host} is no address of this machine; give a number such as 0.0.0.0"))?
        }
    };
    Ok(SocketAddr::new(ip, port.parse().map_err(|_| format!("{port} is no port"))?))
}

/// Serves libraries until Ctrl-C.
pub(crate) fn run(args: &ServeArgs, common: &Common, talk: &Talk) -> anyhow::Result<Outcome> {
    let libraries = libraries(args, common, talk)?;
    let served: Vec<String> = libraries.iter().map(|(name, _)| name.clone()).collect();
    let libraries = libraries.into_iter().map(|(_, library)| library).collect();
    let server = match Server::bind(options(args), libraries) {
        Err(error @ Error::BadServer { .. }) => {
            talk.line(format_args!("{} {error}", talk.palette.red("error:")));
            return Ok(Outcome::Usage);
        }
        bound => bound?,
    };
    let address = server.address();
    let names = served.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
    talk.say(format_args!("serving {names} at {}", talk.palette.cyan(format_args!("http://{address}/"))));
    if !address.ip().is_loopback() && args.token.is_none() {
        talk.line(format_args!(
            "{} anybody who can reach {address} can see all photos of {names}; --token asks for a password",
            talk.palette.yellow("note:")
        ));
    }
    let interrupt = Interrupt::listen()?;
    server
        .on_trouble(|fault| {
            // The page and the API tell the client; this is for whoever runs the server.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("tintype: {fault}\n").as_bytes());
        })
        .run(|| interrupt.asked())?;
    talk.say(talk.palette.dim("ended"));
    Ok(Outcome::Done)
}

fn options(args: &ServeArgs) -> ServerOptions {
    let cache = || dirs::cache_dir().map(|cache| cache.join("tintype").join("thumbnails"));
    let mut options = ServerOptions::default();
    options.address = args.listen;
    options.hosts.clone_from(&args.host_name);
    options.origins.clone_from(&args.allow_origin);
    options.token.clone_from(&args.token);
    options.fetch = match (args.allow_image_url, args.allow_private_url) {
        (false, _) => Fetch::Never,
        (true, false) => Fetch::Public,
        (true, true) => Fetch::Any,
    };
    options.thumbnails = args.thumbnails.clone().or_else(cache);
    options.thumbnail_bytes = args.thumbnail_room.saturating_mul(1_000_000);
    options.max_body = args.max_body as usize * 1_000_000;
    options.recall = args.recall;
    options.backend.clone_from(&args.default_backend);
    options.url_column.clone_from(&args.url_column);
    options.columns = Some(args.columns_to_return.clone()).filter(|columns| !columns.is_empty());
    options.deadline = Duration::from_secs(args.deadline.into());
    options
}

fn libraries(args: &ServeArgs, common: &Common, talk: &Talk) -> anyhow::Result<Vec<(String, Library)>> {
    let mut named: Vec<(Option<&str>, PathBuf)> = args
        .libraries
        .iter()
        .map(|text| match text.split_once('=') {
            // A directory may have a = in its name.
            Some((name, dir)) if !Path::new(text).exists() && !name.is_empty() => (Some(name), at_home(dir)),
            _ => (None, PathBuf::from(text)),
        })
        .collect();
    if named.is_empty() {
        named.push((None, library::directory(common)?));
    }
    let mut libraries = Vec::new();
    for (name, dir) in named {
        let name = match name {
            Some(name) => name.to_owned(),
            None => own_name(&dir),
        };
        let common = Common { library: Some(dir), ..common.clone() };
        let engine: Engine = library::open_existing(&common, talk)?;
        let reopened = common.clone();
        let library = Library::new(&name, engine).on_switch(move || {
            let quiet = Talk::new(crate::args::When::Never, true);
            library::open_existing(&reopened, &quiet).map_err(|error| match error.downcast::<Error>() {
                Ok(error) => error,
                Err(error) => Error::BadServer { reason: format!("{error:#}") },
            })
        });
        libraries.push((name, library));
    }
    Ok(libraries)
}

/// A path in which `~/` means what it means at the beginning of a word; behind a `=` many shells leave it as it is.
fn at_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), dirs::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// The name of a library that was not given one: that of its directory.
fn own_name(dir: &Path) -> String {
    let real = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let name = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = name.strip_suffix(".tintype").filter(|name| !name.is_empty()).unwrap_or(&name);
    if plain.is_empty() || plain == "tintype" { "photos".to_owned() } else { plain.to_owned() }
}
