//! A connection of the host's to a server that listens at localhost here: each is carried by a process of its own.

use super::connection::Connection;
use super::poll::{Poll, Source};
use crate::agent::Agent;
use crate::sys::clone::{Side, clone};
use crate::sys::{self, Error, file, process as kernel};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Whoever listens here answers at once, unless too many others wait for it: the agent does not wait with them.
const PATIENCE: Duration = Duration::from_millis(200);

/// Joins the server at `to` with the port `port` of the host's. An error: nobody listens.
pub fn forward(agent: &mut Agent, port: u32, to: u16) -> sys::Result<()> {
    let server = connect(to)?;
    let host = agent.machine.connect(port)?;
    match clone(0, None)? {
        Side::Parent { .. } => Ok(()),
        Side::Child => {
            let _ = file::close_all_but(&[server.as_raw_fd(), host.as_raw_fd()]);
            let _ = kernel::restore_signals();
            kernel::ignore_broken_pipes();
            let _ = carry(server, host);
            kernel::exit(0)
        }
    }
}

fn connect(to: u16) -> sys::Result<OwnedFd> {
    let mut failed = Error(Errno::ECONNREFUSED);
    for address in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(address, to), PATIENCE)
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream));
        match stream {
            Ok(stream) => return Ok(stream.into()),
            Err(error) if address.is_ipv4() => {
                failed = Error(error.raw_os_error().map_or(Errno::ETIMEDOUT, Errno::from_raw));
            }
            // That of the usual address is told.
            Err(_) => {}
        }
    }
    Err(failed)
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
