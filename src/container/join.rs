//! `create` of a container that joins a sandbox: no machine is made, it goes into the sandbox's.
//!
//! ```text
//!   bundle -> decided, with the sandbox's namespaces -> trees of what it shares -> Join, on the sandbox's control socket
//!                                                                                    |
//!     on the command line:  create --spawns--> stand-in ------------ connection -----+--> conductor --> agent
//!     in a containerd shim: the shim itself ------------------------ connection -----/
//! ```
//! The machine is in its jail and opens nothing: what the container shares is opened here, by the command that may. Whoever
//! holds the connection stands for the container, and it ends when they do. A stand-in is a process with a pid of its own
//! in the pod's network namespace and in the container's group, as callers expect of a container's first process. Limits
//! hold inside; the group outside has the stand-ins alone.

use super::create::{self, Created, Request, Terminal};
use super::error::{ContainerError, host};
use super::execution::Execution;
use super::machine_process::MachineProcess;
use super::stand_in::{JoinOrder, StandInOrder, VERB};
use super::state::{Membership, Stage, State};
use super::undo::Undo;
use super::{Container, ContainerId, Status, Store};
use super::{create::Held, placement};
use crate::bundle::Bundle;
use crate::config::machine::Facts;
use crate::config::pod::{self, Role, Sandbox};
use crate::config::{self, Decision};
use crate::host::proc;
use crate::machine::control::Address;
use crate::machine::export;
use crate::machine::order::{Joining, NetworkNamespace};
use husk_protocol::ContainerKey;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Creates a container in the machine of the sandbox named `sandbox`. On failure nothing is left of it.
pub(super) fn create(
    store: &Store,
    request: &Request<'_>,
    bundle: &Bundle,
    facts: Facts,
    sandbox: &str,
) -> Result<Created, ContainerError> {
    let sandbox = find(store, sandbox)?;
    let known = Sandbox { pid: sandbox.state.pid };
    let decision = config::decide_joining(request.id.as_str(), bundle, request.operator, facts, known)?;
    if request.streams.is_none() {
        let terminal = decision.terminal.is_some();
        create::check_terminal(terminal, request.foreground, request.console_socket.is_some())?;
    }
    let network = check_network(&decision, &sandbox)?;

    let reserved = store.reserve(request.id)?;
    let directory = reserved.directory.clone();
    let mut undo = Undo::new();
    undo.push(|| drop(reserved.remove()));
    let mut state = State::creating(request.id.as_str(), bundle, &decision);
    state.memory_mib = sandbox.state.memory_mib;
    // What is left there is the sandbox's to clear away.
    state.network = None;
    state.sandbox = Some(Membership { id: sandbox.id.to_string(), pid: sandbox.state.pid, number: None });
    let joining = Joining {
        container: create::with_start_hooks(&decision, &state)?,
        terminal: decision.terminal,
        exports: decision.exports.clone(),
    };
    let trees = decision.exports.iter().map(|export| export::tree(export, true));
    let trees = trees.collect::<Result<Vec<OwnedFd>, _>>()?;
    let candidate =
        Candidate { request, decision: &decision, directory: &directory, sandbox: &sandbox, network, trees };
    let created = match request.streams {
        Some(streams) => candidate.join_ourselves(state, joining, streams),
        None => candidate.join_by_stand_in(state, joining, &mut undo),
    };
    if created.is_ok() {
        undo.release();
    }
    created
}

/// The sandbox of that name, which has to be one, and to live.
fn find(store: &Store, name: &str) -> Result<Container, ContainerError> {
    let wrong = |why| ContainerError::Sandbox { id: name.to_owned(), why };
    let id = ContainerId::new(name)?;
    let found = match Container::load(store, &id) {
        Err(ContainerError::NotFound) => return Err(wrong("there is none of that name to join")),
        found => found?,
    };
    if pod::role(&found.state.annotations)? != Role::Sandbox {
        return Err(wrong("it is a container, but no sandbox that others can join"));
    }
    match found.status() {
        Status::Created | Status::Running | Status::Paused => Ok(found),
        Status::Creating | Status::Stopped => Err(wrong("it is not running")),
    }
}

