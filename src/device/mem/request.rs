//! What the driver asks for, and what it is answered (virtio 1.2, 5.15.6). Decoding is pure: nothing is touched by it.

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Blocks are to be plugged.
    Plug(Span),
    /// Blocks are to be unplugged.
    Unplug(Span),
    /// All blocks are to be unplugged.
    UnplugAll,
    /// Are these blocks plugged?
    State(Span),
}

/// Blocks, as the driver names them: nothing of it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first one's guest address.
    pub at: u64,
    /// How many.
    pub blocks: u16,
}

/// Reads one. `None`: there is no such request.
pub fn decode(bytes: &[u8; REQUEST]) -> Option<Request> {
    let [k0, k1, _, _, _, _, _, _, at @ .., n0, n1, _, _, _, _, _, _] = *bytes;
    let span = Span { at: u64::from_le_bytes(at), blocks: u16::from_le_bytes([n0, n1]) };
    match u16::from_le_bytes([k0, k1]) {
        PLUG => Some(Request::Plug(span)),
        UNPLUG => Some(Request::Unplug(span)),
        UNPLUG_ALL => Some(Request::UnplugAll),
        STATE => Some(Request::State(span)),
        _ => None,
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// It is done.
    Done,
    /// It is more than was asked for.
    Denied,
    /// Not now.
    Busy,
    /// It makes no sense.
    Wrong,
    /// The state of blocks.
    State(Plugged),
}

/// Whether blocks are plugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugged {
    /// All of them.
    All,
    /// None.
    None,
    /// Some.
    Some,
}

impl Response {
    /// As the driver reads it.
    pub fn bytes(self) -> [u8; RESPONSE] {
        let (kind, state) = match self {
            Response::Done => (ACK, 0),
            Response::Denied => (NACK, 0),
            Response::Busy => (BUSY, 0),
            Response::Wrong => (ERROR, 0),
            Response::State(Plugged::All) => (ACK, STATE_PLUGGED),
            Response::State(Plugged::None) => (ACK, STATE_UNPLUGGED),
            Response::State(Plugged::Some) => (ACK, STATE_MIXED),
        };
        [kind, 0, 0, 0, 0, 0, 0, 0, state, 0]
    }
}

/// Bytes of a request.
pub const REQUEST: usize = 24;
/// Bytes of an answer.
pub const RESPONSE: usize = 10;

// Virtio 1.2, 5.15.6: requests, answers, states.
const PLUG: u16 = 0;
const UNPLUG: u16 = 1;
const UNPLUG_ALL: u16 = 2;
const STATE: u16 = 3;
const ACK: u8 = 0;
const NACK: u8 = 1;
const BUSY: u8 = 2;
const ERROR: u8 = 3;
const STATE_PLUGGED: u8 = 0;
const STATE_UNPLUGGED: u8 = 1;
const STATE_MIXED: u8 = 2;

#[cfg(test)]
pub mod testing {
    //! The driver's side.

    use super::*;

    /// As the driver writes it.
    pub fn encode(request: Request) -> [u8; REQUEST] {
        let (kind, span) = match request {
            Request::Plug(span) => (PLUG, span),
            Request::Unplug(span) => (UNPLUG, span),
            Request::UnplugAll => (UNPLUG_ALL, Span { at: 0, blocks: 0 }),
            Request::State(span) => (STATE, span),
        };
        let mut bytes = [0; REQUEST];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&span.at.to_le_bytes());
        bytes[16..18].copy_from_slice(&span.blocks.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written_and_unknown_ones_are_none() {
        let span = Span { at: 0x1_2345_6789_abcd, blocks: 0xfedc };
        for request in [Request::Plug(span), Request::Unplug(span), Request::UnplugAll, Request::State(span)]
        {
            assert_eq!(decode(&testing::encode(request)), Some(request));
        }
        for kind in [4_u16, 256, u16::MAX] {
            let mut bytes = [0; REQUEST];
            bytes[..2].copy_from_slice(&kind.to_le_bytes());
            assert_eq!(decode(&bytes), None, "{kind}");
        }
    }

    #[test]
    fn answers_have_their_numbers() {
        for (response, kind, state) in [
            (Response::Done, 0, 0),
            (Response::Denied, 1, 0),
            (Response::Busy, 2, 0),
            (Response::Wrong, 3, 0),
            (Response::State(Plugged::All), 0, 0),
            (Response::State(Plugged::None), 0, 1),
            (Response::State(Plugged::Some), 0, 2),
        ] {
            let bytes = response.bytes();
            assert_eq!((bytes[0], bytes[8]), (kind, state), "{response:?}");
            assert_eq!(
                bytes.iter().filter(|byte| **byte != 0).count(),
                usize::from(kind != 0) + usize::from(state != 0)
            );
        }
    }
}
