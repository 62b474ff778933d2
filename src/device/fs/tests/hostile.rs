//! What a guest that means harm sends, and that nothing comes of it.

use super::super::Policy;
use super::super::wire::*;
use super::client::{Client, request};
use super::{is_root, skip};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use zerocopy::IntoBytes;

/// Names that must never reach the host's kernel.
fn hostile_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "./",
        "../",
        "/..",
        "/.",
        "../..",
        "../../..",
        "../canary",
        "../canary/",
        "./canary",
        "a/b",
        "a/../canary",
        "a/../../canary",
        "known/",
        "known/.",
        "known/..",
        "known/../..",
        "/canary",
        "/etc/passwd",
        "/proc/self/exe",
        "/proc/self/fd/0",
        "//etc//passwd",
        "./.",
        "./..",
        "..//",
        "../export",
        "../export/known",
        "known/file",
        "x/",
        "/x",
        "\u{0}/",
        "a\0b",
        "..\0",
        ".\0x",
        "known\0/../canary",
        "\n/",
        "%2e%2e/%2e%2e",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(vec![b'a'; 256]);
    names.push(vec![b'/'; 255]);
    names.push([&[b'b'; 255][..], b"/"].concat());
    names.push([b"../".repeat(300), b"etc".to_vec()].concat());
    names.push(vec![0xff, b'/', 0xfe]);
    names
}

