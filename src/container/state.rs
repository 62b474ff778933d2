//! A container's state file: what the next command must know of it.
//!
//! Written whole or not at all ([`file::replace`]). Read without trust: a file that was cut short or altered is an error
//! that names it, never a container that is half known.

use super::placement::Home;
use crate::config::hook::Hooks;
use crate::host::file;
use crate::machine::order::NetworkNamespace;
use husk_protocol::Capabilities;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the OCI runtime spec whose fields husk knows: each is honoured, or refused by name.
pub const OCI_VERSION: &str = "1.3.0";

/// The file's name in the container's directory.
pub const FILE: &str = "state.json";

/// Bumped when an older file can no longer be read.
const FORMAT: u32 = 1;

/// No state is longer, in bytes: annotations and hooks come from a `config.json`, which is bounded likewise.
const LONGEST: u64 = 16 << 20;

/// What is known of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    format: u32,
    /// Its name.
    pub id: String,
    /// The machine process, whose end is the container's.
    pub pid: i32,
    /// When that started ([`crate::host::proc::Stat::start_time`]), so that another process with its pid is not taken for it.
    pub start_time: u64,
    /// How far it had come when this was written. While the machine lives, its own word counts.
    pub stage: Stage,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root filesystem.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its hooks.
    pub hooks: Hooks,
    /// Its machine's group on the host, a directory.
    pub cgroup: Option<PathBuf>,
    /// The systemd unit that made it, if one did.
    #[serde(default)]
    pub unit: Option<String>,
    /// The network namespace that it was given, if it was given one.
    #[serde(default)]
    pub network: Option<PathBuf>,
    /// Its machine's memory.
    pub memory_mib: u32,
    /// Whose machine it is in, if it has none of its own.
    #[serde(default)]
    pub sandbox: Option<Membership>,
    /// What an exec'd process gets when its own specification does not say.
    pub exec: ExecDefaults,
}

/// A container's place in the machine of another, its sandbox. Its own `pid` is then that of a process that stands for it
/// alone, or, when somebody who lives longer stands for it, the sandbox's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Membership {
    /// The sandbox's name.
    pub id: String,
    /// The machine process.
    pub pid: i32,
    /// The container's number there, once it is made.
    pub number: Option<u32>,
}

/// Stages that a state file knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `create` has not finished.
    Creating,
    /// It has.
    Created,
    /// `start` has, too.
    Started,
}

