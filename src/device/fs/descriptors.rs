//! The descriptors that the file server holds, all of them, within a fixed budget.
//!
//! Nothing else keeps one: an inode or a handle *asks* for a descriptor, and when it is no longer here it is opened
//! again (`server/reach.rs`). So the budget holds whatever the guest does, and no request fails for want of room.
//! What could not be opened again, because its last name is gone, is kept: that is what `keep` is for.
//!
//! The eviction is a clock: a hand goes round, takes a chance from each descriptor it passes, and the first one without
//! a chance goes. Use gives chances back, open files get more of them than mere paths.

use super::handles::Fh;
use super::inodes::NodeId;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What a descriptor is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Use {
    /// An inode, to stand for it in calls on paths (`O_PATH`).
    Path(NodeId),
    /// A regular file, open for reading.
    Read(NodeId),
    /// A regular file, open for reading and writing.
    Write(NodeId),
    /// A directory's names, for one handle.
    Stream(Fh),
}

/// The clock.
pub struct Descriptors {
    index: HashMap<Use, usize>,
    ring: Vec<Option<Slot>>,
    free: Vec<usize>,
    hand: usize,
    capacity: usize,
    kept: usize,
}

struct Slot {
    what: Use,
    descriptor: Arc<OwnedFd>,
    chances: u8,
    keep: bool,
}

impl Descriptors {
    /// Room for `capacity` descriptors; half of them may be kept ones.
    pub fn new(capacity: usize) -> Descriptors {
        Descriptors { index: HashMap::new(), ring: Vec::new(), free: Vec::new(), hand: 0, capacity, kept: 0 }
    }

    /// How many there are now.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The descriptor for `what`, if it is here.
    pub fn get(&mut self, what: Use) -> Option<Arc<OwnedFd>> {
        let at = *self.index.get(&what)?;
        let slot = self.ring.get_mut(at)?.as_mut()?;
        slot.chances = chances(what);
        Some(slot.descriptor.clone())
    }

    /// Whether there is one for `what`.
    pub fn holds(&self, what: Use) -> bool {
        self.index.contains_key(&what)
    }

    /// Takes in a descriptor; one that does the same is closed, another may have to go.
    pub fn put(&mut self, what: Use, descriptor: Arc<OwnedFd>) {
        let keep = self.remove(what).is_some_and(|slot| slot.keep);
        while self.index.len() >= self.capacity && self.evict() {}
        // One chance less than what was used again since: a walk through a million files pushes out its own traces.
        let slot = Some(Slot { what, descriptor, chances: chances(what).saturating_sub(1), keep: false });
        let at = match self.free.pop() {
            Some(at) => {
                if let Some(place) = self.ring.get_mut(at) {
                    *place = slot;
                }
                at
            }
            None => {
                self.ring.push(slot);
                self.ring.len().saturating_sub(1)
            }
        };
        self.index.insert(what, at);
        if keep {
            self.keep(what, true);
        }
    }

    /// Closes the descriptor for `what`, if it is here.
    pub fn close(&mut self, what: Use) {
        self.remove(what);
    }

    /// Says that the descriptor for `what` cannot be opened again, or that it can after all. There is a limit to what
    /// a guest can make us keep: beyond it nothing changes.
    pub fn keep(&mut self, what: Use, keep: bool) {
        let full = self.kept >= self.capacity / 2;
        let Some(slot) = self.index.get(&what).and_then(|at| self.ring.get_mut(*at)?.as_mut()) else {
            return;
        };
        if slot.keep == keep || (keep && full) {
            return;
        }
        slot.keep = keep;
        self.kept = if keep { self.kept.saturating_add(1) } else { self.kept.saturating_sub(1) };
    }

    /// Closes every descriptor of which `doomed` is true.
    pub fn close_all(&mut self, mut doomed: impl FnMut(Use) -> bool) {
        let found: Vec<Use> = self.index.keys().copied().filter(|what| doomed(*what)).collect();
        for what in found {
            self.remove(what);
        }
    }

    /// Closes every open file that is not kept.
    pub fn close_files(&mut self) {
        let is_idle = |slot: &Slot| matches!(slot.what, Use::Read(_) | Use::Write(_)) && !slot.keep;
        let found: Vec<Use> =
            self.ring.iter().flatten().filter(|slot| is_idle(slot)).map(|s| s.what).collect();
        for what in found {
            self.remove(what);
        }
    }

    /// Closes up to half of what is here: the process has run out of descriptors.
    pub fn shrink(&mut self) -> bool {
        let target = self.index.len() / 2;
        let before = self.index.len();
        while self.index.len() > target && self.evict() {}
        self.index.len() < before
    }

    fn remove(&mut self, what: Use) -> Option<Slot> {
        let at = self.index.remove(&what)?;
        let slot = self.ring.get_mut(at)?.take()?;
        self.free.push(at);
        if slot.keep {
            self.kept = self.kept.saturating_sub(1);
        }
        Some(slot)
    }

    /// Turns the hand until something goes; `false` when everything is kept.
    fn evict(&mut self) -> bool {
        let rounds = self.ring.len().saturating_mul(usize::from(MOST_CHANCES).saturating_add(1));
        for _ in 0..rounds {
            let at = self.hand;
            self.hand = self.hand.saturating_add(1).checked_rem(self.ring.len()).unwrap_or(0);
            let Some(slot) = self.ring.get_mut(at).and_then(Option::as_mut) else { continue };
            match slot {
                Slot { keep: true, .. } => {}
                Slot { chances: 0, what, .. } => {
                    let what = *what;
                    self.remove(what);
                    return true;
                }
                slot => slot.chances = slot.chances.saturating_sub(1),
            }
        }
        false
    }
}

const MOST_CHANCES: u8 = 3;

fn chances(what: Use) -> u8 {
    match what {
        Use::Path(_) => 1,
        Use::Read(_) | Use::Write(_) | Use::Stream(_) => MOST_CHANCES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn the_budget_holds_and_what_is_used_stays() {
        let mut all = Descriptors::new(8);
        all.put(Use::Path(1), any());
        for id in 2..100 {
            assert!(all.get(Use::Path(1)).is_some(), "lost the one in use at {id}");
            all.put(Use::Path(id), any());
            assert!(all.len() <= 8);
        }
    }

    #[test]
    fn kept_ones_survive_anything_but_are_at_most_half() {
        let mut all = Descriptors::new(8);
        for id in 0..8 {
            all.put(Use::Write(id), any());
            all.keep(Use::Write(id), true);
        }
        for id in 100..200 {
            all.put(Use::Path(id), any());
            assert_eq!(all.len(), 8);
        }
        let kept: Vec<u64> = (0..8).filter(|id| all.holds(Use::Write(*id))).collect();
        assert_eq!(kept, [0, 1, 2, 3]);
        assert!(all.shrink());
        assert_eq!((0..4).filter(|id| all.holds(Use::Write(*id))).count(), 4);
        all.keep(Use::Write(0), false);
        all.close(Use::Write(1));
        for id in 100..200 {
            all.put(Use::Path(id), any());
        }
        assert_eq!((0..4).filter(|id| all.holds(Use::Write(*id))).count(), 2);
    }
}
