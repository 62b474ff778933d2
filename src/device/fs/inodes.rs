//! The inodes that the guest knows, and how each can be found again.
//!
//! ```text
//!   LOOKUP, CREATE, ... --remember--> known (lookups > 0) --FORGET--> gone, unless something below it is known
//!                                       |  ^
//!                               unlink  v  | link, or another of its names is looked up
//!                                     nowhere (no name left: only a kept descriptor reaches it)
//! ```
//! An inode holds no descriptor. It says where it was last seen (parent and name); whoever opens that compares what is
//! found with the inode's key before using it. Numbers given to the guest count upwards and are never used twice, so a
//! number alone is as good as a number with a generation.
//!
//! Pure: no system call here. One thread, the server's, has it.

use super::exports::Export;
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;

/// The guest's name for an inode.
pub type NodeId = u64;

/// The most inodes that a guest may know at a time: a bound for its memory in ours, far above what a guest's own
/// memory holds.
pub const MAX_INODES: usize = 8 << 20;

/// How deep a directory may lie below its export, in components.
pub const MAX_DEPTH: usize = 4096;

/// What makes an inode of the host this one and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Which mount and filesystem (`server/mounts.rs`).
    pub mount: u32,
    /// Its number there.
    pub ino: u64,
    /// When it was made, in nanoseconds: numbers are used again, moments are not. Zero where the filesystem does not
    /// say, or not reliably.
    pub birth: u64,
    /// What it is.
    pub kind: FileType,
}

/// Where an inode can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is an export's source.
    Export,
    /// Under a name in a directory.
    Below {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: Box<CStr>,
    },
    /// Under no name that we know.
    Nowhere,
}

/// An inode.
#[derive(Debug)]
pub struct Inode {
    /// What it is on the host.
    pub identity: Identity,
    /// Through which export it was found.
    pub export: Arc<Export>,
    /// Where it was last seen.
    pub place: Place,
    /// Whether its number must be told apart from those of another filesystem that the guest takes for the same.
    pub salted: bool,
    /// Whether it is a directory at which the guest mounts another filesystem.
    pub submount: bool,
    /// How many handles read from it.
    pub readers: u32,
    /// How many handles may write to it.
    pub writers: u32,
    /// How often the guest was told of it, less how often it forgot.
    lookups: u64,
    /// How many known inodes have their place below it.
    children: u32,
}

impl Inode {
    /// One that is nowhere yet.
    fn new(sighting: &Sighting<'_>, lookups: u64) -> Inode {
        Inode {
            identity: sighting.identity,
            export: sighting.export.clone(),
            place: Place::Nowhere,
            salted: sighting.salted,
            submount: sighting.submount,
            readers: 0,
            writers: 0,
            lookups,
            children: 0,
        }
    }

    /// How often the guest knows of it.
    pub fn lookups(&self) -> u64 {
        self.lookups
    }
}

/// What [`Inodes::remember`] needs to know.
pub struct Sighting<'a> {
    /// Through which export.
    pub export: &'a Arc<Export>,
    /// Where.
    pub place: Place,
    /// What.
    pub identity: Identity,
    /// As in [`Inode`].
    pub salted: bool,
    /// As in [`Inode`].
    pub submount: bool,
}

/// What [`Inodes::remember`] found.
pub struct Remembered {
    /// The guest's number for the inode.
    pub id: NodeId,
    /// Whether it was nowhere before; new ones are.
    pub was_lost: bool,
}

/// The table.
pub struct Inodes {
    by_id: HashMap<NodeId, Inode>,
    by_key: HashMap<Key, NodeId>,
    next: NodeId,
    gone: Vec<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    export: u32,
    mount: u32,
    ino: u64,
}

impl Key {
    fn of(export: &Export, identity: &Identity) -> Key {
        Key { export: export.id, mount: identity.mount, ino: identity.ino }
    }
}

impl Inodes {
    /// An empty table.
    pub fn new() -> Inodes {
        // 1 is the root, which is not here.
        Inodes { by_id: HashMap::new(), by_key: HashMap::new(), next: super::wire::ROOT, gone: Vec::new() }
    }

    /// All, by number, and the highest number that there ever was.
    pub fn all(&self) -> (Vec<NodeId>, NodeId) {
        let mut all: Vec<NodeId> = self.by_id.keys().copied().collect();
        all.sort_unstable();
        (all, self.next)
    }

    /// A table that gives out numbers above `last`.
    pub fn restored(last: NodeId) -> Inodes {
        Inodes { next: last, ..Inodes::new() }
    }