/// Every file below a directory and what it holds.
fn snapshot(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let name = entry.path().to_str().unwrap().to_owned();
            if kind.is_dir() {
                left.push(entry.path());
                found.insert(name, Vec::new());
            } else {
                found.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

/// A request with the hostile name in one of its places.
type Make = fn(&[u8], u64) -> (u32, Vec<u8>);

/// All operations that take a name; those that take two, twice.
fn name_takers() -> Vec<(&'static str, Make)> {
    fn with(fixed: &[u8], names: &[&[u8]]) -> Vec<u8> {
        let mut body = fixed.to_vec();
        for name in names {
            body.extend_from_slice(name);
            body.push(0);
        }
        body
    }
    vec![
        ("LOOKUP", |name, _| (opcode::LOOKUP, with(&[], &[name]))),
        ("SYMLINK", |name, _| (opcode::SYMLINK, with(&[], &[name, b"/etc"]))),
        ("MKNOD", |name, _| {
            let how = MknodIn { mode: libc::S_IFREG | 0o644, ..MknodIn::default() };
            (opcode::MKNOD, with(how.as_bytes(), &[name]))
        }),
        ("MKDIR", |name, _| (opcode::MKDIR, with(MkdirIn { mode: 0o755, umask: 0 }.as_bytes(), &[name]))),
        ("UNLINK", |name, _| (opcode::UNLINK, with(&[], &[name]))),
        ("RMDIR", |name, _| (opcode::RMDIR, with(&[], &[name]))),
        ("RENAME from", |name, top| {
            (opcode::RENAME, with(RenameIn { newdir: top }.as_bytes(), &[name, b"to"]))
        }),
        ("RENAME to", |name, top| {
            (opcode::RENAME, with(RenameIn { newdir: top }.as_bytes(), &[b"known", name]))
        }),
        ("RENAME2 from", |name, newdir| {
            (opcode::RENAME2, with(Rename2In { newdir, ..Rename2In::default() }.as_bytes(), &[name, b"to"]))
        }),
        ("RENAME2 to", |name, newdir| {
            let how = Rename2In { newdir, flags: libc::RENAME_EXCHANGE, padding: 0 };
            (opcode::RENAME2, with(how.as_bytes(), &[b"known", name]))
        }),
        ("LINK", |name, top| (opcode::LINK, with(LinkIn { oldnodeid: top }.as_bytes(), &[name]))),
        ("CREATE", |name, _| {
            let how = CreateIn { flags: libc::O_RDWR as u32, mode: 0o644, ..CreateIn::default() };
            (opcode::CREATE, with(how.as_bytes(), &[name]))
        }),
        ("TMPFILE", |name, _| {
            let how = CreateIn { flags: libc::O_RDWR as u32, mode: 0o644, ..CreateIn::default() };
            (opcode::TMPFILE, with(how.as_bytes(), &[name]))
        }),
    ]
}

#[test]
fn hostile_names_are_refused_by_every_operation_and_nothing_outside_changes() {
    let mut client = Client::new();
    std::fs::create_dir(client.outside().join("known")).unwrap();
    std::fs::write(client.outside().join("known/file"), "inside").unwrap();
    std::fs::write(client.directory.path().join("canary"), "outside").unwrap();
    let known = client.lookup(client.top, b"known").unwrap().nodeid;
    let before = snapshot(client.directory.path());
    let names = hostile_names();
    assert!(names.len() >= 40);
    for (what, make) in name_takers() {
        for name in &names {
            // What the kernel itself sends with TMPFILE.
            if what == "TMPFILE" && matches!(name.as_slice(), b"" | b"/") {
                continue;
            }
            for parent in [client.top, known, ROOT, 77] {
                let (opcode, body) = make(name, client.top);
                let expected =
                    if name.len() > 255 && !name.contains(&b'/') { libc::ENAMETOOLONG } else { libc::EINVAL };
                let expected = if what == "TMPFILE" { libc::EINVAL } else { expected };
                assert_eq!(
                    client.call(opcode, parent, &[&body]),
                    Err(expected),
                    "{what} {name:?} in {parent}"
                );
            }
        }
    }
    assert_eq!(snapshot(client.directory.path()), before);
}

#[test]
fn numbers_that_stand_for_nothing_are_refused() {
    let mut client = Client::new();
    std::fs::write(client.outside().join("f"), "x").unwrap();
    let file = client.lookup(client.top, b"f").unwrap().nodeid;
    let fh = client.open(file, libc::O_RDONLY).unwrap();
    for node in [0, 99, u64::MAX] {
        assert_eq!(client.getattr(node), Err(libc::ESTALE));
        assert_eq!(client.open(node, libc::O_RDONLY), Err(libc::ESTALE));
        assert_eq!(client.lookup(node, b"f").map(|_| ()), Err(libc::ESTALE));
        assert_eq!(client.read(node, fh, 0, 1), Err(libc::EBADF));
        assert_eq!(client.unlink(node, b"f"), Err(libc::ESTALE));
    }
    for other in [0, fh + 1, u64::MAX] {
        assert_eq!(client.read(file, other, 0, 1), Err(libc::EBADF));
        assert_eq!(client.write(file, other, 0, b"x"), Err(libc::EBADF));
        assert_eq!(client.release(file, other), Err(libc::EBADF));
    }
    // The handle of another inode, and one that may not write.
    assert_eq!(client.read(client.top, fh, 0, 1), Err(libc::EBADF));
    assert_eq!(client.write(file, fh, 0, b"x"), Err(libc::EBADF));
    assert_eq!(client.readdir(file, fh, 0, 4096), Err(libc::EBADF));
    let listing = client.opendir(client.top).unwrap();
    assert_eq!(client.read(client.top, listing, 0, 1), Err(libc::EBADF));
    assert_eq!(client.release(client.top, listing), Err(libc::EBADF));
    client.release(file, fh).unwrap();
    assert_eq!(client.release(file, fh), Err(libc::EBADF));
}

#[test]
fn forgetting_more_than_was_told_forgets_once() {
    let mut client = Client::new();
    std::fs::write(client.outside().join("f"), "x").unwrap();
    let first = client.lookup(client.top, b"f").unwrap().nodeid;
    let fh = client.open(first, libc::O_RDWR).unwrap();
    for count in [u64::MAX, 1, 0] {
        client.forget(first, count);
        client.forget(ROOT, count);
        client.forget(12345, count);
    }
    assert_eq!(client.getattr(first), Err(libc::ESTALE));
    assert_eq!(client.write(first, fh, 0, b"y"), Err(libc::ESTALE));
    assert_eq!(client.release(first, fh), Ok(vec![]));
    let second = client.lookup(client.top, b"f").unwrap().nodeid;
    assert_ne!(first, second, "numbers are not used twice");
    assert_eq!(client.server.counts(), (2, 0, 0));
}

#[test]
fn special_files_are_made_and_changed_but_never_opened() {
    if !is_root() {
        return skip("making devices needs root");
    }
    let mut client = Client::new();
    let kinds = [(libc::S_IFIFO, 0), (libc::S_IFSOCK, 0), (libc::S_IFCHR, 0x0103), (libc::S_IFBLK, 0x0800)];
    for (i, (kind, rdev)) in kinds.into_iter().enumerate() {
        let name = format!("special{i}");
        let entry = client.mknod(client.top, name.as_bytes(), kind | 0o666, rdev).unwrap();
        assert_eq!((entry.attr.mode & libc::S_IFMT, entry.attr.rdev), (kind, rdev));
        let node = entry.nodeid;
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR, libc::O_RDWR | libc::O_TRUNC] {
            // Opening the FIFO would wait for ever, the disk has no driver, and the null device has.
            assert_eq!(client.open(node, flags), Err(libc::ENXIO), "{name}");
            assert_eq!(
                client.create(client.top, name.as_bytes(), flags, 0o644).map(|_| ()),
                Err(libc::ENXIO)
            );
        }
        assert_eq!(client.opendir(node), Err(libc::ENOTDIR));
        let how = SetattrIn { valid: fattr::SIZE, size: 0, ..SetattrIn::default() };
        assert_eq!(client.setattr(node, how), Err(libc::ENXIO));
        let how =
            SetattrIn { valid: fattr::MODE | fattr::UID, mode: kind | 0o600, uid: 5, ..SetattrIn::default() };
        let attr = client.setattr(node, how).unwrap();
        assert_eq!((attr.mode, attr.uid), (kind | 0o600, 5));
        // As overlayfs expects it of attributes that are kept as a user's.
        assert_eq!(client.setxattr(node, b"trusted.x", b"1", 0), Err(libc::EPERM));
        assert_eq!(client.getxattr(node, b"trusted.x", 10), Err(libc::ENODATA));
        client.link(node, client.top, format!("link{i}").as_bytes()).unwrap();
        client.unlink(client.top, name.as_bytes()).unwrap();
        assert_eq!(client.getattr(node).unwrap().nlink, 1);
    }
}

#[test]
fn links_are_data_and_lead_nowhere() {
    let mut client = Client::new();
    std::fs::write(client.directory.path().join("canary"), "outside").unwrap();
    let top = client.top;
    for (name, target) in
        [(&b"up"[..], &b"../canary"[..]), (b"root", b"/"), (b"dir", b".."), (b"self", b"self")]
    {
        let link = client.symlink(top, name, target).unwrap().nodeid;
        assert_eq!(client.readlink(link), Ok(target.to_vec()));
        assert_eq!(client.open(link, libc::O_RDWR | libc::O_TRUNC), Err(libc::ELOOP));
        assert_eq!(client.create(top, name, libc::O_RDWR, 0o644).map(|_| ()), Err(libc::ELOOP));
        assert_eq!(client.opendir(link), Err(libc::ENOTDIR));
        assert_eq!(client.lookup(link, b"canary").map(|_| ()), Err(libc::ENOTDIR));
        assert_eq!(client.mkdir(link, b"x", 0o755).map(|_| ()), Err(libc::ENOTDIR));
        // The link's own, not the target's.
        let how = SetattrIn { valid: fattr::MTIME, mtime: 1, ..SetattrIn::default() };
        assert_eq!(client.setattr(link, how).unwrap().mtime, 1);
    }
    let canary = std::fs::metadata(client.directory.path().join("canary")).unwrap();
    assert!(canary.modified().unwrap().elapsed().unwrap().as_secs() < 1000);
    assert_eq!(canary.len(), 7);
}

#[test]
fn a_directory_swapped_for_a_link_on_the_host_is_stale_and_not_followed() {
    // With room for one descriptor, each step is taken anew.
    let mut client = Client::with(Policy::Shared, 1, false);
    let outside = client.directory.path().join("secret");
    std::fs::create_dir_all(outside.join("b")).unwrap();
    std::fs::write(outside.join("b/f"), "secret").unwrap();
    std::fs::create_dir_all(client.outside().join("a/b")).unwrap();
    std::fs::write(client.outside().join("a/b/f"), "open").unwrap();
    let a = client.lookup(client.top, b"a").unwrap().nodeid;
    let b = client.lookup(a, b"b").unwrap().nodeid;
    let f = client.lookup(b, b"f").unwrap().nodeid;
    client.opendir(client.top).unwrap();
    std::fs::rename(client.outside().join("a"), client.directory.path().join("away")).unwrap();
    std::os::unix::fs::symlink("../secret", client.outside().join("a")).unwrap();
    assert_eq!(client.open(f, libc::O_RDONLY), Err(libc::ESTALE));
    assert_eq!(client.lookup(b, b"f").map(|_| ()), Err(libc::ESTALE));
    // The real thing, but another one.
    std::fs::remove_file(client.outside().join("a")).unwrap();
    std::fs::rename(&outside, client.outside().join("a")).unwrap();
    client.opendir(client.top).unwrap();
    assert_eq!(client.open(f, libc::O_RDONLY), Err(libc::ESTALE));
    assert_ne!(client.lookup(client.top, b"a").unwrap().nodeid, a);
}

#[test]
fn nothing_in_a_read_only_export_can_be_changed() {
    let mut client = Client::with(Policy::Exclusive, 64, true);
    std::fs::write(client.outside().join("f"), "x").unwrap();
    std::fs::create_dir(client.outside().join("d")).unwrap();
    let before = snapshot(client.directory.path());
    let file = client.lookup(client.top, b"f").unwrap().nodeid;
    let top = client.top;
    const ROFS: i32 = libc::EROFS;
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(client.open(file, flags), Err(ROFS));
    }
    assert_eq!(client.create(top, b"new", libc::O_RDWR, 0o644).map(|_| ()), Err(ROFS));
    assert_eq!(client.create(top, b"f", libc::O_RDONLY, 0o644).map(|_| ()), Err(ROFS));
    assert_eq!(client.mkdir(top, b"new", 0o755).map(|_| ()), Err(ROFS));
    assert_eq!(client.mknod(top, b"new", libc::S_IFREG | 0o644, 0).map(|_| ()), Err(ROFS));
    assert_eq!(client.symlink(top, b"new", b"x").map(|_| ()), Err(ROFS));
    assert_eq!(client.link(file, top, b"new").map(|_| ()), Err(ROFS));
    assert_eq!(client.unlink(top, b"f"), Err(ROFS));
    assert_eq!(client.rmdir(top, b"d"), Err(ROFS));
    assert_eq!(client.rename(top, b"f", top, b"g", 0), Err(ROFS));
    assert_eq!(client.setxattr(file, b"user.x", b"1", 0), Err(ROFS));
    assert_eq!(client.call(opcode::REMOVEXATTR, file, &[b"user.x\0"]), Err(ROFS));
    for valid in [fattr::MODE, fattr::UID, fattr::SIZE, fattr::MTIME_NOW, 0] {
        assert_eq!(client.setattr(file, SetattrIn { valid, ..SetattrIn::default() }), Err(ROFS));
    }
    let tmpfile = CreateIn { flags: libc::O_RDWR as u32, mode: 0o600, ..CreateIn::default() };
    assert_eq!(client.call(opcode::TMPFILE, top, &[tmpfile.as_bytes(), b"/\0"]), Err(ROFS));
    // A file that is open for reading only cannot be changed through its handle either.
    let fh = client.open(file, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(file, fh, 0, 10), Ok(b"x".to_vec()));
    assert_eq!(client.write(file, fh, 0, b"y"), Err(libc::EBADF));
    let fallocate = FallocateIn { fh, length: 100, ..FallocateIn::default() };
    assert_eq!(client.call(opcode::FALLOCATE, file, &[fallocate.as_bytes()]), Err(libc::EBADF));
    assert_eq!(snapshot(client.directory.path()), before);
    // Nor the synthetic root.
    assert_eq!(client.mkdir(ROOT, b"new", 0o755).map(|_| ()), Err(ROFS));
    assert_eq!(client.unlink(ROOT, b"0"), Err(ROFS));
    assert_eq!(client.rename(ROOT, b"0", top, b"x", 0), Err(ROFS));
    assert_eq!(client.setattr(ROOT, SetattrIn::default()), Err(ROFS));
}

