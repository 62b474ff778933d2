//! One more process in the container, for as long as its connection lasts.
//!
//! ```text
//!   Exec --> offered, asked --> Done --> [ Signal, Resize ... ] --> Exited(status), after its last byte
//!                 \--> Failed                  \ connection closed --> SIGKILL to the process
//! ```

use super::streams::Offered;
use super::{Conductor, deadline, failed, refused, wake};
use crate::agent::CallError;
use crate::error::{ErrorKind, chain};
use crate::host::deadline::poll;
use crate::machine::control::server::Caller;
use crate::machine::control::{Command, Outcome, Phase};
use crate::machine::order::Failed;
use crate::process::exit::KILLED;
use crate::process::stdio::Descriptors;
use husk_protocol::{Call, ContainerKey, Exec, Exited, Process, ProcessKey, Target, TerminalSize};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a wait for output goes on before it looks whether the caller is still there.
const GLANCE: Duration = Duration::from_millis(50);

impl Conductor {
    pub(super) fn exec(
        self: &Arc<Self>,
        container: ContainerKey,
        process: Process,
        terminal: Option<TerminalSize>,
        descriptors: Vec<OwnedFd>,
        caller: &Caller,
    ) {
        let _attached = self.attach();
        if !self.await_thaw(container, caller) {
            return;
        }
        match self.begin_exec(container, process, terminal, descriptors) {
            Ok(running) => {
                caller.answer(&Outcome::Done);
                if let Some(status) = self.follow(&running, caller) {
                    caller.answer(&Outcome::Exited(status));
                }
                self.lock().processes.remove(&running.key);
            }
            Err(failed) => caller.answer(&Outcome::Failed(failed)),
        }
    }

    /// Waits while the container is paused: a process would be frozen before its execve. Who does not want to wait has
    /// asked for the status before (`exec` without `--ignore-paused`). False: the caller left.
    fn await_thaw(&self, container: ContainerKey, caller: &Caller) -> bool {
        loop {
            let state = self.lock();
            let paused = state.member(container).is_ok_and(|member| member.phase == Phase::Paused);
            let paused = paused && !state.has_ended(container) && state.silence.is_none();
            drop(state);
            if !paused {
                return true;
            }
            let mut left = [PollFd::new(caller.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(GLANCE).unwrap_or(PollTimeout::ZERO);
            if !matches!(poll(&mut left, timeout), Ok(0) | Err(Errno::EINTR)) {
                return false;
            }
        }
    }

    fn begin_exec(
        self: &Arc<Self>,
        container: ContainerKey,
        mut process: Process,
        terminal: Option<TerminalSize>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Running, Failed> {
        let invalid = |message: String| refused(ErrorKind::InvalidArgument, message);
        let descriptors =
            Descriptors::received(descriptors, terminal).map_err(|error| invalid(chain(&error)))?;
        let offered = Offered::of(descriptors, &self.streams)
            .map_err(|error| refused(ErrorKind::Host, format!("exec failed: {}", chain(&error))))?;
        process.stdio = offered.stdio.clone();

        let woken = wake().map(Arc::new).map_err(|error| refused(ErrorKind::Host, error.to_string()))?;
        let mut state = self.lock();
        let stopped = || refused(ErrorKind::InvalidState, "cannot exec in a stopped container");
        let member = state.member(container).map_err(|_| stopped())?;
        match member.phase {
            _ if state.ending.is_some() || member.ended.is_some() => return Err(stopped()),
            Phase::Creating => {
                return Err(refused(ErrorKind::InvalidState, "the container is still being created"));
            }
            Phase::Created | Phase::Running => {}
            // It would be frozen before its execve.
            Phase::Paused => {
                return Err(refused(ErrorKind::InvalidState, "cannot exec in a paused container"));
            }
        }
        // Watched before it is asked for: its end may come before the answer.
        let key = state.watch_another(&woken);
        drop(state);

        let exec = Exec { container, key, process };
        if let Err(error) = self.call(Call::Exec(Box::new(exec)), deadline::EXECUTE) {
            self.lock().processes.remove(&key);
            if matches!(error, CallError::TimedOut(_)) {
                // It may come to life later, when nobody is there for it any more.
                self.tell(kill(key));
            }
            offered.abort();
            return Err(failed(&error));
        }
        Ok(Running { key, offered, woken })
    }

    /// Follows a process to its end: its status, or `None` if the caller left before.
    fn follow(self: &Arc<Self>, running: &Running, caller: &Caller) -> Option<u8> {
        loop {
            let mut ready = [
                PollFd::new(running.woken.as_fd(), PollFlags::POLLIN),
                PollFd::new(caller.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return self.abandon(running),
            }
            if ready.last().and_then(PollFd::any).unwrap_or(true) {
                match caller.next() {
                    Ok(Command::Signal { signal, .. }) => {
                        self.tell(Call::Signal { target: Target::Process(running.key), signal });
                    }
                    Ok(Command::Resize(size)) => self.tell(Call::Resize { process: running.key, size }),
                    Ok(_) | Err(_) => return self.abandon(running),
                }
            }
            let _ = running.woken.read();
            let state = self.lock();
            let ended = state.processes.get(&running.key).and_then(|process| process.ended.clone());
            let lost = state.silence.is_some() || state.ending.is_some();
            drop(state);
            match ended {
                Some(exited) => return self.drain_exec(running, &exited, caller),
                // The guest went away under it.
                None if lost => return Some(KILLED),
                None => {}
            }
        }
    }

    /// Waits until its output has been delivered. Its reader may take as long as it likes, but only while somebody
    /// waits for the status, and only while the container lives.
    fn drain_exec(&self, running: &Running, exited: &Exited, caller: &Caller) -> Option<u8> {
        running.offered.end_input();
        loop {
            let until = Instant::now().checked_add(GLANCE)?;
            if running.offered.wait_delivered(exited.stdout, exited.stderr, until) {
                return Some(exited.status.code());
            }
            let mut left = [PollFd::new(caller.as_fd(), PollFlags::POLLIN)];
            if poll(&mut left, PollTimeout::ZERO) != Ok(0) {
                match caller.next() {
                    // SIGKILL to a process that has ended: it is not waited for any longer.
                    Ok(Command::Signal { signal: libc::SIGKILL, .. }) => return Some(exited.status.code()),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        }
    }

    fn abandon(self: &Arc<Self>, running: &Running) -> Option<u8> {
        self.tell(kill(running.key));
        None
    }
}

/// A process that runs.
struct Running {
    key: ProcessKey,
    offered: Offered,
    woken: Arc<EventFd>,
}

fn kill(key: ProcessKey) -> Call {
    Call::Signal { target: Target::Process(key), signal: libc::SIGKILL }
}
