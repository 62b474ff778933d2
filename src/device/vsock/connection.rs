//! One connection's protocol, without descriptors and without queues: credit both ways, half-closes, and what is owed
//! to the guest.
//!
//! ```text
//!  guest: REQUEST --> open (owes RESPONSE)
//!                       |-- RW, CREDIT_* both ways ------------------------------------------+
//!                       |-- SHUTDOWN from us: what the host has no more use for (owed)       |
//!                       |-- SHUTDOWN from the guest: one direction is done;                  |
//!                       |       both: owes RST --sent--> over                                |
//!                       |-- anything that breaks the protocol, or an abort: owes RST --sent--> over
//!                       +-- RST from the guest -----------------------------------------------> over
//! ```
//! What is owed is kept as flags, never as a list: however much the guest asks and however little room it gives for
//! answers, a connection owes at most one packet of each kind, and none is lost.
//!
//! All counters wrap modulo 2^32, as in the protocol.

use super::packet::{
    Header, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_RESPONSE, OP_RST, OP_RW, OP_SHUTDOWN, SHUTDOWN_RECEIVE,
    SHUTDOWN_SEND,
};

/// The protocol's state for one connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    /// Bytes received from the guest; of these, gone from our buffer; of these, known to the guest.
    received: u32,
    forwarded: u32,
    advertised: u32,
    /// Bytes sent to the guest; of these, gone from its buffer, which is this large.
    sent: u32,
    guest_forwarded: u32,
    guest_buffer: u32,
    /// What the guest will not do any more (shutdown flags).
    guest_shutdown: u32,
    /// What we will not do any more, and what of it the guest was told.
    host_shutdown: u32,
    told_shutdown: u32,
    owes_response: bool,
    owes_credit: bool,
    owes_reset: bool,
    over: bool,
}

/// What a packet from the guest brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// This many bytes of payload, for which there is room.
    Data(u32),
    /// Something that only changed the state.
    State,
    /// Something that the protocol does not allow; the connection is being reset.
    Violation,
}

impl Connection {
    /// The connection that a REQUEST opens.
    pub(super) fn accept(request: &Header) -> Connection {
        Connection {
            received: 0,
            forwarded: 0,
            advertised: 0,
            sent: 0,
            guest_forwarded: request.forwarded,
            guest_buffer: request.buffer_size,
            guest_shutdown: 0,
            host_shutdown: 0,
            told_shutdown: 0,
            owes_response: true,
            owes_credit: false,
            owes_reset: request.forwarded != 0,
            over: false,
        }
    }

