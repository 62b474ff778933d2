//! Why a call fails, as containerd is told: a gRPC code, which its clients act on, and words for its user.

use husk::container::ContainerError;
use husk::error::{ErrorKind, Kind, chain, plain};
use husk::machine::control::client::ClientError;
use ttrpc::Code;

/// A code and words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The code.
    pub code: Code,
    /// The words.
    pub message: String,
}

impl Failure {
    /// Any code.
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure { code, message: message.into() }
    }

    /// There is none of that name, or it has ended.
    pub fn not_found(message: impl Into<String>) -> Failure {
        Failure::new(Code::NOT_FOUND, message)
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(Code::INVALID_ARGUMENT, message)
    }

    /// Not in this state.
    pub fn precondition(message: impl Into<String>) -> Failure {
        Failure::new(Code::FAILED_PRECONDITION, message)
    }

    /// The host did not let us.
    pub fn host(attempt: &str, error: &std::io::Error) -> Failure {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => Code::NOT_FOUND,
            _ => Code::UNKNOWN,
        };
        Failure::new(code, format!("{attempt}: {}", plain(error)))
    }

    /// The same with what was attempted before its words.
    pub fn while_doing(self, attempt: &str) -> Failure {
        Failure { message: format!("{attempt}: {}", self.message), ..self }
    }
}

/// The one place where kinds of errors become codes.
fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NOT_FOUND,
        ErrorKind::AlreadyExists => Code::ALREADY_EXISTS,
        ErrorKind::InvalidState => Code::FAILED_PRECONDITION,
        ErrorKind::InvalidArgument => Code::INVALID_ARGUMENT,
        ErrorKind::Unsupported => Code::UNIMPLEMENTED,
        ErrorKind::Host | ErrorKind::Guest => Code::UNKNOWN,
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Failure {
        Failure::new(code(error.kind()), chain(&error))
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(code(error.kind()), chain(&error))
    }
}

impl From<Failure> for ttrpc::Error {
    fn from(failure: Failure) -> ttrpc::Error {
        ttrpc::Error::RpcStatus(ttrpc::get_status(failure.code, failure.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_codes_that_they_act_on() {
        let code = |error: ContainerError| Failure::from(error).code;
        assert_eq!(code(ContainerError::NotFound), Code::NOT_FOUND);
        assert_eq!(code(ContainerError::NotRunning), Code::NOT_FOUND);
        assert_eq!(code(ContainerError::Exists), Code::ALREADY_EXISTS);
        assert_eq!(code(ContainerError::WrongStatus("no".into())), Code::FAILED_PRECONDITION);
        assert_eq!(code(ContainerError::Unsupported("no".into())), Code::UNIMPLEMENTED);
        assert_eq!(
            Failure::host("open /x", &std::io::Error::from_raw_os_error(libc::ENOENT)).code,
            Code::NOT_FOUND
        );
    }
}
