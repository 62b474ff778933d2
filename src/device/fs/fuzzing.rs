//! Raw FUSE requests against the decoder, and against a server over a real directory with something beside it; and saved
//! states for such a server to go on from.

use super::request::decode;
use super::segments::Segments;
use super::server::{Answer, Server};
use super::state::{Saved, SavedPlace, Stamp};
use super::wire::{InHeader, InitIn, OpenIn, OutHeader, ReadIn, WriteIn, opcode};
use super::{DESCRIPTORS, Exports, Policy, open_proc};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

/// A header and a body, as they come.
pub fn decoder(bytes: &[u8]) {
    if let Ok((header, body)) = InHeader::read_from_prefix(bytes) {
        let _ = decode(&header, body);
    }
}

/// A sequence of requests to one server. Each is: operation, inode, length of the body, body. Whatever they do, nothing
/// beside the export changes.
pub fn server(bytes: &[u8]) {
    thread_local! {
        static WORLD: RefCell<World> = RefCell::new(World::make());
    }
    WORLD.with_borrow_mut(|world| world.play(bytes));
}

/// A saved state without its mark and version, and a server that goes on from it. Numbers and moments that no input can
/// guess are put in where a path leads to something. Whatever the state says: what is accepted can be saved again, and
/// its inodes lead to nothing beside the export.
pub fn state(bytes: &[u8]) {
    thread_local! {
        static WORLD: RefCell<World> = RefCell::new(World::make());
    }
    let mut whole = Saved::default().to_bytes().expect("an empty state");
    whole.truncate(MARKED);
    whole.extend(bytes);
    if let Ok(saved) = Saved::from_bytes(&whole) {
        WORLD.with_borrow_mut(|world| world.go_on(saved));
    }
}

/// How long mark and version are.
const MARKED: usize = 21;

/// A directory that is shared, and its surroundings.
struct World {
    directory: PathBuf,
    outside: BTreeMap<PathBuf, (u64, u64, i64, i64)>,
}

impl World {
    fn make() -> World {
        let directory = PathBuf::from(format!("/dev/shm/husk-fuzz-{}", std::process::id()));
        let made = || -> std::io::Result<()> {
            std::fs::create_dir_all(directory.join("beside"))?;
            std::fs::write(directory.join("secret"), "outside")
        };
        made().expect("a directory for the fuzzer");
        let mut world = World { directory, outside: BTreeMap::new() };
        world.refill();
        world.outside = world.look();
        world
    }

