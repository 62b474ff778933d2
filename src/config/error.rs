//! Why a specification cannot be turned into a container. Every error names the field.

use crate::error::{ErrorKind, Kind};

/// What is wrong, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// The field's value makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field, `linux.namespaces[2].path`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// husk cannot do what the field asks for.
    #[error("{field}: {reason}")]
    Unsupported {
        /// Path of the field.
        field: String,
        /// Why not, and what to do instead.
        reason: String,
    },
}

impl Kind for ConfigError {
    fn kind(&self) -> ErrorKind {
        match self {
            ConfigError::Invalid { .. } => ErrorKind::InvalidArgument,
            ConfigError::Unsupported { .. } => ErrorKind::Unsupported,
        }
    }
}

/// An [`ConfigError::Invalid`].
pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { field: field.into(), reason: reason.into() }
}

/// An [`ConfigError::Unsupported`].
pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> ConfigError {
    ConfigError::Unsupported { field: field.into(), reason: reason.into() }
}

/// A string that will be a C string in the guest.
pub(crate) fn c_string(field: &str, value: &str) -> Result<String, ConfigError> {
    if value.contains('\0') { Err(invalid(field, "contains a null byte")) } else { Ok(value.to_owned()) }
}

/// A path that will be a C string in the guest, as the text that the protocol carries.
pub(crate) fn path_string(field: &str, path: &std::path::Path) -> Result<String, ConfigError> {
    let text = path.to_str().ok_or_else(|| invalid(field, "is not valid UTF-8"))?;
    c_string(field, text)
}
