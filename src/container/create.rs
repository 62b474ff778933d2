//! `create`: from a bundle to a container that waits for `start`.

use super::error::{ContainerError, host};
use super::execution::Execution;
use super::machine_process::MachineProcess;
use super::state::{Stage, State};
use super::undo::Undo;
use super::{CONTROL, Container, ContainerId, OciState, SECCOMP, Status, Store};
use super::{hooks, join, pid_file, placement, template_maker};
use crate::bundle::Bundle;
use crate::config::machine::Facts;
use crate::config::operator::Operator;
use crate::config::pod::{self, Role};
use crate::config::{self, Decision};
use crate::host::pidfd::PidFd;
use crate::host::{fault, file, proc};
use crate::log::Form;
use crate::machine::control;
use crate::machine::order::{Descriptor, Order};
use crate::process::terminal::{self, Pair};
use husk_protocol::TerminalSize;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// The program that is a machine, when it is the one that runs.
pub const THIS_PROGRAM: &str = crate::process::spawn::THIS;

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// The container's name.
    pub id: &'a ContainerId,
    /// Where its bundle is.
    pub bundle: &'a Path,
    /// The operator's configuration.
    pub operator: &'a Operator,
    /// The `husk` whose hidden verb becomes the machine.
    pub program: &'a Path,
    /// stdin, stdout and stderr for its process, instead of our own or of a terminal that we make. If it wants a
    /// terminal, the first carries what is typed and the second what is shown; the third is left alone.
    pub streams: Option<[BorrowedFd<'a>; 3]>,
    /// Whether the caller stays with the container until it ends.
    pub foreground: bool,
    /// Where the terminal's master end goes.
    pub console_socket: Option<&'a Path>,
    /// Where a pidfd of the machine process goes.
    pub pidfd_socket: Option<&'a Path>,
    /// Where the pid goes.
    pub pid_file: Option<&'a Path>,
    /// `--systemd-cgroup`.
    pub systemd_cgroup: bool,
    /// For the machine's own lines.
    pub log: Option<MachineLog<'a>>,
    /// `--debug`.
    pub debug: bool,
}

/// Where a machine writes what it has to say by itself.
#[derive(Debug, Clone, Copy)]
pub struct MachineLog<'a> {
    /// Open for append.
    pub to: BorrowedFd<'a>,
    /// How its lines look.
    pub form: Form,
}

/// A container that was made, with what its creator may go on to do.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// The user's own terminal, when the caller stays and the container has one.
    pub terminal: Option<OwnedFd>,
    /// What stands for it.
    pub held: Held,
}

/// What stands for a container.
pub enum Held {
    /// The process that its state names, and nobody else's.
    Process,
    /// Whoever has this: it has joined a sandbox, and ends when this is dropped.
    Connection(Execution),
}

impl std::fmt::Debug for Held {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Held::Process => "Process",
            Held::Connection(_) => "Connection",
        })
    }
}

/// Creates a container. On failure nothing is left of it.
pub fn create(store: &Store, request: &Request<'_>) -> Result<Created, ContainerError> {
    let bundle = Bundle::open(request.bundle)?;
    let facts = Facts { processors: proc::processors(), memory_mib: proc::memory_mib().unwrap_or(u64::MAX) };
    if let Role::Joins(sandbox) = pod::role_of(bundle.spec.annotations().as_ref())? {
        return join::create(store, request, &bundle, facts, &sandbox);
    }
    let decision = config::decide(request.id.as_str(), &bundle, request.operator, facts)?;
    if request.streams.is_none() {
        check_terminal(decision.terminal.is_some(), request.foreground, request.console_socket.is_some())?;
    }
    placement::check_network(&decision)?;
    let place = placement::find(request.id.as_str(), &decision, request.operator, request.systemd_cgroup)?;

    fault::point("decided");
    let reserved = store.reserve(request.id)?;
    fault::point("reserved");
    let directory = reserved.directory.clone();
    let mut undo = Undo::new();
    undo.push(|| drop(reserved.remove()));
    let terminal = match request.streams {
        Some(_) => Terminal { pair: None, own: None, size: decision.terminal },
        None => Terminal::open(decision.terminal, request.foreground)?,
    };
    let mut state = State::creating(request.id.as_str(), &bundle, &decision);
    let order = order(&decision, &state, request, &terminal)?;
    let mut machine = start_machine(request, &terminal)?;
    fault::point("machine started");
    (state.pid, state.start_time) = (machine.pid, machine.start_time);
    if let Some(place) = &place {
        state.live_in(&place.home()?);
    }
    // Before there is a group: should we be killed from here on, `delete` knows what to look for.
    state.write(&directory)?;
    fault::point("creation noted");
    if let Some(place) = &place {
        place.take_in(machine.pid, &decision.cgroup.files, &mut undo)?;
    }
    fault::point("group made");
    give_order(&mut machine, &directory, &order, request, &terminal)?;
    write_seccomp(&directory, &decision)?;
    fault::point("order given");
    // Hooks look at the machine process: when it has gone under them, its reason is the one that helps.
    run_hooks(&state).map_err(|error| machine.gone().unwrap_or(error))?;
    fault::point("hooks run");
    let cold = machine.create(Duration::from_millis(decision.machine.boot_timeout_ms))?;
    fault::point("created");

    state.stage = Stage::Created;
    state.write(&directory)?;
    hand_over(&machine, &terminal, request)?;
    fault::point("handed over");
    machine.leave();
    undo.release();
    if cold {
        template_maker::make_for_later(request.program, request.operator, &decision.machine);
    }
    let container = Container { id: request.id.clone(), state, directory };
    Ok(Created { container, terminal: terminal.own, held: Held::Process })
}

