//! What the agent sends, from bytes to messages in their turn. Every byte is the guest's.

use husk_protocol::{FromAgent, frame};

/// Bytes that have come and are no whole message yet.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Whether the agent has greeted.
    greeted: bool,
}

impl Inbox {
    /// Adds `bytes`, and takes all whole messages out. At most one message that is not whole is kept, and none is
    /// longer than [`frame`] allows.
    pub fn take(&mut self, bytes: &[u8], mut with: impl FnMut(FromAgent)) -> Result<(), Broken> {
        self.bytes.extend_from_slice(bytes);
        let mut rest = self.bytes.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let length = frame::length(*prefix)?;
            let Some((message, after)) = after.split_at_checked(length) else { break };
            let message = frame::decode::<FromAgent>(message)?;
            if matches!(message, FromAgent::Ready(_)) == self.greeted {
                return Err(Broken::OutOfTurn);
            }
            self.greeted = true;
            with(message);
            rest = after;
        }
        let taken = self.bytes.len().saturating_sub(rest.len());
        self.bytes.drain(..taken);
        Ok(())
    }
}

/// How the agent broke the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// A length beyond the limit, or bytes that decode to nothing.
    #[error("the agent sent something that is not a message")]
    Frame(#[from] frame::FrameError),
    /// Its first message must be its greeting, and no other may.
    #[error("the agent greeted twice, or spoke before it greeted")]
    OutOfTurn,
    /// Not the agent's fault, as far as we can see.
    #[error("the connection to the agent failed")]
    Host(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever comes, in whatever pieces: no panic, and no more kept than one message.
        #[test]
        fn random_bytes_are_messages_or_the_end(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut inbox = Inbox::default();
            for piece in pieces {
                if inbox.take(&piece, |_| {}).is_err() {
                    break;
                }
                prop_assert!(inbox.bytes.len() <= frame::LONGEST + 4);
            }
        }
    }
}
