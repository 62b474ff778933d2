//! A process's streams: from the caller's descriptors to vsock streams that the agent connects to.
//!
//! The descriptors themselves are handed over: from then on only the device holds them, so that what happens at one
//! end (end of file, a closed pipe) happens at the other. A descriptor that is /dev/null is not worth a stream: the
//! guest has a /dev/null of its own.

use crate::device::vsock::{self, Endpoint, Switchboard};
use husk_protocol::{Stdio, TerminalSize};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{Mode, fstat, major, minor};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

/// Where streams are offered to the guest: the vsock device's switchboard.
pub trait Streams: Send + Sync {
    /// Offers a stream on a port of its own, good for one connection.
    fn offer(&self, ends: Endpoint) -> std::io::Result<(u32, Arc<dyn Stream>)>;
    /// Takes an offer back that the guest has not used. Its descriptors are closed.
    fn withdraw(&self, port: u32);
}

/// One stream that was offered.
pub trait Stream: Send + Sync {
    /// Waits until so many bytes from the guest have been written to their descriptor, or can never be (true); false
    /// if that did not happen by `deadline`.
    fn wait_delivered(&self, bytes: u64, deadline: Instant) -> bool;
    /// Closes it, with its descriptors, whatever it still holds.
    fn abort(&self);
}

impl Streams for Switchboard {
    fn offer(&self, ends: Endpoint) -> std::io::Result<(u32, Arc<dyn Stream>)> {
        let (port, stream) = Switchboard::offer(self, ends).map_err(std::io::Error::other)?;
        Ok((port, stream))
    }

    fn withdraw(&self, port: u32) {
        Switchboard::withdraw(self, port);
    }
}

impl Stream for vsock::Stream {
    fn wait_delivered(&self, bytes: u64, deadline: Instant) -> bool {
        vsock::Stream::wait_delivered(self, bytes, Some(deadline))
    }

    fn abort(&self) {
        vsock::Stream::abort(self);
    }
}

/// A process's descriptors on the host.
pub enum Descriptors {
    /// One for each of stdin, stdout and stderr. `None`: /dev/null.
    Separate([Option<OwnedFd>; 3]),
    /// A terminal for all three, and its size.
    Terminal(OwnedFd, TerminalSize),
}

/// What is wrong with descriptors.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// Not one terminal, or not three.
    #[error("a process needs three descriptors, or one terminal, and not {0}")]
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

    /// Offers a stream for each to the guest.
    pub fn offer(self, streams: &Arc<dyn Streams>) -> Result<Offered, StdioError> {
        let mut offered = Offered {
            streams: Arc::clone(streams),
            stdio: Stdio::Null,
            ports: Vec::with_capacity(3),
            stdin: None,
            stdout: None,
            stderr: None,
        };
        match self {
            Descriptors::Separate([stdin, stdout, stderr]) => {
                let (stdin, stream) =
                    offered.offer(stdin.map(|from| Endpoint { to_guest: Some(from), from_guest: None }))?;
                offered.stdin = stream;
                let (stdout, stream) =
                    offered.offer(stdout.map(|to| Endpoint { from_guest: Some(to), to_guest: None }))?;
                offered.stdout = stream;
                let (stderr, stream) =
                    offered.offer(stderr.map(|to| Endpoint { from_guest: Some(to), to_guest: None }))?;
                offered.stderr = stream;
                if !offered.ports.is_empty() {
                    offered.stdio = Stdio::Pipes { stdin, stdout, stderr };
                }
            }
            Descriptors::Terminal(terminal, size) => {
                let both = Endpoint { to_guest: Some(duplicate(&terminal)?), from_guest: Some(terminal) };
                let (port, stream) = offered.offer(Some(both))?;
                offered.stdout = stream;
                if let Some(port) = port {
                    offered.stdio = Stdio::Terminal { port, size };
                }
            }
        }
        Ok(offered)
    }
}

/// A process's streams, offered to the guest. What the guest has not connected to is withdrawn on drop.
pub struct Offered {
    streams: Arc<dyn Streams>,
    /// What the agent is told.
    pub stdio: Stdio,
    ports: Vec<u32>,
    stdin: Option<Arc<dyn Stream>>,
    /// stdout, or the terminal both ways.
    stdout: Option<Arc<dyn Stream>>,
    stderr: Option<Arc<dyn Stream>>,
}

/// A port for the agent and the stream that it leads to; neither for what is /dev/null.
type Place = (Option<u32>, Option<Arc<dyn Stream>>);

impl Offered {
    fn offer(&mut self, ends: Option<Endpoint>) -> Result<Place, StdioError> {
        let Some(ends) = ends else { return Ok((None, None)) };
        let offer = self.streams.offer(ends);
        let (port, stream) = offer.map_err(|error| StdioError::Host("offer a stream to the guest", error))?;
        self.ports.push(port);
        Ok((Some(port), Some(stream)))
    }

