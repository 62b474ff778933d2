//! A connection joined to its endpoint: the protocol's state on one side, the caller's descriptors on the other.
//!
//! ```text
//!   guest's bytes --> (ring empty) from_guest at once --> what it cannot take now: ring --writable--> from_guest
//!   from_guest:  open --guest sends no more, ring drained--> closed      open --no reader, error--> closed, ring lost
//!   to_guest:    open --end of file, error, guest takes no more--> closed
//! ```
//! What closes here is told to the guest, and the other way round: [`Link::settle`] brings both sides in line and is
//! called after anything that happened to either. But that nobody takes the guest's bytes is told only to a guest that
//! has some: a socket that was told both, though it never meant to write, forgets its peer while it still has bytes to
//! read (Linux), and its close then waits for an answer that does not come. A link whose connection is over lives on until its ring is drained:
//! what the guest was promised to have sent is delivered.

use super::HOST_CID;
use super::connection::Connection;
use super::descriptor::{Descriptor, Moved, Shunt, Then};
use super::packet::{Header, TYPE_STREAM};
use super::ring::Ring;
use super::stream::Stream;
use super::switchboard::Offer;
use nix::sys::epoll::{Epoll, EpollFlags};
use nix::sys::socket::Shutdown;
use std::sync::Arc;
use vm_memory::VolatileSlice;

/// What a link needs to work on its descriptors.
pub(super) struct Io {
    pub(super) epoll: Arc<Epoll>,
    pub(super) shunt: Shunt,
}

/// How epoll is to name a link's descriptors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    pub(super) output: u64,
    pub(super) input: u64,
}

pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) host_port: u32,
    pub(super) guest_port: u32,
    guest_cid: u64,
    stream: Arc<Stream>,
    output: Option<Descriptor>,
    /// Whether both are one socket, which is shut down one way when that way is over.
    shuts: bool,
    /// Whether the guest has (or may have) bytes that nobody takes.
    in_vain: bool,
    /// Whether we wait for the output to take more.
    output_waits: bool,
    input: Option<Descriptor>,
    /// False while we wait for the input to have something.
    input_ready: bool,
    ring: Ring,
    tokens: Tokens,
    /// Whether the worker has it in its lists.
    pub(super) in_control: bool,
    pub(super) in_data: bool,
}

impl Link {
    pub(super) fn accept(request: &Header, offer: Offer, tokens: Tokens, io: &mut Io) -> Link {
        let mut link = Link {
            connection: Connection::accept(request),
            host_port: request.destination_port,
            guest_port: request.source_port,
            guest_cid: request.source_cid,
            stream: offer.stream,
            output: offer.from_guest,
            shuts: offer.shuts,
            in_vain: false,
            output_waits: false,
            input: offer.to_guest,
            input_ready: true,
            ring: Ring::default(),
            tokens,
            in_control: false,
            in_data: false,
        };
        // Even with nothing to write: a reader that leaves is to be noticed.
        link.watch_output(false, io);
        link.settle(io);
        link
    }

    /// Bytes from the guest, for which there is credit.
    pub(super) fn take(&mut self, slices: &[VolatileSlice], io: &mut Io) {
        let total = slices.iter().fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        let mut written = 0;
        if self.ring.is_empty() {
            written = self.write(slices, io).bytes;
        }
        if self.output.is_none() {
            self.in_vain = true;
            self.consumed(total.saturating_sub(written));
            return;
        }
        let mut skip = written;
        for slice in slices {
            if let Ok(rest) = slice.offset(skip) {
                skip = 0;
                self.ring.push(&rest);
            } else {
                skip = skip.saturating_sub(slice.len());
            }
        }
        if !self.ring.is_empty() && !self.output_waits {
            self.watch_output(true, io);
        }
    }