    /// A packet from the guest for this connection.
    pub(super) fn receive(&mut self, header: &Header) -> Received {
        if self.is_closed() {
            // It crossed our RST, or comes after it.
            self.over |= header.op == OP_RST;
            return Received::State;
        }
        if header.op == OP_RST {
            self.over = true;
            return Received::State;
        }
        // The guest cannot have taken more out of its buffer than we have put in.
        if header.forwarded.wrapping_sub(self.guest_forwarded) > self.in_flight() {
            return self.violation();
        }
        self.guest_forwarded = header.forwarded;
        self.guest_buffer = header.buffer_size;
        match header.op {
            OP_RW => return self.receive_data(header.length),
            OP_SHUTDOWN => {
                self.guest_shutdown |= header.flags & (SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
                if self.guest_shutdown == SHUTDOWN_RECEIVE | SHUTDOWN_SEND {
                    // A clean close: the answer to it is an RST (5.10.6.5).
                    self.owes_reset = true;
                }
            }
            OP_CREDIT_REQUEST => self.owes_credit = true,
            OP_CREDIT_UPDATE => {}
            // Only the guest connects, and only once.
            _ => return self.violation(),
        }
        Received::State
    }

    /// Bytes have left our buffer (they were written, or thrown away).
    pub(super) fn consumed(&mut self, bytes: u32) {
        self.forwarded = self.forwarded.wrapping_add(bytes);
        // Half a window at a time: the guest never waits with nothing under way, and is not told of every packet.
        if self.forwarded.wrapping_sub(self.advertised) >= WINDOW / 2 {
            self.owes_credit = true;
        }
    }

    /// How many bytes the guest has room for.
    pub(super) fn credit(&self) -> u32 {
        let stopped = (self.guest_shutdown & SHUTDOWN_RECEIVE) | (self.host_shutdown & SHUTDOWN_SEND);
        if self.is_closed() || self.owes_response || stopped != 0 {
            return 0;
        }
        self.guest_buffer.saturating_sub(self.in_flight())
    }

    /// The header of a packet with `length` bytes of payload; `length` is at most [`Connection::credit`].
    pub(super) fn send(&mut self, length: u32) -> Header {
        self.sent = self.sent.wrapping_add(length);
        self.stamp(OP_RW, 0, length)
    }

    /// We have no more bytes for the guest.
    pub(super) fn stop_sending(&mut self) {
        self.host_shutdown |= SHUTDOWN_SEND;
    }

    /// We have no use for the guest's bytes any more.
    pub(super) fn stop_receiving(&mut self) {
        self.host_shutdown |= SHUTDOWN_RECEIVE;
    }

    /// Ends the connection now.
    pub(super) fn reset(&mut self) {
        self.owes_reset = true;
    }

    /// Whether the guest is owed a packet without payload.
    pub(super) fn owes(&self) -> bool {
        !self.over
            && (self.owes_reset
                || self.owes_response
                || self.owes_credit
                || self.host_shutdown != self.told_shutdown)
    }

    /// The next packet that the guest is owed; it must be delivered.
    pub(super) fn pay(&mut self) -> Option<Header> {
        if !self.owes() {
            return None;
        }
        if self.owes_reset {
            self.over = true;
            return Some(self.stamp(OP_RST, 0, 0));
        }
        if std::mem::take(&mut self.owes_response) {
            return Some(self.stamp(OP_RESPONSE, 0, 0));
        }
        if self.host_shutdown != self.told_shutdown {
            self.told_shutdown = self.host_shutdown;
            return Some(self.stamp(OP_SHUTDOWN, self.host_shutdown, 0));
        }
        Some(self.stamp(OP_CREDIT_UPDATE, 0, 0))
    }

    /// Whether the guest will send no more.
    pub(super) fn guest_sends_no_more(&self) -> bool {
        self.is_closed() || self.guest_shutdown & SHUTDOWN_SEND != 0
    }

    /// Whether the guest will take no more.
    pub(super) fn guest_takes_no_more(&self) -> bool {
        self.is_closed() || self.guest_shutdown & SHUTDOWN_RECEIVE != 0
    }

    /// Whether nothing more passes, in either direction.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    fn is_closed(&self) -> bool {
        self.over || self.owes_reset
    }

    fn receive_data(&mut self, length: u32) -> Received {
        let held = self.received.wrapping_sub(self.forwarded);
        if self.guest_shutdown & SHUTDOWN_SEND != 0 || length > WINDOW.saturating_sub(held) {
            return self.violation();
        }
        self.received = self.received.wrapping_add(length);
        Received::Data(length)
    }

    fn violation(&mut self) -> Received {
        self.owes_reset = true;
        Received::Violation
    }

    fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.guest_forwarded)
    }

    /// Every packet tells the guest how much room there is, so none owes it afterwards.
    fn stamp(&mut self, op: u16, flags: u32, length: u32) -> Header {
        self.advertised = self.forwarded;
        self.owes_credit = false;
        Header { op, flags, length, buffer_size: WINDOW, forwarded: self.forwarded, ..Header::default() }
    }
}

