//! What each operation does, on a quiet day.

use super::super::Policy;
use super::super::wire::*;
use super::client::Client;
use super::{is_root, skip};
use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn the_synthetic_root_shows_the_exports_and_a_file_alone() {
    let mut client = Client::new();
    let file = client.directory.path().join("alone");
    std::fs::write(&file, "contents").unwrap();
    client.exports.add("hosts", super::client::path(&file), true).unwrap();
    let fh = client.opendir(ROOT).unwrap();
    let names: Vec<_> = client.readdir(ROOT, fh, 0, 4096).unwrap();
    assert_eq!(names, [(b"0".to_vec(), 1), (b"hosts".to_vec(), 2)]);
    assert_eq!(client.readdir(ROOT, fh, 1, 4096).unwrap(), names[1..]);
    assert_eq!(client.readdir(ROOT, fh, 2, 4096).unwrap(), []);
    let entry = client.lookup(ROOT, b"hosts").unwrap();
    assert_eq!((entry.attr.mode & libc::S_IFMT, entry.attr.size), (libc::S_IFREG, 8));
    let fh = client.open(entry.nodeid, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(entry.nodeid, fh, 3, 100), Ok(b"tents".to_vec()));
    assert_eq!(client.lookup(entry.nodeid, b"x").map(|_| ()), Err(libc::ENOTDIR));
    assert_eq!(client.lookup(ROOT, b"alone").map(|_| ()), Err(libc::ENOENT));
    assert_eq!(client.getattr(ROOT).unwrap().mode, libc::S_IFDIR | 0o555);
    let statfs = client.call(opcode::STATFS, ROOT, &[]).unwrap();
    assert_eq!(StatfsOut::read_from_bytes(&statfs).unwrap().namelen, 255);
    assert!(
        StatfsOut::read_from_bytes(&client.call(opcode::STATFS, client.top, &[]).unwrap()).unwrap().blocks
            > 0
    );
    assert_eq!(client.call(opcode::SYNCFS, client.top, &[&[0; 8]]), Ok(vec![]));
}

#[test]
fn names_that_exports_cannot_have_are_refused() {
    let client = Client::new();
    for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
        assert!(client.exports.add(name, super::client::path(&client.outside()), false).is_err(), "{name}");
    }
    assert!(client.exports.add("0", super::client::path(&client.outside()), false).is_err());
}

#[test]
fn an_unlinked_file_lives_until_it_is_forgotten() {
    let mut client = Client::with(Policy::Exclusive, 8, false);
    let top = client.top;
    let (entry, opened) = client.create(top, b"f", libc::O_RDWR, 0o640).unwrap();
    assert_eq!(client.write(entry.nodeid, opened.fh, 0, b"hello"), Ok(5));
    client.unlink(top, b"f").unwrap();
    // Whatever else is opened meanwhile.
    for i in 0..50 {
        let name = format!("d{i}");
        let directory = client.mkdir(top, name.as_bytes(), 0o755).unwrap().nodeid;
        client.mkdir(directory, b"x", 0o755).unwrap();
    }
    assert_eq!(client.read(entry.nodeid, opened.fh, 1, 10), Ok(b"ello".to_vec()));
    let attr = client.getattr(entry.nodeid).unwrap();
    assert_eq!((attr.nlink, attr.size), (0, 5));
    let how = SetattrIn { valid: fattr::MTIME, mtime: 77, ..SetattrIn::default() };
    assert_eq!(client.setattr(entry.nodeid, how).unwrap().mtime, 77);
    client.release(entry.nodeid, opened.fh).unwrap();
    let (_, _, before) = client.server.counts();
    client.forget(entry.nodeid, 1);
    assert!(client.server.counts().2 < before, "its space is free");
}

#[test]
fn another_name_of_an_inode_is_found_when_the_first_is_gone() {
    let mut client = Client::with(Policy::Exclusive, 1, false);
    let top = client.top;
    let file = client.mknod(top, b"a", libc::S_IFREG | 0o644, 0).unwrap().nodeid;
    assert_eq!(client.link(file, top, b"b").unwrap().nodeid, file);
    client.unlink(top, b"b").unwrap();
    client.opendir(top).unwrap();
    assert_eq!(client.lookup(top, b"a").unwrap().nodeid, file);
    client.opendir(top).unwrap();
    assert_eq!(client.getattr(file).unwrap().nlink, 1);
}

