//! How does a broker come to life? Command line, attributes, configuration, bootstrap, services, then the hub.

use crate::attrs::Attrs;
use crate::bootstrap::{self, Boot, BootError};
use crate::config_file::{self, ConfigError};
use crate::connector_local::ConnectorLocal;
use crate::lifecycle::{Lifecycle, Options};
use crate::log::{LogConfig, LogRing};
use crate::modules;
use crate::overlay::Overlay;
use crate::service::{Hub, RpcError, new_uuid};
use flux_formats::hostlist::Hostlist;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The flux-core version whose wire we speak.
pub const VERSION: &str = "0.88.0";

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `-S NAME=VALUE`, in order.
    pub attrs: Vec<(String, String)>,
    /// `-c PATH`.
    pub config_path: Option<String>,
    /// `--conf=VALUE`, in order.
    pub conf: Vec<String>,
    /// `-v`.
    pub verbose: u8,
    /// The initial program.
    pub program: Vec<String>,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An argument is not understood.
    #[error("{0}")]
    Usage(String),
    /// An attribute on the command line is not accepted.
    #[error("-S {name}: {source}")]
    Attr {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: crate::attrs::AttrError,
    },
    /// The configuration cannot be read.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The run directory cannot be made.
    #[error(transparent)]
    Rundir(#[from] crate::rundir::RundirError),
    /// The state directory is not usable.
    #[error("statedir {path}: {source}")]
    Statedir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Bootstrap failed.
    #[error("bootstrap: {0}")]
    Boot(#[from] BootError),
    /// A service did not start.
    #[error("{name}: {source}")]
    Service {
        /// The service.
        name: &'static str,
        /// Why.
        #[source]
        source: RpcError,
    },
}

impl Arguments {
    /// Parses the broker's command line, without the program name.
    ///
    /// # Errors
    /// [`StartError::Usage`] naming the argument.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, StartError> {
        let mut parsed = Arguments::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                parsed.program.extend(args);
                break;
            }
            if !arg.starts_with('-') {
                parsed.program.push(arg);
                parsed.program.extend(args);
                break;
            }
            parsed.option(&arg, &mut args)?;
        }
        Ok(parsed)
    }

    fn option(&mut self, arg: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), StartError> {
        let mut value = |inline: Option<&str>| match inline {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => rest
                .next()
                .ok_or_else(|| StartError::Usage(format!("{arg}: a value is missing"))),
        };
        let (name, inline) = match arg.split_once('=') {
            Some((name, text)) if arg.starts_with("--") => (name, Some(text)),
            _ if arg.starts_with("--") => (arg, None),
            _ => arg
                .split_at_checked(2)
                .map_or((arg, None), |(name, text)| (name, Some(text))),
        };
        match name {
            "-S" | "--setattr" => {
                let text = value(inline)?;
                // some attributes only need to be there, as broker.rc2_none
                let (name, value) = text.split_once('=').unwrap_or((&text, ""));
                if name.is_empty() {
                    return Err(StartError::Usage(format!(
                        "{arg}: expected NAME=VALUE, got '{text}'"
                    )));
                }
                self.attrs.push((name.to_owned(), value.to_owned()));
            }
            "-c" | "--config-path" => self.config_path = Some(value(inline)?),
            "--conf" => {
                let text = value(inline)?;
                self.conf.push(text);
            }
            "-v" | "--verbose" => {
                let level = inline.and_then(|text| text.parse().ok()).unwrap_or(1);
                self.verbose = self.verbose.max(level);
            }
            _ => {
                return Err(StartError::Usage(format!(
                    "{arg}: unknown option; usage: flux-broker [-v] [-S ATTR=VAL] [-c PATH] [--conf=VALUE] [COMMAND...]"
                )));
            }
        }
        Ok(())
    }
}

fn read_config(args: &Arguments, attrs: &mut Attrs) -> Result<(Option<PathBuf>, Value), StartError> {
    let path = args
        .config_path
        .clone()
        .or_else(|| attrs.get("config.path").map(ToOwned::to_owned))
        .or_else(|| std::env::var("FLUX_CONF_DIR").ok())
        .map(|path| {
            if path == "system" {
                format!("{}/flux/system/conf.d", flux_formats::paths::sysconfdir())
            } else {
                path
            }
        });
    let base = match &path {
        Some(path) => {
            attrs.set_internal("config.path", path.clone());
            config_file::load(Path::new(path))?
        }
        None => Value::Object(Map::new()),
    };
    Ok((
        path.map(PathBuf::from),
        config_file::apply_overrides(base, &args.conf)?,
    ))
}