    /// Puts an inode back under its number, which the caller has checked. One that is nowhere can be found again if
    /// there is something to know it by.
    pub fn put_back(&mut self, id: NodeId, sighting: Sighting<'_>, lookups: u64) -> Result<(), Errno> {
        let key = Key::of(sighting.export, &sighting.identity);
        if sighting.place != Place::Nowhere {
            self.by_key.insert(key, id);
        } else if sighting.identity.birth != 0 {
            self.by_key.entry(key).or_insert(id);
        }
        self.by_id.insert(id, Inode::new(&sighting, lookups));
        self.set_place(id, sighting.place)
    }

    /// Drops what the guest does not know and nothing known is below of.
    pub fn drop_unknown(&mut self) {
        for id in self.all().0 {
            self.drop_if_unused(id);
        }
        self.gone.clear();
    }

    /// How many inodes are known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// An inode, or `ESTALE`.
    pub fn get(&self, id: NodeId) -> Result<&Inode, Errno> {
        self.by_id.get(&id).ok_or(Errno::STALE)
    }

    /// An inode to change, or `ESTALE`.
    pub fn get_mut(&mut self, id: NodeId) -> Result<&mut Inode, Errno> {
        self.by_id.get_mut(&id).ok_or(Errno::STALE)
    }

    /// The known inode of that identity.
    pub fn find(&self, export: &Export, identity: &Identity) -> Option<NodeId> {
        let id = *self.by_key.get(&Key::of(export, identity))?;
        (self.by_id.get(&id)?.identity == *identity).then_some(id)
    }

    /// Takes note of an inode that the guest is about to be told of, and counts that.
    pub fn remember(&mut self, sighting: Sighting<'_>) -> Result<Remembered, Errno> {
        let id = match self.find(sighting.export, &sighting.identity) {
            Some(id) => id,
            None => self.insert(&sighting)?,
        };
        let was_lost = self.get(id)?.place == Place::Nowhere;
        self.set_place(id, sighting.place)?;
        let inode = self.get_mut(id)?;
        inode.lookups = inode.lookups.saturating_add(1);
        inode.salted = sighting.salted;
        inode.submount = sighting.submount;
        Ok(Remembered { id, was_lost })
    }

    fn insert(&mut self, sighting: &Sighting<'_>) -> Result<NodeId, Errno> {
        if self.by_id.len() >= MAX_INODES {
            return Err(Errno::NOMEM);
        }
        self.next = self.next.checked_add(1).ok_or(Errno::NOMEM)?;
        let inode = Inode::new(sighting, 0);
        // Another inode with this number has died meanwhile; what the guest still has of it keeps its own entry.
        self.by_key.insert(Key::of(sighting.export, &sighting.identity), self.next);
        self.by_id.insert(self.next, inode);
        Ok(self.next)
    }

    /// Notes where an inode is now.
    pub fn set_place(&mut self, id: NodeId, place: Place) -> Result<(), Errno> {
        if self.get(id)?.place == place {
            return Ok(());
        }
        if let Place::Below { parent, .. } = &place {
            let parent = *parent;
            self.break_cycle(id, parent);
            self.get(id)?;
            if let Some(parent) = self.by_id.get_mut(&parent) {
                parent.children = parent.children.saturating_add(1);
            }
        }
        let before = std::mem::replace(&mut self.get_mut(id)?.place, place);
        if let Place::Below { parent, .. } = before {
            self.lose_child(parent);
        }
        Ok(())
    }

    /// The host may have turned a tree upside down behind our back: before `id` gets a place below `parent`, whatever
    /// has `parent` below `id` is out of date.
    fn break_cycle(&mut self, id: NodeId, parent: NodeId) {
        let mut at = parent;
        for _ in 0..MAX_DEPTH {
            let Some(Inode { place: Place::Below { parent: above, .. }, .. }) = self.by_id.get(&at) else {
                return;
            };
            let above = *above;
            if above == id {
                if let Some(inode) = self.by_id.get_mut(&at) {
                    inode.place = Place::Nowhere;
                }
                self.lose_child(id);
                return;
            }
            at = above;
        }
    }

    /// An inode turned out to have another number than it had (an overlay copied it up).
    pub fn change_identity(&mut self, id: NodeId, identity: Identity) {
        let Some(inode) = self.by_id.get_mut(&id) else { return };
        let old = Key::of(&inode.export, &inode.identity);
        let new = Key::of(&inode.export, &identity);
        inode.identity = identity;
        if self.by_key.get(&old) == Some(&id) {
            self.by_key.remove(&old);
        }
        self.by_key.insert(new, id);
    }

