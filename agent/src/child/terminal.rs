//! A terminal for the process, from the container's own devpts.
//!
//! The container may have put anything at /dev/pts: the multiplexer is opened without waiting and believed only if it is
//! the real one, and the other end is opened from the master's descriptor (TIOCGPTPEER), never by its name.

use super::resolve::Root;
use crate::sys::{self, file, mount as kernel, terminal};
use husk_protocol::TerminalSize;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{fstat, major, minor};
use std::os::fd::{AsFd, OwnedFd};

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The multiplexer.
    #[error("open /dev/ptmx")]
    Open(#[source] sys::Error),
    /// The other end.
    #[error("open the terminal of /dev/ptmx")]
    Peer(#[source] sys::Error),
    /// /dev/console.
    #[error("error mounting the terminal at \"/dev/console\"")]
    Console(#[source] sys::Error),
}

/// Both ends of a terminal.
pub struct Terminal {
    /// The agent's end, non-blocking.
    pub master: OwnedFd,
    /// The process's end.
    pub slave: OwnedFd,
}

/// Makes a terminal of that size.
pub fn open(root: impl AsFd, size: TerminalSize) -> Result<Terminal, TerminalError> {
    let flags = (OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK).bits();
    // Looked at before, since to open another device may do something; and after, since it may have been exchanged meanwhile.
    open_multiplexer(&root, libc::O_PATH).map_err(TerminalError::Open)?;
    let master = open_multiplexer(&root, flags).map_err(TerminalError::Open)?;
    terminal::unlock(&master).map_err(TerminalError::Open)?;
    let slave = terminal::peer(&master).map_err(TerminalError::Peer)?;
    if size != TerminalSize::default() {
        terminal::resize(&master, size).map_err(TerminalError::Peer)?;
    }
    Ok(Terminal { master, slave })
}

fn open_multiplexer(root: impl AsFd, flags: libc::c_int) -> sys::Result<OwnedFd> {
    let opened = file::open_at(root, c"/dev/pts/ptmx", flags, 0, file::IN_ROOT | file::NO_MAGIC_LINKS)?;
    let number = fstat(&opened)?.st_rdev;
    if (major(number), minor(number)) == (5, 2) { Ok(opened) } else { Err(sys::Error(Errno::ENODEV)) }
}

/// Shows the terminal at /dev/console.
pub fn show_at_console(root: &Root, slave: &OwnedFd) -> Result<(), TerminalError> {
    let attach = || -> sys::Result<()> {
        let place = root.file("/dev/console")?;
        kernel::attach(kernel::copy_of(slave, c"", false)?, place)
    };
    attach().map_err(TerminalError::Console)
}
