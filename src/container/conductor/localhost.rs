//! Connections to the localhost of the namespace outside, for those who listen at the localhost inside: how a pod's ports are
//! forwarded (`kubectl port-forward` has containerd connect there).
//!
//! ```text
//!   containerd --127.0.0.1:8080--> [`Localhost`] -- thread of this module --Forward(8080)--> agent --127.0.0.1:8080--> server
//!                                        \---------- bytes: vsock device, a connection each ----------/
//! ```
//! Only the host makes these connections: the guest can refuse them, or never take what comes, which costs the fixed
//! buffers of [`MOST`] connections.

use super::streams::Stream;
use super::{Conductor, deadline};
use crate::host::localhost::Localhost;
use crate::machine::{Walls, walls};
use husk_protocol::Call;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// Connections at a time. One more is closed at once.
const MOST: usize = 64;
/// The pause after a failure to accept: when descriptors are short, the next fails too.
const PAUSE: Duration = Duration::from_millis(200);

/// Leads whoever connects there to the guest, as long as the machine lives.
pub fn serve(localhost: Localhost, conductor: Arc<Conductor>, walls: Walls) -> io::Result<()> {
    let mut doors = Doors::new(conductor);
    let body = move || {
        if let Err(error) = walls.enter(walls::Thread::Localhost, || Ok(())) {
            return tracing::error!(%error, "the walls of the thread for localhost do not stand");
        }
        loop {
            match localhost.accept() {
                Ok((client, port)) => doors.lead(client, port),
                Err(error) => {
                    tracing::debug!(%error, "cannot take a connection to localhost");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    };
    std::thread::Builder::new().name("localhost".to_owned()).spawn(body).map(drop)
}

pub(super) struct Doors {
    conductor: Arc<Conductor>,
    live: Vec<Arc<dyn Stream>>,
}

impl Doors {
    pub fn new(conductor: Arc<Conductor>) -> Doors {
        Doors { conductor, live: Vec::new() }
    }

    /// Has a client led to the port `to` inside.
    pub fn lead(&mut self, client: OwnedFd, to: u16) {
        self.live.retain(|stream| !stream.is_over());
        let Ok(ours) = client.try_clone() else { return };
        if self.live.len() >= MOST || !self.offer(client, to) {
            // Refused, and not ended.
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            let _ = setsockopt(&ours, sockopt::Linger, &reset);
        }
    }

    fn offer(&mut self, client: OwnedFd, to: u16) -> bool {
        let streams = &self.conductor.streams;
        let Ok((port, stream)) = streams.offer_connection(client) else { return false };
        match self.conductor.call(Call::Forward { port, to }, deadline::CALL) {
            Ok(_) => {
                self.live.push(stream);
                true
            }
            Err(error) => {
                tracing::debug!(%error, to, "nobody inside takes a connection");
                streams.withdraw(port);
                false
            }
        }
    }
}
