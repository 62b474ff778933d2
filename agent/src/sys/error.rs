//! An errno in the words that callers match.

use nix::errno::Errno;
use std::ffi::CStr;
use std::fmt;

/// Why a system call failed. Shown as Go shows it, since callers of runc look for that text: `no such file or
/// directory`, `permission denied`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Error(pub Errno);

/// Of a system call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The errno of the call that has just failed.
    pub fn last() -> Self {
        Self(Errno::last())
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 96];
        // SAFETY: the buffer is ours and its length is told; glibc ends the text with a NUL within it.
        let status = unsafe { libc::strerror_r(self.0 as i32, text.as_mut_ptr().cast(), text.len()) };
        let text = CStr::from_bytes_until_nul(&text).ok().and_then(|text| text.to_str().ok());
        match text {
            Some(text) if status == 0 && !text.is_empty() => {
                let mut letters = text.chars();
                letters.next().map_or(Ok(()), |first| write!(to, "{}", first.to_ascii_lowercase()))?;
                to.write_str(letters.as_str())
            }
            _ => write!(to, "errno {}", self.0 as i32),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_reads_as_go_words_it() {
        for (errno, words) in [
            (Errno::ENOENT, "no such file or directory"),
            (Errno::EACCES, "permission denied"),
            (Errno::EPERM, "operation not permitted"),
            (Errno::EISDIR, "is a directory"),
            (Errno::ENOTDIR, "not a directory"),
            (Errno::ENOEXEC, "exec format error"),
            (Errno::EINVAL, "invalid argument"),
        ] {
            assert_eq!(Error(errno).to_string(), words);
        }
    }
}
