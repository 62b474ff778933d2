//! What the server remembers, written down. Only the owner of the machine asks for it, while nothing is served.
//!
//! Nothing is kept up to date for this: names are where they always stand, in the inodes' table. They are looked at
//! once more here, so that what is written down as being somewhere is there. Of what the host has renamed, and of which
//! a descriptor happens to be at hand, the host's kernel knows the name (`/proc/self/fd`); the rest is out of reach then,
//! as it is to the guest now.

use super::super::Policy;
use super::super::descriptors::Use;
use super::super::handles::HandleKind;
use super::super::inodes::{MAX_DEPTH, NodeId, Place, Sighting};
use super::super::locks::LockClass;
use super::super::name::Name;
use super::super::state::{
    Saved, SavedAgreement, SavedExport, SavedHandle, SavedHandleKind, SavedInode, SavedOwner, SavedPlace,
    Stamp,
};
use super::Server;
use super::reach::{FdName, look, look_at};
use rustix::fs::{Statx, readlinkat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::AsFd;

impl Server {
    /// All of it.
    pub fn save(&mut self) -> Saved {
        self.drop_removed();
        self.follow_renames();
        let (ids, last_node) = self.inodes.all();
        let mut inodes: Vec<SavedInode> =
            self.by_directory(&ids).into_iter().filter_map(|id| self.save_inode(id).ok()).collect();
        inodes.sort_unstable_by_key(|inode| inode.id);
        forget_the_lost(&mut inodes);
        let (exports, last_export) = self.save_exports(&inodes);
        let (handles, last_handle) = self.save_handles(&inodes);
        Saved {
            shared: self.policy == Policy::Shared,
            agreed: self
                .agreed
                .map(|agreed| SavedAgreement { submounts: agreed.submounts, opens: agreed.opens }),
            exports,
            last_export,
            mounts: self.mounts.save(),
            owners: self.save_owners(&inodes),
            inodes,
            last_node,
            handles,
            last_handle,
        }
    }

    /// Looks for inodes that are not where they were, and of which a descriptor is at hand.
    fn follow_renames(&mut self) {
        for id in self.inodes.all().0 {
            let at_hand = [Use::Write(id), Use::Read(id), Use::Path(id)]
                .iter()
                .any(|what| self.descriptors.holds(*what));
            if at_hand && self.where_it_was(id).is_err() {
                // Out of reach, should that fail as well.
                let _ = self.follow_rename(id);
            }
        }
    }

    /// Looks at an inode where it should be, whatever is at hand. `ESTALE` when it is not there.
    fn where_it_was(&mut self, id: NodeId) -> Result<Statx, Errno> {
        let inode = self.inodes.get(id)?;
        if inode.export.is_removed() {
            return Err(Errno::STALE);
        }
        match inode.place.clone() {
            Place::Nowhere => Err(Errno::STALE),
            Place::Export => {
                let identity = inode.identity;
                let source = inode.export.source()?;
                let seen = look_at(&source)?;
                let found = self.mounts.identify(&seen, || rustix::io::fcntl_dupfd_cloexec(&source, 0))?;
                if found == identity { Ok(seen) } else { Err(Errno::STALE) }
            }
            Place::Below { parent, name } => {
                let directory = self.path(parent)?;
                let seen = look(&directory, &name)?;
                self.verify(id, &seen, &directory, &name)?;
                Ok(seen)
            }
        }
    }

    /// Finds an inode under the name that the host's kernel knows, and notes its place.
    fn follow_rename(&mut self, id: NodeId) -> Result<(), Errno> {
        let found = self.at_hand(id)?.ok_or(Errno::STALE)?;
        let export = self.inodes.get(id)?.export.clone();
        let (path, top) = (self.host_name(&found)?, self.host_name(&*export.source()?)?);
        let below = path.to_bytes().strip_prefix(top.to_bytes()).ok_or(Errno::STALE)?;
        let mut at = self.enter_export(&export)?.nodeid;
        let mut entered = vec![at];
        let mut names = below.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let outcome = names.try_for_each(|name| {
            let name = CString::new(name).map_err(|_| Errno::STALE)?;
            at = self.note(at, Name::check(&name)?)?;
            entered.push(at);
            Ok(())
        });
        // The guest was told of none of them.
        for id in entered {
            self.inodes.forget(id, 1);
        }
        outcome
    }

    /// Notes what a name in a directory stands for, and counts that as a look-up.
    fn note(&mut self, parent: NodeId, name: Name<'_>) -> Result<NodeId, Errno> {
        let directory = self.directory(parent)?;
        let seen = look(&directory, name.as_c_str())?;
        let identity = self.identify(&seen, &directory, name)?;
        let above = self.inodes.get(parent)?;
        let (export, crossing) = (above.export.clone(), above.identity.mount != identity.mount);
        let salted = crossing || above.salted;
        let known = self.inodes.find(&export, &identity).and_then(|id| self.inodes.get(id).ok());
        let (salted, submount) = known.map_or((salted, false), |known| (known.salted, known.submount));
        let place = Place::Below { parent, name: name.as_c_str().into() };
        Ok(self.inodes.remember(Sighting { export: &export, place, identity, salted, submount })?.id)
    }

    /// What the host's kernel calls what is open.
    fn host_name(&self, descriptor: impl AsFd) -> Result<CString, Errno> {
        readlinkat(&self.proc, FdName::of(descriptor).as_c_str(), Vec::new())
    }

    /// Inodes in an order in which those of one directory come together: its descriptor is at hand then.
    fn by_directory(&self, ids: &[NodeId]) -> Vec<NodeId> {
        let parent = |id: NodeId| match self.inodes.get(id).map(|inode| &inode.place) {
            Ok(Place::Below { parent, .. }) => *parent,
            _ => 0,
        };
        let mut ids = ids.to_vec();
        ids.sort_by_cached_key(|id| (parent(*id), *id));
        ids
    }

    fn save_inode(&mut self, id: NodeId) -> Result<SavedInode, Errno> {
        let seen = self.where_it_was(id);
        let mount = self.inodes.get(id)?.identity.mount;
        if seen.is_ok() && self.mounts.is_nameless(mount) {
            let opened = self.path(id)?;
            self.mounts.name(mount, &opened)?;
        }
        let inode = self.inodes.get(id)?;
        let place = match (&inode.place, &seen) {
            (Place::Export, Ok(_)) => SavedPlace::Export,
            (Place::Below { parent, name }, Ok(_)) => {
                SavedPlace::Below { parent: *parent, name: name.to_bytes().to_vec() }
            }
            _ => SavedPlace::Nowhere,
        };
        Ok(SavedInode {
            id,
            export: inode.export.id,
            place,
            mount: inode.identity.mount,
            ino: inode.identity.ino,
            kind: inode.identity.kind.as_raw_mode(),
            stamp: seen.map_or(Stamp::Birth(inode.identity.birth), |seen| Stamp::of(&seen)),
            salted: inode.salted,
            submount: inode.submount,
            lookups: inode.lookups(),
        })
    }

    fn save_exports(&self, inodes: &[SavedInode]) -> (Vec<SavedExport>, u32) {
        let (here, last) = self.exports.all();
        let gone = inodes.iter().map(|inode| (inode.export, None));
        let here = here.into_iter().map(|(name, export)| (export.id, Some(name.into_bytes())));
        let all: BTreeMap<u32, Option<Vec<u8>>> = gone.chain(here).collect();
        (all.into_iter().map(|(id, name)| SavedExport { id, name }).collect(), last)
    }

    fn save_handles(&self, inodes: &[SavedInode]) -> (Vec<SavedHandle>, u64) {
        let (all, last) = self.handles.all();
        let saved = all.filter_map(|(fh, handle)| {
            let kind = match &handle.kind {
                HandleKind::Root => SavedHandleKind::Root,
                // Those of inodes that the guest has forgotten are good for nothing.
                _ if inodes.binary_search_by_key(&handle.node, |inode| inode.id).is_err() => return None,
                HandleKind::File { write } => SavedHandleKind::File { write: *write },
                HandleKind::Directory(stream) => SavedHandleKind::Directory { position: stream.position() },
            };
            Some(SavedHandle { fh, node: handle.node, kind })
        });
        let mut saved: Vec<SavedHandle> = saved.collect();
        saved.sort_unstable_by_key(|handle| handle.fh);
        (saved, last)
    }

    /// Locks on what is out of reach are nobody's: they go with the last descriptor.
    fn save_owners(&self, inodes: &[SavedInode]) -> Vec<SavedOwner> {
        let there = |id| {
            let found = inodes.binary_search_by_key(&id, |inode| inode.id).ok();
            found.and_then(|at| inodes.get(at)).is_some_and(|inode| inode.place != SavedPlace::Nowhere)
        };
        let mut saved: Vec<SavedOwner> = self
            .locks
            .owners()
            .filter(|owner| there(owner.key.node))
            .map(|owner| SavedOwner {
                node: owner.key.node,
                flock: owner.key.class == LockClass::Flock,
                owner: owner.key.owner,
                fh: owner.fh,
                pid: owner.pid,
                ranges: owner.ranges.to_vec(),
            })
            .collect();
        saved.sort_unstable_by_key(|owner| (owner.node, owner.flock, owner.owner));
        saved
    }
}

/// What lies in a directory that is nowhere, or too deep, is nowhere as well; and what nobody knows then is left out.
fn forget_the_lost(inodes: &mut Vec<SavedInode>) {
    let at: HashMap<NodeId, usize> = inodes.iter().enumerate().map(|(at, inode)| (inode.id, at)).collect();
    // `None`: nowhere.
    let mut depths: HashMap<NodeId, Option<usize>> = HashMap::with_capacity(inodes.len());
    for inode in inodes.iter() {
        let (mut way, mut now) = (Vec::new(), inode);
        let mut depth = loop {
            if let Some(depth) = depths.get(&now.id) {
                break *depth;
            }
            way.push(now.id);
            match &now.place {
                SavedPlace::Export => break Some(0),
                SavedPlace::Nowhere => break None,
                SavedPlace::Below { parent, .. } => match at.get(parent).and_then(|at| inodes.get(*at)) {
                    Some(above) if way.len() <= MAX_DEPTH => now = above,
                    _ => break None,
                },
            }
        };
        for id in way.into_iter().rev() {
            depth = depth.and_then(|depth| depth.checked_add(1)).filter(|depth| *depth <= MAX_DEPTH);
            depths.insert(id, depth);
        }
    }
    let mut children: HashMap<NodeId, usize> = HashMap::new();
    for inode in inodes.iter_mut() {
        match (&inode.place, depths.get(&inode.id)) {
            (SavedPlace::Below { parent, .. }, Some(Some(_))) => {
                let count = children.entry(*parent).or_default();
                *count = count.saturating_add(1);
            }
            (SavedPlace::Export, _) => {}
            _ => {
                let birth = inode.stamp.birth();
                (inode.place, inode.stamp) = (SavedPlace::Nowhere, Stamp::Birth(birth));
            }
        }
    }
    let mut unknown = HashSet::new();
    for start in inodes.iter() {
        // Leaving one out may leave its directory without a reason to be known.
        let mut inode = start;
        while inode.lookups == 0
            && children.get(&inode.id).is_none_or(|count| *count == 0)
            && unknown.insert(inode.id)
            && let SavedPlace::Below { parent, .. } = &inode.place
            && let Some(above) = at.get(parent).and_then(|at| inodes.get(*at))
        {
            children.entry(*parent).and_modify(|count| *count = count.saturating_sub(1));
            inode = above;
        }
    }
    inodes.retain(|inode| !unknown.contains(&inode.id));
}