#[test]
fn nothing_is_moved_or_linked_from_one_export_to_another() {
    let mut client = Client::new();
    let other = client.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("f"), "read only").unwrap();
    client.exports.add("1", super::client::path(&other), true).unwrap();
    client.exports.add("2", super::client::path(&client.outside()), false).unwrap();
    let read_only = client.lookup(ROOT, b"1").unwrap().nodeid;
    let again = client.lookup(ROOT, b"2").unwrap().nodeid;
    assert_ne!(again, client.top, "each export is a world of its own");
    let file = client.lookup(read_only, b"f").unwrap().nodeid;
    // A link would make it writable.
    assert_eq!(client.link(file, client.top, b"f").map(|_| ()), Err(libc::EROFS));
    std::fs::write(client.outside().join("g"), "").unwrap();
    let file = client.lookup(client.top, b"g").unwrap().nodeid;
    assert_eq!(client.link(file, again, b"h").map(|_| ()), Err(libc::EXDEV));
    assert_eq!(client.rename(client.top, b"g", again, b"h", 0), Err(libc::EXDEV));
    assert_eq!(client.rename(client.top, b"g", read_only, b"h", 0), Err(libc::EROFS));
}

#[test]
fn an_export_that_is_removed_is_gone_for_good() {
    let mut client = Client::new();
    std::fs::write(client.outside().join("f"), "x").unwrap();
    let file = client.lookup(client.top, b"f").unwrap().nodeid;
    let fh = client.open(file, libc::O_RDWR).unwrap();
    let listing = client.opendir(client.top).unwrap();
    client.exports.remove("0");
    assert_eq!(client.read(file, fh, 0, 1), Err(libc::ESTALE));
    assert_eq!(client.write(file, fh, 0, b"y"), Err(libc::ESTALE));
    assert_eq!(client.getattr(client.top), Err(libc::ESTALE));
    assert_eq!(client.readdir(client.top, listing, 0, 4096), Err(libc::ESTALE));
    client.server.drop_removed();
    assert_eq!(client.server.counts().2, 0);
    assert_eq!(client.lookup(ROOT, b"0").map(|_| ()), Err(libc::ENOENT));
    client.exports.add("0", super::client::path(&client.outside()), false).unwrap();
    assert_ne!(client.lookup(ROOT, b"0").unwrap().nodeid, client.top);
    assert_eq!(client.getattr(client.top), Err(libc::ESTALE));
    client.release(file, fh).unwrap();
}

