//! What the machine's containers share with the guest, and by which names.
//!
//! Names are given here and never twice. Two containers that share the same directory, as those of a pod do, get it as one
//! export: only then do they see each other's memory-mapped files at once, as on one kernel. It stays as long as one of
//! them does.

use super::{failed, refused};
use crate::device::fs::{Exports, FsError, Identity};
use crate::error::{ErrorKind, Kind};
use crate::machine::order::{AccessTimes, Export, ExportDevice, Failed};
use husk_protocol::{Container, ContainerKey, MountSource};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The two file servers' lists.
pub struct Shares {
    roots: Arc<Exports>,
    shares: Arc<Exports>,
    shelf: Mutex<Shelf>,
}

struct Shelf {
    next: u64,
    by_name: BTreeMap<String, Known>,
}

/// A share that is there.
struct Known {
    what: What,
    users: usize,
}

/// What makes one share as good as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct What {
    identity: Option<Identity>,
    read_only: bool,
    recursive: bool,
    times: (AccessTimes, AccessTimes),
}

/// What a container has taken. It is given back with [`Shares::give_back`].
#[derive(Debug)]
pub(super) struct Taken {
    root: ContainerKey,
    shares: Vec<String>,
}

impl Kind for FsError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Host
    }
}

impl What {
    fn of(export: &Export, identity: Option<Identity>) -> What {
        What {
            identity,
            read_only: export.read_only,
            recursive: export.recursive,
            times: (export.access_times, export.all_access_times),
        }
    }

    /// Whether this one does for who wants `other`. One that can be written to does for who will only read: the guest's
    /// kernel, which could write, has it anyway.
    fn does_for(&self, other: &What) -> bool {
        let same = What { read_only: other.read_only, ..*self } == *other;
        same && self.identity.is_some() && (other.read_only || !self.read_only)
    }
}

impl Shares {
    /// The lists, with what the machine was started with.
    pub fn open(roots: Arc<Exports>, shares: Arc<Exports>, given: &[Export]) -> Shares {
        let of_device = given.iter().filter(|export| export.device == ExportDevice::Share);
        let by_name: BTreeMap<String, Known> = of_device
            .map(|export| {
                let what = What::of(export, shares.identity(&export.name));
                (export.name.clone(), Known { what, users: 1 })
            })
            .collect();
        let next = u64::try_from(by_name.len()).unwrap_or(u64::MAX);
        Shares { roots, shares, shelf: Mutex::new(Shelf { next, by_name }) }
    }

    /// Gives the guest what a container that joins shares: `trees`, one for each of `exports`. Writes the names into the
    /// container.
    pub(super) fn take(
        &self,
        container: &mut Container,
        exports: &[Export],
        trees: Vec<OwnedFd>,
    ) -> Result<Taken, Failed> {
        let roots = exports.iter().filter(|export| export.device == ExportDevice::Root).count();
        if roots != 1 || exports.len() != trees.len() {
            return Err(disagree());
        }
        let mut taken = Taken { root: container.key, shares: Vec::new() };
        let named = self.name_all(&mut taken, exports, trees).and_then(|names| {
            for mount in &mut container.mounts {
                if let MountSource::Share { name, .. } = &mut mount.source {
                    *name = names.get(name.as_str()).cloned().ok_or_else(disagree)?;
                }
            }
            Ok(())
        });
        match named {
            Ok(()) => Ok(taken),
            Err(failed) => {
                self.give_back(taken);
                Err(failed)
            }
        }
    }

