//! A server that goes on where another one was saved.
//!
//! Parents come before what lies in them, one name at a time through the same walls as ever (`reach`): an inode is
//! where it was, on the same filesystem, with the same number, type and moment of birth, or it is nowhere. So a wrong
//! state, or a tree that has changed meanwhile, costs `ESTALE` for that inode, and never shows another file.
//!
//! Handles hold no descriptor and are opened when they are used. Locks are taken again at once, all of them or nothing is
//! restored: a process inside goes on in the belief that it has them.

use super::super::Policy;
use super::super::exports::Export;
use super::super::handles::{Handle, HandleKind, Handles};
use super::super::inodes::{Identity, Inodes, NodeId, Place, Sighting};
use super::super::locks::{LockClass, LockKey};
use super::super::name::Name;
use super::super::state::{
    Saved, SavedHandle, SavedHandleKind, SavedInode, SavedOwner, SavedPlace, Stamp, StateError,
};
use super::super::stream::Stream;
use super::Server;
use super::init::Agreed;
use super::mounts::Mounts;
use super::reach::{look, look_at, open_path};
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::sync::Arc;

/// How a restore went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// How many inodes the guest knows.
    pub inodes: usize,
    /// How many of them are out of reach.
    pub stale: usize,
}

impl Server {
    /// Takes over what was saved. The exports are those that the machine has now; they are known by their names.
    pub fn restore(&mut self, saved: &Saved) -> Result<Restored, StateError> {
        if saved.shared != (self.policy == Policy::Shared) {
            return Err(StateError::OtherPolicy(saved.shared));
        }
        self.forget_everything();
        self.agreed = saved.agreed.map(|agreed| Agreed { submounts: agreed.submounts, opens: agreed.opens });
        self.mounts = Mounts::restored(&saved.mounts);
        self.inodes = Inodes::restored(saved.last_node);
        let outcome = self.restore_inodes(saved).and_then(|restored| {
            self.restore_handles(&saved.handles, saved.last_handle);
            for owner in &saved.owners {
                self.restore_locks(owner)?;
            }
            Ok(restored)
        });
        if outcome.is_err() {
            self.forget_everything();
            self.agreed = None;
        }
        outcome
    }

    fn restore_inodes(&mut self, saved: &Saved) -> Result<Restored, StateError> {
        let names = saved.exports.iter().map(|export| {
            (export.id, export.name.as_ref().and_then(|name| CString::new(name.as_slice()).ok()))
        });
        let exports = self.exports.renumber(names, saved.last_export);
        let mut stale = 0usize;
        for inode in downwards(&saved.inodes) {
            let Some(export) = exports.get(&inode.export) else { continue };
            let (place, identity) = match self.find_again(inode, export) {
                Ok(found) => found,
                Err(_) => {
                    stale = stale.saturating_add(1);
                    (Place::Nowhere, self.lost_identity(inode))
                }
            };
            let (salted, submount) = (inode.salted, inode.submount);
            self.inodes
                .put_back(inode.id, Sighting { export, place, identity, salted, submount }, inode.lookups)
                .map_err(|error| StateError::Host { what: "put an inode back", source: error.into() })?;
        }
        self.inodes.drop_unknown();
        Ok(Restored { inodes: saved.inodes.len(), stale })
    }

    /// Where an inode is, and who it is now. `ESTALE`, or the host's error, when it cannot be shown to be the same.
    fn find_again(&mut self, inode: &SavedInode, export: &Arc<Export>) -> Result<(Place, Identity), Errno> {
        match &inode.place {
            SavedPlace::Nowhere => Err(Errno::STALE),
            SavedPlace::Export => {
                let source = export.source()?;
                let seen = look_at(&source)?;
                let is_on =
                    self.mounts.is_on(inode.mount, &seen, || rustix::io::fcntl_dupfd_cloexec(&source, 0))?;
                Ok((Place::Export, self.proven(inode, &seen, is_on)?))
            }
            SavedPlace::Below { parent, name } => {
                let name = CString::new(name.as_slice()).map_err(|_| Errno::INVAL)?;
                let name = Name::check(&name)?;
                let directory = self.directory(*parent)?;
                let seen = look(&directory, name.as_c_str())?;
                let open = || open_path(&directory, name.as_c_str());
                let is_on = self.mounts.is_on(inode.mount, &seen, open)?;
                let place = Place::Below { parent: *parent, name: name.as_c_str().into() };
                Ok((place, self.proven(inode, &seen, is_on)?))
            }
        }
    }

    fn proven(&self, inode: &SavedInode, seen: &Statx, is_on: bool) -> Result<Identity, Errno> {
        let kind = FileType::from_raw_mode(seen.stx_mode.into());
        let same =
            seen.stx_ino == inode.ino && kind.as_raw_mode() == inode.kind && Stamp::of(seen) == inode.stamp;
        if !is_on || !same {
            return Err(Errno::STALE);
        }
        Ok(self.lost_identity(inode))
    }

    /// Who an inode was.
    fn lost_identity(&self, inode: &SavedInode) -> Identity {
        let birth = if self.mounts.is_overlay(inode.mount) { 0 } else { inode.stamp.birth() };
        Identity { mount: inode.mount, ino: inode.ino, birth, kind: FileType::from_raw_mode(inode.kind) }
    }

    fn restore_handles(&mut self, saved: &[SavedHandle], last: u64) {
        for handle in saved {
            if let SavedHandleKind::File { write } = handle.kind
                && let Ok(inode) = self.inodes.get_mut(handle.node)
            {
                let count = if write { &mut inode.writers } else { &mut inode.readers };
                *count = count.saturating_add(1);
            }
        }
        let all = saved.iter().map(|handle| {
            let kind = match handle.kind {
                SavedHandleKind::File { write } => HandleKind::File { write },
                SavedHandleKind::Directory { position } => {
                    HandleKind::Directory(Box::new(Stream::at(position)))
                }
                SavedHandleKind::Root => HandleKind::Root,
            };
            (handle.fh, Handle { node: handle.node, kind })
        });
        self.handles = Handles::restored(all, last);
    }

    fn restore_locks(&mut self, saved: &SavedOwner) -> Result<(), StateError> {
        let node = saved.node;
        if self.inodes.get(node).is_ok_and(|inode| inode.place == Place::Nowhere) {
            // Nobody can do anything with the file.
            return Ok(());
        }
        let class = if saved.flock { LockClass::Flock } else { LockClass::Posix };
        let key = LockKey { node, owner: saved.owner, class };
        for range in &saved.ranges {
            match self.lock_again(key, (saved.fh, saved.pid), range) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return Err(StateError::Lock { node }),
                Err(error) => {
                    return Err(StateError::Host { what: "take a lock again", source: error.into() });
                }
            }
        }
        Ok(())
    }
}

/// Inodes in an order in which each comes after the directory it lies in.
fn downwards(inodes: &[SavedInode]) -> Vec<&SavedInode> {
    let mut below: HashMap<NodeId, Vec<&SavedInode>> = HashMap::new();
    let mut next: Vec<&SavedInode> = Vec::new();
    for inode in inodes {
        match inode.place {
            SavedPlace::Below { parent, .. } => below.entry(parent).or_default().push(inode),
            SavedPlace::Export | SavedPlace::Nowhere => next.push(inode),
        }
    }
    let mut ordered = Vec::with_capacity(inodes.len());
    while let Some(inode) = next.pop() {
        next.extend(below.remove(&inode.id).into_iter().flatten());
        ordered.push(inode);
    }
    ordered
}
