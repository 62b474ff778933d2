//! The guest's side of FUSE, in bytes: makes requests, takes replies apart.

use super::super::exports::Exports;
use super::super::segments::Segments;
use super::super::server::{self, Restored, Server};
use super::super::state::{Saved, StateError};
use super::super::wire::*;
use super::super::{DESCRIPTORS, Policy, open_proc};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What INIT of a current Linux offers.
pub const OFFERED: u32 = 0x7fff_ffff;
/// The same for a guest that says what it opens, even where it need not.
const OPENING: u32 = OFFERED & !(feature::NO_OPEN_SUPPORT as u32);

/// A reply's body, or the errno.
pub type Answer = Result<Vec<u8>, i32>;

/// A server over a temporary directory, exported as `0` and known as `top`.
pub struct Client {
    pub server: Server,
    pub exports: Arc<Exports>,
    pub directory: TempDir,
    pub top: u64,
    /// As whom requests are made.
    pub owner: (u32, u32),
    unique: u64,
    policy: Policy,
    descriptors: usize,
}

/// A request's bytes.
pub fn request(opcode: u32, nodeid: u64, owner: (u32, u32), unique: u64, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let header = InHeader {
        len: (size_of::<InHeader>() + body.len()) as u32,
        opcode,
        unique,
        nodeid,
        uid: owner.0,
        gid: owner.1,
        ..InHeader::default()
    };
    [header.as_bytes(), &body].concat()
}

/// INIT as Linux sends it.
pub fn init() -> Vec<u8> {
    init_with(OFFERED)
}

fn init_with(flags: u32) -> Vec<u8> {
    let how = InitIn { major: 7, minor: 45, max_readahead: 128 << 10, flags, ..InitIn::default() };
    request(opcode::INIT, 0, (0, 0), 1, &[how.as_bytes()])
}