#[test]
fn nothing_is_served_before_init() {
    let mut client = Client::new();
    client.call(opcode::DESTROY, 0, &[]).unwrap();
    assert_eq!(client.getattr(ROOT), Err(libc::EIO));
    assert_eq!(client.server.counts(), (0, 0, 0));
    let mut old = super::client::init();
    old[44..48].copy_from_slice(&31u32.to_le_bytes());
    assert_eq!(client.bytes(&old), Err(libc::EPROTO));
    client.bytes(&super::client::init()).unwrap();
    assert!(client.getattr(ROOT).is_ok());
}

/// Requests that look right at first: a real opcode and inode, a body of any bytes.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![9 => 1u32..56, 1 => any::<u32>()];
    let node = prop_oneof![1u64..8, any::<u64>()];
    let small =
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'f'), Just(b'/'), any::<u8>()], 0..120);
    (opcode, node, small, any::<Option<u32>>()).prop_map(|(opcode, node, body, len)| {
        let mut bytes = request(opcode, node, (0, 0), 7, &[&body]);
        if let Some(len) = len {
            bytes[..4].copy_from_slice(&len.to_le_bytes());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_requests_neither_panic_nor_leave_the_export(
        requests in prop::collection::vec(prop_oneof![8 => any_request(), 1 => prop::collection::vec(any::<u8>(), 0..200)], 1..60),
        descriptors in 1usize..20,
    ) {
        let mut client = Client::with(Policy::Exclusive, descriptors, false);
        std::fs::create_dir(client.outside().join("f")).unwrap();
        std::fs::write(client.directory.path().join("canary"), "outside").unwrap();
        let _ = client.lookup(client.top, b"f");
        for request in &requests {
            // A second INIT is a new beginning, and so is DESTROY.
            let _ = client.bytes(request);
            prop_assert!(client.server.counts().2 <= descriptors);
        }
        let beside: Vec<_> = std::fs::read_dir(client.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        prop_assert_eq!(beside.len(), 2);
        prop_assert_eq!(std::fs::read(client.directory.path().join("canary")).unwrap(), b"outside");
    }
}