/// The container's network has to be its sandbox's.
fn check_network(decision: &Decision, sandbox: &Container) -> Result<PathBuf, ContainerError> {
    const FIELD: &str = "linux.namespaces: network namespace";
    let own = Path::new("/proc").join(sandbox.state.pid.to_string()).join("ns/net");
    let NetworkNamespace::Path(path) = &decision.network else { return Ok(own) };
    match proc::same_file(path, &own) {
        Ok(true) => Ok(own),
        Ok(false) => Err(ContainerError::Unsupported(format!(
            "{FIELD} {}: is not the one of its sandbox; the containers of a pod have one network",
            path.display()
        ))),
        Err(source) => Err(host(FIELD, path)(source)),
    }
}

/// A container that is about to join.
struct Candidate<'a> {
    request: &'a Request<'a>,
    decision: &'a Decision,
    directory: &'a Path,
    sandbox: &'a Container,
    network: PathBuf,
    trees: Vec<OwnedFd>,
}

impl Candidate<'_> {
    /// Our own process stands for it, and lives as long as it does.
    fn join_ourselves(
        &self,
        mut state: State,
        joining: Joining,
        streams: [BorrowedFd<'_>; 3],
    ) -> Result<Created, ContainerError> {
        (state.pid, state.start_time) = (self.sandbox.state.pid, self.sandbox.state.start_time);
        self.note(&state)?;
        create::run_hooks(&state)?;
        let streams = match self.decision.terminal {
            Some(_) => streams.get(..2).unwrap_or_default(),
            None => streams.as_slice(),
        };
        let descriptors: Vec<BorrowedFd<'_>> =
            self.trees.iter().map(AsFd::as_fd).chain(streams.iter().copied()).collect();
        let (execution, number) = Execution::join(&self.address(), Box::new(joining), &descriptors)?;
        let container = self.made(state, number)?;
        Ok(Created { container, terminal: None, held: Held::Connection(execution) })
    }

    /// A process of its own stands for it.
    fn join_by_stand_in(
        &self,
        mut state: State,
        mut joining: Joining,
        undo: &mut Undo<'_>,
    ) -> Result<Created, ContainerError> {
        let request = self.request;
        let place =
            placement::find(request.id.as_str(), self.decision, request.operator, request.systemd_cgroup)?;
        let terminal = Terminal::open(self.decision.terminal, request.foreground)?;
        joining.terminal = terminal.size;
        // As runc has it: the user's own terminal adds the carriage returns.
        joining.container.process.plain_newlines = terminal.own.is_some();
        let mut process = MachineProcess::start_as(VERB, request.program, terminal.size.is_none())?;
        (state.pid, state.start_time) = (process.pid, process.start_time);
        if let Some(place) = &place {
            state.live_in(&place.home()?);
        }
        self.note(&state)?;
        if let Some(place) = &place {
            place.take_in(process.pid, &self.decision.cgroup.files, undo)?;
        }
        let order = StandInOrder::Join(JoinOrder {
            id: state.id.clone(),
            control: self.address(),
            joining: Box::new(joining),
            network: self.network.clone(),
            follows_terminal: terminal.pair.is_some(),
        });
        let descriptors: Vec<BorrowedFd<'_>> =
            self.trees.iter().map(AsFd::as_fd).chain(terminal.descriptor()).collect();
        process.prepare(&order, &descriptors)?;
        create::run_hooks(&state)?;
        let number = process.join()?;
        let container = self.made(state, number)?;
        create::hand_over(&process, &terminal, request)?;
        process.leave();
        Ok(Created { container, terminal: terminal.own, held: Held::Process })
    }

    /// Of the sandbox: the container has no number yet.
    fn address(&self) -> Address {
        self.sandbox.control()
    }

    fn note(&self, state: &State) -> Result<(), ContainerError> {
        state.write(self.directory)?;
        create::write_seccomp(self.directory, self.decision)
    }

    fn made(&self, mut state: State, number: ContainerKey) -> Result<Container, ContainerError> {
        state.stage = Stage::Created;
        if let Some(sandbox) = &mut state.sandbox {
            sandbox.number = Some(number.0);
        }
        state.write(self.directory)?;
        Ok(Container { id: self.request.id.clone(), state, directory: self.directory.to_owned() })
    }
}
