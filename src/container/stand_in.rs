//! A process on the host that stands for one in a guest: its pid is what callers see, signal and wait for.
//!
//! ```text
//!   husk exec --detach --spawn--> stand-in --Exec--> machine        husk exec (foreground) is its own stand-in
//!        | <-- Running / Failed --- |
//!        v pid file, gone           | signals and sizes -->
//!                                   | <-- Exited(status): ends with it
//! ```
//! It can also stand for a whole container that is in its sandbox's machine ([`super::join`]).
//!
//! A stand-in keeps nothing of its caller's: the descriptors go to the machine, and to that alone. When it is killed,
//! its connection closes, and the machine kills the process inside.

use super::execution::{Execution, PATIENCE};
use crate::error::{ErrorKind, Kind, chain};
use crate::host::fault;
use crate::machine::control::client::ClientError;
use crate::machine::control::wire::{self, WireError};
use crate::machine::control::{Address, Command, Outcome};
use crate::machine::jail::{self, JailError};
use crate::machine::order::{self, Failed, Joining, Report};
use crate::process::signal::{SignalError, Signals};
use crate::process::stdio::{StdioError, replace_own_with_null};
use crate::process::terminal::{self, RawMode, TerminalError};
use crate::process::{self, exit, spawn};
use husk_protocol::{Process, TerminalSize};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The hidden verb.
pub const VERB: &str = "stand-in";

/// What to stand for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum StandInOrder {
    /// One more process in a container.
    Exec(ExecOrder),
    /// A container in its sandbox's machine.
    Join(JoinOrder),
}

/// A container to stand for. Its descriptors come with the order: a tree for each of its exports, then its terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinOrder {
    /// The container's id, for the process's name.
    pub id: String,
    /// Where its sandbox can be asked for.
    pub control: Address,
    /// What is to be made.
    pub joining: Box<Joining>,
    /// The network namespace that the process is to live in.
    pub network: PathBuf,
    /// Whether the terminal is one that we made: its size is then ours to follow.
    pub follows_terminal: bool,
}

/// A process to stand for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOrder {
    /// The container's id, for the process's name.
    pub id: String,
    /// Where the container can be asked for.
    pub control: Address,
    /// What to run. Its streams are filled in by the machine.
    pub process: Box<Process>,
    /// The terminal's size, if it gets one instead of three streams.
    pub terminal: Option<TerminalSize>,
    /// The host cgroup (a directory that exists) that a detached stand-in joins.
    pub cgroup: Option<PathBuf>,
}

/// What a detached stand-in tells who started it.
#[derive(Debug, Serialize, Deserialize)]
enum StandInReport {
    Running,
    Failed(Failed),
}

