//! A process's streams: offered on vsock ports of their own, to which the agent connects.
//!
//! The descriptors themselves are handed over: from then on only the device holds them, so that what happens at one
//! end (end of file, a closed pipe) happens at the other.

use crate::device::vsock::{self, Endpoint, Switchboard};
use crate::process::stdio::{Descriptors, StdioError, duplicate};
use husk_protocol::{Stdio, TerminalSize};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// Where streams are offered to the guest: the vsock device's switchboard.
pub trait Streams: Send + Sync {
    /// Offers a stream on a port of its own, good for one connection.
    fn offer(&self, ends: Endpoint) -> std::io::Result<(u32, Arc<dyn Stream>)>;
    /// The same for a connected socket that nobody else holds: what ends one way is shut down that way.
    fn offer_connection(&self, socket: OwnedFd) -> std::io::Result<(u32, Arc<dyn Stream>)>;
    /// Takes an offer back that the guest has not used. Its descriptors are closed.
    fn withdraw(&self, port: u32);
}

/// One stream that was offered.
pub trait Stream: Send + Sync {
    /// Waits until so many bytes from the guest have been written to their descriptor, or can never be (true); false
    /// if that did not happen by `deadline`.
    fn wait_delivered(&self, bytes: u64, deadline: Instant) -> bool;
    /// Whether nothing of it is left on the host.
    fn is_over(&self) -> bool;
    /// Closes it, with its descriptors, whatever it still holds.
    fn abort(&self);
}

impl Streams for Switchboard {
    fn offer(&self, ends: Endpoint) -> std::io::Result<(u32, Arc<dyn Stream>)> {
        let (port, stream) = Switchboard::offer(self, ends).map_err(std::io::Error::other)?;
        Ok((port, stream))
    }

    fn offer_connection(&self, socket: OwnedFd) -> std::io::Result<(u32, Arc<dyn Stream>)> {
        let (port, stream) = Switchboard::offer_connection(self, socket).map_err(std::io::Error::other)?;
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

    fn is_over(&self) -> bool {
        vsock::Stream::is_over(self)
    }

    fn abort(&self) {
        vsock::Stream::abort(self);
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
    /// Offers a stream for each of `descriptors` to the guest.
    pub fn of(descriptors: Descriptors, streams: &Arc<dyn Streams>) -> Result<Offered, StdioError> {
        let mut offered = Offered {
            streams: Arc::clone(streams),
            stdio: Stdio::Null,
            ports: Vec::with_capacity(3),
            stdin: None,
            stdout: None,
            stderr: None,
        };
        match descriptors {
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
                offered.offer_terminal(duplicate(&terminal)?, terminal, size)?;
            }
            Descriptors::TerminalStreams([input, output], size) => {
                offered.offer_terminal(input, output, size)?;
            }
        }
        Ok(offered)
    }

    fn offer_terminal(
        &mut self,
        input: OwnedFd,
        output: OwnedFd,
        size: TerminalSize,
    ) -> Result<(), StdioError> {
        let both = Endpoint { to_guest: Some(input), from_guest: Some(output) };
        let (port, stream) = self.offer(Some(both))?;
        self.stdout = stream;
        if let Some(port) = port {
            self.stdio = Stdio::Terminal { port, size };
        }
        Ok(())
    }

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

#[cfg(test)]
pub(super) mod testing {
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

        fn offer_connection(&self, socket: OwnedFd) -> std::io::Result<(u32, Arc<dyn Stream>)> {
            let to_guest = Some(socket.try_clone()?);
            self.offer(Endpoint { from_guest: Some(socket), to_guest })
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

        fn is_over(&self) -> bool {
            self.delivered.lock().unwrap().1
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
    use std::os::fd::OwnedFd;

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn null_needs_no_stream() {
        let board = Arc::new(Board::default());
        let streams: Arc<dyn Streams> = board.clone();
        let descriptors = Descriptors::received(vec![null(), null(), null()], None).unwrap();
        let offered = Offered::of(descriptors, &streams).unwrap();
        assert_eq!(offered.stdio, Stdio::Null);
        assert_eq!(board.open(), 0);
    }

    #[test]
    fn what_the_guest_does_not_connect_to_is_withdrawn_and_its_reader_sees_the_end() {
        let board = Arc::new(Board::default());
        let streams: Arc<dyn Streams> = board.clone();
        let (mut read, write) = std::io::pipe().unwrap();
        let descriptors = Descriptors::received(vec![null(), write.into(), null()], None).unwrap();
        let offered = Offered::of(descriptors, &streams).unwrap();
        assert!(matches!(offered.stdio, Stdio::Pipes { stdin: None, stdout: Some(_), stderr: None }));
        drop(offered);
        assert_eq!(read.read(&mut [0; 1]).unwrap(), 0);
    }
}
