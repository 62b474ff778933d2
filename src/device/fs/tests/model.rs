//! The server against a file system in memory that is too simple to be wrong.
//!
//! Operations come at random, on few names in few directories so that they meet; the server has hardly a descriptor to
//! keep. Each outcome is compared, and in the end the whole tree.

use super::super::Policy;
use super::super::wire::*;
use super::client::Client;
use proptest::prelude::*;
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

/// A name from a handful, in one of the directories known so far.
#[derive(Debug, Clone, Copy)]
struct At {
    directory: u8,
    name: u8,
}

#[derive(Debug, Clone)]
enum Op {
    Lookup(At),
    Mkdir(At),
    Create(At, bool),
    Symlink(At),
    Unlink(At),
    Rmdir(At),
    Rename(At, At, u32),
    Link(At, At),
    Write(At, u16, u8),
    Truncate(At, u16),
    Read(At),
    Hold(At),
    WriteHeld(u8, u8),
    Drop(u8),
    List(u8),
    Forget(At),
    Chmod(At, u16),
    SetXattr(At, u8),
}

fn at() -> impl Strategy<Value = At> {
    (0u8..5, 0u8..4).prop_map(|(directory, name)| At { directory, name })
}

fn op() -> impl Strategy<Value = Op> {
    let flags =
        prop_oneof![6 => Just(0), 2 => Just(libc::RENAME_NOREPLACE), 3 => Just(libc::RENAME_EXCHANGE)];
    prop_oneof![
        1 => at().prop_map(Op::Lookup),
        3 => at().prop_map(Op::Mkdir),
        3 => (at(), any::<bool>()).prop_map(|(at, excl)| Op::Create(at, excl)),
        1 => at().prop_map(Op::Symlink),
        2 => at().prop_map(Op::Unlink),
        2 => at().prop_map(Op::Rmdir),
        4 => (at(), at(), flags).prop_map(|(from, to, flags)| Op::Rename(from, to, flags)),
        2 => (at(), at()).prop_map(|(from, to)| Op::Link(from, to)),
        2 => (at(), any::<u16>(), any::<u8>()).prop_map(|(at, offset, byte)| Op::Write(at, offset % 5000, byte)),
        1 => (at(), any::<u16>()).prop_map(|(at, size)| Op::Truncate(at, size % 5000)),
        1 => at().prop_map(Op::Read),
        1 => at().prop_map(Op::Hold),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(held, byte)| Op::WriteHeld(held, byte)),
        1 => (any::<u8>()).prop_map(Op::Drop),
        1 => (0u8..5).prop_map(Op::List),
        1 => at().prop_map(Op::Forget),
        1 => (at(), 0u16..0o1000).prop_map(|(at, mode)| Op::Chmod(at, mode)),
        1 => (at(), any::<u8>()).prop_map(|(at, value)| Op::SetXattr(at, value)),
    ]
}

/// How many files the client holds open: no more than the server can keep when they lose their names.
const MAX_HELD: usize = 3;

/// An inode of the model.
#[derive(Debug, Clone)]
enum Inode {
    Directory(BTreeMap<String, usize>),
    File { data: Vec<u8>, xattr: Option<u8> },
    Symlink,
}

#[derive(Debug)]
struct Entry {
    inode: Inode,
    mode: u32,
    /// What the server calls it, while the client remembers.
    node: Option<u64>,
    lookups: u64,
}

/// The model, and the server beside it.
struct Pair {
    client: Client,
    entries: Vec<Entry>,
    held: Vec<(usize, u64, u64)>,
}

type Expected<T> = Result<T, i32>;

impl Pair {
    fn new(policy: Policy, descriptors: usize) -> Pair {
        let client = Client::with(policy, descriptors, false);
        let root = Entry {
            inode: Inode::Directory(BTreeMap::new()),
            mode: 0o755,
            node: Some(client.top),
            lookups: 1,
        };
        Pair { client, entries: vec![root], held: Vec::new() }
    }

    /// The directory that a number stands for at the moment: those that can be reached, in the order of their paths.
    fn directory(&self, number: u8) -> usize {
        let mut found = Vec::new();
        self.walk(0, &mut |_, index| found.push(index), "");
        found[number as usize % found.len()]
    }