/// runc's rules for terminals: who leaves must have somewhere to put the master end.
pub(super) fn check_terminal(terminal: bool, foreground: bool, socket: bool) -> Result<(), ContainerError> {
    let refused = |text: &str| Err(ContainerError::BadRequest(text.to_owned()));
    match (terminal, foreground, socket) {
        (true, false, false) => {
            refused("cannot allocate tty if runc will detach without setting console socket")
        }
        (_, true, true) | (false, false, true) => {
            refused("cannot use console socket if runc will not detach or allocate tty")
        }
        _ => Ok(()),
    }
}

/// The container's terminal, if it has one: a pair whose master end goes to the console socket, or the user's own.
pub(super) struct Terminal {
    pub pair: Option<Pair>,
    pub own: Option<OwnedFd>,
    pub size: Option<TerminalSize>,
}

impl Terminal {
    pub fn open(wanted: Option<TerminalSize>, foreground: bool) -> Result<Terminal, ContainerError> {
        let Some(size) = wanted else { return Ok(Terminal { pair: None, own: None, size: None }) };
        if !foreground {
            // A size of nothing is none: the terminal keeps what it has.
            let given = Some(size).filter(|size| *size != TerminalSize::default());
            return Ok(Terminal { pair: Some(Pair::open(given)?), own: None, size: Some(size) });
        }
        let own = users_terminal()?;
        let size = terminal::size(&own).unwrap_or(size);
        Ok(Terminal { pair: None, own: Some(own), size: Some(size) })
    }

    /// The descriptor that the container's process is to be connected with.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pair.as_ref().map(|pair| pair.slave.as_fd()).or(self.own.as_ref().map(AsFd::as_fd))
    }
}

/// Any of the standard streams that is a terminal, else the controlling terminal.
fn users_terminal() -> Result<OwnedFd, ContainerError> {
    use std::io::IsTerminal;
    let failed = |path: &'static str| host("open", path);
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    if input.is_terminal() {
        input.as_fd().try_clone_to_owned().map_err(failed("/dev/stdin"))
    } else if output.is_terminal() {
        output.as_fd().try_clone_to_owned().map_err(failed("/dev/stdout"))
    } else if errors.is_terminal() {
        errors.as_fd().try_clone_to_owned().map_err(failed("/dev/stderr"))
    } else {
        let opened = File::options().read(true).write(true).open("/dev/tty");
        opened.map(OwnedFd::from).map_err(failed("/dev/tty"))
    }
}

fn order(
    decision: &Decision,
    state: &State,
    request: &Request<'_>,
    terminal: &Terminal,
) -> Result<Order, ContainerError> {
    let mut container = with_start_hooks(decision, state)?;
    // As runc has it: the user's own terminal adds the carriage returns.
    container.process.plain_newlines = terminal.own.is_some();
    let mut descriptors = vec![Descriptor::Control];
    descriptors.extend(terminal.descriptor().map(|_| Descriptor::Terminal));
    descriptors.extend(streams(request, terminal).iter().map(|_| Descriptor::Stream));
    descriptors.extend(request.log.map(|_| Descriptor::Log));
    Ok(Order {
        id: state.id.clone(),
        descriptors,
        machine: decision.machine.clone(),
        container,
        terminal: terminal.size,
        exports: decision.exports.clone(),
        network: decision.network.clone(),
        // Whoever forwards a pod's ports connects to it in that namespace.
        localhost: pod::role(&decision.annotations)? == Role::Sandbox,
        log_form: request.log.map_or(Form::Json, |log| log.form),
        debug: request.debug,
    })
}