    /// Waits until this much of its output has been delivered, or nobody takes it any more. False: not by `deadline`.
    pub fn wait_delivered(&self, stdout: u64, stderr: u64, deadline: Instant) -> bool {
        let delivered = |stream: &Option<Arc<dyn Stream>>, bytes: u64| match stream {
            Some(stream) => bytes == 0 || stream.wait_delivered(bytes, deadline),
            None => true,
        };
        delivered(&self.stdout, stdout) && delivered(&self.stderr, stderr)
    }

    /// Its process has ended: nobody reads its stdin any more. (Others may still write to its stdout.)
    pub fn end_input(&self) {
        if let Some(stdin) = &self.stdin {
            stdin.abort();
        }
    }

    /// Its process never was, or its output is not wanted any more.
    pub fn abort(&self) {
        [&self.stdin, &self.stdout, &self.stderr].into_iter().flatten().for_each(|stream| stream.abort());
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.ports.iter().for_each(|port| self.streams.withdraw(*port));
    }
}

/// A copy with a number above the standard ones.
fn duplicate(descriptor: impl AsFd) -> Result<OwnedFd, StdioError> {
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
    let null = fstat(&descriptor).is_ok_and(|status| {
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
pub(in crate::process) mod testing {
    //! A switchboard without a guest: whoever plays the agent takes the ends by their port.

    use super::*;
    use std::collections::HashMap;
    use std::io::Write;
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    #[derive(Default)]
    pub struct Board {
        offers: Mutex<HashMap<u32, (Endpoint, Arc<Pipe>)>>,
    }

    /// A stream whose guest's end is played by a test.
    #[derive(Default)]
    pub struct Pipe {
        delivered: Mutex<(u64, bool)>,
        changed: Condvar,
    }

    impl Board {
        /// The guest connects to a port.
        pub fn connect(&self, port: u32) -> Option<(Endpoint, Arc<Pipe>)> {
            self.offers.lock().unwrap().remove(&port)
        }

        /// How many offers are open.
        pub fn open(&self) -> usize {
            self.offers.lock().unwrap().len()
        }
    }

    impl Pipe {
        /// The guest has written, and it has been delivered.
        pub fn deliver(&self, ends: &Endpoint, bytes: &[u8]) {
            let to = ends.from_guest.as_ref().unwrap().try_clone().unwrap();
            let whole = std::fs::File::from(to).write_all(bytes).is_ok();
            let mut delivered = self.delivered.lock().unwrap();
            delivered.0 += bytes.len() as u64;
            delivered.1 |= !whole;
            self.changed.notify_all();
        }
    }

    impl Streams for Board {
        fn offer(&self, ends: Endpoint) -> std::io::Result<(u32, Arc<dyn Stream>)> {
            let mut offers = self.offers.lock().unwrap();
            let port = (1024..).find(|port| !offers.contains_key(port)).unwrap();
            let pipe = Arc::new(Pipe::default());
            offers.insert(port, (ends, Arc::clone(&pipe)));
            Ok((port, pipe))
        }

        fn withdraw(&self, port: u32) {
            self.offers.lock().unwrap().remove(&port);
        }
    }

    impl Stream for Pipe {
        fn wait_delivered(&self, bytes: u64, deadline: Instant) -> bool {
            let mut delivered = self.delivered.lock().unwrap();
            while delivered.0 < bytes && !delivered.1 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                delivered = self.changed.wait_timeout(delivered, left.min(Duration::from_secs(1))).unwrap().0;
            }
            true
        }

        fn abort(&self) {
            self.delivered.lock().unwrap().1 = true;
            self.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Board;
    use super::*;
    use std::io::Read;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn null_needs_no_stream() {
        let board = Arc::new(Board::default());
        let streams: Arc<dyn Streams> = board.clone();
        let descriptors = Descriptors::received(vec![null(), null(), null()], None).unwrap();
        let offered = descriptors.offer(&streams).unwrap();
        assert_eq!(offered.stdio, Stdio::Null);
        assert_eq!(board.open(), 0);
    }

    #[test]
    fn what_the_guest_does_not_connect_to_is_withdrawn_and_its_reader_sees_the_end() {
        let board = Arc::new(Board::default());
        let streams: Arc<dyn Streams> = board.clone();
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = Descriptors::received(vec![null(), write.into(), null()], None).unwrap();
        let offered = descriptors.offer(&streams).unwrap();
        assert!(matches!(offered.stdio, Stdio::Pipes { stdin: None, stdout: Some(_), stderr: None }));
        drop(offered);
        assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn two_descriptors_or_a_terminal_and_a_pipe_are_refused() {
        let refused = |count: usize, terminal: Option<TerminalSize>| {
            let descriptors = (0..count).map(|_| null()).collect();
            matches!(Descriptors::received(descriptors, terminal), Err(StdioError::Count(counted)) if counted == count)
        };
        assert!(refused(2, None) && refused(0, None) && refused(4, None));
        assert!(refused(0, Some(TerminalSize::default())) && refused(3, Some(TerminalSize::default())));
    }
}
