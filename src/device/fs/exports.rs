//! What the guest may see: named sources in a directory that exists nowhere on the host.
//!
//! The machine adds and removes exports from its control thread while the file server runs on the device's; the two
//! share this list and nothing else. An export that is removed lets go of its descriptors as soon as the server has
//! noticed (it is woken), and everything below it answers `ESTALE` from then on.

use super::name::Name;
use super::sockets::Neighbour;
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// The synthetic root directory.
pub struct Exports {
    list: Mutex<List>,
    /// Tells the server that an export is gone. `None` when the host had no descriptor left for it: then the server
    /// finds out at the guest's next request.
    changed: Option<EventFd>,
    /// Set before the device runs, if at all.
    neighbour: OnceLock<Arc<dyn Neighbour>>,
}

#[derive(Default)]
struct List {
    by_name: BTreeMap<CString, Arc<Export>>,
    next_id: u32,
}

/// One source.
#[derive(Debug)]
pub struct Export {
    /// Never used twice; 0 is the synthetic root itself.
    pub id: u32,
    /// Whether the guest may change nothing.
    pub read_only: bool,
    /// What is shared: a directory, or one file, alone. `None` once it is removed, so that the host's filesystem is
    /// let go of although the guest still remembers inodes of it.
    source: Mutex<Option<Arc<OwnedFd>>>,
    removed: AtomicBool,
}

impl Export {
    /// The source, or `ESTALE`.
    pub fn source(&self) -> Result<Arc<OwnedFd>, Errno> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Errno::STALE)
    }

    fn gone(id: u32) -> Export {
        Export { id, read_only: true, source: Mutex::default(), removed: AtomicBool::new(true) }
    }

    fn with_number(&self, id: u32) -> Arc<Export> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let removed = AtomicBool::new(self.is_removed());
        Arc::new(Export { id, read_only: self.read_only, source: Mutex::new(source), removed })
    }

    /// Whether the guest has lost it.
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }
}

/// Which directory or file a source is, by whatever mount it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    /// Of what a descriptor stands for.
    pub fn of(source: impl AsFd) -> Option<Identity> {
        let seen = statx(source, c"", AtFlags::EMPTY_PATH, StatxFlags::INO).ok()?;
        Some(Identity { device: (seen.stx_dev_major, seen.stx_dev_minor), inode: seen.stx_ino })
    }
}

/// Why a source could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The name is not one component of a path.
    #[error("an export cannot be called {0:?}")]
    Name(String),
    /// There is one already.
    #[error("there is an export called {0:?} already")]
    Exists(String),
    /// It cannot be looked at.
    #[error("the source of export {name:?} cannot be used")]
    Source {
        /// The export's name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Symbolic links are resolved by whoever declares the source.
    #[error("the source of export {0:?} is a symbolic link")]
    Link(String),
}

impl Exports {
    /// An empty root.
    pub fn new() -> Arc<Exports> {
        Arc::new(Exports {
            list: Mutex::default(),
            changed: EventFd::new(EFD_NONBLOCK).ok(),
            neighbour: OnceLock::new(),
        })
    }

    /// Who is told of sockets. To be called before the device runs; only the first one counts.
    pub fn set_neighbour(&self, neighbour: Arc<dyn Neighbour>) {
        let _ = self.neighbour.set(neighbour);
    }

    /// Who is told of sockets.
    pub(super) fn neighbour(&self) -> Option<Arc<dyn Neighbour>> {
        self.neighbour.get().cloned()
    }

    /// Shows `source` to the guest as `/name`. The descriptor is an `O_PATH` one whose `..` leads nowhere: from
    /// `open_tree(OPEN_TREE_CLONE)`, or below the machine's own root.
    pub fn add(&self, name: &str, source: OwnedFd, read_only: bool) -> Result<(), FsError> {
        let checked = CString::new(name).map_err(|_| FsError::Name(name.to_owned()))?;
        Name::check(&checked).map_err(|_| FsError::Name(name.to_owned()))?;
        let seen = statx(&source, c"", AtFlags::EMPTY_PATH, StatxFlags::TYPE)
            .map_err(|error| FsError::Source { name: name.to_owned(), source: error.into() })?;
        let kind = FileType::from_raw_mode(seen.stx_mode.into());
        if kind == FileType::Symlink {
            return Err(FsError::Link(name.to_owned()));
        }
        let mut list = self.lock();
        if list.by_name.contains_key(&checked) {
            return Err(FsError::Exists(name.to_owned()));
        }
        list.next_id = list.next_id.saturating_add(1);
        let source = Mutex::new(Some(Arc::new(source)));
        let export = Export { id: list.next_id, read_only, source, removed: AtomicBool::new(false) };
        list.by_name.insert(checked, Arc::new(export));
        Ok(())
    }

    /// Takes an export from the guest, whatever it is doing with it. Nothing happens when there is none of that name.
    pub fn remove(&self, name: &str) {
        let Ok(name) = CString::new(name) else { return };
        let Some(export) = self.lock().by_name.remove(&name) else { return };
        export.removed.store(true, Ordering::Release);
        export.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(changed) = &self.changed {
            // Full means that the server has not caught up: it will.
            let _ = changed.write(1);
        }
    }

    /// What lies behind an export's name, if there is one.
    pub fn identity(&self, name: &str) -> Option<Identity> {
        let name = CString::new(name).ok()?;
        let export = self.lock().by_name.get(&name).cloned()?;
        Identity::of(&*export.source().ok()?)
    }

    /// The export of a name.
    pub(super) fn get(&self, name: Name<'_>) -> Option<Arc<Export>> {
        self.lock().by_name.get(name.as_c_str()).cloned()
    }

    /// All exports after the one with id `after`, in the order in which they came.
    pub(super) fn after(&self, after: u64) -> Vec<(CString, Arc<Export>)> {
        let list = self.lock();
        let mut found: Vec<_> =
            list.by_name.iter().filter(|(_, export)| u64::from(export.id) > after).collect();
        found.sort_by_key(|(_, export)| export.id);
        found.into_iter().map(|(name, export)| (name.clone(), export.clone())).collect()
    }

    /// All, by number, with the highest number that there ever was.
    pub(super) fn all(&self) -> (Vec<(CString, Arc<Export>)>, u32) {
        (self.after(0), self.lock().next_id)
    }

    /// Gives exports the numbers that they had in another process, by name; those that were not there get others, above
    /// `last`. What is returned are the exports by these numbers, the ones that are not here any more as well.
    pub(super) fn renumber(
        &self,
        before: impl IntoIterator<Item = (u32, Option<CString>)>,
        last: u32,
    ) -> HashMap<u32, Arc<Export>> {
        let mut list = self.lock();
        let (mut here, mut by_number) = (std::mem::take(&mut list.by_name), HashMap::new());
        for (id, name) in before {
            let export = match name.and_then(|name| here.remove_entry(&name)) {
                Some((name, export)) => list.by_name.entry(name).or_insert(export.with_number(id)).clone(),
                None => Arc::new(Export::gone(id)),
            };
            by_number.insert(id, export);
        }
        list.next_id = last;
        for (name, export) in here {
            list.next_id = list.next_id.saturating_add(1);
            let export = export.with_number(list.next_id);
            list.by_name.insert(name, export);
        }
        by_number
    }

    /// Readable when exports were removed.
    pub(super) fn changed(&self) -> Option<&EventFd> {
        self.changed.as_ref()
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
