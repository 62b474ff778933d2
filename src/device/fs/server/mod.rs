//! The file server proper: one request in, one reply out.
//!
//! ```text
//!   header, body --decode--> Operation --dispatch--> lookup, attributes, files, data, directories, names, xattrs, ...
//!   (copied once)                                        |            each asks `reach` for the descriptor it needs
//!                 reply header <--- Ok, or the host's errno
//! ```
//! It lives from the driver's DRIVER_OK to the next reset, on one thread, and knows no virtqueue: requests and replies
//! are cursors over memory, wherever that is. What it remembers is in four tables (inodes, handles, mounts, and the
//! descriptors, which are only a cache), all plain data.
//!
//! What is absent: paths. Nothing here joins names; every call is made on a directory's descriptor and one [`Name`].
//!
//! [`Name`]: super::name::Name

mod attributes;
mod data;
mod directories;
mod files;
mod filesystem;
mod init;
mod locks;
mod lookup;
mod mounts;
mod names;
mod reach;
mod reply;
mod restore;
mod save;
mod sockets;
mod whiteouts;
mod xattrs;

pub use self::locks::{Wait, Waiting};
#[cfg(test)]
pub use self::restore::Restored;

use self::mounts::Mounts;
use self::reply::Reply;
use super::Policy;
use super::credentials::Rights;
use super::descriptors::{Descriptors, Use};
use super::exports::Exports;
use super::handles::Handles;
use super::inodes::{Inodes, NodeId};
use super::locks::Locks;
use super::request::{MAX_BODY, Operation, decode};
use super::segments::Segments;
use super::wire::{InHeader, OutHeader, WriteIn, opcode};
use rustix::io::Errno;
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use zerocopy::IntoBytes;

/// What an operation comes to: a reply has been written, or the guest is told the error.
pub type Outcome = Result<(), Errno>;

/// The server of one device's driver.
pub struct Server {
    policy: Policy,
    exports: Arc<Exports>,
    /// `/proc/self/fd`: the way from an `O_PATH` descriptor to an open file.
    proc: Arc<OwnedFd>,
    rights: Rights,
    /// What INIT has settled; nothing is served before it.
    agreed: Option<init::Agreed>,
    inodes: Inodes,
    handles: Handles,
    mounts: Mounts,
    descriptors: Descriptors,
    locks: Locks,
    /// A lock has gone, and nobody has tried again yet.
    unlocked: bool,
    /// Sockets that the neighbour was told of, and those among them that processes inside have made.
    known_sockets: HashSet<NodeId>,
    made: HashSet<NodeId>,
    /// What the request under way leaves to be done.
    later: Later,
    /// Room for a request's body.
    buffer: Vec<u8>,
}

/// What comes of a request.
pub enum Answer<'a> {
    /// So many bytes of the reply are used; 0 when there is none to be sent.
    Used(usize),
    /// The reply has to wait, for a lock or until a socket can be connected to.
    Wait(Wait<'a>),
    /// No reply; but if the request of that number waits, it is to be given up with `EINTR`.
    Interrupt(u64),
}

/// What an operation leaves to be done when it has no answer yet.
#[derive(Default)]
enum Later {
    #[default]
    No,
    Wait(Waiting),
    /// It has one, which is not to be told before something was done about this socket.
    Meet(NodeId),
    Interrupt(u64),
}

/// Writes a reply's header. How long the reply is.
fn answer(head: &mut Segments<'_>, unique: u64, outcome: Outcome, body: usize) -> usize {
    let (error, body) = match outcome {
        Ok(()) => (0, body),
        Err(errno) => (errno.raw_os_error().saturating_neg(), 0),
    };
    let len = size_of::<OutHeader>().saturating_add(body);
    let told = OutHeader { len: u32::try_from(len).unwrap_or(u32::MAX), error, unique };
    if head.write(told.as_bytes()) { len } else { 0 }
}

/// A thread that is ready to be a server's.
#[derive(Clone, Copy)]
pub struct Place {
    rights: Rights,
}

