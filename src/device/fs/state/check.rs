//! Whether a saved state can have come about. Pure: what it describes may be there or not, that is for the host to say.

use super::super::handles::{MAX_FILES, MAX_STREAMS};
use super::super::inodes::{MAX_DEPTH, MAX_INODES};
use super::super::locks::MAX_OWNERS;
use super::super::name::Name;
use super::super::ranges::{END, MAX_RANGES};
use super::super::wire::ROOT;
use super::{Saved, SavedHandle, SavedHandleKind, SavedInode, SavedOwner, SavedPlace, StateError};
use rustix::fs::FileType;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;

/// The most mounts: their index is mixed into the upper 16 bits of inode numbers.
const MAX_MOUNTS: usize = 1 << 16;

fn nonsense(noun: &'static str, number: u64, what: &'static str) -> StateError {
    StateError::Nonsense { noun, number, what }
}

fn count(len: usize, most: usize, noun: &'static str) -> Result<(), StateError> {
    let number = u64::try_from(len).unwrap_or(u64::MAX);
    if len > most { Err(nonsense(noun, number, "are too many")) } else { Ok(()) }
}

/// A name in the form that system calls take.
fn name_of(bytes: &[u8]) -> Option<CString> {
    let name = CString::new(bytes).ok()?;
    Name::check(&name).is_ok().then_some(name)
}

impl Saved {
    pub(super) fn check(&self) -> Result<(), StateError> {
        self.check_exports()?;
        count(self.mounts.len(), MAX_MOUNTS, "mounts")?;
        let inodes = self.check_inodes()?;
        self.check_handles(&inodes)?;
        self.check_owners(&inodes)?;
        match self.agreed {
            Some(agreed) if self.shared && !agreed.opens => {
                Err(nonsense("agreement", 0, "leaves out what a shared tree needs"))
            }
            None if !self.inodes.is_empty() || !self.handles.is_empty() => {
                Err(nonsense("agreement", 0, "is missing"))
            }
            _ => Ok(()),
        }
    }

    fn check_exports(&self) -> Result<(), StateError> {
        let (mut before, mut names) = (0, HashSet::new());
        for export in &self.exports {
            let number = export.id.into();
            if export.id <= before || export.id > self.last_export {
                return Err(nonsense("export", number, "is out of order"));
            }
            before = export.id;
            if let Some(name) = &export.name
                && (name_of(name).is_none() || !names.insert(name))
            {
                return Err(nonsense("export", number, "has an impossible name"));
            }
        }
        Ok(())
    }

    fn check_inodes(&self) -> Result<HashMap<u64, &SavedInode>, StateError> {
        count(self.inodes.len(), MAX_INODES, "inodes")?;
        let exports: HashSet<u32> = self.exports.iter().map(|export| export.id).collect();
        let (mut before, mut all) = (ROOT, HashMap::with_capacity(self.inodes.len()));
        for inode in &self.inodes {
            let wrong = |what| Err(nonsense("inode", inode.id, what));
            if inode.id <= before || inode.id > self.last_node {
                return wrong("is out of order");
            }
            before = inode.id;
            if !exports.contains(&inode.export) {
                return wrong("belongs to no export");
            }
            if usize::try_from(inode.mount).is_ok_and(|index| index >= self.mounts.len()) {
                return wrong("lies on no mount");
            }
            let kind = FileType::from_raw_mode(inode.kind);
            if kind == FileType::Unknown || kind.as_raw_mode() != inode.kind {
                return wrong("is of no type");
            }
            all.insert(inode.id, inode);
        }
        self.check_places(&all)?;
        Ok(all)
    }

