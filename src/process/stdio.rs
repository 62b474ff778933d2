//! A process's descriptors on the host: our own, or those that came with a request.
//!
//! A descriptor that is /dev/null is not worth a stream: the guest has a /dev/null of its own.

use husk_protocol::TerminalSize;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, major, minor};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A process's descriptors on the host.
pub enum Descriptors {
    /// One for each of stdin, stdout and stderr. `None`: /dev/null.
    Separate([Option<OwnedFd>; 3]),
    /// A terminal for all three, and its size.
    Terminal(OwnedFd, TerminalSize),
    /// What is typed at a terminal and what it shows, each on its own, and its size.
    TerminalStreams([OwnedFd; 2], TerminalSize),
}

/// What is wrong with descriptors.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Not three, or for a terminal not one or two.
    #[error("a process needs three descriptors, or one or two for a terminal, and not {0}")]
    Count(usize),
    /// The host failed.
    #[error("cannot {0}")]
    Host(&'static str, #[source] std::io::Error),
}

impl Descriptors {
    /// Those that came with a request.
    pub fn received(
        descriptors: Vec<OwnedFd>,
        terminal: Option<TerminalSize>,
    ) -> Result<Descriptors, StdioError> {
        let count = descriptors.len();
        let mut descriptors = descriptors.into_iter();
        match (terminal, descriptors.next(), descriptors.next(), descriptors.next(), count) {
            (Some(size), Some(terminal), None, None, 1) => Ok(Descriptors::Terminal(terminal, size)),
            (Some(size), Some(input), Some(output), None, 2) => {
                Ok(Descriptors::TerminalStreams([input, output], size))
            }
            (None, Some(stdin), Some(stdout), Some(stderr), 3) => {
                Ok(Descriptors::Separate([stdin, stdout, stderr].map(worth_a_stream)))
            }
            _ => Err(StdioError::Count(count)),
        }
    }

    /// Our own 0, 1 and 2, which are /dev/null from now on: what is written there by mistake must not end up among the
    /// container's output.
    pub fn own() -> Result<Descriptors, StdioError> {
        let mut taken = [None, None, None];
        for (number, place) in (0..).zip(&mut taken) {
            // SAFETY: 0, 1 and 2 are open from the start (the standard library sees to that) and are never closed.
            let standard = unsafe { BorrowedFd::borrow_raw(number) };
            *place = worth_a_stream(duplicate(standard)?);
        }
        replace_own_with_null()?;
        Ok(Descriptors::Separate(taken))
    }
}

/// A copy with a number above the standard ones.
pub fn duplicate(descriptor: impl AsFd) -> Result<OwnedFd, StdioError> {
    let copy = fcntl(descriptor, FcntlArg::F_DUPFD_CLOEXEC(3))
        .map_err(|error| StdioError::Host("duplicate a standard descriptor", error.into()))?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Puts /dev/null in the place of our 0, 1 and 2.
pub fn replace_own_with_null() -> Result<(), StdioError> {
    let failed =
        |error: nix::Error| StdioError::Host("replace a standard descriptor by /dev/null", error.into());
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    nix::unistd::dup2_stdin(&null).map_err(failed)?;
    nix::unistd::dup2_stdout(&null).map_err(failed)?;
    nix::unistd::dup2_stderr(&null).map_err(failed)?;
    Ok(())
}

/// Drops a descriptor that is /dev/null.
fn worth_a_stream(descriptor: OwnedFd) -> Option<OwnedFd> {
    let null = rustix::fs::fstat(&descriptor).is_ok_and(|status| {
        status.st_mode & libc::S_IFMT == libc::S_IFCHR
            && (major(status.st_rdev), minor(status.st_rdev)) == NULL
    });
    (!null).then_some(descriptor)
}

/// Device number of /dev/null (admin-guide/devices.txt).
const NULL: (u64, u64) = (1, 3);

/// Descriptor 3 of a process that another `husk` started: the socket to it. Everything above is not for us and closed.
///
/// # Safety
/// Nothing in this process may own descriptor 3 or a higher one: to be called first thing in `main`.
pub unsafe fn parent_socket() -> Option<std::os::unix::net::UnixStream> {
    const SOCKET: RawFd = 3;
    // SAFETY: closing what nobody owns (see above) harms nobody.
    unsafe { libc::close_range(4, libc::c_uint::MAX, 0) };
    // SAFETY: if it is open, nobody else owns it (see above); fcntl says whether it is.
    let socket = unsafe { BorrowedFd::borrow_raw(SOCKET) };
    fcntl(socket, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).ok()?;
    let kind = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::SockType).ok()?;
    // SAFETY: as above; it is open.
    (kind == nix::sys::socket::SockType::Stream).then(|| unsafe { OwnedFd::from_raw_fd(SOCKET) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn fewer_or_more_descriptors_than_a_process_needs_are_refused() {
        let refused = |count: usize, terminal: Option<TerminalSize>| {
            let descriptors = (0..count).map(|_| null()).collect();
            matches!(Descriptors::received(descriptors, terminal), Err(StdioError::Count(counted)) if counted == count)
        };
        assert!(refused(2, None) && refused(0, None) && refused(4, None));
        assert!(refused(0, Some(TerminalSize::default())) && refused(3, Some(TerminalSize::default())));
    }
}