fn check_statedir(attrs: &Attrs) -> Result<(), StartError> {
    let Some(path) = attrs.get("statedir").map(PathBuf::from) else {
        return Ok(());
    };
    let error = |source| StartError::Statedir {
        path: path.clone(),
        source,
    };
    let meta = std::fs::metadata(&path).map_err(error)?;
    if !meta.is_dir() {
        return Err(error(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    Ok(())
}

/// Sets the attributes that bootstrap decides.
fn set_boot_attrs(attrs: &mut Attrs, boot: &Boot, owner: u32) {
    let topology = &boot.topology;
    let (rank, size) = (topology.rank(), topology.size());
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let mut set = |name: &str, value: String| attrs.set_internal(name, value);
    set("rank", rank.to_string());
    set("size", size.to_string());
    set("version", VERSION.to_owned());
    set("vendor.version", format!("{} (rust)", env!("CARGO_PKG_VERSION")));
    set("security.owner", owner.to_string());
    set("broker.pid", std::process::id().to_string());
    set("broker.uuid", String::from_utf8_lossy(&new_uuid()).into_owned());
    set("broker.boot-method", boot.method.to_owned());
    set("broker.starttime", format!("{:.2}", now.as_secs_f64()));
    set("tbon.topo", topology.uri().to_owned());
    set("tbon.level", topology.level_of(rank).to_string());
    set("tbon.maxlevel", topology.max_level().to_string());
    set("tbon.descendants", topology.descendants_of(rank).to_string());
    set("instance-level", boot.instance_level.to_string());
    if let Some(mapping) = &boot.mapping {
        set("broker.mapping", mapping.clone());
    }
    if let Some(listener) = &boot.listener {
        set(
            "tbon.endpoint",
            flux_zmtp::Endpoint::from(listener.server.local_addr()).to_string(),
        );
    }
    if let Some(parent) = &boot.parent {
        set("tbon.parent-endpoint", parent.endpoint.to_string());
    }
    if let Some(hosts) = &boot.hosts {
        let mut list = Hostlist::default();
        for host in hosts {
            if let Err(err) = list.push(host) {
                tracing::warn!(host, err = %err, "host name is not valid in a hostlist");
            }
        }
        set("hostlist", list.to_string());
    }
    if let Some(jobid) = &boot.jobid {
        set("jobid", jobid.clone());
        let path = std::env::var("FLUX_JOB_ID_PATH").unwrap_or_default();
        set("jobid-path", format!("{}/{jobid}", path.trim_end_matches('/')));
        if let Ok(uri) = std::env::var("FLUX_URI") {
            set("parent-uri", uri);
        }
        if let Ok(namespace) = std::env::var("FLUX_KVS_NAMESPACE") {
            set("parent-kvs-namespace", namespace);
        }
    }
    for (name, value) in [
        ("broker.quorum", size.to_string()),
        ("broker.critical-ranks", critical_ranks(&boot.topology)),
        ("broker.rc1_path", "flux modprobe rc1".to_owned()),
        ("broker.rc3_path", "flux modprobe rc3".to_owned()),
        (
            "conf.shell_initrc",
            flux_formats::paths::builtin("shell_initrc").unwrap_or_default(),
        ),
        (
            "conf.shell_pluginpath",
            flux_formats::paths::builtin("shell_pluginpath").unwrap_or_default(),
        ),
    ] {
        if attrs.get(name).is_none() {
            attrs.set_internal(name, value);
        }
    }
}

/// Ranks that route for others: their loss ends the instance.
fn critical_ranks(topology: &crate::overlay::topology::Topology) -> String {
    let mut inner = flux_formats::idset::IdSet::default();
    inner.insert(0);
    for rank in 1..topology.size() {
        if let Some(parent) = topology.parent_of(rank) {
            inner.insert(parent);
        }
    }
    inner.to_string()
}

/// Runs a broker to its end and returns its exit code.
///
/// # Errors
/// Any [`StartError`]; the text says what to mend.
pub async fn run(args: Arguments) -> Result<i32, StartError> {
    let mut attrs = Attrs::new();
    for (name, value) in &args.attrs {
        attrs
            .set_cmdline(name, value)
            .map_err(|source| StartError::Attr {
                name: name.clone(),
                source,
            })?;
    }
    crate::trace_log::install(args.verbose > 1);
    let (config_path, config) = read_config(&args, &mut attrs)?;
    let bare = attrs.get("broker.rc1_path") == Some("");
    check_statedir(&attrs)?;
    let boot = bootstrap::boot(&attrs, &config).await?;
    let owner = nix::unistd::getuid().as_raw();
    set_boot_attrs(&mut attrs, &boot, owner);
    let rundir = crate::rundir::make(&mut attrs, boot.topology.rank())?;
    if attrs.get("hostname").is_none() {
        let name = nix::unistd::gethostname().ok().and_then(|n| n.into_string().ok());
        attrs.set_internal("hostname", name.unwrap_or_else(|| "localhost".to_owned()));
    }
    if attrs.get("local-uri").is_none() {
        let uri = format!(
            "local://{}/local-{}",
            attrs.get("rundir").unwrap_or("."),
            boot.topology.rank()
        );
        attrs.set_internal("local-uri", uri);
    }
    if args.verbose > 0 {
        use std::io::Write;
        let (rank, size) = (boot.topology.rank(), boot.topology.size());
        let endpoint = attrs.get("tbon.endpoint").unwrap_or("none");
        // stderr may be closed; the broker runs all the same
        drop(writeln!(
            std::io::stderr(),
            "flux-broker: boot: rank={rank} size={size} endpoint={endpoint}"
        ));
    }
    let options = Options {
        initial_program: args.program.clone(),
        bare,
    };
    let code = serve(attrs, config, config_path, args.conf, boot, options, owner).await?;
    drop(rundir);
    Ok(code)
}

async fn serve(
    attrs: Attrs,
    config: Value,
    config_path: Option<PathBuf>,
    conf: Vec<String>,
    boot: Boot,
    options: Options,
    owner: u32,
) -> Result<i32, StartError> {
    let local = attrs
        .get("local-uri")
        .and_then(|uri| uri.strip_prefix("local://"))
        .unwrap_or("")
        .to_owned();
    let timeout = bootstrap::tcp_user_timeout(&attrs, &config);
    let hostname = attrs.get("hostname").unwrap_or("").to_owned();
    let log = LogRing::new(LogConfig::default());
    let mut hub = Hub::new(attrs, log, Rc::new(config), boot.topology, owner);
    let overlay = Overlay::new(boot.keypair, boot.parent, boot.listener, timeout, hostname);
    let fail = |name: &'static str| move |source| StartError::Service { name, source };
    hub.load("log", Box::new(modules::log::Log), false)
        .map_err(fail("log"))?;
    hub.load("attr", Box::new(modules::attr::Attr), false)
        .map_err(fail("attr"))?;
    hub.load("broker", Box::new(modules::broker::Broker), false)
        .map_err(fail("broker"))?;
    hub.load("module", Box::new(modules::module::Module), false)
        .map_err(fail("module"))?;
    hub.load("state-machine", Box::new(Lifecycle::new(options)), false)
        .map_err(fail("state-machine"))?;
    let config = modules::config::Config::new(config_path, conf);
    hub.load("config", Box::new(config), true)
        .map_err(fail("config"))?;
    hub.load("groups", Box::new(modules::groups::Groups::default()), true)
        .map_err(fail("groups"))?;
    hub.load("overlay", Box::new(overlay), true)
        .map_err(fail("overlay"))?;
    if let Some(rexec) = modules::registry::create("rexec", &[]) {
        hub.load("rexec", rexec, true).map_err(fail("rexec"))?;
    }
    hub.load("connector-local", Box::new(ConnectorLocal::new(local)), true)
        .map_err(fail("connector-local"))?;
    crate::lifecycle::begin(&mut hub).map_err(fail("state-machine"))?;
    Ok(hub.run().await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[&str]) -> Result<Arguments, StartError> {
        Arguments::parse(list.iter().map(|s| (*s).to_owned()))
    }

    #[test]
    fn arguments() {
        let args = parse(&[
            "-Sa=1",
            "-S",
            "b=2",
            "--setattr=c=3",
            "-v",
            "--conf=x=1",
            "-c",
            "/d",
            "echo",
            "-S",
        ])
        .unwrap();
        assert_eq!(args.attrs.len(), 3);
        assert_eq!(args.attrs[2], ("c".to_owned(), "3".to_owned()));
        assert_eq!((args.config_path.as_deref(), args.verbose), (Some("/d"), 1));
        assert_eq!(args.program, ["echo", "-S"]);
        assert_eq!(parse(&["-v2"]).unwrap().verbose, 2);
        assert!(parse(&["--nope"]).unwrap_err().to_string().contains("--nope"));
        assert!(parse(&["-S"]).unwrap_err().to_string().contains("missing"));
        // an attribute that only needs to be there
        assert_eq!(parse(&["-Sx"]).unwrap().attrs, [("x".to_owned(), String::new())]);
        assert!(parse(&["-S=x"]).unwrap_err().to_string().contains("NAME=VALUE"));
    }
}
