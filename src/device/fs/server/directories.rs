//! Listing directories.

use super::super::descriptors::Use;
use super::super::handles::{Fh, Handle, HandleKind};
use super::super::inodes::NodeId;
use super::super::name::Name;
use super::super::stream::Stream;
use super::super::wire::{Dirent, EntryOut, FSYNC_FDATASYNC, FsyncIn, OpenOut, ROOT, ReadIn};
use super::attributes::salted;
use super::reach::{look, one_component};
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{Mode, OFlags, fdatasync, fsync, openat2};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// `DT_UNKNOWN`, for which the guest looks the name up.
const DT_UNKNOWN: u32 = 0;

impl Server {
    pub(super) fn open_directory(&mut self, id: NodeId, out: &mut Reply<'_>) -> Outcome {
        let fh = if id == ROOT {
            self.handles.add(Handle { node: id, kind: HandleKind::Root })?
        } else {
            let names = self.open_names(id)?;
            let fh = self.handles.add(Handle { node: id, kind: HandleKind::Directory(Box::default()) })?;
            self.descriptors.put(Use::Stream(fh), names);
            fh
        };
        out.put(&OpenOut { fh, ..OpenOut::default() })
    }

    fn open_names(&mut self, id: NodeId) -> Result<Arc<OwnedFd>, Errno> {
        let directory = self.directory(id)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Arc::new(self.opened(|| openat2(&directory, c".", flags, Mode::empty(), one_component()))?))
    }

    /// The descriptor of a directory's handle, and whether it is a new one.
    fn names(&mut self, id: NodeId, fh: Fh) -> Result<(Arc<OwnedFd>, bool), Errno> {
        if self.inodes.get(id)?.export.is_removed() {
            return Err(Errno::STALE);
        }
        if let Some(names) = self.descriptors.get(Use::Stream(fh)) {
            return Ok((names, false));
        }
        let names = self.open_names(id)?;
        self.descriptors.put(Use::Stream(fh), names.clone());
        Ok((names, true))
    }

    pub(super) fn readdir(&mut self, id: NodeId, how: &ReadIn, plus: bool, out: &mut Reply<'_>) -> Outcome {
        let room = usize::try_from(how.size).unwrap_or(usize::MAX).min(out.room());
        match self.handles.get(id, how.fh)?.kind {
            HandleKind::Root => return self.list_exports(how.offset, room, plus, out),
            HandleKind::File { .. } => return Err(Errno::BADF),
            HandleKind::Directory(_) => {}
        }
        let (names, fresh) = self.names(id, how.fh)?;
        // The stream leaves its handle for the time being: filling a reply needs the rest of the server.
        let HandleKind::Directory(stream) = &mut self.handles.get(id, how.fh)?.kind else {
            return Err(Errno::BADF);
        };
        let mut stream = std::mem::take(&mut **stream);
        let outcome = stream
            .seek(&names, fresh, how.offset)
            .and_then(|()| self.fill(id, &names, &mut stream, &mut Listing { plus, room, out }));
        if let HandleKind::Directory(place) = &mut self.handles.get(id, how.fh)?.kind {
            **place = stream;
        }
        outcome
    }

    fn fill(
        &mut self,
        id: NodeId,
        names: &OwnedFd,
        stream: &mut Stream,
        to: &mut Listing<'_, '_>,
    ) -> Outcome {
        let directory = self.inodes.get(id)?;
        let (mount, salt) = (directory.identity.mount, directory.salted);
        loop {
            let entry = match stream.peek(names) {
                Ok(None) => return Ok(()),
                Ok(Some(entry)) => entry,
                // What is listed already is not lost; the guest asks on and finds the error then.
                Err(_) if to.out.written() > 0 => return Ok(()),
                Err(error) => return Err(error),
            };
            if !to.has_room(entry.name) {
                // A reply without a name would mean the end.
                return if to.out.written() > 0 { Ok(()) } else { Err(Errno::INVAL) };
            }
            let ino = if salt { salted(entry.ino, mount) } else { entry.ino };
            let head = Dirent { ino, off: entry.next, namelen: 0, kind: entry.kind.into() };
            if to.plus && !matches!(entry.name.to_bytes(), b"." | b"..") {
                // Without its attributes when they cannot be had; the guest asks again when it needs them.
                let known = Name::check(entry.name).and_then(|name| {
                    let seen = look(names, name.as_c_str())?;
                    self.enter_seen(id, names, name, &seen)
                });
                match known {
                    Ok(known) => to.put(Some(&known), head, entry.name)?,
                    // It went away meanwhile.
                    Err(Errno::NOENT) => {}
                    Err(_) => to.put(None, head, entry.name)?,
                }
            } else {
                to.put(None, head, entry.name)?;
            }
            stream.advance();
        }
    }

    fn list_exports(&mut self, after: u64, room: usize, plus: bool, out: &mut Reply<'_>) -> Outcome {
        let mut to = Listing { plus, room, out };
        for (name, export) in self.exports.after(after) {
            if !to.has_room(&name) {
                break;
            }
            let known = if plus { self.enter_export(&export).ok() } else { None };
            let kind = known.map_or(DT_UNKNOWN, |known| (known.attr.mode >> 12) & 0xf);
            // The number is a mere hint here, but 0 would hide the name.
            let head = Dirent { ino: u64::from(export.id), off: u64::from(export.id), namelen: 0, kind };
            to.put(known.as_ref(), head, &name)?;
        }
        Ok(())
    }

    pub(super) fn release_directory(&mut self, id: NodeId, fh: Fh) -> Outcome {
        if matches!(self.handles.get(id, fh)?.kind, HandleKind::File { .. }) {
            return Err(Errno::BADF);
        }
        self.handles.remove(id, fh)?;
        self.descriptors.close(Use::Stream(fh));
        Ok(())
    }

    pub(super) fn fsync_directory(&mut self, id: NodeId, how: &FsyncIn) -> Outcome {
        match self.handles.get(id, how.fh)?.kind {
            HandleKind::Root => return Ok(()),
            HandleKind::File { .. } => return Err(Errno::BADF),
            HandleKind::Directory(_) => {}
        }
        let (names, _) = self.names(id, how.fh)?;
        if how.fsync_flags & FSYNC_FDATASYNC != 0 { fdatasync(&names) } else { fsync(&names) }
    }
}

/// A reply to READDIR or READDIRPLUS.
struct Listing<'r, 'o> {
    plus: bool,
    room: usize,
    out: &'r mut Reply<'o>,
}

impl Listing<'_, '_> {
    fn has_room(&self, name: &CStr) -> bool {
        let plus = if self.plus { size_of::<EntryOut>() } else { 0 };
        let len = name.to_bytes().len().saturating_add(size_of::<Dirent>()).next_multiple_of(8);
        self.out.written().saturating_add(plus).saturating_add(len) <= self.room
    }

    fn put(&mut self, known: Option<&EntryOut>, head: Dirent, name: &CStr) -> Outcome {
        if self.plus {
            self.out.put(known.unwrap_or(&EntryOut::default()))?;
        }
        let name = name.to_bytes();
        let namelen = u32::try_from(name.len()).map_err(|_| Errno::INVAL)?;
        self.out.put_bytes(Dirent { namelen, ..head }.as_bytes())?;
        self.out.put_bytes(name)?;
        let padding = name.len().next_multiple_of(8).saturating_sub(name.len());
        self.out.put_bytes([0; 8].get(..padding).unwrap_or_default())
    }
}
