//! What stands before each frame: `struct virtio_net_hdr` (virtio 1.2, 5.1.6), checked. Pure: bytes in, bytes out.

use super::{HEADER, LONGEST, Offloads, SHORTEST};

/// A header that is true to its frame and asks for nothing that was not agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether a checksum is to be filled in.
    checksum: Option<Checksum>,
    /// Whether the frame is to be cut into segments.
    segments: Option<Segments>,
}

/// Sum from `start`, and put it `offset` bytes behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Checksum {
    start: u16,
    offset: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segments {
    kind: u8,
    header_length: u16,
    size: u16,
}

/// Why a frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than an Ethernet header, or longer than any frame.
    Length,
    /// A kind of segmentation, or a checksum, that was not agreed upon.
    Offload,
    /// The checksum lies outside of the frame.
    Checksum,
    /// Segments without a size or without a checksum, or with a header longer than the frame.
    Segments,
}

impl Header {
    /// Reads the header of a frame of `length` bytes (the header not counted).
    pub fn parse(bytes: &[u8; HEADER], length: usize, agreed: Offloads) -> Result<Header, Refused> {
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(Refused::Length);
        }
        let [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1, _, _] = *bytes;
        let half = |low, high| u16::from_le_bytes([low, high]);
        let checksum =
            (flags & NEEDS_CSUM != 0).then(|| Checksum { start: half(c0, c1), offset: half(o0, o1) });
        if let Some(Checksum { start, offset }) = checksum {
            if !agreed.checksum {
                return Err(Refused::Offload);
            }
            let end = usize::from(start).saturating_add(offset.into()).saturating_add(2);
            if usize::from(start) < SHORTEST || end > length {
                return Err(Refused::Checksum);
            }
        }
        let plain = kind & !ECN;
        let segments = match plain {
            NONE if kind == NONE => None,
            TCP4 if agreed.tcp4 => Some(kind),
            TCP6 if agreed.tcp6 => Some(kind),
            UDP if agreed.udp && kind == UDP => Some(kind),
            _ => return Err(Refused::Offload),
        };
        if kind & ECN != 0 && !agreed.ecn {
            return Err(Refused::Offload);
        }
        let segments =
            segments.map(|kind| Segments { kind, header_length: half(l0, l1), size: half(s0, s1) });
        if let Some(Segments { header_length, size, .. }) = segments
            && (size == 0 || checksum.is_none() || usize::from(header_length) > length)
        {
            return Err(Refused::Segments);
        }
        Ok(Header { checksum, segments })
    }

    /// The header as the host's kernel gets it: made anew from what was checked.
    pub fn bytes(self) -> [u8; HEADER] {
        let (mut flags, mut start, mut offset) = (0, [0; 2], [0; 2]);
        if let Some(checksum) = self.checksum {
            (flags, start, offset) =
                (NEEDS_CSUM, checksum.start.to_le_bytes(), checksum.offset.to_le_bytes());
        }
        let (mut kind, mut length, mut size) = (NONE, [0; 2], [0; 2]);
        if let Some(segments) = self.segments {
            kind = segments.kind;
            (length, size) = (segments.header_length.to_le_bytes(), segments.size.to_le_bytes());
        }
        let [l0, l1] = length;
        let [s0, s1] = size;
        let [c0, c1] = start;
        let [o0, o1] = offset;
        [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1, 0, 0]
    }
}

// Virtio 1.2, 5.1.6.
const NEEDS_CSUM: u8 = 1;
const NONE: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
/// Virtio 1.3.
const UDP: u8 = 5;
const ECN: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Offloads = Offloads { checksum: true, tcp4: true, tcp6: true, ecn: true, udp: true };

    fn bytes(flags: u8, kind: u8, numbers: [u16; 4]) -> [u8; HEADER] {
        let mut bytes = [0xaa; HEADER];
        (bytes[0], bytes[1]) = (flags, kind);
        for (at, number) in numbers.iter().enumerate() {
            bytes[2 + 2 * at..4 + 2 * at].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn what_was_agreed_upon_passes_and_comes_out_the_same() {
        for (flags, kind, numbers) in [
            (0, 0, [0; 4]),
            (1, 0, [0, 0, 34, 16]),
            (1, 1, [54, 1448, 34, 16]),
            (1, 4, [74, 1428, 54, 16]),
            (1, 0x81, [54, 1448, 34, 16]),
            (1, 5, [42, 1400, 34, 6]),
        ] {
            let given = bytes(flags, kind, numbers);
            let mut expected = given;
            expected[10..].fill(0);
            assert_eq!(Header::parse(&given, 1514, ALL).unwrap().bytes(), expected);
        }
    }

    #[test]
    fn what_the_kernel_need_not_see_is_not_passed_on() {
        // DATA_VALID, numbers without a meaning.
        let parsed = Header::parse(&bytes(2, 0, [9, 9, 9, 9]), 60, ALL).unwrap();
        assert_eq!(parsed.bytes(), [0; HEADER]);
    }

    #[test]
    fn lies_are_refused() {
        let none = Offloads::default();
        for (given, length, agreed, why) in [
            (bytes(0, 0, [0; 4]), 13, ALL, Refused::Length),
            (bytes(0, 0, [0; 4]), LONGEST + 1, ALL, Refused::Length),
            (bytes(1, 0, [0, 0, 34, 16]), 60, none, Refused::Offload),
            (bytes(1, 1, [54, 1448, 34, 16]), 1514, Offloads { checksum: true, ..none }, Refused::Offload),
            (bytes(1, 0x81, [54, 1448, 34, 16]), 1514, Offloads { ecn: false, ..ALL }, Refused::Offload),
            (bytes(1, 3, [42, 1448, 34, 6]), 1514, ALL, Refused::Offload),
            (bytes(1, 5, [42, 1448, 34, 6]), 1514, Offloads { udp: false, ..ALL }, Refused::Offload),
            (bytes(1, 0x85, [42, 1448, 34, 6]), 1514, ALL, Refused::Offload),
            (bytes(0, 5, [42, 1448, 34, 6]), 1514, ALL, Refused::Segments),
            (bytes(0, 0x80, [0; 4]), 60, ALL, Refused::Offload),
            (bytes(1, 0, [0, 0, 50, 10]), 61, ALL, Refused::Checksum),
            (bytes(1, 0, [0, 0, 65535, 65535]), 61, ALL, Refused::Checksum),
            (bytes(1, 0, [0, 0, 13, 16]), 61, ALL, Refused::Checksum),
            (bytes(1, 1, [54, 0, 34, 16]), 1514, ALL, Refused::Segments),
            (bytes(0, 1, [54, 1448, 34, 16]), 1514, ALL, Refused::Segments),
            (bytes(1, 1, [1515, 1448, 34, 16]), 1514, ALL, Refused::Segments),
        ] {
            assert_eq!(Header::parse(&given, length, agreed), Err(why), "{given:?} {length}");
        }
    }

    proptest! {
        #[test]
        fn what_passes_passes_again(given: [u8; HEADER], length in 0usize..70_000) {
            if let Ok(header) = Header::parse(&given, length, ALL) {
                prop_assert_eq!(Header::parse(&header.bytes(), length, ALL), Ok(header));
            }
        }
    }
}
