//! FUSE requests in bytes, right or wrong (Linux, include/uapi/linux/fuse.h, protocol 7.38).

use crate::names::Hostile;

/// A request under construction.
pub struct Message {
    bytes: [u8; ROOM],
    length: usize,
}

impl Message {
    /// The header of a request of root's.
    pub fn new(opcode: u32, node: u64, unique: u64) -> Message {
        let mut message = Message { bytes: [0; ROOM], length: 0 };
        message.words(&[0, opcode]).longs(&[unique, node]).words(&[0, 0, 1, 0]);
        message
    }

    /// Adds bytes; what does not fit is cut off.
    pub fn bytes(&mut self, bytes: impl IntoIterator<Item = u8>) -> &mut Message {
        for byte in bytes {
            if let Some(to) = self.bytes.get_mut(self.length) {
                *to = byte;
                self.length = self.length.saturating_add(1);
            }
        }
        self
    }

    /// Adds numbers of 32 bits.
    pub fn words(&mut self, words: &[u32]) -> &mut Message {
        self.bytes(words.iter().flat_map(|word| word.to_le_bytes()))
    }

    /// Adds numbers of 64 bits.
    pub fn longs(&mut self, longs: &[u64]) -> &mut Message {
        self.bytes(longs.iter().flat_map(|long| long.to_le_bytes()))
    }

    /// Adds a name and its NUL.
    pub fn name(&mut self, name: impl IntoIterator<Item = u8>) -> &mut Message {
        self.bytes(name).bytes([0])
    }

    /// Removes the last byte: a name's NUL.
    pub fn cut(&mut self) -> &mut Message {
        self.length = self.length.saturating_sub(1);
        self
    }

    /// The bytes, with the length that they have.
    pub fn whole(&mut self) -> &[u8] {
        self.claiming(self.length as u32)
    }

