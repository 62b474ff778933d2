//! `kill`: signals. SIGKILL works whatever state the guest is in.

use super::error::ContainerError;
use super::{Container, held};
use crate::host::pidfd::PidFd;
use crate::machine::control::client::{ClientError, Connection};
use crate::machine::control::{Command, Outcome};
use nix::errno::Errno;
use std::time::Duration;

/// How long a machine may take to say that it is killing. It answers within about a second even with a dead guest.
const TO_ANSWER: Duration = Duration::from_millis(1500);
/// How long it may then take to end by itself, writing back what the guest had written.
const TO_END: Duration = Duration::from_secs(3);
/// How long a process may take to end that the kernel was told to kill.
const TO_BE_KILLED: Duration = Duration::from_secs(10);

/// The highest signal number (`asm-generic/signal.h`, _NSIG).
const HIGHEST: i32 = 64;

impl Container {
    /// Sends a signal to its first process, or to all.
    pub fn signal(&self, signal: i32, all: bool) -> Result<(), ContainerError> {
        let Some(machine) = held(&self.state) else { return Err(ContainerError::NotRunning) };
        match signal {
            0 => Ok(()),
            libc::SIGKILL => self.kill(&machine),
            1..=HIGHEST => self.ask(&Command::Signal { signal, all }).map(drop),
            _ => Err(ContainerError::BadRequest("unable to signal init: invalid argument".into())),
        }
    }

    /// Kills it and waits for its end. Not an error if it has ended already.
    pub fn kill_and_wait(&self) -> Result<(), ContainerError> {
        let Some(machine) = held(&self.state) else { return Ok(()) };
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

fn kill_process(machine: &PidFd) -> Result<(), ContainerError> {
    match machine.signal(libc::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(super::error::host("kill", "the machine process")(errno.into())),
    }
}