impl Place {
    /// The calling thread belongs to a server from here on, and gives up its working directory and umask to it: the
    /// thread's file system attributes are unshared from the process's, so that it can name `/proc/self/fd/N` as `N`
    /// (attributes of symbolic links and special files can be reached only by name).
    pub fn take(proc: &OwnedFd) -> Result<Place, Errno> {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)
            .map_err(|error| Errno::from_raw_os_error(error as i32))?;
        rustix::process::fchdir(proc.as_fd())?;
        reach::check_host(proc)?;
        Ok(Place { rights: Rights::current()? })
    }
}

impl Server {
    /// A server of the calling thread.
    #[cfg(any(test, fuzzing))]
    pub fn open(
        policy: Policy,
        exports: Arc<Exports>,
        proc: Arc<OwnedFd>,
        descriptors: usize,
    ) -> Result<Server, Errno> {
        let place = Place::take(&proc)?;
        Ok(Server::new(policy, exports, proc, place, descriptors))
    }

    /// A server that knows nothing yet, for the thread that took its `place`.
    pub fn new(
        policy: Policy,
        exports: Arc<Exports>,
        proc: Arc<OwnedFd>,
        place: Place,
        descriptors: usize,
    ) -> Server {
        Server {
            policy,
            exports,
            proc,
            rights: place.rights,
            agreed: None,
            inodes: Inodes::new(),
            handles: Handles::default(),
            mounts: Mounts::default(),
            descriptors: Descriptors::new(descriptors),
            locks: Locks::default(),
            unlocked: false,
            known_sockets: HashSet::new(),
            made: HashSet::new(),
            later: Later::No,
            buffer: Vec::new(),
        }
    }

    /// Serves one request.
    pub fn serve<'a>(&mut self, mut request: Segments<'_>, mut reply: Segments<'a>) -> Answer<'a> {
        let mut header = InHeader::default();
        if !request.read(header.as_mut_bytes()) {
            return Answer::Used(0);
        }
        let mut head = reply.split(size_of::<OutHeader>());
        let mut out = Reply::new(reply);
        let outcome = self.handle(&header, request, &mut out);
        match std::mem::take(&mut self.later) {
            Later::No => {}
            Later::Interrupt(unique) => return Answer::Interrupt(unique),
            Later::Wait(waiting) => {
                return Answer::Wait(Wait { unique: header.unique, waiting, reply: head, body: 0 });
            }
            Later::Meet(node) if outcome.is_ok() => {
                let waiting = Waiting::Socket(node);
                return Answer::Wait(Wait {
                    unique: header.unique,
                    waiting,
                    reply: head,
                    body: out.written(),
                });
            }
            Later::Meet(_) => {}
        }
        for id in self.inodes.take_gone() {
            for what in [Use::Path(id), Use::Read(id), Use::Write(id)] {
                self.descriptors.close(what);
            }
            self.locks.remove_all(|node| node == id);
            self.socket_gone(id);
        }
        if matches!(header.opcode, opcode::FORGET | opcode::BATCH_FORGET) {
            return Answer::Used(0);
        }
        Answer::Used(answer(&mut head, header.unique, outcome, out.written()))
    }

    /// Lets go of what belongs to exports that are gone.
    pub fn drop_removed(&mut self) {
        let (inodes, handles) = (&self.inodes, &self.handles);
        self.locks.remove_all(|id| inodes.get(id).is_ok_and(|inode| inode.export.is_removed()));
        self.descriptors.close_all(|what| {
            let node = match what {
                Use::Path(id) | Use::Read(id) | Use::Write(id) => Some(id),
                Use::Stream(fh) => handles.node(fh),
            };
            node.and_then(|id| inodes.get(id).ok()).is_none_or(|inode| inode.export.is_removed())
        });
    }