#[test]
fn renames_are_followed_with_hardly_a_descriptor() {
    let mut client = Client::with(Policy::Exclusive, 2, false);
    let top = client.top;
    let a = client.mkdir(top, b"a", 0o755).unwrap().nodeid;
    let b = client.mkdir(top, b"b", 0o755).unwrap().nodeid;
    let deep = client.mkdir(a, b"deep", 0o755).unwrap().nodeid;
    let file = client.mknod(deep, b"f", libc::S_IFREG | 0o644, 0).unwrap().nodeid;
    for (from, to) in [(a, b), (b, a), (a, top)] {
        client.rename(from, b"deep", to, b"deep", libc::RENAME_NOREPLACE).unwrap();
        assert_eq!(client.getattr(file).unwrap().nlink, 1);
        let fh = client.open(file, libc::O_RDWR).unwrap();
        client.release(file, fh).unwrap();
    }
    client.rename(top, b"deep", top, b"b", libc::RENAME_EXCHANGE).unwrap();
    assert!(client.getattr(file).is_ok() && client.getattr(b).is_ok());
    assert_eq!(client.lookup(top, b"b").unwrap().nodeid, deep);
    assert_eq!(client.lookup(top, b"deep").unwrap().nodeid, b);
    client.mknod(top, b"victim", libc::S_IFREG | 0o644, 0).unwrap();
    assert_eq!(client.rename(deep, b"f", top, b"victim", libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    client.rename(deep, b"f", top, b"victim", 0).unwrap();
    assert_eq!(client.lookup(top, b"victim").unwrap().nodeid, file);
    assert_eq!(client.rename(top, b"victim", top, b"x", 8), Err(libc::EINVAL));
    assert!(client.server.counts().2 <= 2);
}

#[test]
fn what_is_made_belongs_to_who_made_it() {
    if !is_root() {
        return skip("changing owners needs root");
    }
    let mut client = Client::new();
    let top = client.top;
    // Not writable for the maker as far as the host sees: the guest's kernel has decided.
    std::fs::set_permissions(client.outside(), std::fs::Permissions::from_mode(0o755)).unwrap();
    client.owner = (1000, 2000);
    let (entry, opened) = client.create(top, b"f", libc::O_RDWR, 0o444).unwrap();
    assert_eq!((entry.attr.uid, entry.attr.gid), (1000, 2000));
    assert_eq!(
        client.write(entry.nodeid, opened.fh, 0, b"x"),
        Ok(1),
        "open for writing although it says 0444"
    );
    let made = [
        client.mkdir(top, b"d", 0o2755).unwrap(),
        client.mknod(top, b"n", libc::S_IFIFO | 0o600, 0).unwrap(),
        client.symlink(top, b"l", b"x").unwrap(),
    ];
    assert!(made.iter().all(|entry| (entry.attr.uid, entry.attr.gid) == (1000, 2000)));
    // A set-group-id directory passes its group on.
    client.owner = (0, 0);
    let how = SetattrIn { valid: fattr::MODE | fattr::GID, mode: 0o2777, gid: 500, ..SetattrIn::default() };
    client.setattr(made[0].nodeid, how).unwrap();
    client.owner = (1000, 2000);
    let below = client.mkdir(made[0].nodeid, b"x", 0o755).unwrap();
    assert_eq!((below.attr.uid, below.attr.gid, below.attr.mode & 0o7777), (1000, 500, 0o2755));
    client.owner = (u32::MAX, 0);
    assert_eq!(client.mkdir(top, b"nobody", 0o755).map(|_| ()), Err(libc::EINVAL));
    client.owner = (0, 0);
    assert_eq!(client.mkdir(top, b"root", 0o755).unwrap().attr.uid, 0);
}

#[test]
fn the_umask_is_the_callers() {
    let mut client = Client::new();
    let how = MkdirIn { mode: 0o777, umask: 0o027 };
    client.call(opcode::MKDIR, client.top, &[how.as_bytes(), b"d\0"]).unwrap();
    let how = CreateIn { flags: libc::O_RDWR as u32, mode: 0o666, umask: 0o077, open_flags: 0 };
    client.call(opcode::CREATE, client.top, &[how.as_bytes(), b"f\0"]).unwrap();
    let mode = |name| std::fs::metadata(client.outside().join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("d"), mode("f")), (0o750, 0o600));
}

#[test]
fn set_user_id_bits_go_when_the_guest_says_so_and_only_then() {
    if !is_root() {
        return skip("without CAP_FSETID the host clears them always");
    }
    let mut client = Client::new();
    let path = client.outside().join("f");
    let reset = || std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o6755)).unwrap();
    let mode = || std::fs::metadata(&path).unwrap().mode() & 0o7777;
    let (entry, opened) = client.create(client.top, b"f", libc::O_RDWR, 0o755).unwrap();
    let (node, fh) = (entry.nodeid, opened.fh);
    reset();
    client.write(node, fh, 0, b"as root").unwrap();
    assert_eq!(mode(), 0o6755);
    let how = WriteIn { fh, size: 1, write_flags: WRITE_KILL_SUIDGID, ..WriteIn::default() };
    client.call(opcode::WRITE, node, &[how.as_bytes(), b"x"]).unwrap();
    assert_eq!(mode(), 0o755);
    reset();
    let how = SetattrIn { valid: fattr::SIZE | fattr::KILL_SUIDGID, size: 3, ..SetattrIn::default() };
    client.setattr(node, how).unwrap();
    assert_eq!(mode(), 0o755);
    reset();
    let how = OpenIn { flags: (libc::O_RDWR | libc::O_TRUNC) as u32, open_flags: OPEN_KILL_SUIDGID };
    client.call(opcode::OPEN, node, &[how.as_bytes()]).unwrap();
    assert_eq!((mode(), std::fs::metadata(&path).unwrap().len()), (0o755, 0));
    reset();
    // A new owner takes them away, unless a mode comes with it.
    client.setattr(node, SetattrIn { valid: fattr::UID, uid: 9, ..SetattrIn::default() }).unwrap();
    assert_eq!(mode(), 0o755);
    let how = SetattrIn { valid: fattr::UID | fattr::MODE, uid: 8, mode: 0o4711, ..SetattrIn::default() };
    client.setattr(node, how).unwrap();
    assert_eq!(mode(), 0o4711);
}

