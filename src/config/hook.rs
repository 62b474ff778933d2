//! Hooks: programs that the bundle wants run around the container's life.

use super::error::{ConfigError, c_string, invalid, path_string};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// All hooks, each list in order. They run on the host, but for `start_container`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
// States that an older husk wrote are read by a newer one.
#[serde(default)]
pub struct Hooks {
    /// Before the container is made (deprecated, but Docker's networks hung on it for years).
    pub prestart: Vec<Hook>,
    /// The same moment, after those.
    pub create_runtime: Vec<Hook>,
    /// After those; on the host, in the container's network namespace.
    pub create_container: Vec<Hook>,
    /// When `start` has been asked for, before the container's program: in the container.
    pub start_container: Vec<Hook>,
    /// After the container's program runs.
    pub poststart: Vec<Hook>,
    /// After the container is deleted.
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Where it is, absolute, on the host (or, for `start_container`, in the container).
    pub path: String,
    /// Its arguments, the first of which is the name it sees; empty means its path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
}

/// The kinds that husk runs, for `features`.
pub const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Decides.
#[allow(deprecated)] // prestart is deprecated, and still used
pub fn decide(given: &oci_spec::runtime::Hooks) -> Result<Hooks, ConfigError> {
    let list = |name: &str, hooks: &Option<Vec<oci_spec::runtime::Hook>>| {
        let hooks = hooks.as_deref().unwrap_or(&[]).iter().enumerate();
        hooks.map(|(index, hook)| one(&format!("hooks.{name}[{index}]"), hook)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Hooks {
        prestart: list("prestart", given.prestart())?,
        create_runtime: list("createRuntime", given.create_runtime())?,
        create_container: list("createContainer", given.create_container())?,
        start_container: list("startContainer", given.start_container())?,
        poststart: list("poststart", given.poststart())?,
        poststop: list("poststop", given.poststop())?,
    })
}

impl Hook {
    /// For the agent, who runs it in the container.
    pub fn inside(&self) -> husk_protocol::Hook {
        let milliseconds = |timeout: Duration| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        husk_protocol::Hook {
            path: self.path.clone(),
            args: self.args.clone(),
            env: self.env.clone(),
            timeout: self.timeout.map(milliseconds),
        }
    }
}

/// How long hooks may take together. `None`: one of them may take as long as it likes.
pub fn patience(mut timeouts: impl Iterator<Item = Option<Duration>>) -> Option<Duration> {
    timeouts.try_fold(Duration::ZERO, |all, timeout| Some(all.saturating_add(timeout?)))
}

fn one(field: &str, given: &oci_spec::runtime::Hook) -> Result<Hook, ConfigError> {
    let strings = |name: &str, list: &Option<Vec<String>>| {
        let list = list.as_deref().unwrap_or(&[]).iter().enumerate();
        list.map(|(index, text)| c_string(&format!("{field}.{name}[{index}]"), text))
            .collect::<Result<Vec<_>, _>>()
    };
    let path = path_string(&format!("{field}.path"), given.path())?;
    if !path.starts_with('/') {
        return Err(invalid(format!("{field}.path"), "must be an absolute path"));
    }
    let timeout = match given.timeout() {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds)),
            _ => return Err(invalid(format!("{field}.timeout"), format!("{seconds} is not above 0"))),
        },
    };
    Ok(Hook { path, args: strings("args", given.args())?, env: strings("env", given.env())?, timeout })
}