    fn handle(&mut self, header: &InHeader, mut request: Segments<'_>, out: &mut Reply<'_>) -> Outcome {
        let told = usize::try_from(header.len).map_err(|_| Errno::INVAL)?;
        let told = told
            .checked_sub(size_of::<InHeader>())
            .filter(|len| *len <= request.len())
            .ok_or(Errno::INVAL)?;
        let mut request = request.split(told);
        let len = if header.opcode == opcode::WRITE { size_of::<WriteIn>() } else { told };
        if len > MAX_BODY {
            return Err(Errno::INVAL);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let outcome = match buffer.get_mut(..len) {
            Some(body) => match request.read(body) {
                true => decode(header, body).and_then(|wanted| self.dispatch(header, wanted, request, out)),
                false => Err(Errno::INVAL),
            },
            None => Err(Errno::INVAL),
        };
        self.buffer = buffer;
        outcome
    }

    fn dispatch(
        &mut self,
        header: &InHeader,
        operation: Operation<'_>,
        data: Segments<'_>,
        out: &mut Reply<'_>,
    ) -> Outcome {
        let node = header.nodeid;
        match operation {
            Operation::Init(how) => return self.init(&how, out),
            _ if self.agreed.is_none() => return Err(Errno::IO),
            _ => {}
        }
        match operation {
            Operation::Init(_) => Ok(()),
            Operation::Destroy => self.destroy(),
            Operation::Lookup(name) => self.lookup(node, name, out),
            Operation::Forget(how) => self.forget(node, how.nlookup),
            Operation::BatchForget(all) => {
                all.iter().try_for_each(|one| self.forget(one.nodeid, one.nlookup))
            }
            Operation::Getattr(how) => self.getattr(node, &how, out),
            Operation::Setattr(how) => self.setattr(node, &how, out),
            Operation::Readlink => self.readlink(node, out),
            Operation::Symlink { name, target } => self.symlink(header, name, target, out),
            Operation::Mknod { how, name } => self.mknod(header, &how, name, out),
            Operation::Mkdir { how, name } => self.mkdir(header, &how, name, out),
            Operation::Unlink(name) => self.unlink(node, name, false),
            Operation::Rmdir(name) => self.unlink(node, name, true),
            Operation::Rename { newdir, flags, old, new } => self.rename(header, old, newdir, new, flags),
            Operation::Link { how, name } => self.link(how.oldnodeid, node, name, out),
            Operation::Open(how) => self.open_file(node, &how, out),
            Operation::Create { how, name } => self.create(header, &how, name, out),
            Operation::Tmpfile(how) => self.tmpfile(header, &how, out),
            Operation::Read(how) => self.read(node, &how, out),
            Operation::Write(how) => self.write(node, &how, data, out),
            Operation::Statfs => self.statfs(node, out),
            Operation::Release(how) => self.release(node, &how),
            Operation::Flush(how) => self.flush(node, &how),
            Operation::Fsync(how) => self.fsync(node, &how),
            Operation::Setxattr { how, name, value } => self.setxattr(node, &how, name, value),
            Operation::Getxattr { size, name } => self.getxattr(node, name, size, out),
            Operation::Listxattr(how) => self.listxattr(node, how.size, out),
            Operation::Removexattr(name) => self.removexattr(node, name),
            Operation::Opendir => self.open_directory(node, out),
            Operation::Readdir(how) => self.readdir(node, &how, false, out),
            Operation::Readdirplus(how) => self.readdir(node, &how, true, out),
            Operation::Releasedir(how) => self.release_directory(node, how.fh),
            Operation::Fsyncdir(how) => self.fsync_directory(node, &how),
            Operation::Fallocate(how) => self.fallocate(node, &how),
            Operation::Lseek(how) => self.lseek(node, &how, out),
            Operation::CopyFileRange(how) => self.copy_file_range(node, &how, out),
            Operation::Syncfs => self.syncfs(node),
            Operation::Getlk(how) => self.getlk(node, &how, out),
            Operation::Setlk(how) => self.setlk(node, &how, false),
            Operation::Setlkw(how) => self.setlk(node, &how, true),
            Operation::Interrupt(how) => {
                self.later = Later::Interrupt(how.unique);
                Ok(())
            }
        }
    }
}

/// What tests look at.
#[cfg(test)]
impl Server {
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.inodes.len(), self.handles.len(), self.descriptors.len())
    }
}
