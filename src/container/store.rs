//! Where containers are kept: one directory each below the root that `--root` names.
//!
//! ```text
//!   ROOT/              0700
//!     ID/              0700   locked (flock) by whoever creates or deletes the container
//!       state.json     0600   see super::state
//!       control.sock   0600   the machine listens here
//!       seccomp        0600   the compiled profile, for exec'd processes
//! ```
//! The root's own lock covers the moment between making a container's directory and locking it, so that of two who
//! create the same container, or one who creates and one who deletes, exactly one wins.

use super::error::{ContainerError, host};
use super::id::ContainerId;
use crate::host::deadline;
use crate::host::lock::DirectoryLock;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the root's lock may be held by others: each holds it for a few system calls.
const ROOT_PATIENCE: Duration = Duration::from_secs(10);

/// All containers below one root.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A container's directory, locked.
#[derive(Debug)]
pub struct Reserved {
    /// The directory.
    pub directory: PathBuf,
    lock: DirectoryLock,
}

impl Store {
    /// The containers below `root`, which need not exist.
    pub fn new(root: &Path) -> Store {
        Store { root: root.to_owned() }
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A container's directory.
    pub fn directory(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// Makes the directory of a new container and locks it.
    pub fn reserve(&self, id: &ContainerId) -> Result<Reserved, ContainerError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(host("mkdir", &self.root))?;
        let _root = self.lock_root()?;
        let directory = self.directory(id);
        DirBuilder::new().mode(0o700).create(&directory).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ContainerError::Exists,
            _ => host("mkdir", &directory)(error),
        })?;
        match DirectoryLock::take(&directory, Duration::ZERO) {
            Ok(Some(lock)) => Ok(Reserved { directory, lock }),
            Ok(None) => Err(ContainerError::Exists),
            Err(error) => Err(host("lock", &directory)(error)),
        }
    }

    /// Locks the directory of a container that exists, waiting up to `patience` for who creates or deletes it.
    /// `Ok(None)`: still held by another.
    pub fn lock(&self, id: &ContainerId, patience: Duration) -> Result<Option<Reserved>, ContainerError> {
        let directory = self.directory(id);
        let missing = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ContainerError::NotFound,
            _ => host("lock", &directory)(error),
        };
        let until = deadline::after(patience);
        loop {
            // Under the root's lock: nobody is between making this directory and locking it.
            let root = DirectoryLock::take(&self.root, ROOT_PATIENCE).map_err(missing)?;
            let taken = DirectoryLock::take(&directory, Duration::ZERO).map_err(missing)?;
            drop(root);
            match taken {
                Some(lock) if lock.still_names(&directory) => return Ok(Some(Reserved { directory, lock })),
                Some(_) => return Err(ContainerError::NotFound),
                None if Instant::now() >= until => return Ok(None),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// The names of all containers, sorted. What is not a container's name is passed over.
    pub fn list(&self) -> io::Result<Vec<ContainerId>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let id = entry.file_name().to_str().and_then(|name| ContainerId::new(name).ok());
            ids.extend(id.filter(|_| is_directory));
        }
        ids.sort();
        Ok(ids)
    }

    fn lock_root(&self) -> Result<DirectoryLock, ContainerError> {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        DirectoryLock::take(&self.root, ROOT_PATIENCE)
            .and_then(|lock| lock.ok_or_else(busy))
            .map_err(host("lock", &self.root))
    }
}

impl Reserved {
    /// Removes the directory with all that is in it.
    pub fn remove(self) -> Result<(), ContainerError> {
        let removed = std::fs::remove_dir_all(&self.directory);
        drop(self.lock);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(host("unable to remove container state dir", self.directory)(error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn id(text: &str) -> ContainerId {
        ContainerId::new(text).unwrap()
    }

    #[test]
    fn of_many_who_reserve_one_name_exactly_one_wins() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("deep/er"));
        let won: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..16).map(|_| scope.spawn(|| store.reserve(&id("one")))).collect();
            let results: Vec<_> = tries.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(ContainerError::Exists))));
            results.iter().filter(|result| result.is_ok()).count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn directories_are_private_whatever_the_umask() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(&root.path().join("state"));
        let reserved = store.reserve(&id("one")).unwrap();
        for directory in [store.root(), &reserved.directory] {
            assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_container_that_is_being_created_cannot_be_locked_and_one_that_was_removed_is_not_found() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let reserved = store.reserve(&id("one")).unwrap();
        assert!(store.lock(&id("one"), Duration::from_millis(30)).unwrap().is_none());
        reserved.remove().unwrap();
        assert!(matches!(store.lock(&id("one"), Duration::ZERO), Err(ContainerError::NotFound)));
        assert!(store.reserve(&id("one")).is_ok());
    }

    #[test]
    fn what_is_not_a_container_is_not_listed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::new(root.path());
        let _two = store.reserve(&id("two")).unwrap();
        let _one = store.reserve(&id("one")).unwrap();
        std::fs::create_dir(root.path().join("not a name")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        assert_eq!(store.list().unwrap(), [id("one"), id("two")]);
    }
}
