//! Frames: a 4-byte little-endian length, then that many bytes of postcard.
//!
//! Pure functions over bytes, so that both ends can use them over any transport and a fuzzer can call them directly.

use serde::{Serialize, de::DeserializeOwned};

/// The longest message in bytes. A spec with a large environment is some hundred KiB.
pub const LONGEST: usize = 4 << 20;

/// What can be wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced a message longer than [`LONGEST`], or we were asked to send one.
    #[error("a message of {0} bytes is longer than the {LONGEST} that are allowed")]
    TooLong(usize),
    /// The bytes are not a message of the expected type.
    #[error("a message of {length} bytes cannot be decoded")]
    Malformed {
        /// The message's length.
        length: usize,
        /// Why.
        #[source]
        source: postcard::Error,
    },
    /// The message does not fit postcard's data model. A fault of ours.
    #[error("a message cannot be encoded")]
    Unencodable(#[source] postcard::Error),
}

/// Encodes `message` as one frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(message, vec![0; 4]).map_err(FrameError::Unencodable)?;
    let length = bytes.len().saturating_sub(4);
    let prefix =
        u32::try_from(length).ok().filter(|_| length <= LONGEST).ok_or(FrameError::TooLong(length))?;
    for (to, from) in bytes.iter_mut().zip(prefix.to_le_bytes()) {
        *to = from;
    }
    Ok(bytes)
}

/// Reads the length prefix of a frame: how many bytes of message follow it.
pub fn length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if length > LONGEST { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// Decodes the bytes that followed a prefix. Bytes left over make it malformed.
pub fn decode<T: DeserializeOwned>(message: &[u8]) -> Result<T, FrameError> {
    let malformed = |source| FrameError::Malformed { length: message.len(), source };
    match postcard::take_from_bytes(message).map_err(malformed)? {
        (value, []) => Ok(value),
        _ => Err(malformed(postcard::Error::DeserializeBadEncoding)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, ContainerKey, FromAgent, Request};
    use proptest::prelude::*;

    #[test]
    fn a_request_that_was_encoded_decodes_to_itself() {
        let request = Request { id: 7, call: Call::Start { container: ContainerKey(3) } };
        let bytes = encode(&request).unwrap();
        let (prefix, message) = bytes.split_first_chunk::<4>().unwrap();
        assert_eq!(length(*prefix).unwrap(), message.len());
        assert_eq!(decode::<Request>(message).unwrap(), request);
    }

    #[test]
    fn a_message_with_a_byte_too_many_is_refused() {
        let mut bytes = encode(&Request { id: 7, call: Call::Start { container: ContainerKey(3) } }).unwrap();
        bytes.push(0);
        assert!(decode::<Request>(&bytes[4..]).is_err());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_read() {
        assert!(length(u32::MAX.to_le_bytes()).is_err());
        assert_eq!(length((LONGEST as u32).to_le_bytes()).unwrap(), LONGEST);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<FromAgent>(&bytes);
            let _ = decode::<Request>(&bytes);
            let _ = decode::<crate::relay::ToGuest>(&bytes);
            let _ = decode::<crate::relay::FromGuest>(&bytes);
        }
    }
}
