//! Name look-ups between the guest and a resolver that listens on the host's side of its network: what travels on the
//! stream that [`crate::Call::ServeNames`] names.
//!
//! ```text
//!   client inside --127.0.0.11:53--> agent --frame--> host --127.0.0.11:53 of the container's namespace--> resolver
//! ```
//! Each frame is one DNS message, of which neither end reads more than its length and its number. Answers carry the
//! token of their question. Whoever cannot take any more drops a frame: clients ask again.

/// A frame: token (4 bytes), transport (1), length of the message (2), all little-endian, and the message.
pub const PREFIX: usize = 7;

/// Most bytes that wait for a slow other end.
pub const MOST_WAITING: usize = 256 << 10;

/// How a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// By a datagram.
    Datagram,
    /// On a connection.
    Connection,
}

/// A question or an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The agent's name for who asked.
    pub token: u32,
    /// How it asked.
    pub transport: Transport,
    /// The message, without the length that stands before it on a connection.
    pub message: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Appends the frame to what is to be sent; false, and nothing is appended, if too much waits already or the
    /// message is longer than any.
    pub fn put(&self, to: &mut Vec<u8>) -> bool {
        let Ok(length) = u16::try_from(self.message.len()) else { return false };
        if to.len().saturating_add(self.message.len()) > MOST_WAITING {
            return false;
        }
        to.extend(self.token.to_le_bytes());
        to.push(u8::from(self.transport == Transport::Connection));
        to.extend(length.to_le_bytes());
        to.extend_from_slice(self.message);
        true
    }

    /// The first frame of what has come, and what follows it; `None` if it is not whole yet.
    pub fn take(bytes: &'a [u8]) -> Option<(Frame<'a>, &'a [u8])> {
        let ([t0, t1, t2, t3, transport, l0, l1], rest) = bytes.split_first_chunk::<PREFIX>()?;
        let (message, rest) = rest.split_at_checked(u16::from_le_bytes([*l0, *l1]).into())?;
        let transport = if *transport == 0 { Transport::Datagram } else { Transport::Connection };
        Some((Frame { token: u32::from_le_bytes([*t0, *t1, *t2, *t3]), transport, message }, rest))
    }
}

/// The first message of what has come on a connection (each has its length before it), and what follows it.
pub fn first_on_connection(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// A message as it is sent on a connection.
pub fn put_on_connection(message: &[u8], to: &mut Vec<u8>) {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    to.extend(length.to_be_bytes());
    to.extend(message.iter().take(length.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let frames = [
            Frame { token: 7, transport: Transport::Datagram, message: b"question" },
            Frame { token: u32::MAX, transport: Transport::Connection, message: b"" },
            Frame { token: 8, transport: Transport::Connection, message: &[9; 65535] },
        ];
        let mut bytes = Vec::new();
        assert!(frames.iter().all(|frame| frame.put(&mut bytes)));
        let mut rest = bytes.as_slice();
        for frame in frames {
            for cut in [0, 3, PREFIX] {
                assert_eq!(Frame::take(&rest[..cut.min(PREFIX - 1)]), None);
            }
            let (found, after) = Frame::take(rest).unwrap();
            assert_eq!(found, frame);
            rest = after;
        }
        assert!(rest.is_empty());
        assert!(!Frame { message: &[0; 65536], ..frames[0] }.put(&mut Vec::new()));
        assert!(!frames[2].put(&mut vec![0; MOST_WAITING]));
    }

    #[test]
    fn messages_on_a_connection_have_their_length_before_them() {
        let mut bytes = Vec::new();
        put_on_connection(b"abc", &mut bytes);
        assert_eq!(bytes, [0, 3, b'a', b'b', b'c']);
        assert_eq!(first_on_connection(&bytes[..4]), None);
        assert_eq!(first_on_connection(&bytes), Some((&b"abc"[..], &b""[..])));
    }
}
