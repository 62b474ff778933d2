//! The header of a vsock packet (virtio 1.2, 5.10.6). Any 44 bytes are a header; what it means is decided elsewhere.

/// A packet's header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) source_cid: u64,
    pub(super) destination_cid: u64,
    pub(super) source_port: u32,
    pub(super) destination_port: u32,
    /// Bytes of payload that follow; only of meaning with [`OP_RW`].
    pub(super) length: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// The sender's whole receive buffer for this connection.
    pub(super) buffer_size: u32,
    /// How many received bytes have left that buffer so far, modulo 2^32.
    pub(super) forwarded: u32,
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER_LENGTH]) -> Header {
        let [s0, s1, s2, s3, s4, s5, s6, s7, rest @ ..] = *bytes;
        let [d0, d1, d2, d3, d4, d5, d6, d7, rest @ ..] = rest;
        let [p0, p1, p2, p3, q0, q1, q2, q3, l0, l1, l2, l3, rest @ ..] = rest;
        let [k0, k1, o0, o1, f0, f1, f2, f3, b0, b1, b2, b3, w0, w1, w2, w3] = rest;
        Header {
            source_cid: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            destination_cid: u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]),
            source_port: u32::from_le_bytes([p0, p1, p2, p3]),
            destination_port: u32::from_le_bytes([q0, q1, q2, q3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            kind: u16::from_le_bytes([k0, k1]),
            op: u16::from_le_bytes([o0, o1]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
            buffer_size: u32::from_le_bytes([b0, b1, b2, b3]),
            forwarded: u32::from_le_bytes([w0, w1, w2, w3]),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let fields = self
            .source_cid
            .to_le_bytes()
            .into_iter()
            .chain(self.destination_cid.to_le_bytes())
            .chain(self.source_port.to_le_bytes())
            .chain(self.destination_port.to_le_bytes())
            .chain(self.length.to_le_bytes())
            .chain(self.kind.to_le_bytes())
            .chain(self.op.to_le_bytes())
            .chain(self.flags.to_le_bytes())
            .chain(self.buffer_size.to_le_bytes())
            .chain(self.forwarded.to_le_bytes());
        for (to, byte) in bytes.iter_mut().zip(fields) {
            *to = byte;
        }
        bytes
    }
}

/// Length of a header in bytes.
pub(super) const HEADER_LENGTH: usize = 44;

// Operations (5.10.6).
pub(super) const OP_REQUEST: u16 = 1;
pub(super) const OP_RESPONSE: u16 = 2;
pub(super) const OP_RST: u16 = 3;
pub(super) const OP_SHUTDOWN: u16 = 4;
pub(super) const OP_RW: u16 = 5;
pub(super) const OP_CREDIT_UPDATE: u16 = 6;
pub(super) const OP_CREDIT_REQUEST: u16 = 7;

// Flags of a shutdown (5.10.6.5): what its sender will not do any more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
pub(super) const SHUTDOWN_SEND: u32 = 2;

/// The one socket type that is offered (5.10.6.2).
pub(super) const TYPE_STREAM: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_are_where_the_specification_puts_them() {
        let header = Header {
            source_cid: 3,
            destination_cid: 2,
            source_port: 0x0403_0201,
            destination_port: 0x0807_0605,
            length: 0x10,
            kind: TYPE_STREAM,
            op: OP_RW,
            flags: 0x20,
            buffer_size: 0x30,
            forwarded: 0x40,
        };
        let mut expected = Vec::new();
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0, 0, 0, 1, 0, 5, 0]);
        expected.extend([0x20, 0, 0, 0, 0x30, 0, 0, 0, 0x40, 0, 0, 0]);
        assert_eq!(header.encode().to_vec(), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header_and_come_back(bytes in proptest::collection::vec(any::<u8>(), HEADER_LENGTH)) {
            let Ok(bytes) = <[u8; HEADER_LENGTH]>::try_from(bytes) else { return Ok(()) };
            prop_assert_eq!(Header::parse(&bytes).encode(), bytes);
        }
    }
}
