//! Terminals of the host: a pty pair for a caller with a console socket, or the user's own.
//!
//! The container's own terminal is a pty in the guest; what is made here only carries its bytes, and must not touch
//! them: line editing, echo and CR are the guest's.

use husk_protocol::TerminalSize;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What can go wrong with a terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// No pty pair.
    #[error("cannot make a pseudo-terminal")]
    Make(#[source] std::io::Error),
    /// Its modes or size cannot be read or set.
    #[error("cannot {0} the terminal")]
    Set(&'static str, #[source] std::io::Error),
    /// The console socket.
    #[error("cannot send the terminal to the console socket {}", path.display())]
    ConsoleSocket {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl crate::error::Kind for TerminalError {
    fn kind(&self) -> crate::error::ErrorKind {
        match self {
            TerminalError::ConsoleSocket { .. } => crate::error::ErrorKind::InvalidArgument,
            _ => crate::error::ErrorKind::Host,
        }
    }
}

/// Both ends of a new pseudo-terminal.
pub struct Pair {
    /// The caller's end.
    pub master: OwnedFd,
    /// Our end, in raw mode; nobody's controlling terminal yet.
    pub slave: OwnedFd,
    /// The slave's name, `/dev/pts/N`.
    pub name: String,
}

impl Pair {
    /// Makes one, of this size if it is known.
    pub fn open(size: Option<TerminalSize>) -> Result<Pair, TerminalError> {
        let failed = |error: Errno| TerminalError::Make(error.into());
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).map_err(failed)?;
        grantpt(&master).map_err(failed)?;
        unlockpt(&master).map_err(failed)?;
        let name = ptsname_r(&master).map_err(failed)?;
        let slave = peer(&master, flags).map_err(failed)?;
        make_raw(&slave, OutputFlags::empty())?;
        if let Some(size) = size {
            set_size(&slave, size)?;
        }
        // SAFETY: the descriptor was the master's own, which gave it up.
        let master = unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) };
        Ok(Pair { master, slave, name })
    }
}

/// The slave of a master, without a path that somebody may have put something else under.
fn peer(master: &PtyMaster, flags: OFlag) -> Result<OwnedFd, Errno> {
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor or -1.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let slave = Errno::result(slave)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}

/// Raw mode, but for these.
fn make_raw(terminal: impl AsFd, kept: OutputFlags) -> Result<Termios, TerminalError> {
    let before =
        tcgetattr(&terminal).map_err(|error| TerminalError::Set("read the modes of", error.into()))?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    raw.output_flags.insert(kept);
    tcsetattr(&terminal, SetArg::TCSANOW, &raw)
        .map_err(|error| TerminalError::Set("set the modes of", error.into()))?;
    Ok(before)
}

/// Sends a terminal to who asked for it: one message with the name as its bytes and the master as its descriptor.
pub fn send_to_console_socket(path: &Path, master: BorrowedFd<'_>, name: &str) -> Result<(), TerminalError> {
    let failed = |source: std::io::Error| TerminalError::ConsoleSocket { path: path.to_owned(), source };
    let socket = UnixStream::connect(path).map_err(failed)?;
    let descriptors = [master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let bytes = [IoSlice::new(name.as_bytes())];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(|error| failed(error.into()))?;
    Ok(())
}

mod ioctl {
    #![allow(missing_docs)] // tty_ioctl(2) has them
    nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);
    nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);
    nix::ioctl_write_int_bad!(set_controlling_terminal, libc::TIOCSCTTY);
}

/// A terminal's size.
pub fn size(terminal: impl AsFd) -> Result<TerminalSize, TerminalError> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl writes a winsize to the pointer, which is one of ours.
    unsafe { ioctl::get_window_size(terminal.as_fd().as_raw_fd(), &mut size) }
        .map_err(|error| TerminalError::Set("read the size of", error.into()))?;
    Ok(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Sets a terminal's size.
pub fn set_size(terminal: impl AsFd, size: TerminalSize) -> Result<(), TerminalError> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl reads a winsize from the pointer, which is one of ours.
    unsafe { ioctl::set_window_size(terminal.as_fd().as_raw_fd(), &size) }
        .map_err(|error| TerminalError::Set("set the size of", error.into()))?;
    Ok(())
}

