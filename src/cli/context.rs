//! Options before the verb, and what they come to.

use super::CliError;
use super::arguments::switch;
use super::log::{self, Log};
use crate::config::operator::Operator;
use crate::container::{Container, ContainerId, Store, operator};
use crate::error::plain;
use crate::log::Form;
use clap::Args;
use std::path::{Path, PathBuf};

/// Options before the verb.
#[derive(Debug, Args)]
pub struct Global {
    /// Write debugging lines
    #[arg(long)]
    debug: bool,
    /// Log file, besides standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Log format: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Directory for containers' states [default: /run/husk]
    #[arg(long, value_name = "DIRECTORY")]
    root: Option<PathBuf>,
    /// Have systemd make control groups; cgroupsPath is then slice:prefix:name
    #[arg(long)]
    systemd_cgroup: bool,
    /// Accepted for runc's callers: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    rootless: String,
    /// Accepted for runc's callers
    #[arg(long, value_name = "PROGRAM", hide = true)]
    criu: Option<PathBuf>,
    /// The operator's configuration instead of /etc/husk/config.toml
    #[arg(long, value_name = "FILE", hide = true)]
    config: Option<PathBuf>,
}

/// What they come to.
#[derive(Debug)]
pub struct Context {
    /// All containers.
    pub store: Store,
    /// Whether `--root` was given.
    pub root_was_given: bool,
    /// The log.
    pub log: &'static Log,
    /// `--debug`
    pub debug: bool,
    /// `--systemd-cgroup`
    pub systemd_cgroup: bool,
    config: Option<PathBuf>,
}

impl Context {
    /// Opens the log first, so that whatever else is wrong stands in it.
    pub fn new(global: Global) -> Result<Context, CliError> {
        let form = match global.log_format.as_str() {
            "text" => Ok(Form::Text),
            "json" => Ok(Form::Json),
            other => Err(format!("invalid log-format: {other}")),
        };
        let log = log::open(global.log.as_deref(), form.clone().unwrap_or(Form::Text), global.debug);
        let log = log.map_err(CliError::Message)?;
        form.map_err(CliError::Message)?;
        if !global.rootless.eq_ignore_ascii_case("auto") && switch(&global.rootless).is_none() {
            let text = format!(
                "invalid value for --rootless: {:?} is none of true, false and auto",
                global.rootless
            );
            return Err(CliError::Message(text));
        }
        if global.criu.is_some() {
            crate::log::tell("WARNING: --criu ignored: husk does not use it");
        }
        Ok(Context {
            root_was_given: global.root.is_some(),
            store: Store::new(&root(global.root)?),
            log,
            debug: global.debug,
            systemd_cgroup: global.systemd_cgroup,
            config: global.config,
        })
    }

    /// The operator's configuration. A file that is not there means the defaults, unless it was named.
    pub fn operator(&self) -> Result<Operator, CliError> {
        Ok(operator::read(self.config.as_deref())?)
    }

    /// A container that exists.
    pub fn container(&self, id: &str) -> Result<Container, CliError> {
        let id = ContainerId::new(id)?;
        Ok(Container::load(&self.store, &id)?)
    }
}

/// The root for containers' states, absolute.
fn root(given: Option<PathBuf>) -> Result<PathBuf, CliError> {
    let Some(given) = given else { return Ok(usual_root()) };
    let absolute = absolute(&given)?;
    let clean: PathBuf = absolute.components().fold(PathBuf::new(), |mut clean, component| {
        match component {
            std::path::Component::ParentDir => {
                clean.pop();
            }
            std::path::Component::CurDir => {}
            other => clean.push(other),
        }
        clean
    });
    if clean == Path::new("/") {
        return Err(CliError::Message("Option --root argument should not be set to /".into()));
    }
    Ok(clean)
}

fn usual_root() -> PathBuf {
    let own = std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty());
    match own {
        Some(directory) if !nix::unistd::geteuid().is_root() => PathBuf::from(directory).join("husk"),
        _ => "/run/husk".into(),
    }
}

/// A path from our working directory, before anything changes that.
pub fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|error| CliError::Message(format!("{}: {}", path.display(), plain(&error))))
}
