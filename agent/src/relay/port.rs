//! A connection of the host's to a server that listens at localhost here: each is carried by a process of its own.

use super::connection::Connection;
use super::poll::{Poll, Source};
use crate::agent::Agent;
use crate::sys::clone::{Side, clone};
use crate::sys::{self, file, process as kernel};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt::SocketError,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Joins the server at `to` with the port `port` of the host's. An error: nobody listens.
pub fn forward(agent: &mut Agent, port: u32, to: u16) -> sys::Result<()> {
    // Whoever listens at localhost has answered when the call returns. For one whose queue is full, the child waits.
    let server = begin(to, AddressFamily::Inet)
        .or_else(|refused| begin(to, AddressFamily::Inet6).map_err(|_| refused))?;
    let host = agent.machine.connect(port)?;
    match clone(0, None)? {
        Side::Parent { .. } => Ok(()),
        Side::Child => {
            let _ = file::close_all_but(&[server.as_raw_fd(), host.as_raw_fd()]);
            let _ = kernel::restore_signals();
            kernel::ignore_broken_pipes();
            let _ = answered(server)
                .or_else(|_| begin(to, AddressFamily::Inet6).and_then(answered))
                .and_then(|server| carry(server, host));
            kernel::exit(0)
        }
    }
}

/// A connection to localhost that is made or being made: there is no waiting for it here.
fn begin(to: u16, family: AddressFamily) -> sys::Result<OwnedFd> {
    let address = match family {
        AddressFamily::Inet6 => SocketAddr::from((Ipv6Addr::LOCALHOST, to)),
        _ => SocketAddr::from((Ipv4Addr::LOCALHOST, to)),
    };
    let server = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(server.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => unrefused(server),
        Err(error) => Err(error.into()),
    }
}

/// The connection when it is made. The kernel gives up after two minutes.
fn answered(server: OwnedFd) -> sys::Result<OwnedFd> {
    poll(&mut [PollFd::new(server.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
    unrefused(server)
}

fn unrefused(server: OwnedFd) -> sys::Result<OwnedFd> {
    match getsockopt(&server, SocketError)? {
        0 => Ok(server),
        error => Err(Errno::from_raw(error).into()),
    }
}

fn carry(server: OwnedFd, host: OwnedFd) -> sys::Result<()> {
    let poll = Poll::open()?;
    let mut scratch = vec![0; crate::stream::CHUNK];
    let mut connection = Connection::new(0, server, host);
    loop {
        connection.wait(&poll);
        for (source, flags) in poll.wait(None)? {
            if let Source::Connection(_, side) = source
                && connection.act(side, flags, &mut scratch)
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{Backlog, accept, bind, getsockname, listen};
    use std::time::{Duration, Instant};

    fn is_made(server: &OwnedFd) -> bool {
        poll(&mut [PollFd::new(server.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn a_server_with_a_full_queue_is_waited_for_after_the_answer() {
        let listener = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        let any = SockaddrStorage::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        bind(listener.as_raw_fd(), &any).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let name: SockaddrStorage = getsockname(listener.as_raw_fd()).unwrap();
        let port = name.as_sockaddr_in().unwrap().port();

        let began = Instant::now();
        let servers: Vec<_> = (0..3).map(|_| begin(port, AddressFamily::Inet).unwrap()).collect();
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        assert!(servers.iter().any(|server| !is_made(server)), "there was room for all");
        std::thread::spawn(move || while accept(listener.as_raw_fd()).is_ok() {});
        for server in servers {
            assert!(is_made(&answered(server).unwrap()));
        }
    }

    #[test]
    fn where_nobody_listens_is_known_at_once() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        assert_eq!(begin(port, AddressFamily::Inet).unwrap_err().0, Errno::ECONNREFUSED);
    }
}
