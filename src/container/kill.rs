//! `kill`: signals. SIGKILL works whatever state the guest is in.

use super::error::ContainerError;
use super::state::Stage;
use super::{Container, Status, held};
use crate::error::ErrorKind;
use crate::host::deadline;
use crate::host::pidfd::PidFd;
use crate::machine::control::client::{ClientError, Connection};
use crate::machine::control::{Command, Outcome};
use nix::errno::Errno;
use std::time::{Duration, Instant};

/// How long a machine may take to say that it is killing. It answers within about a second even with a dead guest.
const TO_ANSWER: Duration = Duration::from_millis(1500);
/// How long it may then take to end by itself, writing back what the guest had written.
const TO_END: Duration = Duration::from_secs(3);
/// How long a process may take to end that the kernel was told to kill.
const TO_BE_KILLED: Duration = Duration::from_secs(10);

/// How often it is looked whether a container that has no process has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// The highest signal number (`asm-generic/signal.h`, _NSIG).
const HIGHEST: i32 = 64;

impl Container {
    /// Sends a signal to its first process, or to all.
    pub fn signal(&self, signal: i32, all: bool) -> Result<(), ContainerError> {
        let Some(machine) = held(&self.state) else { return Err(ContainerError::NotRunning) };
        match signal {
            0 if self.status() == Status::Stopped => Err(ContainerError::NotRunning),
            0 => Ok(()),
            libc::SIGKILL if self.state.sandbox.is_some() => self.kill_joined(&machine),
            libc::SIGKILL => self.kill(&machine),
            1..=HIGHEST => self.ask(&Command::Signal { signal, all }).map(drop),
            _ => Err(ContainerError::BadRequest("unable to signal init: invalid argument".into())),
        }
    }

    /// Kills it and waits for its end. Not an error if it has ended already.
    pub fn kill_and_wait(&self) -> Result<(), ContainerError> {
        let Some(machine) = held(&self.state) else { return Ok(()) };
        if self.state.sandbox.is_some() {
            return self.end_joined(&machine);
        }
        self.kill(&machine)?;
        let ended = |patience| machine.wait(patience).unwrap_or(false);
        if ended(TO_END) {
            return Ok(());
        }
        kill_process(&machine)?;
        if ended(TO_BE_KILLED) { Ok(()) } else { Err(ContainerError::StillRunning) }
    }

    /// The machine is asked first: it ends the guest so that nothing that was written is lost. If it does not answer, the
    /// kernel ends it.
    fn kill(&self, machine: &PidFd) -> Result<(), ContainerError> {
        let asked = Connection::open(&self.control()).and_then(|mut connection| {
            connection.send(&Command::Signal { signal: libc::SIGKILL, all: true }, &[])?;
            connection.receive(Some(TO_ANSWER))
        });
        match asked {
            Ok(Outcome::Done) => Ok(()),
            Err(ClientError::Gone) if held(&self.state).is_none() => Ok(()),
            _ => kill_process(machine),
        }
    }
}

/// A container in its sandbox's machine.
impl Container {
    /// The machine must live on, so nobody but it can kill this one; or who stands for it, by leaving.
    fn kill_joined(&self, process: &PidFd) -> Result<(), ContainerError> {
        match self.ask(&Command::Signal { signal: libc::SIGKILL, all: true }) {
            Ok(_) => Ok(()),
            Err(error) if self.has_process() => {
                tracing::debug!(%error, "the process that stands for the container is killed");
                kill_process(process)
            }
            Err(ContainerError::Control(ClientError::Refused(failed)))
                if failed.kind == ErrorKind::NotFound =>
            {
                Err(ContainerError::NotRunning)
            }
            Err(error) => Err(error),
        }
    }

    fn end_joined(&self, process: &PidFd) -> Result<(), ContainerError> {
        match self.kill_joined(process) {
            Ok(()) | Err(ContainerError::NotRunning) => {}
            Err(error) => return Err(error),
        }
        let until = deadline::after(TO_BE_KILLED.saturating_add(TO_END));
        if self.has_process() {
            let left = until.saturating_duration_since(Instant::now());
            return if process.wait(left).unwrap_or(false) {
                Ok(())
            } else {
                Err(ContainerError::StillRunning)
            };
        }
        // If it was being made, whoever made it is gone, and it with them.
        while self.state.stage != Stage::Creating && self.status() != Status::Stopped {
            if Instant::now() >= until {
                return Err(ContainerError::StillRunning);
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Whether there is a process on the host that stands for it alone.
    fn has_process(&self) -> bool {
        self.state.sandbox.as_ref().is_none_or(|sandbox| self.state.pid != sandbox.pid)
    }
}

fn kill_process(machine: &PidFd) -> Result<(), ContainerError> {
    match machine.signal(libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(super::error::host("kill", "the machine process")(errno.into())),
    }
}
