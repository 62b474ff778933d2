//! A message with at most one descriptor, over a pair of sequenced-packet sockets.

use super::{Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Who it is if nobody says.
const NOBODY: u32 = 65534;

/// A connected pair.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Sends a message, waiting for room in it.
pub fn send(to: impl AsFd, bytes: &[u8], descriptor: Option<RawFd>) -> Result<()> {
    let parts = [IoSlice::new(bytes)];
    let descriptor = descriptor.as_slice();
    let rights = [ControlMessage::ScmRights(descriptor)];
    let control: &[_] = if descriptor.is_empty() { &[] } else { &rights };
    sendmsg::<()>(to.as_fd().as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Sends a message if there is room at once.
pub fn send_now(to: impl AsFd, bytes: &[u8]) -> Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    nix::sys::socket::send(to.as_fd().as_raw_fd(), bytes, flags)?;
    Ok(())
}

/// Takes a datagram that is there: its length (more than `bytes` hold, if it was too long), and its sender's user and group.
pub fn receive_signed(from: impl AsFd, bytes: &mut [u8]) -> Result<(usize, u32, u32)> {
    let mut control = nix::cmsg_space!(libc::ucred);
    let mut parts = [IoSliceMut::new(bytes)];
    // With MSG_TRUNC its true length is told.
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(from.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let (mut uid, mut gid) = (NOBODY, NOBODY);
    // Descriptors that came with it do not fit in there, and the kernel closes them.
    for one in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmCredentials(who) = one {
            (uid, gid) = (who.uid(), who.gid());
        }
    }
    Ok((message.bytes, uid, gid))
}

/// Takes a message into `bytes`: its length (0: the other end is closed) and the descriptor that came with it. EAGAIN
/// when `wait` is false and there is none.
pub fn receive(from: impl AsFd, bytes: &mut [u8], wait: bool) -> Result<(usize, Option<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(bytes)];
    let wait = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | wait;
    let message = loop {
        match recvmsg::<()>(from.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptor = None;
    for control in message.cmsgs().map_err(Error)? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                // SAFETY: the kernel has just installed it for us.
                descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok((message.bytes, descriptor))
}
