//! Locks on directories, held by a descriptor: the kernel lets go of them however their holder ends.

use super::deadline;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// An exclusive lock on a directory. Let go when dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    locked: Flock<File>,
}

impl DirectoryLock {
    /// Takes the lock, waiting up to `patience` for another holder. `Ok(None)`: it was held all the time.
    pub fn take(directory: &Path, patience: Duration) -> io::Result<Option<DirectoryLock>> {
        let until = deadline::after(patience);
        let mut file = File::open(directory)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(Some(DirectoryLock { locked })),
                Err((_, Errno::EWOULDBLOCK)) if Instant::now() >= until => return Ok(None),
                Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) => file = back,
                Err((_, errno)) => return Err(errno.into()),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether `directory` still names what is locked (it may have been removed and made anew meanwhile).
    pub fn still_names(&self, directory: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.locked.metadata(), std::fs::metadata(directory)) {
            (Ok(ours), Ok(there)) => identity(ours) == identity(there),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_cannot_be_taken_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path(), Duration::ZERO).unwrap().unwrap();
        assert!(DirectoryLock::take(directory.path(), Duration::ZERO).unwrap().is_none());
        drop(first);
        assert!(DirectoryLock::take(directory.path(), Duration::ZERO).unwrap().is_some());
    }

    #[test]
    fn a_lock_on_a_removed_directory_does_not_count_for_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        let lock = DirectoryLock::take(&inner, Duration::ZERO).unwrap().unwrap();
        assert!(lock.still_names(&inner));
        std::fs::remove_dir(&inner).unwrap();
        assert!(!lock.still_names(&inner));
        std::fs::create_dir(&inner).unwrap();
        std::fs::create_dir(directory.path().join("other")).unwrap();
        assert!(!lock.still_names(&directory.path().join("other")));
    }
}
