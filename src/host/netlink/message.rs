//! Netlink messages: written, and taken apart. Pure.
//!
//! ```text
//!   header (16 bytes: length, kind, flags, sequence, port) | fixed part (`ifinfomsg`, `rtmsg`, ...) | attributes
//!   attribute: length with its own 4 bytes, kind, value, padding to 4
//! ```
//! Numbers are the host's, in its byte order; guest and host have one architecture.

/// A message that is being written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Message {
    /// A message of `kind` (`RTM_*`) with a fixed part.
    pub fn new(kind: u16, fixed: &[u8]) -> Message {
        let mut body = Vec::with_capacity(128);
        body.extend_from_slice(fixed);
        pad(&mut body);
        Message { kind, flags: 0, body }
    }

    /// With `NLM_F_*` flags beside those that whoever sends it sets.
    pub fn flags(mut self, flags: i32) -> Message {
        self.flags |= u16::try_from(flags).unwrap_or(0);
        self
    }

    /// With an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        put(&mut self.body, kind, value);
        self
    }

    /// With an attribute that is a 32-bit number.
    pub fn number(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// With an attribute that is text, ended by a zero.
    pub fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// With an attribute made of attributes.
    pub fn nest(self, kind: u16, inside: Nest) -> Message {
        self.attribute(kind, &inside.0)
    }

    /// All of it, to be sent. `NLM_F_REQUEST` is always set.
    pub fn finish(self, flags: i32, sequence: u32) -> Vec<u8> {
        let flags = self.flags | u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        let length = u32::try_from(self.body.len().saturating_add(HEADER)).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(self.body.len().saturating_add(HEADER));
        bytes.extend(length.to_ne_bytes());
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.body);
        bytes
    }
}

/// Attributes inside an attribute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nest(Vec<u8>);

impl Nest {
    /// None yet.
    pub fn new() -> Nest {
        Nest::default()
    }

    /// With an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Nest {
        put(&mut self.0, kind, value);
        self
    }

    /// With attributes inside.
    pub fn nest(self, kind: u16, inside: Nest) -> Nest {
        self.attribute(kind, &inside.0)
    }
}

/// Writes an attribute.
pub fn put(to: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len().saturating_add(ATTRIBUTE)).unwrap_or(u16::MAX);
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend_from_slice(value);
    pad(to);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
}

/// A message that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub kind: u16,
    /// Of the request that it answers.
    pub sequence: u32,
    /// The fixed part and the attributes.
    pub payload: &'a [u8],
}

/// The messages of one datagram.
#[derive(Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Those in `bytes`. What is cut short ends the list.
    pub fn of(bytes: &'a [u8]) -> Messages<'a> {
        Messages(bytes)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let length = usize::try_from(number(self.0, 0)?).ok()?;
        let payload = self.0.get(HEADER..length)?;
        let message = Received { kind: half(self.0, 4)?, sequence: number(self.0, 8)?, payload };
        self.0 = self.0.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some(message)
    }
}

/// The attributes in a stretch of bytes: kind (without the bits for nesting and byte order) and value.
#[derive(Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Those in `bytes`. What is cut short ends the list.
    pub fn of(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes(bytes)
    }

    /// Those behind a fixed part of this length.
    pub fn behind(payload: &'a [u8], fixed: usize) -> Attributes<'a> {
        Attributes(payload.get(fixed.next_multiple_of(ALIGN)..).unwrap_or(&[]))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let length = usize::from(half(self.0, 0)?);
        let value = self.0.get(ATTRIBUTE..length)?;
        let kind = half(self.0, 2)? & KIND;
        self.0 = self.0.get(length.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// The 32-bit number at `at`.
pub fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The 16-bit number at `at`.
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// Text up to its zero.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or(&[])).into_owned()
}

const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const ALIGN: usize = 4;
/// NLA_TYPE_MASK.
const KIND: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let inside = Nest::new().attribute(7, b"xyz");
        let message = Message::new(16, &[1; 6]).number(3, 9).text(4, "eth0").nest(5, inside);
        let bytes = message.finish(libc::NLM_F_ACK, 77);
        let received: Vec<Received<'_>> = Messages::of(&bytes).collect();
        assert_eq!((received.len(), received[0].kind, received[0].sequence), (1, 16, 77));
        let attributes: Vec<(u16, &[u8])> = Attributes::behind(received[0].payload, 6).collect();
        assert_eq!(attributes[0], (3, &9u32.to_ne_bytes()[..]));
        assert_eq!(text(attributes[1].1), "eth0");
        assert_eq!(Attributes::of(attributes[2].1).collect::<Vec<_>>(), [(7, &b"xyz"[..])]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(bytes: Vec<u8>) {
            prop_assert!(Messages::of(&bytes).count() <= bytes.len() / HEADER);
            prop_assert!(Attributes::of(&bytes).count() <= bytes.len() / ATTRIBUTE);
        }
    }
}