    /// The guest forgets an inode `count` times. More often than it was told is as often as it was told.
    pub fn forget(&mut self, id: NodeId, count: u64) {
        if let Some(inode) = self.by_id.get_mut(&id) {
            inode.lookups = inode.lookups.saturating_sub(count);
            self.drop_if_unused(id);
        }
    }

    fn lose_child(&mut self, parent: NodeId) {
        if let Some(inode) = self.by_id.get_mut(&parent) {
            inode.children = inode.children.saturating_sub(1);
            self.drop_if_unused(parent);
        }
    }

    fn drop_if_unused(&mut self, id: NodeId) {
        let mut at = id;
        while let Some(inode) = self.by_id.get(&at)
            && inode.lookups == 0
            && inode.children == 0
        {
            let key = Key::of(&inode.export, &inode.identity);
            if self.by_key.get(&key) == Some(&at) {
                self.by_key.remove(&key);
            }
            let Some(inode) = self.by_id.remove(&at) else { return };
            self.gone.push(at);
            let Place::Below { parent, .. } = inode.place else { return };
            if let Some(parent) = self.by_id.get_mut(&parent) {
                parent.children = parent.children.saturating_sub(1);
            }
            at = parent;
        }
    }

    /// Notes that the guest was told of an inode once more.
    pub fn count(&mut self, id: NodeId) -> Result<(), Errno> {
        let inode = self.get_mut(id)?;
        inode.lookups = inode.lookups.saturating_add(1);
        Ok(())
    }

    /// The inodes that have left the table since the last call.
    pub fn take_gone(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.gone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::exports::Exports;
    use super::*;

    fn export() -> Arc<Export> {
        let exports = Exports::new();
        exports.add("0", std::fs::File::open("/").unwrap().into(), false).unwrap();
        exports.after(0).remove(0).1
    }

    fn below(parent: NodeId, name: &CStr) -> Place {
        Place::Below { parent, name: name.into() }
    }

    fn see(table: &mut Inodes, export: &Arc<Export>, ino: u64, place: Place) -> NodeId {
        let identity = Identity { mount: 0, ino, birth: ino, kind: FileType::Directory };
        table.remember(Sighting { export, place, identity, salted: false, submount: false }).unwrap().id
    }

    #[test]
    fn a_parent_stays_while_a_child_is_known_and_goes_with_it() {
        let (mut table, export) = (Inodes::new(), export());
        let top = see(&mut table, &export, 1, Place::Export);
        let middle = see(&mut table, &export, 2, below(top, c"m"));
        let leaf = see(&mut table, &export, 3, below(middle, c"l"));
        table.forget(middle, 1);
        table.forget(top, 77);
        assert_eq!(table.len(), 3);
        table.forget(leaf, u64::MAX);
        assert_eq!((table.len(), table.take_gone()), (0, vec![leaf, middle, top]));
    }

    #[test]
    fn a_number_used_again_on_the_host_is_another_inode_to_the_guest() {
        let (mut table, export) = (Inodes::new(), export());
        let first = see(&mut table, &export, 1, Place::Export);
        let identity = Identity { mount: 0, ino: 1, birth: 99, kind: FileType::RegularFile };
        let sighting =
            Sighting { export: &export, place: Place::Export, identity, salted: false, submount: false };
        let second = table.remember(sighting).unwrap().id;
        assert_ne!(first, second);
        table.forget(first, 1);
        assert_eq!(table.find(&export, &identity), Some(second));
    }

    #[test]
    fn a_tree_turned_upside_down_on_the_host_makes_no_cycle() {
        let (mut table, export) = (Inodes::new(), export());
        let top = see(&mut table, &export, 1, Place::Export);
        let a = see(&mut table, &export, 2, below(top, c"a"));
        let b = see(&mut table, &export, 3, below(a, c"b"));
        assert_eq!(see(&mut table, &export, 3, below(top, c"b")), b);
        assert_eq!(see(&mut table, &export, 2, below(b, c"a")), a);
        assert_eq!(see(&mut table, &export, 3, below(a, c"b")), b);
        assert_eq!(table.get(a).unwrap().place, Place::Nowhere);
        for (id, count) in [(top, 1), (a, 2), (b, 3)] {
            table.forget(id, count);
        }
        assert_eq!(table.len(), 0);
    }
}