    /// Every place leads up to an export, and not too far.
    fn check_places(&self, all: &HashMap<u64, &SavedInode>) -> Result<(), StateError> {
        let mut depths: HashMap<u64, usize> = HashMap::with_capacity(all.len());
        let mut parents = HashSet::new();
        for inode in &self.inodes {
            let (mut way, mut at) = (Vec::new(), inode);
            let mut depth = loop {
                if let Some(depth) = depths.get(&at.id) {
                    break *depth;
                }
                // A circle is longer than any way.
                if way.len() > MAX_DEPTH {
                    return Err(nonsense("inode", inode.id, "lies too deep"));
                }
                way.push(at.id);
                let SavedPlace::Below { parent, name } = &at.place else { break 0 };
                let above = all.get(parent).filter(|above| {
                    let directory = FileType::from_raw_mode(above.kind) == FileType::Directory;
                    directory && above.export == at.export && above.place != SavedPlace::Nowhere
                });
                let Some(above) = above else {
                    return Err(nonsense("inode", at.id, "lies in no directory"));
                };
                if name_of(name).is_none() {
                    return Err(nonsense("inode", at.id, "has an impossible name"));
                }
                parents.insert(*parent);
                at = above;
            };
            if way.len().saturating_add(depth) > MAX_DEPTH {
                return Err(nonsense("inode", inode.id, "lies too deep"));
            }
            for id in way.into_iter().rev() {
                depth = depth.saturating_add(1);
                depths.insert(id, depth);
            }
        }
        let unknown = self.inodes.iter().find(|inode| inode.lookups == 0 && !parents.contains(&inode.id));
        unknown.map_or(Ok(()), |inode| Err(nonsense("inode", inode.id, "is known to nobody")))
    }

    fn check_handles(&self, inodes: &HashMap<u64, &SavedInode>) -> Result<(), StateError> {
        count(self.handles.len(), MAX_FILES, "handles")?;
        let is_stream = |handle: &&SavedHandle| matches!(handle.kind, SavedHandleKind::Directory { .. });
        count(self.handles.iter().filter(is_stream).count(), MAX_STREAMS, "directories")?;
        let mut before = 0;
        for handle in &self.handles {
            if handle.fh <= before || handle.fh > self.last_handle {
                return Err(nonsense("handle", handle.fh, "is out of order"));
            }
            before = handle.fh;
            let kind = inodes.get(&handle.node).map(|inode| FileType::from_raw_mode(inode.kind));
            let fits = match handle.kind {
                SavedHandleKind::File { .. } => kind == Some(FileType::RegularFile),
                SavedHandleKind::Directory { position } => {
                    kind == Some(FileType::Directory) && i64::try_from(position).is_ok()
                }
                SavedHandleKind::Root => handle.node == ROOT,
            };
            if !fits {
                return Err(nonsense("handle", handle.fh, "does not fit its inode"));
            }
        }
        Ok(())
    }

    fn check_owners(&self, inodes: &HashMap<u64, &SavedInode>) -> Result<(), StateError> {
        count(self.owners.len(), MAX_OWNERS, "owners of locks")?;
        let mut before = None;
        for owner in &self.owners {
            let wrong = |what| Err(nonsense("owner of locks", owner.owner, what));
            let key = Some((owner.node, owner.flock, owner.owner));
            if key <= before || !self.shared {
                return wrong("is out of order");
            }
            before = key;
            let file = inodes.get(&owner.node).map(|inode| FileType::from_raw_mode(inode.kind));
            if file != Some(FileType::RegularFile) {
                return wrong("has locks on what is no file");
            }
            if !are_locks(owner) {
                return wrong("has impossible locks");
            }
        }
        Ok(())
    }
}

fn are_locks(owner: &SavedOwner) -> bool {
    let mut free = Some(0);
    let sorted = owner.ranges.iter().all(|range| {
        let fits =
            free.is_some_and(|free| free <= range.start) && range.start <= range.end && range.end <= END;
        free = (range.end < END).then(|| range.end.saturating_add(1));
        fits
    });
    let whole = !owner.flock || matches!(owner.ranges.as_slice(), [one] if (one.start, one.end) == (0, END));
    sorted && whole && !owner.ranges.is_empty() && owner.ranges.len() <= MAX_RANGES
}
