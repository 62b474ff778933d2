//! Frames between `husk` processes: a 4-byte big-endian length, then that many bytes of JSON; descriptors travel with the
//! length, by SCM_RIGHTS.
//!
//! JSON, so that a newer `husk` can talk to a machine that an older one started. Both ends are ours and the peer's uid
//! was checked, but a frame is bounded all the same, and so is the time that a peer may take over one: a command that
//! was stopped half-way must not hold a thread of the machine for ever.

use crate::error::{ErrorKind, Kind};
use crate::host::deadline::{poll, poll_timeout};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recv, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// The longest message in bytes: as long as the agent's, since an order carries the same.
pub const LONGEST: usize = 4 << 20;

/// The most descriptors with one frame: nearly as many as the kernel passes at once.
pub const MOST_DESCRIPTORS: usize = 250;

/// How long a peer may take over one frame, once it has begun.
const PER_FRAME: Duration = Duration::from_secs(30);

/// How much is read at once, and so the most that is allocated on the word of a length alone.
const CHUNK: usize = 64 << 10;

/// Why a frame did not arrive, or could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The other end is gone.
    #[error("the other end closed the connection")]
    Closed,
    /// Nothing came, or nothing was taken, for too long.
    #[error("the other end did not answer in time")]
    TimedOut,
    /// A message longer than [`LONGEST`].
    #[error("a message of {0} bytes is longer than the {LONGEST} that are allowed")]
    TooLong(usize),
    /// More than [`MOST_DESCRIPTORS`].
    #[error("more than {MOST_DESCRIPTORS} descriptors came with a message")]
    TooManyDescriptors,
    /// Not the JSON that was expected.
    #[error("a message cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// The socket failed.
    #[error("cannot {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Kind for WireError {
    fn kind(&self) -> ErrorKind {
        match self {
            WireError::TooLong(_) | WireError::TooManyDescriptors | WireError::Malformed(_) => {
                ErrorKind::InvalidArgument
            }
            WireError::Closed | WireError::TimedOut | WireError::Host { .. } => ErrorKind::Host,
        }
    }
}

/// Sends `message` as one frame, and copies of `descriptors` with it.
pub fn send_frame<T: Serialize>(
    socket: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(WireError::TooManyDescriptors);
    }
    let body = serde_json::to_vec(message).map_err(WireError::Malformed)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= LONGEST)
        .ok_or(WireError::TooLong(body.len()))?;
    let mut frame = Vec::with_capacity(body.len().saturating_add(4));
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&body);

    let deadline = Instant::now().checked_add(PER_FRAME);
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut rights = if raw.is_empty() { Vec::new() } else { vec![ControlMessage::ScmRights(&raw)] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let mut rest = frame.as_slice();
    while !rest.is_empty() {
        let sent =
            sendmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &[IoSlice::new(rest)], &rights, flags, None);
        match sent {
            Ok(count) => {
                rights.clear();
                rest = rest.get(count..).unwrap_or(&[]);
            }
            Err(Errno::EAGAIN) => wait(&socket, PollFlags::POLLOUT, deadline)?,
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(WireError::Closed),
            Err(error) => return Err(host("send a message", error)),
        }
    }
    Ok(())
}

/// Receives one frame and the descriptors that came with it. `within` bounds the time until it begins; `None` waits.
pub fn receive_frame<T: DeserializeOwned>(
    socket: impl AsFd,
    within: Option<Duration>,
) -> Result<(T, Vec<OwnedFd>), WireError> {
    let begins = within.and_then(|within| Instant::now().checked_add(within));
    wait(&socket, PollFlags::POLLIN, begins)?;
    let deadline = Instant::now().checked_add(PER_FRAME);

    let mut descriptors = Vec::new();
    let mut prefix = [0; 4];
    let mut filled = 0;
    while let Some(space) = prefix.get_mut(filled..).filter(|space| !space.is_empty()) {
        filled = filled.saturating_add(receive_some(&socket, space, &mut descriptors, deadline)?);
    }
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(WireError::TooLong(length));
    }
    let mut body = Vec::new();
    while body.len() < length {
        let from = body.len();
        body.resize(length.min(from.saturating_add(CHUNK)), 0);
        let mut at = from;
        while let Some(space) = body.get_mut(at..).filter(|space| !space.is_empty()) {
            at = at.saturating_add(receive_plain(&socket, space, deadline)?);
        }
    }
    let message = serde_json::from_slice(&body).map_err(WireError::Malformed)?;
    Ok((message, descriptors))
}

