//! What an agent may send, to the host's end of the conversation.

use super::inbox::Inbox;
use husk_protocol::{Request, frame};

/// Any bytes, in pieces as they may come.
pub fn inbox(bytes: &[u8]) {
    let mut inbox = Inbox::default();
    let (sizes, bytes) = bytes.split_at(bytes.len().min(8));
    let mut rest = bytes;
    for size in sizes.iter().cycle().take(64) {
        let (piece, after) = rest.split_at(rest.len().min(usize::from(*size)));
        rest = after;
        if inbox.take(piece, |_| {}).is_err() {
            return;
        }
    }
    let _ = inbox.take(rest, |_| {});
}

/// The guest's end: what a host may ask.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = frame::decode::<Request>(bytes) {
        let again = frame::encode(&request).expect("what was decoded can be encoded");
        let message = again.get(4..).unwrap_or(&[]);
        assert!(frame::decode::<Request>(message).is_ok_and(|same| same == request));
    }
}
