//! Pseudo-terminals by descriptor: nothing here opens a path that a container could have replaced.

use super::{Result, descriptor, returned};
use husk_protocol::TerminalSize;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Lets the other end of a new terminal be opened.
pub fn unlock(master: impl AsFd) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    returned(libc::c_long::from(unsafe {
        libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK, &raw const locked)
    }))?;
    Ok(())
}

/// Opens the other end of a terminal from its master, whatever lies at /dev/pts/N.
pub fn peer(master: impl AsFd) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    descriptor(libc::c_long::from(unsafe {
        libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER, flags)
    }))
}

/// Makes a terminal the controlling one of this (new) session.
pub fn take_control(terminal: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes a number: 0, do not steal.
    returned(libc::c_long::from(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }))?;
    Ok(())
}

/// Has a terminal pass newlines on as they are written, without a carriage return.
pub fn keep_newlines(terminal: impl AsFd) -> Result<()> {
    use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
    let mut modes = tcgetattr(&terminal)?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    Ok(tcsetattr(&terminal, SetArg::TCSANOW, &modes)?)
}

/// Sets a terminal's size.
pub fn resize(terminal: impl AsFd, size: TerminalSize) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    returned(libc::c_long::from(unsafe {
        libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size)
    }))?;
    Ok(())
}