/// How many bytes a guest may send on one connection before the host's reader has taken them.
pub(super) const WINDOW: u32 = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::super::packet::OP_REQUEST;
    use super::*;
    use proptest::prelude::*;

    fn packet(op: u16) -> Header {
        Header { op, buffer_size: 1000, ..Header::default() }
    }

    fn open() -> Connection {
        let mut connection = Connection::accept(&packet(OP_REQUEST));
        assert_eq!(connection.credit(), 0, "nothing may overtake the RESPONSE");
        let response = connection.pay().unwrap();
        assert_eq!((response.op, response.buffer_size, response.forwarded), (OP_RESPONSE, WINDOW, 0));
        assert!(!connection.owes());
        connection
    }

    #[test]
    fn a_guest_may_fill_the_window_and_not_a_byte_more() {
        let mut connection = open();
        let half = Header { length: WINDOW / 2, ..packet(OP_RW) };
        assert_eq!(connection.receive(&half), Received::Data(WINDOW / 2));
        assert_eq!(connection.receive(&half), Received::Data(WINDOW / 2));
        let mut beyond = connection.clone();
        assert_eq!(beyond.receive(&Header { length: 1, ..packet(OP_RW) }), Received::Violation);
        assert_eq!(beyond.pay().unwrap().op, OP_RST);
        assert!(beyond.is_over());
        connection.consumed(10);
        assert!(!connection.owes(), "a few bytes are not worth a packet");
        assert_eq!(connection.receive(&Header { length: 10, ..packet(OP_RW) }), Received::Data(10));
        connection.consumed(WINDOW / 2);
        assert_eq!(connection.pay().unwrap().op, OP_CREDIT_UPDATE);
    }

    #[test]
    fn credit_is_counted_across_the_wrap_of_its_counters() {
        let mut connection = open();
        for round in 0..5_000_u32 {
            let data = Header { length: WINDOW, ..packet(OP_RW) };
            let data = Header { forwarded: connection.sent, buffer_size: u32::MAX, ..data };
            assert_eq!(connection.receive(&data), Received::Data(WINDOW), "round {round}");
            connection.consumed(WINDOW);
            assert_eq!(connection.credit(), u32::MAX);
            connection.send(1 << 20);
        }
        assert!(5_000 * u64::from(WINDOW) / 3 * 4 > u64::from(u32::MAX) / 3, "this did wrap");
        let update = Header { forwarded: connection.sent, ..packet(OP_CREDIT_UPDATE) };
        assert_eq!(connection.receive(&update), Received::State);
    }

    #[test]
    fn a_guest_that_claims_to_have_read_what_was_not_sent_is_reset() {
        let mut connection = open();
        connection.send(100);
        let lie = Header { forwarded: 101, ..packet(OP_CREDIT_UPDATE) };
        assert_eq!(connection.clone().receive(&lie), Received::Violation);
        let truth = Header { forwarded: 100, ..packet(OP_CREDIT_UPDATE) };
        assert_eq!(connection.receive(&truth), Received::State);
        let back = Header { forwarded: 99, ..packet(OP_CREDIT_UPDATE) };
        assert_eq!(connection.receive(&back), Received::Violation, "nor can it take back what it read");
    }

    #[test]
    fn a_guest_buffer_that_shrinks_leaves_no_credit() {
        let mut connection = open();
        connection.send(900);
        let shrunk = Header { buffer_size: 10, ..packet(OP_CREDIT_UPDATE) };
        assert_eq!(connection.receive(&shrunk), Received::State);
        assert_eq!(connection.credit(), 0);
    }

    #[test]
    fn a_half_close_leaves_the_other_direction_open() {
        let mut connection = open();
        connection.stop_sending();
        let shutdown = connection.pay().unwrap();
        assert_eq!((shutdown.op, shutdown.flags), (OP_SHUTDOWN, SHUTDOWN_SEND));
        assert_eq!(connection.credit(), 0);
        assert_eq!(connection.receive(&Header { length: 5, ..packet(OP_RW) }), Received::Data(5));
        connection.stop_receiving();
        let shutdown = connection.pay().unwrap();
        assert_eq!(shutdown.flags, SHUTDOWN_SEND | SHUTDOWN_RECEIVE, "flags only grow");
        assert_eq!(connection.receive(&packet(OP_RST)), Received::State);
        assert!(connection.is_over());
        assert_eq!(connection.pay(), None);
    }

    #[test]
    fn a_guest_that_closes_is_answered_with_a_reset() {
        let mut connection = open();
        let send = Header { flags: SHUTDOWN_SEND, ..packet(OP_SHUTDOWN) };
        assert_eq!(connection.receive(&send), Received::State);
        assert!(connection.guest_sends_no_more() && !connection.guest_takes_no_more());
        assert!(!connection.owes());
        assert_eq!(connection.credit(), 1000);
        assert_eq!(connection.clone().receive(&packet(OP_RW)), Received::Violation);
        let receive = Header { flags: SHUTDOWN_RECEIVE, ..packet(OP_SHUTDOWN) };
        assert_eq!(connection.receive(&receive), Received::State);
        assert_eq!(connection.pay().unwrap().op, OP_RST);
        assert!(connection.is_over());
    }

    #[test]
    fn requests_and_responses_on_an_open_connection_reset_it() {
        for op in [OP_REQUEST, OP_RESPONSE, 0, 8, u16::MAX] {
            assert_eq!(open().receive(&packet(op)), Received::Violation, "op {op}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Guest(Header),
        Consume(u32),
        Send(u32),
        StopSending,
        StopReceiving,
        Reset,
        Pay,
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = prop_oneof![Just(0_u32), 0..2000_u32, Just(WINDOW), Just(WINDOW + 1), any::<u32>()];
        let header = (0..9_u16, 0..5_u32, number.clone(), number.clone(), 0..3_u32).prop_map(
            |(op, flags, length, buffer_size, forwarded)| {
                Step::Guest(Header { op, flags, length, buffer_size, forwarded, ..Header::default() })
            },
        );
        prop_oneof![
            8 => header,
            4 => number.clone().prop_map(Step::Consume),
            4 => number.prop_map(Step::Send),
            1 => Just(Step::StopSending),
            1 => Just(Step::StopReceiving),
            1 => Just(Step::Reset),
            4 => Just(Step::Pay),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(800))]

        /// Whatever the guest sends, and whatever the host does: at most a window is held, at most the guest's
        /// buffer is in flight, and a closed connection stays closed and owes at most its RST.
        #[test]
        fn bounds_hold_for_any_sequence(steps in proptest::collection::vec(step(), 1..60)) {
            let mut connection = Connection::accept(&Header { buffer_size: 4096, ..Header::default() });
            let (mut held, mut resets) = (0_u64, 0);
            for step in steps {
                let closed = connection.is_closed();
                match step {
                    Step::Guest(header) => match connection.receive(&header) {
                        Received::Data(length) => {
                            prop_assert!(!closed && header.op == OP_RW && header.length == length);
                            held += u64::from(length);
                        }
                        Received::Violation => prop_assert!(connection.is_closed() && !closed),
                        Received::State => {}
                    },
                    Step::Consume(bytes) => {
                        let bytes = u64::from(bytes).min(held);
                        held -= bytes;
                        connection.consumed(u32::try_from(bytes).unwrap());
                    }
                    Step::Send(bytes) => {
                        let bytes = bytes.min(connection.credit());
                        if bytes > 0 {
                            connection.send(bytes);
                            prop_assert!(connection.in_flight() <= connection.guest_buffer);
                        }
                    }
                    Step::StopSending => connection.stop_sending(),
                    Step::StopReceiving => connection.stop_receiving(),
                    Step::Reset => connection.reset(),
                    Step::Pay => {
                        if let Some(paid) = connection.pay() {
                            resets += u32::from(paid.op == OP_RST);
                            prop_assert!(!closed || paid.op == OP_RST);
                        }
                    }
                }
                prop_assert!(held <= u64::from(WINDOW));
                prop_assert!(resets <= 1);
                prop_assert!(!closed || connection.is_closed());
                if connection.is_closed() {
                    prop_assert_eq!(connection.credit(), 0);
                }
            }
        }
    }
}