    fn walk(&self, index: usize, see: &mut impl FnMut(&str, usize), path: &str) {
        if let Inode::Directory(names) = &self.entries[index].inode {
            see(path, index);
            for (name, child) in names {
                self.walk(*child, see, &format!("{path}/{name}"));
            }
        }
    }

    fn names(&mut self, directory: usize) -> &mut BTreeMap<String, usize> {
        match &mut self.entries[directory].inode {
            Inode::Directory(names) => names,
            other => panic!("{other:?} is no directory"),
        }
    }

    fn find(&mut self, at: At) -> (usize, String, Option<usize>) {
        let (directory, name) = (self.directory(at.directory), format!("n{}", at.name));
        let found = self.names(directory).get(&name).copied();
        (directory, name, found)
    }

    /// The server's number of a directory or file, looked up from the top if the client has forgotten it.
    fn node(&mut self, index: usize) -> u64 {
        if let Some(node) = self.entries[index].node {
            return node;
        }
        let mut place = None;
        self.walk(
            0,
            &mut |_, parent| {
                if let Inode::Directory(names) = &self.entries[parent].inode
                    && let Some((name, _)) = names.iter().find(|(_, child)| **child == index)
                {
                    place = Some((parent, name.clone()));
                }
            },
            "",
        );
        let (parent, name) = place.expect("only what has a name is forgotten");
        let parent = self.node(parent);
        let node = self.client.lookup(parent, name.as_bytes()).unwrap().nodeid;
        self.told(index, node);
        node
    }

    fn told(&mut self, index: usize, node: u64) {
        let entry = &mut self.entries[index];
        assert!(entry.node.is_none_or(|known| known == node), "an inode has two numbers");
        entry.node = Some(node);
        entry.lookups += 1;
    }

    fn add(&mut self, directory: usize, name: &str, inode: Inode, mode: u32) -> usize {
        self.entries.push(Entry { inode, mode, node: None, lookups: 0 });
        let index = self.entries.len() - 1;
        self.names(directory).insert(name.to_owned(), index);
        index
    }