/// Defaults for exec'd processes, from the container's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecDefaults {
    /// Capability sets.
    pub capabilities: Capabilities,
    /// oom_score_adj.
    pub oom_score_adj: Option<i32>,
}

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is none.
    #[error("no state file {0}")]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read the state file {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It does not hold a state.
    #[error(
        "the state file {path} is damaged ({reason}); \"delete --force\" removes what is left of the container"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be written.
    #[error("cannot write the state file {path}")]
    Unwritable {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl State {
    /// The state of a container that is being created from `decision`.
    pub fn creating(id: &str, bundle: &crate::bundle::Bundle, decision: &crate::config::Decision) -> State {
        State {
            format: FORMAT,
            id: id.to_owned(),
            pid: 0,
            start_time: 0,
            stage: Stage::Creating,
            bundle: bundle.directory.clone(),
            rootfs: bundle.rootfs.clone(),
            created: humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string(),
            annotations: decision.annotations.clone(),
            hooks: decision.hooks.clone(),
            cgroup: None,
            unit: None,
            network: match &decision.network {
                NetworkNamespace::Path(path) => Some(path.clone()),
                NetworkNamespace::New => None,
            },
            memory_mib: decision.machine.memory_mib,
            sandbox: None,
            exec: ExecDefaults {
                capabilities: decision.container.process.capabilities,
                oom_score_adj: decision.container.process.oom_score_adj,
            },
        }
    }

    /// Reads the state in `directory`, of the container that `directory` is named after.
    pub fn read(directory: &Path) -> Result<State, StateError> {
        let path = directory.join(FILE);
        let bytes = file::read_bounded(&path, LONGEST).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => StateError::Missing(path.clone()),
            _ => StateError::Unreadable { path: path.clone(), source },
        })?;
        let damaged = |reason: String| StateError::Damaged { path: path.clone(), reason };
        let state: State = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if state.format != FORMAT {
            return Err(damaged(format!("format {} is not known", state.format)));
        }
        if directory.file_name().and_then(|name| name.to_str()) != Some(&state.id) {
            return Err(damaged(format!("it is of container {:?}", state.id)));
        }
        if state.pid < 0 {
            return Err(damaged(format!("{} is no pid", state.pid)));
        }
        Ok(state)
    }

    /// Notes the group on the host that its machine has been put into.
    pub fn live_in(&mut self, home: &Home) {
        (self.cgroup, self.unit) = (Some(home.directory().to_owned()), home.unit().map(str::to_owned));
    }

    /// The machine's group on the host, if it has one.
    pub fn home(&self) -> Option<Home> {
        self.cgroup.as_deref().map(|group| Home::known(group, self.unit.as_deref()))
    }

    /// Writes it into `directory`.
    pub fn write(&self, directory: &Path) -> Result<(), StateError> {
        let failed = |source| StateError::Unwritable { path: directory.join(FILE), source };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        file::replace(directory, FILE, &bytes).map_err(failed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A state with something in every field.
    pub fn example(id: &str) -> State {
        let hook = crate::config::hook::Hook {
            path: "/bin/true".into(),
            args: vec!["true".into()],
            env: vec!["A=b".into()],
            timeout: Some(std::time::Duration::from_secs(3)),
        };
        State {
            format: FORMAT,
            id: id.to_owned(),
            pid: 4711,
            start_time: 12345,
            stage: Stage::Created,
            bundle: "/bundles/b".into(),
            rootfs: "/bundles/b/rootfs".into(),
            created: "2026-01-02T03:04:05.678901234Z".into(),
            annotations: BTreeMap::from([("com.example.note".into(), "a \"quoted\" word".into())]),
            hooks: Hooks { poststop: vec![hook], ..Hooks::default() },
            cgroup: Some("/sys/fs/cgroup/one".into()),
            unit: Some("husk-one.scope".into()),
            network: None,
            memory_mib: 512,
            sandbox: Some(Membership { id: "pod".into(), pid: 815, number: Some(2) }),
            exec: ExecDefaults {
                capabilities: Capabilities { bounding: u64::MAX, ..Default::default() },
                oom_score_adj: Some(-5),
            },
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("one");
        std::fs::create_dir(&directory).unwrap();
        example("one").write(&directory).unwrap();
        assert_eq!(State::read(&directory).unwrap(), example("one"));
    }

    #[test]
    fn a_file_cut_short_at_any_byte_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("one");
        std::fs::create_dir(&directory).unwrap();
        let whole = serde_json::to_vec(&example("one")).unwrap();
        for length in 0..whole.len() {
            std::fs::write(directory.join(FILE), &whole[..length]).unwrap();
            let error = State::read(&directory).unwrap_err();
            assert!(
                matches!(&error, StateError::Damaged { path, .. } if path == &directory.join(FILE)),
                "{length}: {error}"
            );
        }
        std::fs::write(directory.join(FILE), &whole).unwrap();
        assert!(State::read(&directory).is_ok());
    }

    #[test]
    fn a_state_of_another_container_of_another_format_or_with_a_strange_pid_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("one");
        std::fs::create_dir(&directory).unwrap();
        let strange = [
            example("two"),
            State { format: FORMAT + 1, ..example("one") },
            State { pid: -1, ..example("one") },
        ];
        for state in strange {
            state.write(&directory).unwrap();
            assert!(matches!(State::read(&directory), Err(StateError::Damaged { .. })), "{state:?}");
        }
    }
}