/// Makes the terminal ours, so that we hear of changes of its size. The process must lead a session that has none.
/// False if it is another session's: then whoever has it hears of them.
pub fn take_control(terminal: impl AsFd) -> bool {
    // SAFETY: TIOCSCTTY takes an int by value; 0 asks not to take it away from anybody.
    unsafe { ioctl::set_controlling_terminal(terminal.as_fd().as_raw_fd(), 0) }.is_ok()
}

/// The user's terminal in raw mode. Restored when this is dropped; a process that holds one must have
/// [taken its signals](super::signal::Signals::take), so that no signal but SIGKILL ends it before that.
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Enters it.
    pub fn enter(terminal: OwnedFd) -> Result<RawMode, TerminalError> {
        // The terminal inside passes newlines on as they are: this one adds the carriage returns, as under runc.
        let before = make_raw(&terminal, OutputFlags::OPOST)?;
        Ok(RawMode { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::termios::LocalFlags;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn bytes_pass_a_new_pair_untouched_both_ways() {
        let pair = Pair::open(None).unwrap();
        let (mut master, mut slave) = (File::from(pair.master), File::from(pair.slave));
        let all: Vec<u8> = (0..=255).collect();
        let mut seen = [0; 256];
        slave.write_all(&all).unwrap();
        master.read_exact(&mut seen).unwrap();
        assert_eq!(seen, all[..]);
        master.write_all(&all).unwrap();
        slave.read_exact(&mut seen).unwrap();
        assert_eq!(seen, all[..]);
    }

    #[test]
    fn a_size_set_on_one_end_is_read_on_the_other() {
        let asked = TerminalSize { rows: 24, columns: 80 };
        let pair = Pair::open(Some(asked)).unwrap();
        assert_eq!(size(&pair.master).unwrap(), asked);
        let larger = TerminalSize { rows: 50, columns: 132 };
        set_size(&pair.master, larger).unwrap();
        assert_eq!(size(&pair.slave).unwrap(), larger);
    }

    #[test]
    fn raw_mode_is_left_when_its_guard_is_dropped() {
        let pair = Pair::open(None).unwrap();
        let mut cooked = tcgetattr(&pair.slave).unwrap();
        cooked.local_flags |= LocalFlags::ECHO | LocalFlags::ICANON;
        cooked.output_flags |= OutputFlags::OPOST;
        tcsetattr(&pair.slave, SetArg::TCSANOW, &cooked).unwrap();
        let raw = RawMode::enter(pair.slave.try_clone().unwrap()).unwrap();
        let modes = tcgetattr(&pair.slave).unwrap();
        assert!(
            !modes.local_flags.contains(LocalFlags::ECHO) && modes.output_flags.contains(OutputFlags::OPOST)
        );
        drop(raw);
        assert!(tcgetattr(&pair.slave).unwrap().local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON));
    }

    #[test]
    fn a_console_socket_gets_one_message_with_the_name_and_a_true_master() {
        use nix::cmsg_space;
        use nix::sys::socket::{ControlMessageOwned, recvmsg};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let pair = Pair::open(None).unwrap();
        send_to_console_socket(&path, pair.master.as_fd(), &pair.name).unwrap();

        let (peer, _) = listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let mut vector = [std::io::IoSliceMut::new(&mut bytes)];
        let mut rights = cmsg_space!([std::os::fd::RawFd; 4]);
        let message =
            recvmsg::<UnixAddr>(peer.as_raw_fd(), &mut vector, Some(&mut rights), MsgFlags::empty()).unwrap();
        let controls: Vec<_> = message.cmsgs().unwrap().collect();
        let length = message.bytes;
        let [ControlMessageOwned::ScmRights(raw)] = controls.as_slice() else { panic!("{controls:?}") };
        let [raw] = raw.as_slice() else { panic!("{raw:?}") };
        // SAFETY: the kernel has just installed it for this test.
        let received = unsafe { OwnedFd::from_raw_fd(*raw) };
        assert_eq!(&bytes[..length], pair.name.as_bytes());
        assert!(pair.name.starts_with("/dev/pts/"));
        let size = TerminalSize { rows: 3, columns: 4 };
        set_size(&received, size).unwrap();
        assert_eq!(super::size(&pair.slave).unwrap(), size);
        // Nothing follows it.
        let mut peer = peer;
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn a_console_socket_where_nobody_listens_is_an_error_with_its_path() {
        let pair = Pair::open(None).unwrap();
        let error =
            send_to_console_socket(Path::new("/nonexistent/s"), pair.master.as_fd(), "x").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/s"));
    }
}