/// The container with what its hooks inside are told.
pub(super) fn with_start_hooks(
    decision: &Decision,
    state: &State,
) -> Result<husk_protocol::Container, ContainerError> {
    let mut container = decision.container.clone();
    if !container.start_hooks.hooks.is_empty() {
        let (head, tail) = OciState::of(state, Status::Created).around_the_pid()?;
        (container.start_hooks.state_head, container.start_hooks.state_tail) = (head, tail);
    }
    Ok(container)
}

/// Those of the streams that were given that the process needs.
fn streams<'a>(request: &'a Request<'_>, terminal: &Terminal) -> &'a [BorrowedFd<'a>] {
    let given = request.streams.as_ref().map_or(&[] as &[_], |streams| streams.as_slice());
    if terminal.size.is_some() { given.get(..2).unwrap_or_default() } else { given }
}

/// Starts the machine process, which waits for its order.
fn start_machine(request: &Request<'_>, terminal: &Terminal) -> Result<MachineProcess, ContainerError> {
    let inherit = terminal.size.is_none() && request.streams.is_none();
    MachineProcess::start(request.program, inherit)
}

/// Binds the control socket and gives the machine process its order.
fn give_order(
    machine: &mut MachineProcess,
    directory: &Path,
    order: &Order,
    request: &Request<'_>,
    terminal: &Terminal,
) -> Result<(), ContainerError> {
    let control = directory.join(CONTROL);
    let listener = control::listen_at(&control)?;
    let mut descriptors = vec![listener.as_fd()];
    descriptors.extend(terminal.descriptor());
    descriptors.extend(streams(request, terminal));
    descriptors.extend(request.log.map(|log| log.to));
    machine.prepare(order, &descriptors)
}

/// Keeps the compiled profile for exec'd processes: flags, then instructions.
pub(super) fn write_seccomp(directory: &Path, decision: &Decision) -> Result<(), ContainerError> {
    let process = &decision.container.process;
    if process.seccomp.is_empty() {
        return Ok(());
    }
    let mut bytes = process.seccomp_flags.to_le_bytes().to_vec();
    bytes.extend(&process.seccomp);
    file::replace(directory, SECCOMP, &bytes).map_err(host("write", directory.join(SECCOMP)))
}

/// The hooks of creation. The machine process lives in the container's network namespace already, and its pid is what
/// hooks look at; the guest is booting meanwhile.
pub(super) fn run_hooks(state: &State) -> Result<(), ContainerError> {
    let told = OciState::of(state, Status::Creating);
    hooks::run("prestart", &state.hooks.prestart, &told, None)?;
    hooks::run("createRuntime", &state.hooks.create_runtime, &told, None)?;
    hooks::run("createContainer", &state.hooks.create_container, &told, Some(state.pid))
}

/// Gives the caller what it waits for; the pid file last, since it tells that all is done.
pub(super) fn hand_over(
    machine: &MachineProcess,
    terminal: &Terminal,
    request: &Request<'_>,
) -> Result<(), ContainerError> {
    if let (Some(socket), Some(pair)) = (request.console_socket, &terminal.pair) {
        terminal::send_to_console_socket(socket, pair.master.as_fd(), &pair.name)?;
    }
    if let Some(socket) = request.pidfd_socket {
        send_pidfd(socket, machine.pid)?;
    }
    match request.pid_file {
        Some(path) => pid_file::write(path, machine.pid),
        None => Ok(()),
    }
}

/// The same protocol as for terminals, with a pidfd.
pub(super) fn send_pidfd(socket: &Path, pid: i32) -> Result<(), ContainerError> {
    let held = PidFd::open(pid).map_err(|errno| host("hold process", pid.to_string())(errno.into()))?;
    Ok(terminal::send_to_console_socket(socket, held.as_fd(), "pidfd")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_needs_a_console_socket_for_a_terminal_and_who_stays_must_not_have_one() {
        // terminal, foreground, socket
        for fine in [(false, false, false), (false, true, false), (true, true, false), (true, false, true)] {
            assert!(check_terminal(fine.0, fine.1, fine.2).is_ok(), "{fine:?}");
        }
        for wrong in [(true, false, false), (false, false, true), (true, true, true), (false, true, true)] {
            assert!(check_terminal(wrong.0, wrong.1, wrong.2).is_err(), "{wrong:?}");
        }
    }
}