/// An `O_PATH` descriptor.
pub fn path(path: &Path) -> OwnedFd {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

impl Client {
    pub fn new() -> Client {
        Client::with(Policy::Exclusive, DESCRIPTORS, false)
    }

    pub fn with(policy: Policy, descriptors: usize, read_only: bool) -> Client {
        let directory = tempfile::tempdir().unwrap();
        let exports = Exports::new();
        let export = directory.path().join("export");
        std::fs::create_dir(&export).unwrap();
        exports.add("0", path(&export), read_only).unwrap();
        let server =
            Server::open(policy, exports.clone(), Arc::new(open_proc().unwrap()), descriptors).unwrap();
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let mut client = Client { server, exports, directory, top: 0, owner, unique: 1, policy, descriptors };
        client.bytes(&init_with(OPENING)).unwrap();
        client.top = client.lookup(ROOT, b"0").unwrap().nodeid;
        client
    }

    /// What another process would go on with.
    pub fn save(&mut self) -> Vec<u8> {
        self.server.save().to_bytes().unwrap()
    }

    /// Goes on with what was saved, as another process would; the client is not told.
    pub fn restore(&mut self, saved: &[u8]) -> Result<Restored, StateError> {
        let exports = Exports::new();
        // Not the number that it had.
        exports.add("another", path(self.directory.path()), true).unwrap();
        exports.add("0", path(&self.outside()), false).unwrap();
        exports.remove("another");
        let proc = Arc::new(open_proc().unwrap());
        // The old one goes first, and its locks with it.
        self.server = Server::open(self.policy, exports.clone(), proc, self.descriptors).unwrap();
        self.exports = exports;
        self.server.restore(&Saved::from_bytes(saved)?)
    }

    /// Both.
    pub fn go_on_elsewhere(&mut self) -> Restored {
        let saved = self.save();
        self.restore(&saved).unwrap()
    }

    /// Takes or gives up a lock on bytes, without waiting.
    pub fn lock(
        &mut self,
        (node, fh): (u64, u64),
        owner: u64,
        kind: i32,
        bytes: (u64, u64),
        lk_flags: u32,
    ) -> Answer {
        let (start, end) = bytes;
        let how = LkIn { fh, owner, start, end, kind: kind as u32, pid: 7, lk_flags, padding: 0 };
        self.call(opcode::SETLK, node, &[how.as_bytes()])
    }

    /// The export on the host.
    pub fn outside(&self) -> std::path::PathBuf {
        self.directory.path().join("export")
    }

    /// Sends bytes as they are.
    pub fn bytes(&mut self, request: &[u8]) -> Answer {
        let mut request = request.to_vec();
        let mut reply = vec![0u8; (1 << 20) + 4096];
        let answer = self.server.serve(
            Segments::new(vec![VolatileSlice::from(request.as_mut_slice())]),
            Segments::new(vec![VolatileSlice::from(reply.as_mut_slice())]),
        );
        let used = match answer {
            server::Answer::Used(used) => used,
            // Nobody waits here.
            server::Answer::Wait(wait) => wait.answer(Err(rustix::io::Errno::AGAIN)),
            server::Answer::Interrupt(_) => 0,
        };
        if used == 0 {
            return Ok(Vec::new());
        }
        let (head, _) = OutHeader::read_from_prefix(&reply).unwrap();
        assert_eq!(head.len as usize, used);
        match head.error {
            0 => Ok(reply[size_of::<OutHeader>()..used].to_vec()),
            error => {
                assert!(error < 0 && used == size_of::<OutHeader>());
                Err(-error)
            }
        }
    }

    pub fn call(&mut self, opcode: u32, nodeid: u64, parts: &[&[u8]]) -> Answer {
        self.unique += 1;
        let request = request(opcode, nodeid, self.owner, self.unique, parts);
        self.bytes(&request)
    }

    fn reply<T: FromBytes + KnownLayout + Immutable>(
        &mut self,
        opcode: u32,
        node: u64,
        parts: &[&[u8]],
    ) -> Result<T, i32> {
        let body = self.call(opcode, node, parts)?;
        Ok(T::read_from_prefix(&body).unwrap().0)
    }

    pub fn lookup(&mut self, parent: u64, name: &[u8]) -> Result<EntryOut, i32> {
        let entry: EntryOut = self.reply(opcode::LOOKUP, parent, &[name, b"\0"])?;
        if entry.nodeid == 0 { Err(libc::ENOENT) } else { Ok(entry) }
    }

    pub fn forget(&mut self, node: u64, nlookup: u64) {
        assert_eq!(self.call(opcode::FORGET, node, &[ForgetIn { nlookup }.as_bytes()]), Ok(vec![]));
    }

    pub fn getattr(&mut self, node: u64) -> Result<Attr, i32> {
        Ok(self.reply::<AttrOut>(opcode::GETATTR, node, &[GetattrIn::default().as_bytes()])?.attr)
    }

    pub fn setattr(&mut self, node: u64, how: SetattrIn) -> Result<Attr, i32> {
        Ok(self.reply::<AttrOut>(opcode::SETATTR, node, &[how.as_bytes()])?.attr)
    }

    pub fn mkdir(&mut self, parent: u64, name: &[u8], mode: u32) -> Result<EntryOut, i32> {
        self.reply(opcode::MKDIR, parent, &[MkdirIn { mode, umask: 0 }.as_bytes(), name, b"\0"])
    }

    pub fn mknod(&mut self, parent: u64, name: &[u8], mode: u32, rdev: u32) -> Result<EntryOut, i32> {
        let how = MknodIn { mode, rdev, ..MknodIn::default() };
        self.reply(opcode::MKNOD, parent, &[how.as_bytes(), name, b"\0"])
    }

    pub fn symlink(&mut self, parent: u64, name: &[u8], target: &[u8]) -> Result<EntryOut, i32> {
        self.reply(opcode::SYMLINK, parent, &[name, b"\0", target, b"\0"])
    }

    pub fn link(&mut self, oldnodeid: u64, parent: u64, name: &[u8]) -> Result<EntryOut, i32> {
        self.reply(opcode::LINK, parent, &[LinkIn { oldnodeid }.as_bytes(), name, b"\0"])
    }

    pub fn create(
        &mut self,
        parent: u64,
        name: &[u8],
        flags: i32,
        mode: u32,
    ) -> Result<(EntryOut, OpenOut), i32> {
        let how = CreateIn { flags: flags as u32, mode: mode | libc::S_IFREG, ..CreateIn::default() };
        let body = self.call(opcode::CREATE, parent, &[how.as_bytes(), name, b"\0"])?;
        let (entry, rest) = EntryOut::read_from_prefix(&body).unwrap();
        Ok((entry, OpenOut::read_from_bytes(rest).unwrap()))
    }

    /// From here on a guest that does not say what it opens.
    pub fn stop_opening(&mut self) {
        self.bytes(&init()).unwrap();
        self.top = self.lookup(ROOT, b"0").unwrap().nodeid;
    }

    pub fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let how = OpenIn { flags: flags as u32, open_flags: 0 };
        Ok(self.reply::<OpenOut>(opcode::OPEN, node, &[how.as_bytes()])?.fh)
    }

    pub fn release(&mut self, node: u64, fh: u64) -> Answer {
        self.call(opcode::RELEASE, node, &[ReleaseIn { fh, ..ReleaseIn::default() }.as_bytes()])
    }

    pub fn read(&mut self, node: u64, fh: u64, offset: u64, size: u32) -> Answer {
        self.call(opcode::READ, node, &[ReadIn { fh, offset, size, ..ReadIn::default() }.as_bytes()])
    }

    pub fn write(&mut self, node: u64, fh: u64, offset: u64, data: &[u8]) -> Result<u32, i32> {
        let how = WriteIn { fh, offset, size: data.len() as u32, ..WriteIn::default() };
        Ok(self.reply::<WriteOut>(opcode::WRITE, node, &[how.as_bytes(), data])?.size)
    }

    pub fn unlink(&mut self, parent: u64, name: &[u8]) -> Answer {
        self.call(opcode::UNLINK, parent, &[name, b"\0"])
    }

    pub fn rmdir(&mut self, parent: u64, name: &[u8]) -> Answer {
        self.call(opcode::RMDIR, parent, &[name, b"\0"])
    }

    pub fn rename(&mut self, from: u64, old: &[u8], newdir: u64, new: &[u8], flags: u32) -> Answer {
        let how = Rename2In { newdir, flags, padding: 0 };
        self.call(opcode::RENAME2, from, &[how.as_bytes(), old, b"\0", new, b"\0"])
    }

    pub fn opendir(&mut self, node: u64) -> Result<u64, i32> {
        Ok(self.reply::<OpenOut>(opcode::OPENDIR, node, &[OpenIn::default().as_bytes()])?.fh)
    }

    /// One READDIR from a cookie on: names and the cookies after them.
    pub fn readdir(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<(Vec<u8>, u64)>, i32> {
        let how = ReadIn { fh, offset, size, ..ReadIn::default() };
        let body = self.call(opcode::READDIR, node, &[how.as_bytes()])?;
        let (mut rest, mut found) = (body.as_slice(), Vec::new());
        while let Ok((head, names)) = Dirent::read_from_prefix(rest) {
            let len = head.namelen as usize;
            found.push((names[..len].to_vec(), head.off));
            rest = &names[len.next_multiple_of(8)..];
        }
        assert!(rest.is_empty());
        Ok(found)
    }

    pub fn readlink(&mut self, node: u64) -> Answer {
        self.call(opcode::READLINK, node, &[])
    }

    pub fn setxattr(&mut self, node: u64, name: &[u8], value: &[u8], flags: u32) -> Answer {
        let how = SetxattrIn { size: value.len() as u32, flags, ..SetxattrIn::default() };
        self.call(opcode::SETXATTR, node, &[how.as_bytes(), name, b"\0", value])
    }

    pub fn getxattr(&mut self, node: u64, name: &[u8], size: u32) -> Answer {
        self.call(opcode::GETXATTR, node, &[GetxattrIn { size, padding: 0 }.as_bytes(), name, b"\0"])
    }
}
