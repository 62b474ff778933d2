//! The kernel's notices about a cgroup: memory.events (the OOM killer) and cgroup.events (frozen).
//!
//! Both files raise EPOLLPRI when they change, and are quiet again once read.

use super::Cgroup;
use crate::sys;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

/// One of the files, kept open.
pub struct Events(File);

impl Events {
    /// Opens it.
    pub fn open(cgroup: &Cgroup, name: &str) -> sys::Result<Self> {
        let events = Self(cgroup.open(name, libc::O_RDONLY)?);
        events.count(""); // only what happens from now on is an event
        Ok(events)
    }

    /// The number beside a key; 0 if it is not there.
    pub fn count(&self, key: &str) -> u64 {
        let mut bytes = [0u8; 512];
        let length = self.0.read_at(&mut bytes, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned();
        number(&text, key).unwrap_or(0)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number beside a key in a flat keyed file.
pub fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whole() {
        let text = "low 0\noom 2\noom_kill 3\noom_group_kill 4\n";
        assert_eq!(number(text, "oom_kill"), Some(3));
        assert_eq!(number(text, "oom"), Some(2));
        assert_eq!(number(text, "kill"), None);
    }
}
