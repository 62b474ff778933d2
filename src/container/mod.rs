//! The OCI container and what the verbs do with it.
//!
//! ```text
//!   create ----> creating ----> created --start--> running <--pause/resume--> paused
//!                   |              |                  |                         |
//!                   +--(failure)---+------------------+-------------------------+--> stopped --delete--> (gone)
//! ```
//! The conductor of the flow: it opens the bundle, has the configuration decided, starts the machine process and stays
//! with it until the container is made; then it leaves. In the machine process, [`conductor`] joins guest, agent and callers. The state file ([`state`]) and the control socket are all that
//! later commands have; which status a container has is the machine's word while it lives ([`status`]).
//!
//! ```text
//!   caller's descriptors --> vsock streams (conductor/streams) <--> the process in the guest
//!   caller's signals --> machine process --conductor--> agent --> the container's first process
//!                    --> stand-in --control socket--> conductor --> agent --> an exec'd process
//!   exit status of the process in the guest --> exit status of the process that stands for it, after its last byte
//! ```
//!
//! How creation fails: every step puts its way back on a stack ([`undo`]), and nothing is left. The machine process ends
//! by itself when the creating command goes away before it is done.

#[cfg_attr(test, allow(unsafe_code))] // its tests receive signals that this process blocks
pub mod conductor;
pub mod create;
pub mod delete;
pub mod error;
pub mod events;
pub mod exec;
pub mod execution;
pub mod foreground;
pub mod hooks;
pub mod id;
pub mod join;
pub mod kill;
pub mod machine_process;
pub mod operator;
pub mod pid_file;
pub mod placement;
pub mod probe;
mod rehearsal;
pub mod run;
#[cfg_attr(test, allow(unsafe_code))] // its tests start it as a process
pub mod stand_in;
pub mod start;
pub mod state;
pub mod status;
pub mod store;
pub mod template;
pub mod template_maker;
pub mod undo;
pub mod update;

pub use error::ContainerError;
pub use id::ContainerId;
pub use status::Status;
pub use store::Store;

use crate::config::hook::{self, Hook};
use crate::host::pidfd::PidFd;
use crate::machine::control::{Address, Command, Outcome, client};
use husk_protocol::ContainerKey;
use state::{State, StateError};
use std::path::PathBuf;

/// The name of a container's control socket in its directory.
const CONTROL: &str = "control.sock";
/// The name of its compiled seccomp profile.
const SECCOMP: &str = "seccomp";

/// A container that exists.
#[derive(Debug)]
pub struct Container {
    /// Its name.
    pub id: ContainerId,
    /// What its state file says.
    pub state: State,
    /// Its directory.
    pub directory: PathBuf,
}

impl Container {
    /// Finds a container.
    pub fn load(store: &Store, id: &ContainerId) -> Result<Container, ContainerError> {
        let directory = store.directory(id);
        match State::read(&directory) {
            Ok(state) => Ok(Container { id: id.clone(), state, directory }),
            Err(StateError::Missing(_)) => Err(ContainerError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Its status now.
    pub fn status(&self) -> Status {
        status::of(&self.state, &self.control()).0
    }

    /// Where it can be asked for: at its own machine, or at its sandbox's.
    pub fn control(&self) -> Address {
        match &self.state.sandbox {
            None => Address::of_first(&self.directory.join(CONTROL)),
            Some(sandbox) => Address {
                socket: self.directory.with_file_name(&sandbox.id).join(CONTROL),
                // No container has that number, and so none is meant before it is made.
                container: ContainerKey(sandbox.number.unwrap_or(u32::MAX)),
            },
        }
    }

    /// Asks its machine for something. A machine that is gone means that the container does not run.
    pub fn ask(&self, command: &Command) -> Result<Outcome, ContainerError> {
        match client::ask(&self.control(), command) {
            Err(client::ClientError::Gone) => Err(ContainerError::NotRunning),
            other => Ok(other?),
        }
    }

    /// The same, for something that may take as long as the container's hooks do.
    fn ask_with_hooks(&self, command: &Command, hooks: &[Hook]) -> Result<Outcome, ContainerError> {
        let within = hook::patience(hooks.iter().map(|hook| hook.timeout))
            .map(|hooks| hooks.saturating_add(client::PATIENCE));
        match client::ask_within(&self.control(), command, within) {
            Err(client::ClientError::Gone) => Err(ContainerError::NotRunning),
            other => Ok(other?),
        }
    }

    /// The state as hooks and `state` show it.
    pub fn oci_state(&self, status: Status) -> OciState<'_> {
        OciState::of(&self.state, status)
    }
}

/// The process of this state, held, if it lives: the machine's, or the one that stands for a container in another's.
fn held(state: &State) -> Option<PidFd> {
    // 0 stands for no process yet, and would be a group for kill(2).
    if state.pid == 0 { None } else { PidFd::open_same(state.pid, state.start_time).ok().flatten() }
}

/// The state object of the OCI runtime spec.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OciState<'a> {
    oci_version: &'static str,
    id: &'a str,
    status: String,
    #[serde(skip_serializing_if = "is_zero")]
    pid: i32,
    bundle: &'a std::path::Path,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    annotations: &'a std::collections::BTreeMap<String, String>,
}

impl OciState<'_> {
    /// The state of a container with this status.
    pub fn of(state: &State, status: Status) -> OciState<'_> {
        OciState {
            oci_version: state::OCI_VERSION,
            id: &state.id,
            status: status.to_string(),
            pid: if status == Status::Stopped { 0 } else { state.pid },
            bundle: &state.bundle,
            annotations: &state.annotations,
        }
    }

    /// The state as JSON, up to the number of its process and from there on: for who alone knows that number.
    fn around_the_pid(mut self) -> Result<(String, String), ContainerError> {
        self.pid = i32::MAX;
        let failed = error::host("write", "the state for hooks");
        let text = serde_json::to_string(&self).map_err(|error| failed(error.into()))?;
        // Nothing that comes before it can hold a quotation mark.
        let (head, tail) = text.split_once(&i32::MAX.to_string()).unwrap_or((&text, ""));
        Ok((head.to_owned(), tail.to_owned()))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's form
fn is_zero(pid: &i32) -> bool {
    *pid == 0
}