#[test]
fn appending_to_a_shared_file_appends_to_what_is_there_now() {
    for (policy, expected) in [(Policy::Shared, "hosthost+guest"), (Policy::Exclusive, "host+guest")] {
        let mut client = Client::with(policy, 64, false);
        std::fs::write(client.outside().join("log"), "host").unwrap();
        let node = client.lookup(client.top, b"log").unwrap().nodeid;
        let fh = client.open(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
        if policy == Policy::Shared {
            std::fs::write(client.outside().join("log"), "hosthost").unwrap();
        }
        let flags = (libc::O_WRONLY | libc::O_APPEND) as u32;
        let how = WriteIn { fh, offset: 4, size: 6, flags, ..WriteIn::default() };
        client.call(opcode::WRITE, node, &[how.as_bytes(), b"+guest"]).unwrap();
        assert_eq!(std::fs::read_to_string(client.outside().join("log")).unwrap(), expected);
    }
}

#[test]
fn contents_are_read_written_allocated_sought_and_copied() {
    let mut client = Client::new();
    let (entry, opened) = client.create(client.top, b"f", libc::O_WRONLY, 0o644).unwrap();
    let (node, fh) = (entry.nodeid, opened.fh);
    client.write(node, fh, 1 << 20, b"end").unwrap();
    // Through a handle for writing only: that is what write-back does.
    assert_eq!(client.read(node, fh, (1 << 20) + 1, 10), Ok(b"nd".to_vec()));
    let mut seek = |whence: i32, offset| {
        let how = LseekIn { fh, offset, whence: whence as u32, padding: 0 };
        client
            .call(opcode::LSEEK, node, &[how.as_bytes()])
            .map(|body| LseekOut::read_from_bytes(&body).unwrap().offset)
    };
    assert_eq!(seek(libc::SEEK_DATA, 0), Ok(1 << 20));
    assert_eq!(seek(libc::SEEK_HOLE, 0), Ok(0));
    assert_eq!(seek(libc::SEEK_DATA, 1 << 21), Err(libc::ENXIO));
    assert_eq!(seek(libc::SEEK_SET, 0), Err(libc::EINVAL));
    let how = FallocateIn { fh, offset: 0, length: 2 << 20, ..FallocateIn::default() };
    client.call(opcode::FALLOCATE, node, &[how.as_bytes()]).unwrap();
    assert_eq!(client.getattr(node).unwrap().size, 2 << 20);
    let (copy, copied) = client.create(client.top, b"g", libc::O_RDWR, 0o644).unwrap();
    let how = CopyFileRangeIn {
        fh_in: fh,
        off_in: 1 << 20,
        nodeid_out: copy.nodeid,
        fh_out: copied.fh,
        off_out: 1,
        len: 3,
        flags: 0,
    };
    let body = client.call(opcode::COPY_FILE_RANGE, node, &[how.as_bytes()]).unwrap();
    assert_eq!(WriteOut::read_from_bytes(&body).unwrap().size, 3);
    assert_eq!(client.read(copy.nodeid, copied.fh, 0, 100), Ok(b"\0end".to_vec()));
    for opcode in [opcode::FSYNC, opcode::FSYNC] {
        let how = FsyncIn { fh, fsync_flags: opcode & 1, padding: 0 };
        assert_eq!(client.call(opcode, node, &[how.as_bytes()]), Ok(vec![]));
    }
    // A size that is not the data's.
    let how = WriteIn { fh, size: 5, ..WriteIn::default() };
    assert_eq!(client.call(opcode::WRITE, node, &[how.as_bytes(), b"four"]), Err(libc::EINVAL));
    assert_eq!(client.write(node, fh, u64::MAX - 1, b"x"), Err(libc::EINVAL));
    assert_eq!(client.read(node, fh, u64::MAX, 1), Err(libc::EINVAL));
    // It is 2 MiB by now, and unsigned: the host refuses what it cannot do.
    assert_eq!(
        client.setattr(node, SetattrIn { valid: fattr::SIZE, size: u64::MAX, ..SetattrIn::default() }),
        Err(libc::EINVAL)
    );
    let file = std::fs::File::open(client.outside().join("f")).unwrap();
    let mut end = [0; 3];
    file.read_exact_at(&mut end, 1 << 20).unwrap();
    assert_eq!(&end, b"end");
}

#[test]
fn create_opens_what_is_there_unless_it_must_not() {
    let mut client = Client::new();
    let top = client.top;
    std::fs::write(client.outside().join("f"), "before").unwrap();
    assert_eq!(client.create(top, b"f", libc::O_RDWR | libc::O_EXCL, 0o600).map(|_| ()), Err(libc::EEXIST));
    let (entry, opened) = client.create(top, b"f", libc::O_RDONLY, 0o600).unwrap();
    assert_eq!(client.read(entry.nodeid, opened.fh, 0, 10), Ok(b"before".to_vec()));
    let (again, opened) = client.create(top, b"f", libc::O_RDWR | libc::O_TRUNC, 0o600).unwrap();
    assert_eq!(again.nodeid, entry.nodeid);
    assert_eq!(client.read(entry.nodeid, opened.fh, 0, 10), Ok(vec![]));
    client.mkdir(top, b"d", 0o755).unwrap();
    assert_eq!(client.create(top, b"d", libc::O_RDWR, 0o600).map(|_| ()), Err(libc::EISDIR));
}

#[test]
fn extended_attributes_come_and_go() {
    let mut client = Client::new();
    let node = client.mknod(client.top, b"f", libc::S_IFREG | 0o644, 0).unwrap().nodeid;
    assert_eq!(client.getxattr(node, b"user.a", 10), Err(libc::ENODATA));
    client.setxattr(node, b"user.a", b"value", 0).unwrap();
    client.setxattr(node, b"user.a/b", b"", 0).unwrap();
    assert_eq!(client.setxattr(node, b"user.a", b"x", libc::XATTR_CREATE as u32), Err(libc::EEXIST));
    assert_eq!(client.setxattr(node, b"user.c", b"x", libc::XATTR_REPLACE as u32), Err(libc::ENODATA));
    assert_eq!(client.getxattr(node, b"user.a", 0), Ok(vec![5, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(client.getxattr(node, b"user.a", 4), Err(libc::ERANGE));
    assert_eq!(client.getxattr(node, b"user.a", 5), Ok(b"value".to_vec()));
    let list =
        client.call(opcode::LISTXATTR, node, &[GetxattrIn { size: 100, padding: 0 }.as_bytes()]).unwrap();
    let names: BTreeSet<&[u8]> = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    assert_eq!(names, BTreeSet::from([&b"user.a"[..], b"user.a/b"]));
    client.call(opcode::REMOVEXATTR, node, &[b"user.a\0"]).unwrap();
    assert_eq!(client.getxattr(node, b"user.a", 10), Err(libc::ENODATA));
    assert_eq!(client.getxattr(node, b"", 10), Err(libc::EINVAL));
    assert_eq!(client.getxattr(node, &[b'a'; 256], 10), Err(libc::ERANGE));
    assert_eq!(client.getxattr(ROOT, b"user.a", 10), Err(libc::ENODATA));
}

#[test]
fn a_listing_goes_on_from_any_cookie_even_after_its_descriptor_was_taken() {
    let mut client = Client::with(Policy::Exclusive, 1, false);
    let names: BTreeSet<Vec<u8>> = (0..500).map(|i| format!("name {i}").into_bytes()).collect();
    for name in &names {
        std::fs::write(client.outside().join(std::str::from_utf8(name).unwrap()), "").unwrap();
    }
    let fh = client.opendir(client.top).unwrap();
    let (mut cookie, mut found) = (0, Vec::new());
    loop {
        // Takes the only descriptor there may be.
        client.opendir(client.top).unwrap();
        let some = client.readdir(client.top, fh, cookie, 700).unwrap();
        let Some((_, last)) = some.last() else { break };
        cookie = *last;
        found.extend(some);
    }
    let all: BTreeSet<Vec<u8>> = found.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!((found.len(), all.len()), (502, 502));
    assert!(names.is_subset(&all) && all.contains(&b".."[..]));
    // Back to the middle.
    let (name, _) = &found[300];
    let again = client.readdir(client.top, fh, found[299].1, 700).unwrap();
    assert_eq!(&again[0].0, name);
    assert_eq!(client.readdir(client.top, fh, 0, 8), Err(libc::EINVAL));
}

#[test]
fn negative_entries_are_believed_where_nobody_else_writes() {
    for (policy, seconds) in [(Policy::Exclusive, Some(5)), (Policy::Shared, None)] {
        let mut client = Client::with(policy, 64, false);
        let answer = client.call(opcode::LOOKUP, client.top, &[b"missing\0"]);
        match seconds {
            Some(seconds) => {
                let entry = EntryOut::read_from_bytes(&answer.unwrap()).unwrap();
                assert_eq!((entry.nodeid, entry.entry_valid), (0, seconds));
            }
            None => assert_eq!(answer, Err(libc::ENOENT)),
        }
    }
}

#[test]
fn unknown_operations_are_not_there() {
    let mut client = Client::new();
    // ACCESS, BMAP, IOCTL, POLL, DAX, STATX, and numbers without a meaning.
    for opcode in [0, 7, 19, 34, 37, 39, 40, 41, 48, 49, 52, 53, 4096, u32::MAX] {
        assert_eq!(client.call(opcode, client.top, &[&[0; 64]]), Err(libc::ENOSYS), "{opcode}");
    }
}

#[test]
fn exports_are_one_filesystem_to_the_guest_with_numbers_told_apart() {
    let mut client = Client::new();
    let file = client.directory.path().join("alone");
    std::fs::write(&file, "contents").unwrap();
    client.exports.add("file", super::client::path(&file), true).unwrap();
    let top = client.lookup(ROOT, b"0").unwrap().attr;
    // All exports are one filesystem; the first one's numbers are as they are outside.
    assert_eq!((top.flags, top.ino), (0, std::fs::metadata(client.outside()).unwrap().ino()));
    let elsewhere = Path::new("/dev/shm");
    if elsewhere.metadata().is_ok_and(|other| other.dev() != std::fs::metadata(&file).unwrap().dev()) {
        client.exports.add("other", super::client::path(elsewhere), true).unwrap();
        let other = client.lookup(ROOT, b"other").unwrap().attr;
        assert_eq!(other.flags, 0);
        assert_ne!(other.ino, std::fs::metadata(elsewhere).unwrap().ino());
    }
    let alone = client.lookup(ROOT, b"file").unwrap().attr;
    assert_eq!((alone.flags, alone.ino), (0, std::fs::metadata(&file).unwrap().ino()));
    let below = client.mkdir(client.top, b"d", 0o755).unwrap().attr;
    assert_eq!((below.flags, below.ino), (0, std::fs::metadata(client.outside().join("d")).unwrap().ino()));
}

#[test]
fn a_guest_that_opens_nothing_makes_reads_and_writes_all_the_same() {
    let mut client = Client::new();
    client.stop_opening();
    let top = client.top;
    assert_eq!(client.create(top, b"f", libc::O_RDWR, 0o644).unwrap_err(), libc::ENOSYS);
    let node = client.mknod(top, b"f", libc::S_IFREG | 0o640, 0).unwrap().nodeid;
    assert_eq!(client.open(node, libc::O_RDWR), Err(libc::ENOSYS));
    assert_eq!(client.write(node, 0, 0, b"content"), Ok(7));
    assert_eq!(client.read(node, 0, 3, 100).unwrap(), b"tent");
    // What has lost its name is still there for whoever uses it, also when nothing was asked for in a while.
    client.unlink(top, b"f").unwrap();
    client.server.close_idle();
    assert_eq!(client.read(node, 0, 0, 100).unwrap(), b"content");
    assert_eq!(
        client.setattr(node, SetattrIn { valid: fattr::SIZE, size: 1, ..SetattrIn::default() }).unwrap().size,
        1
    );
    client.forget(node, 1);
    assert_eq!(client.server.counts(), (1, 0, 0));
    // A number that is no handle stays none.
    let node = client.mknod(top, b"g", libc::S_IFREG | 0o640, 0).unwrap().nodeid;
    assert_eq!(client.read(node, 7, 0, 1), Err(libc::EBADF));
    assert_eq!(client.write(top, 0, 0, b"x"), Err(libc::EISDIR));
    assert_eq!(client.server.counts().2, 1);
    client.server.close_idle();
    assert_eq!(client.server.counts().2, 0);
}

#[test]
fn a_read_only_export_is_not_written_to_by_a_guest_that_opens_nothing() {
    let mut client = Client::with(Policy::Exclusive, 16, true);
    std::fs::write(client.outside().join("f"), "as it was").unwrap();
    client.stop_opening();
    let node = client.lookup(client.top, b"f").unwrap().nodeid;
    assert_eq!(client.write(node, 0, 0, b"x"), Err(libc::EROFS));
    assert_eq!(client.mknod(client.top, b"g", libc::S_IFREG, 0).unwrap_err(), libc::EROFS);
}

#[test]
fn trusted_attributes_are_kept_under_another_name() {
    let mut client = Client::new();
    std::fs::create_dir(client.outside().join("d")).unwrap();
    let node = client.lookup(client.top, b"d").unwrap().nodeid;
    if client.setxattr(node, b"user.a", b"1", 0) == Err(libc::EOPNOTSUPP) {
        return skip("no user attributes on this file system");
    }
    client.setxattr(node, b"trusted.overlay.opaque", b"y", 0).unwrap();
    assert_eq!(client.getxattr(node, b"trusted.overlay.opaque", 10).unwrap(), b"y");
    let how = GetxattrIn { size: 1000, padding: 0 };
    let list = client.call(opcode::LISTXATTR, node, &[how.as_bytes()]).unwrap();
    let mut names: Vec<&[u8]> = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort();
    assert_eq!(names, [&b"trusted.overlay.opaque"[..], b"user.a"]);
    // Nobody inside reaches them under the name that they have outside.
    assert_eq!(client.getxattr(node, b"user.husk.trusted.overlay.opaque", 10), Err(libc::ENODATA));
    assert_eq!(client.setxattr(node, b"user.husk.trusted.overlay.opaque", b"n", 0), Err(libc::EPERM));
    client.call(opcode::REMOVEXATTR, node, &[b"trusted.overlay.opaque\0"]).unwrap();
    assert_eq!(client.getxattr(node, b"trusted.overlay.opaque", 10), Err(libc::ENODATA));
}
