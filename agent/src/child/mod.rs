//! What runs between clone and execve, in the new process: everything that touches what a container controls.
//!
//! The agent itself never opens, mounts or resolves anything of a container's: it clones a child (born in the container's
//! cgroup, opaque to others), and the child does the work, tells how far it came over its [`crate::channel`], and becomes
//! the container's process. If the work hangs, only the child hangs.
//!
//! - [`first`]: a container's first process: makes the container around itself.
//! - [`join`]: one more process of a container.
//! - [`program`]: the last stretch, common to both.
//!
//! A child never returns into the agent's code: it executes or exits.

mod copy_up;
pub mod device;
mod environment;
pub mod first;
mod hooks;
mod identity;
pub mod join;
mod lookup;
mod mask;
mod mount;
mod program;
mod resolve;
mod sysctl;
mod terminal;

pub use identity::cpu_mask;
pub use resolve::text;

use crate::channel::{ChildEnd, Note};
use crate::sys::{self, file, process as kernel};
use crate::words::chain;
use husk_protocol::{Failure, FailureKind, Process, TerminalSize};
use program::Stdio;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// The process's ends of its streams, as the agent made them.
pub enum Streams {
    /// Pipes, or /dev/null.
    Plain {
        /// Its stdin.
        stdin: OwnedFd,
        /// Its stdout.
        stdout: OwnedFd,
        /// Its stderr.
        stderr: OwnedFd,
    },
    /// A terminal, which the child makes.
    Terminal(TerminalSize),
}

/// What every child begins with: only the descriptors that it needs, signals as a program expects them, no umask, a
/// session and a session keyring of its own.
fn begin(channel: &ChildEnd, streams: &Streams, more: &[&OwnedFd], id: &str) -> sys::Result<()> {
    let mut kept = vec![channel.number()];
    kept.extend(more.iter().map(|fd| fd.as_raw_fd()));
    if let Streams::Plain { stdin, stdout, stderr } = streams {
        kept.extend([stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()]);
    }
    file::close_all_but(&kept)?;
    kernel::restore_signals()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::unistd::setsid()?;
    if let Ok(name) = text(&format!("_ses.{id}")) {
        // A kernel without key management has no keyring to keep apart.
        let _ = kernel::join_session_keyring(&name);
    }
    Ok(())
}

/// The streams' descriptors, the terminal made if there is to be one and its master sent to the agent.
fn open_streams(
    streams: Streams,
    root: impl AsFd,
    process: &Process,
    channel: &ChildEnd,
) -> Result<Stdio, terminal::TerminalError> {
    match streams {
        Streams::Plain { stdin, stdout, stderr } => Ok(Stdio { stdin, stdout, stderr, terminal: false }),
        Streams::Terminal(size) => {
            let terminal = terminal::open(root, size)?;
            if process.plain_newlines {
                sys::terminal::keep_newlines(&terminal.slave).map_err(terminal::TerminalError::Peer)?;
            }
            let peer = terminal::TerminalError::Peer;
            channel.tell(&Note::Terminal(terminal.master)).map_err(peer)?;
            let again = || terminal.slave.try_clone().map_err(|error| peer(error.into()));
            Ok(Stdio { stdin: again()?, stdout: again()?, stderr: again()?, terminal: true })
        }
    }
}

/// Tells why, and ends.
fn give_up(channel: &ChildEnd, error: &dyn std::error::Error) -> ! {
    let failure = Failure { kind: FailureKind::Guest, message: chain(error) };
    let _ = channel.tell(&Note::Failed(failure)); // nobody else could be told
    kernel::exit(1)
}
