//! `husk run` in the foreground: waits beside its machine process, passes signals and sizes on, and ends as it ends.

use crate::machine::control::{Address, Command, client};
use crate::process::exit;
use crate::process::signal::{self, Signals};
use crate::process::terminal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::os::fd::{AsFd, BorrowedFd};

/// What can go wrong while we wait.
#[derive(Debug, thiserror::Error)]
#[error("cannot wait for the machine process")]
pub struct ForegroundError(#[source] std::io::Error);

impl crate::error::Kind for ForegroundError {
    fn kind(&self) -> crate::error::ErrorKind {
        crate::error::ErrorKind::Host
    }
}

/// Waits until `machine`, a child of ours, has ended; its status as a shell would say it. Every signal that can be
/// caught goes on to it. `terminal`, the user's own, is where new sizes are read.
pub fn follow(
    machine: Pid,
    signals: &Signals,
    control: &Address,
    terminal: Option<BorrowedFd<'_>>,
) -> Result<u8, ForegroundError> {
    loop {
        match waitpid(machine, Some(WaitPidFlag::WNOHANG)) {
            Ok(status) => {
                if let Some(code) = exit::code_of(status) {
                    return Ok(code);
                }
            }
            Err(Errno::EINTR) => {}
            Err(error) => return Err(ForegroundError(error.into())),
        }
        // Its end wakes us too, as SIGCHLD.
        match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(ForegroundError(error.into())),
        }
        while let Some(signal) = signals.next() {
            match (signal.number, terminal) {
                (libc::SIGCHLD, _) => {}
                (libc::SIGWINCH, Some(terminal)) => {
                    if let Ok(size) = terminal::size(terminal) {
                        // Too early, or too late: then there is nobody to whom the size matters.
                        let _ = client::ask(control, &Command::Resize(size));
                    }
                }
                // From the terminal's driver: the machine is in a session of its own and gets it from us alone.
                (number, _) => signal::send(machine, number),
            }
        }
    }
}
