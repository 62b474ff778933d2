//! Why a request to the agent came to nothing.

use crate::error::{ErrorKind, Kind, harmless};
use husk_protocol::{Failure, FailureKind};

/// Why a request to the agent came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The agent's own words, in which callers look for runc's.
    #[error("{}", .0.message)]
    Failed(Failure),
    /// No answer in time.
    #[error("the agent in the guest did not answer within {0:?}")]
    TimedOut(std::time::Duration),
    /// The conversation is over: the guest has ended, or the agent broke the protocol.
    #[error("the agent in the guest is gone")]
    Over,
    /// More requests are under way than a guest that answers ever leaves open.
    #[error("too many requests to the agent in the guest are not answered yet")]
    Busy,
    /// The request is longer than the agent takes.
    #[error("a request to the agent is too long")]
    TooLong,
    /// The answer does not belong to the question.
    #[error("the agent in the guest gave an answer that does not fit")]
    Unexpected,
}

impl CallError {
    /// The agent's failure, whose words end up in logs and on terminals.
    pub(super) fn told(mut failure: Failure) -> CallError {
        failure.message = harmless(&failure.message, LONGEST);
        CallError::Failed(failure)
    }
}

/// The most characters of the agent's words. A path has up to 4096, and there may be two.
const LONGEST: usize = 9000;

impl Kind for CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            CallError::Failed(failure) => match failure.kind {
                FailureKind::NotFound => ErrorKind::NotFound,
                FailureKind::InvalidState => ErrorKind::InvalidState,
                FailureKind::InvalidArgument => ErrorKind::InvalidArgument,
                FailureKind::Unsupported => ErrorKind::Unsupported,
                FailureKind::Guest => ErrorKind::Guest,
            },
            CallError::TooLong => ErrorKind::InvalidArgument,
            _ => ErrorKind::Guest,
        }
    }
}