/// Reads some bytes, and takes ownership of whatever descriptors came with them.
fn receive_some(
    socket: impl AsFd,
    space: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
    deadline: Option<Instant>,
) -> Result<usize, WireError> {
    loop {
        // Room for as many as the kernel passes at once (SCM_MAX_FD): what does not fit would be left open and unknown.
        let mut rights = cmsg_space!([RawFd; 253]);
        let mut vector = [IoSliceMut::new(space)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut vector, Some(&mut rights), flags) {
            Ok(message) => {
                for control in message.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmRights(raw) = control {
                        // SAFETY: the kernel has just installed these descriptors for us; nobody else knows them.
                        descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
                    }
                }
                if descriptors.len() > MOST_DESCRIPTORS {
                    return Err(WireError::TooManyDescriptors);
                }
                return if message.bytes == 0 { Err(WireError::Closed) } else { Ok(message.bytes) };
            }
            Err(error) => retry(&socket, error, deadline)?,
        }
    }
}

/// Reads some bytes; descriptors that come with them are closed by the kernel.
fn receive_plain(socket: impl AsFd, space: &mut [u8], deadline: Option<Instant>) -> Result<usize, WireError> {
    loop {
        match recv(socket.as_fd().as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(WireError::Closed),
            Ok(count) => return Ok(count),
            Err(error) => retry(&socket, error, deadline)?,
        }
    }
}

/// Waits after a read that failed for now; fails if it failed for good.
fn retry(socket: impl AsFd, error: Errno, deadline: Option<Instant>) -> Result<(), WireError> {
    match error {
        Errno::EAGAIN => wait(socket, PollFlags::POLLIN, deadline),
        Errno::EINTR => Ok(()),
        Errno::ECONNRESET => Err(WireError::Closed),
        error => Err(host("receive a message", error)),
    }
}

/// Waits until the socket is ready for `events` (or broken: the next call says how).
fn wait(socket: impl AsFd, events: PollFlags, deadline: Option<Instant>) -> Result<(), WireError> {
    loop {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(WireError::TimedOut);
        }
        match poll(&mut [PollFd::new(socket.as_fd(), events)], poll_timeout(deadline)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(host("wait for a message", error)),
        }
    }
}

fn host(what: &'static str, error: Errno) -> WireError {
    WireError::Host { what, source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_frame_arrives_with_its_descriptors_and_they_are_closed_on_exec() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        send_frame(&left, &vec!["a", "b"], &[write.as_fd()]).unwrap();
        drop(write);
        let (message, descriptors) = receive_frame::<Vec<String>>(&right, None).unwrap();
        assert_eq!(message, ["a", "b"]);
        let [descriptor] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
        let flags = nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        std::fs::File::from(descriptor).write_all(b"through").unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn a_frame_that_is_larger_than_the_sockets_buffer_arrives_whole() {
        let (left, right) = UnixStream::pair().unwrap();
        let text = "x".repeat(3 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| send_frame(&left, &text, &[]).unwrap());
            assert_eq!(receive_frame::<String>(&right, None).unwrap().0, text);
        });
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert!(matches!(receive_frame::<String>(&right, None), Err(WireError::TooLong(_))));
        assert!(matches!(send_frame(&left, &"x".repeat(LONGEST), &[]), Err(WireError::TooLong(_))));
    }

    #[test]
    fn a_peer_that_leaves_and_one_that_says_nothing_are_told_apart() {
        let (left, right) = UnixStream::pair().unwrap();
        let nothing = receive_frame::<String>(&right, Some(Duration::from_millis(20)));
        assert!(matches!(nothing, Err(WireError::TimedOut)));
        drop(left);
        assert!(matches!(receive_frame::<String>(&right, None), Err(WireError::Closed)));
        assert!(matches!(send_frame(&right, &"x", &[]), Err(WireError::Closed)));
    }

    #[test]
    fn a_peer_that_leaves_in_the_middle_of_a_frame_is_noticed() {
        let (mut left, right) = UnixStream::pair().unwrap();
        left.write_all(&[0, 0, 0, 9, b'"']).unwrap();
        drop(left);
        assert!(matches!(receive_frame::<String>(&right, None), Err(WireError::Closed)));
    }

    #[test]
    fn too_many_descriptors_are_refused_and_closed() {
        let (left, right) = UnixStream::pair().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        let many: Vec<BorrowedFd<'_>> = (0..MOST_DESCRIPTORS + 3).map(|_| write.as_fd()).collect();
        assert!(matches!(send_frame(&left, &"x", &many), Err(WireError::TooManyDescriptors)));
        let raw: Vec<RawFd> = many.iter().map(AsRawFd::as_raw_fd).collect();
        let bytes = [0, 0, 0, 3, b'"', b'x', b'"'];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<UnixAddr>(left.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None)
            .unwrap();
        assert!(matches!(receive_frame::<String>(&right, None), Err(WireError::TooManyDescriptors)));
        drop(write);
        // End of file: no copy of the writing end is left anywhere.
        assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn words_that_are_not_the_expected_message_are_malformed() {
        let (left, right) = UnixStream::pair().unwrap();
        send_frame(&left, &"x", &[]).unwrap();
        assert!(matches!(receive_frame::<u32>(&right, None), Err(WireError::Malformed(_))));
    }
}
