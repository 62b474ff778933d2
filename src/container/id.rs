//! A container's name.

use super::error::ContainerError;
use std::fmt;

/// A name that may become a directory's: by runc's rules letters, digits and `_+-.`, but neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerId(String);

impl ContainerId {
    /// The longest name of a directory (NAME_MAX, `linux/limits.h`).
    const LONGEST: usize = 255;

    /// Checks a name.
    pub fn new(text: &str) -> Result<ContainerId, ContainerError> {
        if text.is_empty() {
            return Err(ContainerError::EmptyId);
        }
        let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte));
        if !letters || matches!(text, "." | "..") || text.len() > Self::LONGEST {
            return Err(ContainerError::InvalidId);
        }
        Ok(ContainerId(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