    /// The output may take more, or is broken.
    pub(super) fn output_event(&mut self, events: EpollFlags, io: &mut Io) {
        self.drain(io);
        if events.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            // Nobody will read again: there is no point in waiting for the next write to find out.
            self.lose_output(io);
        }
    }

    /// The input has something, or has ended.
    pub(super) fn input_event(&mut self) {
        self.input_ready = true;
    }

    /// How many bytes may be read for the guest now.
    pub(super) fn wanted(&self) -> u32 {
        if self.input.is_some() && self.input_ready { self.connection.credit() } else { 0 }
    }

    /// Reads the input into buffers for the guest; how many bytes there were.
    pub(super) fn read(&mut self, to: &[VolatileSlice], io: &mut Io) -> usize {
        let Some(input) = &mut self.input else { return 0 };
        let Moved { bytes, then } = input.read(to, &mut io.shunt);
        match then {
            Then::More => {}
            Then::Over => self.close_input(io),
            Then::Later => {
                self.input_ready = false;
                // Once: it must not wake us again and again while the guest has no room.
                let interest = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
                match input.watch(&io.epoll, self.tokens.input, interest) {
                    Ok(true) => {}
                    // It said that it would have to wait, and cannot say when it is over.
                    Ok(false) => self.close_input(io),
                    Err(error) => {
                        tracing::warn!(%error, "cannot watch a stream's input");
                        self.close_input(io);
                    }
                }
            }
        }
        bytes
    }

    /// Ends everything now; what was not delivered is lost.
    pub(super) fn abort(&mut self, io: &mut Io) {
        self.connection.reset();
        self.lose_output(io);
        self.close_input(io);
    }

    /// Brings the protocol in line with the descriptors and the other way round.
    pub(super) fn settle(&mut self, io: &mut Io) {
        if self.connection.guest_takes_no_more() {
            self.close_input(io);
        }
        if self.connection.guest_sends_no_more() && self.ring.is_empty() {
            self.close_output(io);
        }
        if self.in_vain && !self.connection.guest_sends_no_more() {
            self.connection.stop_receiving();
        }
        if self.input.is_none() {
            self.connection.stop_sending();
        }
        match (&self.output, &self.input) {
            (None, None) => self.stream.set_over(),
            (None, Some(_)) => self.stream.set_output_over(),
            _ => {}
        }
    }

    /// Whether nothing is left of it, on either side.
    pub(super) fn is_over(&self) -> bool {
        self.connection.is_over() && self.output.is_none() && self.input.is_none()
    }

    /// The device stops: close everything, tell nobody in the guest.
    pub(super) fn finish(mut self, io: &mut Io) {
        self.lose_output(io);
        self.close_input(io);
        self.stream.set_over();
    }

    /// The same header with the connection's addresses in it.
    pub(super) fn address(&self, header: Header) -> Header {
        Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: self.host_port,
            destination_port: self.guest_port,
            kind: TYPE_STREAM,
            ..header
        }
    }

    fn drain(&mut self, io: &mut Io) {
        let mut ring = std::mem::take(&mut self.ring);
        let Moved { bytes, .. } = self.write(&ring.pieces(), io);
        ring.consume(bytes);
        if self.output.is_none() {
            let lost = ring.clear();
            self.consumed(lost);
            return;
        }
        self.ring = ring;
        if self.ring.is_empty() && self.output_waits {
            self.watch_output(false, io);
        }
    }

    /// Writes to the output, and counts; the output is closed if it is over.
    fn write(&mut self, from: &[VolatileSlice], io: &mut Io) -> Moved {
        let Some(output) = &mut self.output else { return Moved { bytes: 0, then: Then::Over } };
        let moved = output.write(from, &mut io.shunt);
        if moved.bytes > 0 {
            self.stream.add_delivered(moved.bytes as u64);
            self.consumed(moved.bytes);
        }
        if moved.then == Then::Over {
            self.in_vain = true;
            self.close_output(io);
        }
        moved
    }

    fn watch_output(&mut self, waits: bool, io: &mut Io) {
        let Some(output) = &mut self.output else { return };
        let interest = if waits { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        match output.watch(&io.epoll, self.tokens.output, interest) {
            Ok(true) => self.output_waits = waits,
            // It never waits; and if it does after all, it cannot say when it is over.
            Ok(false) if !waits => {}
            Ok(false) => self.lose_output(io),
            Err(error) => {
                tracing::warn!(%error, "cannot watch a stream's output");
                self.lose_output(io);
            }
        }
    }

    fn lose_output(&mut self, io: &mut Io) {
        self.in_vain |= self.output.is_some();
        self.close_output(io);
        let lost = self.ring.clear();
        self.consumed(lost);
    }

    fn close_output(&mut self, io: &mut Io) {
        if let Some(output) = self.output.take() {
            if self.shuts {
                output.shut(Shutdown::Write);
            }
            output.close(&io.epoll);
        }
    }

    fn close_input(&mut self, io: &mut Io) {
        if let Some(input) = self.input.take() {
            if self.shuts {
                input.shut(Shutdown::Read);
            }
            input.close(&io.epoll);
        }
    }

    fn consumed(&mut self, bytes: usize) {
        // Never more than a window, so it always fits.
        self.connection.consumed(u32::try_from(bytes).unwrap_or(u32::MAX));
    }
}
