//! LOOKUP and FORGET, and the entry that every operation answers with that makes an inode known.

use super::super::Policy;
use super::super::exports::Export;
use super::super::inodes::{NodeId, Place, Remembered, Sighting};
use super::super::name::Name;
use super::super::wire::{EntryOut, ROOT};
use super::reach::{look, look_at};
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

impl Policy {
    /// How long the guest may believe in attributes.
    pub(super) fn trust(self) -> Duration {
        match self {
            // Nobody else changes anything.
            Policy::Exclusive => Duration::from_secs(24 * 60 * 60),
            // Anybody may, at any time.
            Policy::Shared => Duration::ZERO,
        }
    }

    /// How long the guest may believe in a name. What the host's administrator does all the same in an exclusive tree
    /// is to put new files in place of others (`docker cp`): nobody need see the old one for longer than this. Each look-up
    /// brings fresh attributes, too. Directories are not replaced, only filled.
    fn trust_in_name(self, kind: FileType) -> Duration {
        match (self, kind) {
            (Policy::Exclusive, FileType::Directory) => self.trust(),
            (Policy::Exclusive, _) => Duration::from_secs(1),
            (Policy::Shared, _) => Duration::ZERO,
        }
    }

    /// How long the guest may believe that a name is not there: `docker cp` puts new files into running containers.
    fn distrust(self) -> Duration {
        match self {
            Policy::Exclusive => Duration::from_secs(5),
            Policy::Shared => Duration::ZERO,
        }
    }
}

impl Server {
    pub(super) fn lookup(&mut self, parent: NodeId, name: Name<'_>, out: &mut Reply<'_>) -> Outcome {
        match self.enter(parent, name) {
            Ok(entry) => {
                out.put(&entry)?;
                self.meet(parent, name, &entry)
            }
            // An entry without an inode may be cached, an error may not.
            Err(Errno::NOENT) if parent != ROOT && !self.policy.distrust().is_zero() => {
                let trust = self.policy.distrust();
                out.put(&EntryOut { entry_valid: trust.as_secs(), ..EntryOut::default() })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn forget(&mut self, id: NodeId, count: u64) -> Outcome {
        self.inodes.forget(id, count);
        Ok(())
    }

    /// Makes known what a name in a directory stands for.
    pub(super) fn enter(&mut self, parent: NodeId, name: Name<'_>) -> Result<EntryOut, Errno> {
        if parent == ROOT {
            return match self.exports.get(name) {
                Some(export) => self.enter_export(&export),
                None => self.alias(name),
            };
        }
        let directory = self.directory(parent)?;
        let seen = look(&directory, name.as_c_str())?;
        self.enter_seen(parent, &directory, name, &seen)
    }

    /// The same for what was looked at already.
    pub(super) fn enter_seen(
        &mut self,
        parent: NodeId,
        directory: &OwnedFd,
        name: Name<'_>,
        seen: &Statx,
    ) -> Result<EntryOut, Errno> {
        let identity = self.identify(seen, directory, name)?;
        let above = self.inodes.get(parent)?;
        let (export, crossing) = (above.export.clone(), above.identity.mount != identity.mount);
        let submount = self.submounts() && crossing && identity.kind == FileType::Directory;
        let salted = !submount && (crossing || above.salted);
        let sighting = Sighting {
            export: &export,
            place: Place::Below { parent, name: name.as_c_str().into() },
            identity,
            // A directory takes its own filesystem into the guest; a file on its own has to share its parent's.
            salted,
            submount,
        };
        let Remembered { id, was_lost } = self.inodes.remember(sighting)?;
        if was_lost {
            self.keep_descriptors(id, false);
        }
        self.entry(id, seen, self.policy.trust_in_name(identity.kind))
    }

    /// Makes an export known. Its name is looked up each time: another may have it tomorrow.
    pub(super) fn enter_export(&mut self, export: &Arc<Export>) -> Result<EntryOut, Errno> {
        let source = export.source()?;
        let seen = look_at(&source)?;
        let identity = self.mounts.identify(&seen, || rustix::io::fcntl_dupfd_cloexec(&source, 0))?;
        // Not a filesystem of its own to the guest, although it may be one: Linux's submounts (as of 6.12) have no ACLs, and
        // ask before each write whether the file has capabilities.
        let sighting = Sighting { export, place: Place::Export, identity, salted: true, submount: false };
        let id = self.inodes.remember(sighting)?.id;
        self.entry(id, &seen, Duration::ZERO)
    }

    /// The entry of an inode that has just been made.
    pub(super) fn entry_of(&self, id: NodeId, seen: &Statx) -> Result<EntryOut, Errno> {
        let kind = self.inodes.get(id)?.identity.kind;
        self.entry(id, seen, self.policy.trust_in_name(kind))
    }

    fn entry(&self, id: NodeId, seen: &Statx, trust: Duration) -> Result<EntryOut, Errno> {
        let attr_trust = self.policy.trust();
        Ok(EntryOut {
            nodeid: id,
            generation: 0,
            entry_valid: trust.as_secs(),
            attr_valid: attr_trust.as_secs(),
            entry_valid_nsec: trust.subsec_nanos(),
            attr_valid_nsec: attr_trust.subsec_nanos(),
            attr: self.attr(self.inodes.get(id)?, seen),
        })
    }

    pub(super) fn submounts(&self) -> bool {
        self.agreed.is_some_and(|agreed| agreed.submounts)
    }

    /// Whether the guest says when it opens and closes a file.
    pub(super) fn opens(&self) -> bool {
        self.agreed.is_none_or(|agreed| agreed.opens)
    }
}