/// Why a process does not run, or was lost sight of.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// The machine refused, or is gone.
    #[error(transparent)]
    Machine(#[from] ClientError),
    /// The stand-in's own words.
    #[error("{}", .0.message)]
    Failed(Failed),
    /// It ended without a word.
    #[error("the process that stands for the new one ended at once")]
    Lost(#[source] WireError),
    /// The signals.
    #[error(transparent)]
    Signals(#[from] SignalError),
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// The standard descriptors.
    #[error(transparent)]
    Stdio(#[from] StdioError),
    /// The way out of the host's files.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The host.
    #[error("cannot {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Kind for StandInError {
    fn kind(&self) -> ErrorKind {
        match self {
            StandInError::Machine(error) => error.kind(),
            StandInError::Failed(failed) => failed.kind,
            StandInError::Terminal(error) => error.kind(),
            _ => ErrorKind::Host,
        }
    }
}

/// Starts a detached stand-in and waits until its process runs inside. Returns the stand-in's pid; it is our child and
/// becomes our parent's when we end. The process gets our 0, 1 and 2, or `terminal` (the slave of a pair).
pub fn spawn(order: ExecOrder, terminal: Option<BorrowedFd<'_>>) -> Result<u32, StandInError> {
    let host = |what| move |source| StandInError::Host { what, source };
    let (ours, theirs) = UnixStream::pair().map_err(host("make a socket pair"))?;
    let mut child = spawn::husk(Path::new(spawn::THIS), VERB, theirs.into(), terminal.is_none())
        .map_err(host("start a process to stand for the new one"))?;
    let descriptors: Vec<BorrowedFd<'_>> = terminal.into_iter().collect();
    let report = wire::send_frame(&ours, &StandInOrder::Exec(order), &descriptors)
        .and_then(|()| wire::receive_frame::<StandInReport>(&ours, None).map(|(report, _)| report));
    let failed = match report {
        Ok(StandInReport::Running) => return Ok(child.id()),
        Ok(StandInReport::Failed(failed)) => StandInError::Failed(failed),
        Err(error) => StandInError::Lost(error),
    };
    // It ends by itself once it has said so; if it did not say so, it has ended.
    let _ = child.wait();
    Err(failed)
}

/// Runs a process in the foreground: this process stands for it. Returns its status (128 + N for signal N).
pub fn run(order: ExecOrder, terminal: Option<BorrowedFd<'_>>) -> Result<u8, StandInError> {
    let signals = Signals::take()?;
    let own = terminal.map(|terminal| terminal.try_clone_to_owned()).transpose();
    let own = own.map_err(|source| StandInError::Host { what: "keep the terminal", source })?;
    let _raw = own.map(RawMode::enter).transpose()?;
    let mut execution = begin(&order, terminal)?;
    execution.follow(&signals, terminal, true)
}

/// The body of the hidden verb: stands for a process in the background, until it ends; then with its status.
pub fn serve(parent: UnixStream) -> u8 {
    let heard = Signals::take()
        .map_err(StandInError::from)
        .and_then(|signals| Ok((signals, wire::receive_frame(&parent, None).map_err(StandInError::Lost)?)));
    match heard {
        Ok((signals, (StandInOrder::Exec(order), descriptors))) => {
            serve_exec(parent, signals, &order, descriptors)
        }
        Ok((signals, (StandInOrder::Join(order), descriptors))) => {
            serve_join(parent, signals, order, descriptors)
        }
        // Who started us sees that we are gone.
        Err(_) => 1,
    }
}

fn serve_exec(parent: UnixStream, signals: Signals, order: &ExecOrder, descriptors: Vec<OwnedFd>) -> u8 {
    match stand(&parent, signals, order, descriptors) {
        Ok((mut execution, signals, terminal)) => {
            // From here on the caller goes its way.
            drop(parent);
            let terminal = terminal.as_ref().map(AsFd::as_fd);
            execution.follow(&signals, terminal, false).unwrap_or(exit::KILLED)
        }
        Err(error) => {
            let failed = Failed { kind: error.kind(), message: chain(&error) };
            // If nobody hears it, nobody minds.
            let _ = wire::send_frame(&parent, &StandInReport::Failed(failed), &[]);
            1
        }
    }
}

/// The same for a container, in a machine process's words.
fn serve_join(parent: UnixStream, signals: Signals, order: JoinOrder, descriptors: Vec<OwnedFd>) -> u8 {
    match stand_for_container(&parent, order, descriptors) {
        Ok((mut execution, terminal)) => {
            drop(parent);
            let terminal = terminal.as_ref().map(AsFd::as_fd);
            execution.follow(&signals, terminal, false).unwrap_or(exit::KILLED)
        }
        Err(error) => {
            let failed = Failed { kind: error.kind(), message: chain(&error) };
            let _ = order::send_report(&parent, &Report::Failed(failed));
            1
        }
    }
}

/// Until the container is made and the caller knows it.
fn stand_for_container(
    parent: &UnixStream,
    order: JoinOrder,
    mut trees: Vec<OwnedFd>,
) -> Result<(Execution, Option<OwnedFd>), StandInError> {
    let host = |what| move |error: std::io::Error| StandInError::Host { what, source: error };
    process::name_process(&order.id);
    nix::unistd::setsid().map_err(|errno| host("begin a session")(errno.into()))?;
    let enter = host("enter the sandbox's network namespace");
    File::open(&order.network)
        .and_then(|namespace| Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?))
        .map_err(enter)?;
    order::send_report(parent, &Report::Prepared).map_err(StandInError::Lost)?;
    order::receive_proceed(parent).map_err(StandInError::Lost)?;
    fault::point("stand-in: to join");

    let terminal = trees.split_off(order.joining.exports.len().min(trees.len())).into_iter().next();
    let controls = order.follows_terminal && terminal.as_ref().is_some_and(terminal::take_control);
    let own = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut descriptors: Vec<BorrowedFd<'_>> = trees.iter().map(AsFd::as_fd).collect();
    match &terminal {
        Some(terminal) => descriptors.push(terminal.as_fd()),
        None => descriptors.extend([own.0.as_fd(), own.1.as_fd(), own.2.as_fd()]),
    }
    let (execution, number) = Execution::join(&order.control, order.joining, &descriptors)?;
    fault::point("stand-in: joined");
    replace_own_with_null()?;
    jail::leave_all()?;
    order::send_report(parent, &Report::Joined(number)).map_err(StandInError::Lost)?;
    Ok((execution, terminal.filter(|_| controls)))
}

/// Until the process runs and the caller knows it.
fn stand(
    parent: &UnixStream,
    signals: Signals,
    order: &ExecOrder,
    descriptors: Vec<OwnedFd>,
) -> Result<(Execution, Signals, Option<OwnedFd>), StandInError> {
    let host = |what| move |error: Errno| StandInError::Host { what, source: error.into() };
    let terminal = descriptors.into_iter().next();
    process::name_process(&order.id);
    // Not among the caller's process group, and without its terminal: a hang-up there is not ours.
    nix::unistd::setsid().map_err(host("begin a session"))?;
    if let Some(cgroup) = &order.cgroup {
        process::join_cgroup(cgroup)
            .map_err(|source| StandInError::Host { what: "join the container's cgroup", source })?;
    }
    let controls = terminal.as_ref().is_some_and(terminal::take_control);
    fault::point("stand-in: in place");
    let execution = begin(order, terminal.as_ref().map(AsFd::as_fd))?;
    fault::point("stand-in: process runs");
    replace_own_with_null()?;
    wire::send_frame(parent, &StandInReport::Running, &[]).map_err(StandInError::Lost)?;
    Ok((execution, signals, terminal.filter(|_| controls)))
}

/// Has the machine run what is ordered, on `terminal` or on our own 0, 1 and 2; returns when it does.
fn begin(order: &ExecOrder, terminal: Option<BorrowedFd<'_>>) -> Result<Execution, StandInError> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let descriptors = match terminal {
        Some(terminal) => vec![terminal],
        None => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
    };
    Ok(Execution::begin(&order.control, order.process.clone(), order.terminal, &descriptors)?)
}

impl Execution {
    /// Passes signals and sizes on until it has ended; its status.
    fn follow(
        &mut self,
        signals: &Signals,
        terminal: Option<BorrowedFd<'_>>,
        foreground: bool,
    ) -> Result<u8, StandInError> {
        loop {
            let mut ready = [
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.connection.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => {
                    return Err(StandInError::Host { what: "wait for the process", source: error.into() });
                }
            }
            let heard = ready.last().and_then(PollFd::any).unwrap_or(true);
            while let Some(signal) = signals.next() {
                let command = match (signal.number, terminal) {
                    (libc::SIGCHLD, _) => continue,
                    (libc::SIGWINCH, Some(terminal)) => match terminal::size(terminal) {
                        Ok(size) => Command::Resize(size),
                        Err(_) => continue,
                    },
                    // In the background the kernel's own concern us alone: our terminal hung up, which the process
                    // sees as the end of its stream. In the foreground they are the user's ^C.
                    _ if signal.from_kernel && !foreground => continue,
                    (signal, _) => Command::Signal { signal, all: false },
                };
                match self.connection.send(&command, &[]) {
                    // What it has said before it went is still to be read.
                    Ok(()) | Err(ClientError::Gone) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            if heard {
                return match self.connection.receive(Some(PATIENCE)) {
                    Ok(Outcome::Exited(status)) => Ok(status),
                    Ok(_) => Err(ClientError::Unexpected.into()),
                    // The machine is gone, and the process with it.
                    Err(ClientError::Gone) => Ok(exit::KILLED),
                    Err(error) => Err(error.into()),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::terminal::Pair;
    use super::*;
    use crate::machine::Walls;
    use crate::machine::control::Request;
    use crate::machine::control::listen_at;
    use crate::machine::control::server::{self, Caller, Conduct};
    use crate::machine::order::SystemCalls;
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    use nix::unistd::{Pid, dup2_raw};
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Stdio};
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(10);

    /// What a machine hears of a stand-in.
    #[derive(Debug, PartialEq)]
    enum Heard {
        Begun,
        Signal(i32),
        Resize(TerminalSize),
        Gone,
    }

    /// A machine whose one process ends with 42 at SIGTERM, and cannot run at all if it is called `broken`.
    struct Machine(Sender<Heard>);

    impl Conduct for Machine {
        fn conduct(&self, request: Request, descriptors: Vec<OwnedFd>, caller: &Caller) {
            let Command::Exec { process, .. } = request.command else { panic!("{request:?}") };
            // As if they had gone to the device and been let go there.
            drop(descriptors);
            if process.args == ["broken"] {
                let message = "exec: \"broken\": executable file not found in $PATH".to_owned();
                return caller.answer(&Outcome::Failed(Failed { kind: ErrorKind::Guest, message }));
            }
            caller.answer(&Outcome::Done);
            self.0.send(Heard::Begun).unwrap();
            loop {
                match caller.next() {
                    Ok(Command::Signal { signal: libc::SIGTERM, .. }) => caller.answer(&Outcome::Exited(42)),
                    Ok(Command::Signal { signal, .. }) => self.0.send(Heard::Signal(signal)).unwrap(),
                    Ok(Command::Resize(size)) => self.0.send(Heard::Resize(size)).unwrap(),
                    Ok(command) => panic!("{command:?}"),
                    Err(_) => return self.0.send(Heard::Gone).unwrap(),
                }
            }
        }
    }

    /// The stand-in itself: this program again, in a process of its own.
    #[test]
    #[ignore = "run by its parent tests in a process of its own"]
    fn inside() {
        // SAFETY: the harness has nothing open but what this process was started with.
        let parent = unsafe { crate::process::stdio::parent_socket() }.unwrap();
        std::process::exit(serve(parent).into());
    }

    struct Stage {
        child: Child,
        ours: UnixStream,
        heard: Receiver<Heard>,
        /// The reading end of what the stand-in had as stdout.
        stdout: std::io::PipeReader,
        _directory: tempfile::TempDir,
    }

    fn stand_in(program: &str, terminal: Option<&Pair>) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let control = directory.path().join("control.sock");
        let (say, heard) = channel();
        let walls = Walls::new(SystemCalls::Enforce);
        server::serve(listen_at(&control).unwrap(), Arc::new(Machine(say)), walls).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (stdout, write) = std::io::pipe().unwrap();
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "container::stand_in::tests::inside",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.stdin(Stdio::null()).stdout(write).stderr(Stdio::null());
        let raw = theirs.as_raw_fd();
        let place = move || {
            // The harness's threads must not take what is meant for the stand-in; it has none in a real one.
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
            // SAFETY: number 3 belongs to nobody in this child, which is about to become another program.
            std::mem::forget(unsafe { dup2_raw(BorrowedFd::borrow_raw(raw), 3) }?);
            Ok(())
        };
        // SAFETY: both calls are async-signal-safe.
        unsafe { command.pre_exec(place) };
        let child = command.spawn().unwrap();
        drop((command, theirs));
        let process = Process { args: vec![program.to_owned()], ..Default::default() };
        let size = terminal.map(|pair| terminal::size(&pair.slave).unwrap());
        let order = ExecOrder {
            id: "c".into(),
            control: Address::of_first(&control),
            process: Box::new(process),
            terminal: size,
            cgroup: None,
        };
        let descriptors: Vec<_> = terminal.iter().map(|pair| pair.slave.as_fd()).collect();
        wire::send_frame(&ours, &StandInOrder::Exec(order), &descriptors).unwrap();
        Stage { child, ours, heard, stdout, _directory: directory }
    }

    impl Stage {
        fn report(&self) -> StandInReport {
            wire::receive_frame(&self.ours, Some(SOON)).unwrap().0
        }

        fn runs(&self) {
            assert!(matches!(self.report(), StandInReport::Running));
            assert_eq!(self.heard.recv_timeout(SOON).unwrap(), Heard::Begun);
        }

        fn signal(&self, number: i32) {
            crate::process::signal::send(Pid::from_raw(self.child.id() as i32), number);
        }
    }

    #[test]
    fn it_passes_every_signal_on_holds_nothing_of_its_callers_and_ends_as_its_process() {
        let mut stage = stand_in("sleep", None);
        stage.runs();
        // End of file although the stand-in lives: it has let its stdout go. (The harness greets there first.)
        stage.stdout.read_to_end(&mut Vec::new()).unwrap();
        for number in [libc::SIGHUP, libc::SIGUSR1, libc::SIGWINCH, libc::SIGSEGV, libc::SIGRTMIN() + 3] {
            stage.signal(number);
            assert_eq!(stage.heard.recv_timeout(SOON).unwrap(), Heard::Signal(number));
        }
        stage.signal(libc::SIGTERM);
        assert_eq!(stage.child.wait().unwrap().code(), Some(42));
    }

    #[test]
    fn when_it_is_killed_its_connection_closes() {
        let mut stage = stand_in("sleep", None);
        stage.runs();
        stage.signal(libc::SIGKILL);
        assert_eq!(stage.child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert_eq!(stage.heard.recv_timeout(SOON).unwrap(), Heard::Gone);
    }

    #[test]
    fn a_process_that_cannot_run_is_told_in_the_machines_words() {
        let mut stage = stand_in("broken", None);
        let StandInReport::Failed(failed) = stage.report() else { panic!("it runs") };
        assert_eq!(failed.message, "exec: \"broken\": executable file not found in $PATH");
        assert_eq!(stage.child.wait().unwrap().code(), Some(1));
    }

    #[test]
    fn a_new_size_of_its_terminal_is_passed_on_and_a_hang_up_is_not_a_signal() {
        let pair = Pair::open(Some(TerminalSize { rows: 24, columns: 80 })).unwrap();
        let mut stage = stand_in("sleep", Some(&pair));
        stage.runs();
        let larger = TerminalSize { rows: 50, columns: 132 };
        terminal::set_size(&pair.master, larger).unwrap();
        assert_eq!(stage.heard.recv_timeout(SOON).unwrap(), Heard::Resize(larger));
        drop(pair);
        stage.signal(libc::SIGUSR2);
        assert_eq!(stage.heard.recv_timeout(SOON).unwrap(), Heard::Signal(libc::SIGUSR2));
        stage.signal(libc::SIGTERM);
        assert_eq!(stage.child.wait().unwrap().code(), Some(42));
    }
}
