//! Conversation with the kernel about the calling thread's network namespace: rtnetlink(7).
//!
//! Hand-written on purpose: what the guest is told about routes and addresses is what the kernel says of them, passed on
//! attribute by attribute ([`message`]), so a library that turns it into types and back would only lose something.
//!
//! A socket belongs to the namespace in which it was opened. Reading needs no privilege, changing CAP_NET_ADMIN.

pub mod message;

use message::{Message, Messages};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A route socket.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one for questions and requests.
    pub fn open() -> io::Result<Netlink> {
        Netlink::bound(0, SockFlag::SOCK_CLOEXEC)
    }

    /// Opens one that hears of changes in these groups (`RTMGRP_*`), and never waits.
    pub fn listen(groups: i32) -> io::Result<Netlink> {
        let groups = u32::try_from(groups).unwrap_or(0);
        Netlink::bound(groups, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)
    }

    fn bound(groups: u32, flags: SockFlag) -> io::Result<Netlink> {
        let protocol = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Netlink { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks for a list, and hands `each` the kind and the payload of its entries.
    pub fn dump(&mut self, question: Message, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let sequence = self.say(question, libc::NLM_F_DUMP)?;
        loop {
            let length = self.hear(MsgFlags::empty())?;
            for message in Messages::of(self.buffer.get(..length).unwrap_or(&[])) {
                if message.sequence != sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return answer(message.payload),
                    _ => each(message.kind, message.payload),
                }
            }
        }
    }

    /// Has something done.
    pub fn request(&mut self, request: Message) -> io::Result<()> {
        let sequence = self.say(request, libc::NLM_F_ACK)?;
        loop {
            let length = self.hear(MsgFlags::empty())?;
            for message in Messages::of(self.buffer.get(..length).unwrap_or(&[])) {
                if message.sequence == sequence && i32::from(message.kind) == libc::NLMSG_ERROR {
                    return answer(message.payload);
                }
            }
        }
    }

    /// Takes what has been heard of changes; false if there was nothing. What it was is of no interest: whoever is told
    /// looks for himself, and an overflow is a change too.
    pub fn drain(&mut self) -> bool {
        let mut heard = false;
        // Bounded: somebody may change things as fast as we read.
        for _ in 0..MOST_DRAINED {
            match self.hear(MsgFlags::MSG_DONTWAIT) {
                Ok(_) => heard = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => heard = true,
                Err(_) => break,
            }
        }
        heard
    }

    fn say(&mut self, message: Message, flags: i32) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = message.finish(flags, self.sequence);
        send(self.socket.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(self.sequence)
    }

    fn hear(&mut self, flags: MsgFlags) -> io::Result<usize> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, flags) {
                Err(Errno::EINTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The number in an acknowledgement: 0, or an error.
fn answer(payload: &[u8]) -> io::Result<()> {
    match message::number(payload, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The kernel sends at most 32 KiB at a time to whoever has room for it.
const BUFFER: usize = 64 << 10;
const MOST_DRAINED: usize = 4096;