    /// The bytes, with the length that they are said to have.
    pub fn claiming(&mut self, length: u32) -> &[u8] {
        for (to, byte) in self.bytes.iter_mut().zip(length.to_le_bytes()) {
            *to = byte;
        }
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// INIT, as a current Linux sends it.
pub fn init(unique: u64) -> Message {
    let mut message = Message::new(opcode::INIT, 0, unique);
    // Of the features all but the one that leaves opens unsaid: files are to be opened here.
    message.words(&[7, 45, 128 << 10, 0x7fff_ffff & !(1 << 17), 0]).words(&[0; 11]);
    message
}

/// An operation that takes a name.
pub struct Taker {
    /// What it is called.
    pub what: &'static str,
    opcode: u32,
    fixed: Fixed,
    names: [Place; 2],
}

/// Adds what comes before the names, given a directory that exists.
type Fixed = fn(&mut Message, u64) -> &mut Message;

/// What is in a name's place.
enum Place {
    Hostile,
    Good(&'static [u8]),
    Absent,
}

impl Taker {
    /// The request, in directory `node`; `other` is another directory, for operations that take two.
    pub fn message(&self, node: u64, other: u64, name: &Hostile, unique: u64) -> Message {
        let mut message = Message::new(self.opcode, node, unique);
        (self.fixed)(&mut message, other);
        for place in &self.names {
            match place {
                Place::Hostile => message.name(name.bytes()),
                Place::Good(name) => message.name(name.iter().copied()),
                Place::Absent => &mut message,
            };
        }
        message
    }
}

const fn taker(what: &'static str, opcode: u32, fixed: Fixed, first: Place, second: Place) -> Taker {
    Taker { what, opcode, fixed, names: [first, second] }
}

use Place::{Absent, Good, Hostile as Here};

/// All of them; those that take two names, twice.
pub const TAKERS: &[Taker] = &[
    taker("LOOKUP", opcode::LOOKUP, |m, _| m, Here, Absent),
    taker("SYMLINK", opcode::SYMLINK, |m, _| m, Here, Good(b"/etc")),
    taker("MKNOD of a file", opcode::MKNOD, |m, _| m.words(&[0o100_644, 0, 0, 0]), Here, Absent),
    taker("MKNOD of a FIFO", opcode::MKNOD, |m, _| m.words(&[0o10_644, 0, 0, 0]), Here, Absent),
    taker("MKNOD of a socket", opcode::MKNOD, |m, _| m.words(&[0o140_644, 0, 0, 0]), Here, Absent),
    taker("MKNOD of a disk", opcode::MKNOD, |m, _| m.words(&[0o60_644, 0x800, 0, 0]), Here, Absent),
    taker("MKDIR", opcode::MKDIR, |m, _| m.words(&[0o755, 0]), Here, Absent),
    taker("UNLINK", opcode::UNLINK, |m, _| m, Here, Absent),
    taker("RMDIR", opcode::RMDIR, |m, _| m, Here, Absent),
    taker("RENAME from", opcode::RENAME, |m, to| m.longs(&[to]), Here, Good(b"to")),
    taker("RENAME to", opcode::RENAME, |m, to| m.longs(&[to]), Good(b"bin"), Here),
    taker("RENAME2 from", opcode::RENAME2, |m, to| m.longs(&[to, 0]), Here, Good(b"to")),
    taker("RENAME2 to", opcode::RENAME2, |m, to| m.longs(&[to, 2]), Good(b"bin"), Here),
    taker("LINK", opcode::LINK, |m, old| m.longs(&[old]), Here, Absent),
    taker("CREATE", opcode::CREATE, |m, _| m.words(&[2, 0o100_644, 0, 0]), Here, Absent),
    taker("CREATE that cuts", opcode::CREATE, |m, _| m.words(&[0o1002, 0o100_644, 0, 0]), Here, Absent),
];

/// Those that take the name of an attribute, which is no path: it may have `/` in it.
pub const ATTRIBUTES: &[Taker] = &[
    taker("SETXATTR", opcode::SETXATTR, |m, _| m.words(&[0, 0, 0, 0]), Here, Absent),
    taker("GETXATTR", opcode::GETXATTR, |m, _| m.words(&[64, 0]), Here, Absent),
    taker("REMOVEXATTR", opcode::REMOVEXATTR, |m, _| m, Here, Absent),
];

/// Names of attributes that are refused.
pub const HOSTILE_ATTRIBUTES: &[Hostile] = &[
    Hostile { begin: b"", again: (b"", 0), end: b"" },
    Hostile { begin: b"user.a\0b", again: (b"", 0), end: b"" },
    Hostile { begin: b"user.", again: (b"a", 251), end: b"" },
];

#[allow(missing_docs, reason = "the protocol's own")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const CREATE: u32 = 35;
    pub const RENAME2: u32 = 45;
}

/// The header before every request, and before every reply.
pub const IN_HEADER: usize = 40;
/// Its length, an errno below 0, the request's number.
pub const OUT_HEADER: usize = 16;
/// The directory that holds what is shared.
pub const ROOT: u64 = 1;
/// What a request may have in all.
pub const ROOM: usize = 4096;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::names::HOSTILE;
    use std::vec::Vec;

    #[test]
    fn a_request_stands_as_the_protocol_has_it() {
        let mut message = Message::new(opcode::LOOKUP, 5, 9);
        message.name(*b"ab");
        let mut expected: Vec<u8> = Vec::new();
        expected.extend([43, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(*b"ab\0");
        assert_eq!(message.whole(), expected);
        assert_eq!(&message.claiming(u32::MAX)[..4], [0xff; 4]);
        assert_eq!(message.cut().whole().len(), 42);
        assert_eq!(init(1).whole().len(), IN_HEADER + 64);
    }

    #[test]
    fn no_request_around_a_hostile_name_is_cut_off() {
        for taker in TAKERS {
            for name in HOSTILE {
                let mut message = taker.message(1, 1, name, 1);
                let length = message.whole().len();
                assert!(length > IN_HEADER + name.bytes().count() && length < ROOM, "{}", taker.what);
            }
        }
    }
}