    fn refill(&self) {
        let shared = self.directory.join("beside/shared");
        // Emptied and not made anew: that would change the directory beside it.
        for entry in std::fs::read_dir(&shared).into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
        }
        let fill = || -> std::io::Result<()> {
            std::fs::create_dir_all(shared.join("directory/inner"))?;
            std::fs::write(shared.join("file"), "hello")?;
            std::os::unix::fs::symlink("../../secret", shared.join("link"))?;
            std::os::unix::fs::symlink("/", shared.join("root"))
        };
        fill().expect("the share can be filled");
    }

    /// All that no request may change.
    fn look(&self) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
        let mut seen = BTreeMap::new();
        for directory in [&*self.directory, &self.directory.join("beside")] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                // The share itself has other contents, and so another time.
                if let (Ok(metadata), false) = (path.symlink_metadata(), path.ends_with("shared")) {
                    let facts = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
                    seen.insert(path, facts);
                }
            }
        }
        seen
    }

    fn serve(&self, policy: Policy) -> Server {
        let exports = Exports::new();
        let shared =
            openat(CWD, self.directory.join("beside/shared"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        exports.add("0", shared.expect("it can be opened"), false).expect("it can be shared");
        let proc = Arc::new(open_proc().expect("there is a /proc"));
        Server::open(policy, exports, proc, DESCRIPTORS).expect("a server can be made")
    }

    fn go_on(&mut self, mut saved: Saved) {
        self.make_plausible(&mut saved);
        let again = saved.to_bytes().expect("what was read can be written");
        assert_eq!(Saved::from_bytes(&again).ok().as_ref(), Some(&saved), "it is read as it was written");
        let mut server = self.serve(if saved.shared { Policy::Shared } else { Policy::Exclusive });
        if server.restore(&saved).is_err() {
            return;
        }
        let first = server.save().to_bytes().expect("what was restored can be saved");
        let first = Saved::from_bytes(&first).expect("what was saved can be restored");
        for inode in saved.inodes.iter().take(16) {
            for fh in 0..4 {
                let read = ReadIn { fh, size: 64, ..ReadIn::default() };
                let reply = request(&mut server, opcode::READ, inode.id, read.as_bytes());
                assert!(!reply.windows(7).any(|seen| seen == b"outside"), "a file beside the share was read");
                let write = [WriteIn { fh, size: 1, ..WriteIn::default() }.as_bytes(), b"x"].concat();
                request(&mut server, opcode::WRITE, inode.id, &write);
            }
            for name in [&b"secret\0"[..], b"file\0", b"link\0"] {
                request(&mut server, opcode::LOOKUP, inode.id, name);
            }
            request(&mut server, opcode::OPEN, inode.id, OpenIn::default().as_bytes());
            request(&mut server, opcode::READLINK, inode.id, &[]);
        }
        drop(server);
        let mut server = self.serve(if first.shared { Policy::Shared } else { Policy::Exclusive });
        server.restore(&first).expect("what was saved can be restored");
        assert_eq!(server.save(), first, "a state that went on changed by that");
        drop(server);
        assert_eq!(self.look(), self.outside, "something beside the share has changed");
        self.refill();
    }

    /// Puts in what proves that an inode is what its path leads to.
    fn make_plausible(&self, saved: &mut Saved) {
        let before = saved.inodes.clone();
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        for inode in &mut saved.inodes {
            let (mut path, mut place) = (PathBuf::new(), &inode.place);
            while let SavedPlace::Below { parent, name } = place {
                use std::os::unix::ffi::OsStrExt;
                path = std::path::Path::new(std::ffi::OsStr::from_bytes(name)).join(path);
                let above = before.binary_search_by_key(parent, |inode| inode.id);
                place = &before[above.expect("a state that was checked")].place;
            }
            let path = self.directory.join("beside/shared").join(path);
            if let Ok(seen) = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, wanted) {
                (inode.ino, inode.stamp) = (seen.stx_ino, Stamp::of(&seen));
                let at = usize::try_from(inode.mount).expect("an index");
                saved.mounts[at].magic =
                    rustix::fs::statfs(&path).map_or(0, |seen| seen.f_type.cast_unsigned());
                saved.mounts[at].device = (seen.stx_dev_major, seen.stx_dev_minor);
            }
        }
    }

    fn play(&mut self, bytes: &[u8]) {
        let mut server = self.serve(Policy::Shared);
        let offer = InitIn { major: 7, minor: 45, flags: u32::MAX >> 1, ..InitIn::default() };
        request(&mut server, opcode::INIT, 0, offer.as_bytes());
        request(&mut server, opcode::LOOKUP, 1, b"0\0");
        for known in [c"directory", c"file", c"link", c"root"] {
            request(&mut server, opcode::LOOKUP, 2, known.to_bytes_with_nul());
        }
        let mut rest = bytes;
        for _ in 0..64 {
            let [operation, node, length, after @ ..] = rest else { break };
            let (body, after) = after.split_at(after.len().min(usize::from(*length)));
            rest = after;
            request(&mut server, u32::from(*operation), u64::from(*node), body);
        }
        drop(server);
        assert_eq!(self.look(), self.outside, "something beside the share has changed");
        if !bytes.is_empty() {
            self.refill();
        }
    }
}

fn request(server: &mut Server, opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let header = InHeader {
        len: u32::try_from(size_of::<InHeader>().saturating_add(body.len())).unwrap_or(u32::MAX),
        opcode,
        unique: 1,
        nodeid: node,
        ..InHeader::default()
    };
    let mut message = header.as_bytes().to_vec();
    message.extend(body);
    let mut reply = vec![0; 8192];
    let room = reply.len();
    let answer = server.serve(
        Segments::new(vec![VolatileSlice::from(message.as_mut_slice())]),
        Segments::new(vec![VolatileSlice::from(reply.as_mut_slice())]),
    );
    let used = match answer {
        Answer::Used(used) => used,
        Answer::Wait(wait) => wait.answer(Err(rustix::io::Errno::INTR)),
        Answer::Interrupt(_) => 0,
    };
    assert!(used <= room, "a reply of {used} bytes");
    reply.get(size_of::<OutHeader>()..used).unwrap_or_default().to_vec()
}