    fn name_all<'a>(
        &self,
        taken: &mut Taken,
        exports: &'a [Export],
        trees: Vec<OwnedFd>,
    ) -> Result<HashMap<&'a str, String>, Failed> {
        let mut names = HashMap::new();
        for (export, tree) in exports.iter().zip(trees) {
            match export.device {
                ExportDevice::Root => {
                    let name = taken.root.0.to_string();
                    self.roots.add(&name, tree, export.read_only).map_err(|error| failed(&error))?;
                }
                ExportDevice::Share => {
                    let name = self.share(export, tree)?;
                    taken.shares.push(name.clone());
                    if names.insert(export.name.as_str(), name).is_some() {
                        return Err(disagree());
                    }
                }
            }
        }
        Ok(names)
    }

    fn share(&self, export: &Export, tree: OwnedFd) -> Result<String, Failed> {
        let wanted = What::of(export, Identity::of(&tree));
        let mut shelf = self.lock();
        let there = shelf.by_name.iter_mut().find(|(_, known)| known.what.does_for(&wanted));
        if let Some((name, known)) = there {
            known.users = known.users.saturating_add(1);
            return Ok(name.clone());
        }
        let name = shelf.next.to_string();
        shelf.next = shelf.next.saturating_add(1);
        self.shares.add(&name, tree, export.read_only).map_err(|error| failed(&error))?;
        shelf.by_name.insert(name.clone(), Known { what: wanted, users: 1 });
        Ok(name)
    }

    /// A container that had this is gone, or never came to be.
    pub(super) fn give_back(&self, taken: Taken) {
        self.roots.remove(&taken.root.0.to_string());
        let mut shelf = self.lock();
        for name in taken.shares {
            let Some(known) = shelf.by_name.get_mut(&name) else { continue };
            known.users = known.users.saturating_sub(1);
            if known.users == 0 {
                shelf.by_name.remove(&name);
                self.shares.remove(&name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn disagree() -> Failed {
    refused(ErrorKind::InvalidArgument, "the container, its exports and their descriptors disagree")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn export(name: &str, read_only: bool) -> Export {
        Export {
            device: ExportDevice::Share,
            name: name.to_owned(),
            source: "/".into(),
            read_only,
            recursive: true,
            access_times: AccessTimes::default(),
            all_access_times: AccessTimes::default(),
        }
    }

    fn root() -> Export {
        Export { device: ExportDevice::Root, ..export("0", false) }
    }

    fn open(path: &std::path::Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    fn sharing(key: u32, names: &[&str]) -> Container {
        let mut container = super::super::tests::container(&["x"]);
        container.key = ContainerKey(key);
        container.mounts = names
            .iter()
            .map(|name| husk_protocol::Mount {
                destination: "/m".into(),
                source: MountSource::Share { name: (*name).to_owned(), directory: true, recursive: true },
                attributes: Default::default(),
                propagation: vec![],
                data: String::new(),
                copy_up: false,
            })
            .collect();
        container
    }

    fn names(container: &Container) -> Vec<&str> {
        container
            .mounts
            .iter()
            .map(|mount| match &mount.source {
                MountSource::Share { name, .. } => name.as_str(),
                _ => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn the_same_directory_is_one_export_for_all_until_the_last_has_gone() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (roots, lists) = (Exports::new(), Exports::new());
        lists.add("0", open(a.path()), false).unwrap();
        let shares = Shares::open(roots.clone(), lists.clone(), &[root(), export("0", false)]);

        // Two that share both directories, the first read-only, which is as good as the one that is there.
        let both = [root(), export("0", true), export("1", false)];
        let take = |key: u32| {
            let mut container = sharing(key, &["1", "0"]);
            let trees = vec![open(a.path()), open(a.path()), open(b.path())];
            let taken = shares.take(&mut container, &both, trees).unwrap();
            assert_eq!(names(&container), ["1", "0"], "one new name, and the one that was there");
            taken
        };
        let (first, second) = (take(1), take(2));
        assert!(roots.identity("1").is_some() && roots.identity("2").is_some());
        shares.give_back(first);
        assert!(roots.identity("1").is_none() && lists.identity("1").is_some());
        shares.give_back(second);
        assert!(lists.identity("1").is_none(), "nobody has it any more");
        assert!(lists.identity("0").is_some(), "the sandbox has it");

        // A name is never used twice.
        let mut container = sharing(3, &["0"]);
        let trees = vec![open(a.path()), open(b.path())];
        shares.take(&mut container, &[root(), export("0", false)], trees).unwrap();
        assert_eq!(names(&container), ["2"]);
    }

    #[test]
    fn one_who_will_write_does_not_get_what_can_only_be_read() {
        let a = tempfile::tempdir().unwrap();
        let (roots, lists) = (Exports::new(), Exports::new());
        lists.add("0", open(a.path()), true).unwrap();
        let shares = Shares::open(roots, lists, &[export("0", true)]);
        let mut container = sharing(1, &["0"]);
        let trees = vec![open(a.path()), open(a.path())];
        shares.take(&mut container, &[root(), export("0", false)], trees).unwrap();
        assert_eq!(names(&container), ["1"]);
    }

    #[test]
    fn what_does_not_fit_together_is_refused_and_leaves_nothing() {
        let a = tempfile::tempdir().unwrap();
        let tree = || open(a.path());
        let table = [
            (vec![export("0", false)], vec![tree()], vec!["0"]),
            (vec![root(), root()], vec![tree(), tree()], vec![]),
            (vec![root(), export("0", false)], vec![tree()], vec!["0"]),
            (vec![root(), export("0", false)], vec![tree(), tree()], vec!["1"]),
            (vec![root(), export("0", false), export("0", false)], vec![tree(), tree(), tree()], vec!["0"]),
        ];
        for (exports, trees, mounts) in table {
            let (roots, lists) = (Exports::new(), Exports::new());
            let shares = Shares::open(roots.clone(), lists.clone(), &[]);
            let failed = shares.take(&mut sharing(1, &mounts), &exports, trees).unwrap_err();
            assert_eq!(failed.kind, ErrorKind::InvalidArgument, "{exports:?}");
            assert!(roots.identity("1").is_none() && lists.identity("0").is_none(), "{exports:?}");
        }
    }
}