    fn is_below(&self, index: usize, top: usize) -> bool {
        let mut found = false;
        self.walk(top, &mut |_, at| found |= at == index, "");
        found
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Lookup(at) => {
                let (directory, name, found) = self.find(at);
                let parent = self.node(directory);
                let outcome = self.client.lookup(parent, name.as_bytes());
                assert_eq!(outcome.is_ok(), found.is_some());
                if let (Ok(entry), Some(index)) = (outcome, found) {
                    self.told(index, entry.nodeid);
                }
            }
            Op::Mkdir(at) => {
                let (directory, name, found) = self.find(at);
                let parent = self.node(directory);
                match self.client.mkdir(parent, name.as_bytes(), 0o755) {
                    Ok(entry) => {
                        assert!(found.is_none());
                        let index = self.add(directory, &name, Inode::Directory(BTreeMap::new()), 0o755);
                        self.told(index, entry.nodeid);
                    }
                    Err(error) => assert_eq!((error, found.is_some()), (libc::EEXIST, true)),
                }
            }
            Op::Create(at, exclusive) => self.create(at, exclusive),
            Op::Symlink(at) => {
                let (directory, name, found) = self.find(at);
                let parent = self.node(directory);
                match self.client.symlink(parent, name.as_bytes(), b"../../n0") {
                    Ok(entry) => {
                        let index = self.add(directory, &name, Inode::Symlink, 0o777);
                        self.told(index, entry.nodeid);
                        assert!(found.is_none());
                    }
                    Err(error) => assert_eq!((error, found.is_some()), (libc::EEXIST, true)),
                }
            }
            Op::Unlink(at) | Op::Rmdir(at) => {
                let (directory, name, found) = self.find(at);
                let parent = self.node(directory);
                let is_rmdir = matches!(op, Op::Rmdir(_));
                let expected = match found.map(|index| &self.entries[index].inode) {
                    None => Err(libc::ENOENT),
                    Some(Inode::Directory(_)) if !is_rmdir => Err(libc::EISDIR),
                    Some(Inode::Directory(names)) if !names.is_empty() => Err(libc::ENOTEMPTY),
                    Some(Inode::Directory(_)) => Ok(()),
                    Some(_) if is_rmdir => Err(libc::ENOTDIR),
                    Some(_) => Ok(()),
                };
                let call = if is_rmdir { Client::rmdir } else { Client::unlink };
                assert_eq!(call(&mut self.client, parent, name.as_bytes()).map(|_| ()), expected);
                if expected.is_ok() {
                    self.names(directory).remove(&name);
                }
            }
            Op::Rename(from, to, flags) => self.rename(from, to, flags),
            Op::Link(from, to) => {
                let (_, _, found) = self.find(from);
                let (directory, name, taken) = self.find(to);
                let Some(index) = found else { return };
                let (node, parent) = (self.node(index), self.node(directory));
                let is_directory = matches!(self.entries[index].inode, Inode::Directory(_));
                match self.client.link(node, parent, name.as_bytes()) {
                    Ok(entry) => {
                        assert!(taken.is_none() && !is_directory);
                        self.names(directory).insert(name, index);
                        self.told(index, entry.nodeid);
                    }
                    Err(error) if taken.is_some() => assert_eq!(error, libc::EEXIST),
                    Err(error) => assert_eq!((error, is_directory), (libc::EPERM, true)),
                }
            }
            Op::Write(at, offset, byte) => {
                if let Some((index, fh)) = self.open(at, libc::O_WRONLY) {
                    self.write(index, fh, offset as usize, byte);
                    let node = self.node(index);
                    self.client.release(node, fh).unwrap();
                }
            }
            Op::Truncate(at, size) => {
                let (_, _, Some(index)) = self.find(at) else { return };
                let node = self.node(index);
                let how = SetattrIn { valid: fattr::SIZE, size: size.into(), ..SetattrIn::default() };
                let outcome = self.client.setattr(node, how);
                match &mut self.entries[index].inode {
                    Inode::File { data, .. } => {
                        data.resize(size.into(), 0);
                        assert_eq!(outcome.unwrap().size, u64::from(size));
                    }
                    Inode::Directory(_) => assert_eq!(outcome, Err(libc::EISDIR)),
                    Inode::Symlink => assert_eq!(outcome, Err(libc::ELOOP)),
                }
            }
            Op::Read(at) => {
                if let Some((index, fh)) = self.open(at, libc::O_RDONLY) {
                    self.compare(index, fh);
                    let node = self.node(index);
                    self.client.release(node, fh).unwrap();
                }
            }
            Op::Hold(at) => {
                if self.held.len() < MAX_HELD
                    && let Some((index, fh)) = self.open(at, libc::O_RDWR)
                {
                    let node = self.node(index);
                    self.held.push((index, node, fh));
                }
            }
            Op::WriteHeld(which, byte) => {
                if !self.held.is_empty() {
                    let (index, _, fh) = self.held[which as usize % self.held.len()];
                    self.write(index, fh, byte as usize * 7, byte);
                    self.compare(index, fh);
                }
            }
            Op::Drop(which) => {
                if !self.held.is_empty() {
                    let at = which as usize % self.held.len();
                    let (_, node, fh) = self.held.swap_remove(at);
                    self.client.release(node, fh).unwrap();
                }
            }
            Op::List(number) => {
                let index = self.directory(number);
                let node = self.node(index);
                let listed = self.list(node);
                assert_eq!(listed, self.names(index).keys().cloned().collect::<Vec<_>>());
            }
            Op::Forget(at) => {
                let (_, _, Some(index)) = self.find(at) else { return };
                let is_held = self.held.iter().any(|(held, ..)| *held == index);
                if let (Some(node), false) = (self.entries[index].node, is_held) {
                    self.client.forget(node, self.entries[index].lookups);
                    self.entries[index].node = None;
                    self.entries[index].lookups = 0;
                    // What lies below it keeps it in the server's table: its number may come back.
                }
            }
            Op::Chmod(at, mode) => {
                let (_, _, Some(index)) = self.find(at) else { return };
                if matches!(self.entries[index].inode, Inode::Symlink) {
                    return;
                }
                let node = self.node(index);
                let mode = u32::from(mode) | 0o700;
                let how = SetattrIn { valid: fattr::MODE, mode, ..SetattrIn::default() };
                assert_eq!(self.client.setattr(node, how).unwrap().mode & 0o7777, mode);
                self.entries[index].mode = mode;
            }
            Op::SetXattr(at, value) => {
                let (_, _, Some(index)) = self.find(at) else { return };
                let node = self.node(index);
                if let Inode::File { xattr, .. } = &mut self.entries[index].inode {
                    *xattr = Some(value);
                    self.client.setxattr(node, b"user.model", &[value], 0).unwrap();
                }
            }
        }
    }

    fn create(&mut self, at: At, exclusive: bool) {
        let (directory, name, found) = self.find(at);
        let parent = self.node(directory);
        let flags = libc::O_RDWR | if exclusive { libc::O_EXCL } else { 0 };
        let expected = match found.map(|index| &self.entries[index].inode) {
            None => Ok(()),
            Some(_) if exclusive => Err(libc::EEXIST),
            Some(Inode::Directory(_)) => Err(libc::EISDIR),
            Some(Inode::Symlink) => Err(libc::ELOOP),
            Some(Inode::File { .. }) => Ok(()),
        };
        let outcome = self.client.create(parent, name.as_bytes(), flags, 0o755);
        assert_eq!(outcome.as_ref().map(|_| ()).map_err(|error| *error), expected);
        if let Ok((entry, opened)) = outcome {
            let index = match found {
                Some(index) => index,
                None => self.add(directory, &name, Inode::File { data: Vec::new(), xattr: None }, 0o755),
            };
            self.told(index, entry.nodeid);
            self.compare(index, opened.fh);
            self.client.release(entry.nodeid, opened.fh).unwrap();
        }
    }

    fn rename(&mut self, from: At, to: At, flags: u32) {
        let (old_directory, old, found) = self.find(from);
        let (new_directory, new, target) = self.find(to);
        let (parent, newdir) = (self.node(old_directory), self.node(new_directory));
        let outcome = self.client.rename(parent, old.as_bytes(), newdir, new.as_bytes(), flags).map(|_| ());
        let expected = self.expect_rename(old_directory, found, new_directory, target, flags);
        match expected {
            Ok(()) => assert_eq!(outcome, Ok(())),
            // Which of several reasons the host gives is its own affair.
            Err(_) => assert!(outcome.is_err(), "expected {expected:?}"),
        }
        if let (Ok(()), Some(source)) = (expected, found)
            && target != Some(source)
        {
            match (flags, target) {
                (libc::RENAME_EXCHANGE, Some(target)) => {
                    self.names(old_directory).insert(old, target);
                }
                _ => {
                    self.names(old_directory).remove(&old);
                }
            }
            self.names(new_directory).insert(new, source);
        }
    }

    fn expect_rename(
        &self,
        old_directory: usize,
        found: Option<usize>,
        new_directory: usize,
        target: Option<usize>,
        flags: u32,
    ) -> Expected<()> {
        let source = found.ok_or(libc::ENOENT)?;
        if flags == libc::RENAME_NOREPLACE && target.is_some() {
            return Err(libc::EEXIST);
        }
        if self.is_below(new_directory, source) {
            return Err(libc::EINVAL);
        }
        if flags == libc::RENAME_EXCHANGE {
            let target = target.ok_or(libc::ENOENT)?;
            return if self.is_below(old_directory, target) { Err(libc::EINVAL) } else { Ok(()) };
        }
        let Some(target) = target else { return Ok(()) };
        if target == source {
            return Ok(());
        }
        match (&self.entries[source].inode, &self.entries[target].inode) {
            (Inode::Directory(_), Inode::Directory(names)) if names.is_empty() => Ok(()),
            (Inode::Directory(_), Inode::Directory(_)) => Err(libc::ENOTEMPTY),
            (Inode::Directory(_), _) => Err(libc::ENOTDIR),
            (_, Inode::Directory(_)) => Err(libc::EISDIR),
            _ => Ok(()),
        }
    }

    fn open(&mut self, at: At, flags: i32) -> Option<(usize, u64)> {
        let (_, _, found) = self.find(at);
        let index = found?;
        let node = self.node(index);
        let outcome = self.client.open(node, flags);
        match self.entries[index].inode {
            Inode::File { .. } => Some((index, outcome.unwrap())),
            Inode::Directory(_) => {
                assert_eq!(outcome, Err(libc::EISDIR));
                None
            }
            Inode::Symlink => {
                assert_eq!(outcome, Err(libc::ELOOP));
                None
            }
        }
    }

    fn write(&mut self, index: usize, fh: u64, offset: usize, byte: u8) {
        let node = self.entries[index].node.unwrap();
        let bytes = vec![byte; byte as usize + 1];
        assert_eq!(self.client.write(node, fh, offset as u64, &bytes), Ok(bytes.len() as u32));
        if let Inode::File { data, .. } = &mut self.entries[index].inode {
            let end = offset + bytes.len();
            data.resize(data.len().max(end), 0);
            data[offset..end].copy_from_slice(&bytes);
        }
    }

    fn compare(&mut self, index: usize, fh: u64) {
        let node = self.entries[index].node.unwrap();
        let read = self.client.read(node, fh, 0, 100_000).unwrap();
        let Inode::File { data, .. } = &self.entries[index].inode else { panic!("not a file") };
        assert!(read == *data);
    }

    /// As a kernel does: what has no name and is not open is forgotten.
    fn forget_nameless(&mut self) {
        let mut named = std::collections::BTreeSet::from([0]);
        for entry in &self.entries {
            if let Inode::Directory(names) = &entry.inode {
                named.extend(names.values().copied());
            }
        }
        for index in 0..self.entries.len() {
            let is_held = self.held.iter().any(|(held, ..)| *held == index);
            let entry = &mut self.entries[index];
            if let Some(node) = entry.node
                && !named.contains(&index)
                && !is_held
            {
                self.client.forget(node, entry.lookups);
                entry.node = None;
                assert_eq!(self.client.getattr(node), Err(libc::ESTALE));
            }
        }
    }

    /// All names of a directory, in order.
    fn list(&mut self, node: u64) -> Vec<String> {
        let fh = self.client.opendir(node).unwrap();
        let (mut cookie, mut names) = (0, Vec::new());
        loop {
            let some = self.client.readdir(node, fh, cookie, 100).unwrap();
            let Some((_, last)) = some.last() else { break };
            cookie = *last;
            names.extend(some.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()));
        }
        let how = ReleaseIn { fh, ..ReleaseIn::default() };
        self.client.call(opcode::RELEASEDIR, node, &[how.as_bytes()]).unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    /// The host's tree is the model's.
    fn compare_trees(&mut self) {
        let mut directories = Vec::new();
        self.walk(0, &mut |path, index| directories.push((path.to_owned(), index)), "");
        for (path, index) in directories {
            let outside = self.client.outside().join(path.trim_start_matches('/'));
            let mut listed: Vec<String> = std::fs::read_dir(&outside)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            listed.sort();
            assert_eq!(listed, self.names(index).keys().cloned().collect::<Vec<_>>(), "{path}");
            for (name, child) in self.names(index).clone() {
                let path = outside.join(name);
                if let Inode::File { data, xattr } = &self.entries[child].inode {
                    assert!(std::fs::read(&path).unwrap() == *data);
                    assert_eq!(
                        super::tree::xattrs(&path).get("user.model"),
                        xattr.map(|value| vec![value]).as_ref()
                    );
                }
                if !matches!(self.entries[child].inode, Inode::Symlink) {
                    let mode =
                        std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o7777;
                    assert_eq!(mode, self.entries[child].mode);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_server_does_what_the_model_does(
        ops in prop::collection::vec(op(), 1..150),
        descriptors in 2 * MAX_HELD..16,
        shared in any::<bool>(),
    ) {
        let policy = if shared { Policy::Shared } else { Policy::Exclusive };
        let mut pair = Pair::new(policy, descriptors);
        for op in &ops {
            pair.apply(op);
            pair.forget_nameless();
            assert!(pair.client.server.counts().2 <= descriptors);
        }
        pair.compare_trees();
    }
}
