//! Saved in one server, restored in another: what the guest has in hand goes on, and nothing else comes into its hand.

use super::super::Policy;
use super::super::state::{Saved, SavedHandleKind, SavedPlace, StateError};
use super::super::wire::*;
use super::super::{DESCRIPTORS, Exports, Fs};
use super::client::{Client, init, path, request};
use crate::device::testing::{Chain, Driver};
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use zerocopy::{FromBytes, IntoBytes};

const STALE: i32 = libc::ESTALE;

fn shared() -> Client {
    Client::with(Policy::Shared, DESCRIPTORS, false)
}

/// The inode of a path.
fn find(client: &mut Client, path: &str) -> u64 {
    path.split('/').fold(client.top, |at, name| client.lookup(at, name.as_bytes()).unwrap().nodeid)
}

#[test]
fn a_tree_in_use_goes_on_without_an_init() {
    for policy in [Policy::Exclusive, Policy::Shared] {
        let mut client = Client::with(policy, DESCRIPTORS, false);
        let outside = client.outside();
        fs::create_dir_all(outside.join("a/b/c")).unwrap();
        fs::write(outside.join("a/b/c/read"), "what was there").unwrap();
        fs::write(outside.join("a/b/written"), "0123456789").unwrap();
        symlink("b/c", outside.join("a/link")).unwrap();
        let (read, written) = (find(&mut client, "a/b/c/read"), find(&mut client, "a/b/written"));
        let link = find(&mut client, "a/link");
        let reader = client.open(read, libc::O_RDONLY).unwrap();
        let writer = client.open(written, libc::O_RDWR).unwrap();
        assert_eq!(client.write(written, writer, 0, b"AB"), Ok(2));
        assert_eq!(client.go_on_elsewhere().stale, 0);

        assert_eq!(client.read(read, reader, 5, 100).unwrap(), b"was there");
        assert_eq!(client.write(written, writer, 2, b"CD"), Ok(2));
        assert_eq!(client.write(read, reader, 0, b"X"), Err(libc::EBADF));
        assert_eq!(fs::read(outside.join("a/b/written")).unwrap(), b"ABCD456789");
        assert_eq!(client.readlink(link).unwrap(), b"b/c");
        // The same numbers for the same files, new ones for new files.
        assert_eq!(find(&mut client, "a/b/c/read"), read);
        let made = client.mkdir(client.top, b"made", 0o755).unwrap().nodeid;
        assert!(made > read && made > written && made > link);
        let again = client.open(read, libc::O_RDONLY).unwrap();
        assert!(again > writer);
        // Forgotten as often as it was told, and no sooner: that was twice.
        client.release(read, reader).unwrap();
        client.release(read, again).unwrap();
        client.forget(read, 1);
        assert!(client.getattr(read).is_ok());
        client.forget(read, 1);
        assert_eq!(client.getattr(read), Err(STALE));
    }
}

#[test]
fn a_directory_half_read_is_read_to_its_end() {
    let mut client = shared();
    let many: Vec<String> = (0..500).map(|i| format!("a name that is somewhat long {i}")).collect();
    for name in &many {
        fs::write(client.outside().join(name), "").unwrap();
    }
    let top = client.top;
    let fh = client.opendir(top).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let some = client.readdir(top, fh, at, 2048).unwrap();
        let Some((_, last)) = some.last() else { break };
        at = *last;
        found.extend(some.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()));
        client.go_on_elsewhere();
    }
    found.retain(|name| name != "." && name != "..");
    found.sort();
    let mut expected = many;
    expected.sort();
    assert_eq!(found, expected);
    client.call(opcode::RELEASEDIR, top, &[ReleaseIn { fh, ..ReleaseIn::default() }.as_bytes()]).unwrap();
}

#[test]
fn a_listing_of_the_exports_goes_on_although_they_came_in_another_order() {
    let mut client = shared();
    for name in ["z", "y", "x"] {
        client.exports.add(name, path(&client.outside()), false).unwrap();
    }
    let fh = client.opendir(ROOT).unwrap();
    let first = client.readdir(ROOT, fh, 0, 64).unwrap();
    assert_eq!(first.len(), 2, "{first:?}");
    let saved = Saved::from_bytes(&client.save()).unwrap();
    let exports = Exports::new();
    for name in ["new", "y", "0", "z", "x"] {
        exports.add(name, path(&client.outside()), false).unwrap();
    }
    let proc = std::sync::Arc::new(super::super::open_proc().unwrap());
    client.server = super::super::server::Server::open(Policy::Shared, exports, proc, 100).unwrap();
    client.server.restore(&saved).unwrap();
    let rest = client.readdir(ROOT, fh, first[1].1, 4096).unwrap();
    let names: Vec<&[u8]> = rest.iter().map(|(name, _)| name.as_slice()).collect();
    assert_eq!(names, [&b"y"[..], b"x", b"new"]);
}

#[test]
fn what_has_no_name_is_stale_and_nothing_else_is() {
    let mut client = shared();
    let outside = client.outside();
    for name in ["unlinked", "deleted outside", "stays"] {
        fs::write(outside.join(name), name).unwrap();
    }
    let [unlinked, deleted, stays] =
        ["unlinked", "deleted outside", "stays"].map(|name| find(&mut client, name));
    let [a, b, c] = [unlinked, deleted, stays].map(|node| client.open(node, libc::O_RDWR).unwrap());
    client.unlink(client.top, b"unlinked").unwrap();
    fs::remove_file(outside.join("deleted outside")).unwrap();
    assert_eq!(client.read(unlinked, a, 0, 99).unwrap(), b"unlinked");
    assert_eq!(client.go_on_elsewhere().stale, 2);
    for (node, fh) in [(unlinked, a), (deleted, b)] {
        assert_eq!(client.read(node, fh, 0, 99), Err(STALE));
        assert_eq!(client.write(node, fh, 0, b"x"), Err(STALE));
        assert_eq!(client.getattr(node), Err(STALE));
        // The guest can put it away as ever.
        client.release(node, fh).unwrap();
        client.forget(node, 1);
    }
    assert_eq!(client.read(stays, c, 0, 99).unwrap(), b"stays");
}

#[test]
fn what_was_renamed_is_found_where_a_descriptor_or_a_lookup_tells() {
    let mut client = shared();
    let outside = client.outside();
    fs::create_dir_all(outside.join("deep/er")).unwrap();
    for name in ["inside", "at hand", "forgotten"] {
        fs::write(outside.join(name), name).unwrap();
    }
    let [inside, at_hand, forgotten] = ["inside", "at hand", "forgotten"].map(|name| find(&mut client, name));
    let deep = find(&mut client, "deep");
    client.rename(client.top, b"inside", deep, b"moved", 0).unwrap();
    // A handle on the one keeps a descriptor; nothing does that for the other.
    let fh = client.open(at_hand, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(at_hand, fh, 0, 99).unwrap(), b"at hand");
    fs::rename(outside.join("at hand"), outside.join("deep/er/elsewhere")).unwrap();
    fs::rename(outside.join("forgotten"), outside.join("deep/lost")).unwrap();
    assert_eq!(client.go_on_elsewhere().stale, 1);
    assert!(client.getattr(inside).is_ok());
    assert_eq!(client.read(at_hand, fh, 0, 99).unwrap(), b"at hand");
    assert_eq!(client.getattr(forgotten), Err(STALE));
    // Its new name brings it back.
    assert_eq!(find(&mut client, "deep/lost"), forgotten);
    assert!(client.getattr(forgotten).is_ok());
}

#[test]
fn another_file_under_the_same_name_is_never_taken_for_it() {
    let mut client = shared();
    let outside = client.outside();
    fs::create_dir_all(outside.join("d/sub")).unwrap();
    fs::write(outside.join("d/sub/file"), "mine").unwrap();
    fs::write(outside.join("d/file"), "mine").unwrap();
    fs::write(outside.join("rewritten"), "mine").unwrap();
    fs::write(client.directory.path().join("file"), "secret").unwrap();
    let [file, below, rewritten] = ["d/file", "d/sub/file", "rewritten"].map(|name| find(&mut client, name));
    let [a, b, c] = [file, below, rewritten].map(|node| client.open(node, libc::O_RDONLY).unwrap());
    let sub = find(&mut client, "d/sub");
    let saved = client.save();

    fs::remove_file(outside.join("d/file")).unwrap();
    fs::write(outside.join("d/file"), "another").unwrap();
    fs::write(outside.join("rewritten"), "the same file").unwrap();
    fs::rename(outside.join("d/sub"), outside.join("sub")).unwrap();
    symlink("../..", outside.join("d/sub")).unwrap();
    assert_eq!(client.restore(&saved).unwrap().stale, 3);
    assert_eq!(client.read(file, a, 0, 99), Err(STALE));
    assert_eq!(client.read(below, b, 0, 99), Err(STALE));
    assert_eq!(client.lookup(sub, b"file"), Err(STALE));
    assert_eq!(client.read(rewritten, c, 0, 99).unwrap(), b"the same file");
    // A new look-up finds the new file as one.
    let entry = find(&mut client, "d/file");
    assert_ne!(entry, file);
    let fh = client.open(entry, libc::O_RDONLY).unwrap();
    assert_eq!(client.read(entry, fh, 0, 99).unwrap(), b"another");
}

#[test]
fn without_its_export_everything_is_stale_and_another_source_is_another_tree() {
    let mut client = shared();
    fs::write(client.outside().join("f"), "mine").unwrap();
    let node = find(&mut client, "f");
    let saved = client.save();
    fs::rename(client.outside(), client.directory.path().join("old")).unwrap();
    fs::create_dir(client.outside()).unwrap();
    fs::write(client.outside().join("f"), "another").unwrap();
    assert_eq!(client.restore(&saved).unwrap().stale, 2);
    assert_eq!(client.getattr(node), Err(STALE));
    assert_eq!(client.getattr(client.top), Err(STALE));
    let top = client.lookup(ROOT, b"0").unwrap().nodeid;
    assert_ne!(top, client.top);
    client.exports.remove("0");
    assert_eq!(client.lookup(ROOT, b"0"), Err(libc::ENOENT));
}

#[test]
fn locks_are_had_again_or_nothing_is_restored() {
    let mut client = shared();
    let file = client.outside().join("f");
    fs::write(&file, [0; 100]).unwrap();
    let node = find(&mut client, "f");
    let fh = client.open(node, libc::O_RDWR).unwrap();
    let all = (0, i64::MAX as u64);
    client.lock((node, fh), 1, libc::F_WRLCK, (10, 19), 0).unwrap();
    client.lock((node, fh), 1, libc::F_RDLCK, (15, 29), 0).unwrap();
    client.lock((node, fh), 1, libc::F_UNLCK, (12, 12), 0).unwrap();
    client.lock((node, fh), 2, libc::F_RDLCK, (20, i64::MAX as u64), 0).unwrap();
    client.lock((node, fh), 3, libc::F_RDLCK, all, LK_FLOCK).unwrap();
    let saved = client.save();
    let stranger = |kind: i32, start: i64, len: i64| {
        use std::os::fd::AsRawFd;
        let file = fs::File::options().read(true).write(true).open(&file).unwrap();
        let mut lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: start,
            l_len: len,
            l_pid: 0,
        };
        #[allow(unsafe_code, reason = "fcntl")]
        // SAFETY: an open file and a valid structure.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
        (done == 0).then_some(file)
    };
    assert_eq!(client.restore(&saved).unwrap().stale, 0);
    for (kind, start, len, free) in [
        (libc::F_WRLCK, 0, 10, true),
        (libc::F_RDLCK, 10, 1, false),
        (libc::F_WRLCK, 12, 1, true),
        (libc::F_RDLCK, 13, 2, false),
        (libc::F_RDLCK, 15, 100, true),
        (libc::F_WRLCK, 50, 0, false),
    ] {
        assert_eq!(stranger(kind, start, len).is_some(), free, "{start} {len}");
    }
    assert_eq!(client.save(), saved);
    // Somebody is quicker than the one that goes on.
    client.exports.remove("0");
    client.server.drop_removed();
    let quicker = stranger(libc::F_WRLCK, 11, 1).unwrap();
    assert!(matches!(client.restore(&saved), Err(StateError::Lock { node: there }) if there == node));
    assert_eq!(client.getattr(node), Err(libc::EIO), "a server that was not restored serves nothing");
    drop(quicker);
    client.restore(&saved).unwrap();
    let other = fs::File::open(&file).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    assert!(rustix::fs::flock(&other, exclusive).is_err());
    client.lock((node, fh), 3, libc::F_UNLCK, all, LK_FLOCK).unwrap();
    assert!(rustix::fs::flock(&other, exclusive).is_ok());
}

#[test]
fn a_large_tree_goes_on_within_the_budget() {
    const FILES: usize = 20_000;
    let mut client = Client::with(Policy::Shared, 64, false);
    let top = client.top;
    for directory in 0..FILES / 100 {
        let path = client.outside().join(format!("d{directory}"));
        fs::create_dir(&path).unwrap();
        let node = client.lookup(top, format!("d{directory}").as_bytes()).unwrap().nodeid;
        for file in 0..100 {
            fs::write(path.join(format!("f{file}")), "").unwrap();
            client.lookup(node, format!("f{file}").as_bytes()).unwrap();
        }
    }
    let began = std::time::Instant::now();
    let saved = client.save();
    let in_between = std::time::Instant::now();
    let restored = client.restore(&saved).unwrap();
    eprintln!(
        "{} inodes: {} bytes, saved in {:?}, restored in {:?}",
        restored.inodes,
        saved.len(),
        in_between - began,
        in_between.elapsed()
    );
    assert_eq!((restored.inodes, restored.stale), (FILES + FILES / 100 + 1, 0));
    assert!(client.server.counts().2 <= 64);
    assert!(client.getattr(restored.inodes as u64).is_ok());
}

/// A state with something of everything in it.
fn rich() -> (Client, Saved) {
    let mut client = shared();
    fs::create_dir_all(client.outside().join("d/e")).unwrap();
    fs::write(client.outside().join("d/e/f"), "content").unwrap();
    fs::write(client.outside().join("g"), "content").unwrap();
    let (f, g) = (find(&mut client, "d/e/f"), find(&mut client, "g"));
    let fh = client.open(f, libc::O_RDWR).unwrap();
    client.opendir(client.top).unwrap();
    client.opendir(ROOT).unwrap();
    client.lock((f, fh), 5, libc::F_WRLCK, (3, 4), 0).unwrap();
    client.lock((f, fh), 5, libc::F_WRLCK, (0, i64::MAX as u64), LK_FLOCK).unwrap();
    client.unlink(client.top, b"g").unwrap();
    assert!(client.getattr(g).is_ok());
    let saved = client.server.save();
    (client, saved)
}

#[test]
fn a_state_that_cannot_have_come_about_is_refused_in_plain_words() {
    let (_client, good) = rich();
    assert_eq!(Saved::from_bytes(&good.to_bytes().unwrap()).unwrap(), good);
    let at = |saved: &Saved, name: &[u8]| {
        let found = saved
            .inodes
            .iter()
            .position(|inode| matches!(&inode.place, SavedPlace::Below { name: there, .. } if there == name));
        found.unwrap()
    };
    let name = |saved: &mut Saved, to: &[u8]| {
        let at = at(saved, b"f");
        if let SavedPlace::Below { name, .. } = &mut saved.inodes[at].place {
            *name = to.to_vec();
        }
    };
    type Change<'a> = &'a dyn Fn(&mut Saved);
    let changes: &[(&str, Change<'_>)] = &[
        ("impossible name", &|saved| name(saved, b"..")),
        ("impossible name", &|saved| name(saved, b"a/b")),
        ("impossible name", &|saved| name(saved, b"")),
        ("impossible name", &|saved| name(saved, b"a\0b")),
        ("impossible name", &|saved| name(saved, &[b'x'; 256])),
        ("impossible name", &|saved| saved.exports[0].name = Some(b"../x".to_vec())),
        ("in no directory", &|saved| {
            let (d, e) = (at(saved, b"d"), at(saved, b"e"));
            let id = saved.inodes[e].id;
            saved.inodes[d].place = SavedPlace::Below { parent: id, name: b"x".to_vec() };
            saved.inodes[e].place = SavedPlace::Nowhere;
        }),
        ("too deep", &|saved| {
            let (d, e) = (at(saved, b"d"), at(saved, b"e"));
            let id = saved.inodes[e].id;
            saved.inodes[d].place = SavedPlace::Below { parent: id, name: b"x".to_vec() };
        }),
        ("in no directory", &|saved| {
            let (e, f) = (at(saved, b"e"), at(saved, b"f"));
            let id = saved.inodes[f].id;
            saved.inodes[e].place = SavedPlace::Below { parent: id, name: b"x".to_vec() };
        }),
        ("in no directory", &|saved| saved.inodes[0].place = SavedPlace::Nowhere),
        ("out of order", &|saved| saved.inodes[1].id = saved.inodes[0].id),
        ("out of order", &|saved| saved.inodes[0].id = ROOT),
        ("out of order", &|saved| saved.last_node = 2),
        ("out of order", &|saved| saved.last_handle = 1),
        ("out of order", &|saved| saved.last_export = 0),
        ("no export", &|saved| saved.inodes[1].export = 9),
        ("no mount", &|saved| saved.inodes[1].mount = u32::MAX),
        ("no type", &|saved| saved.inodes[1].kind = 0o170000),
        ("no type", &|saved| saved.inodes[1].kind |= 0o644),
        ("known to nobody", &|saved| {
            let f = at(saved, b"f");
            saved.inodes[f].lookups = 0;
        }),
        ("does not fit", &|saved| saved.handles[0].kind = SavedHandleKind::Directory { position: 0 }),
        ("does not fit", &|saved| saved.handles[0].kind = SavedHandleKind::Root),
        ("does not fit", &|saved| saved.handles[1].kind = SavedHandleKind::File { write: true }),
        ("does not fit", &|saved| saved.handles[1].kind = SavedHandleKind::Directory { position: 1 << 63 }),
        ("does not fit", &|saved| saved.handles[0].node = 99),
        ("no file", &|saved| saved.owners[0].node = saved.inodes[0].id),
        ("out of order", &|saved| saved.owners.reverse()),
        ("impossible locks", &|saved| saved.owners[0].ranges.clear()),
        ("impossible locks", &|saved| saved.owners[0].ranges[0].end = u64::MAX),
        ("impossible locks", &|saved| saved.owners[0].ranges[0].start = 5),
        ("impossible locks", &|saved| saved.owners[1].ranges[0].start = 5),
        ("impossible locks", &|saved| {
            let again = saved.owners[0].ranges[0];
            saved.owners[0].ranges.push(again);
        }),
        ("out of order", &|saved| saved.shared = false),
        ("is missing", &|saved| saved.agreed = None),
        ("leaves out", &|saved| saved.agreed.as_mut().unwrap().opens = false),
    ];
    for (number, (words, change)) in changes.iter().enumerate() {
        let mut saved = good.clone();
        change(&mut saved);
        let refused = Saved::from_bytes(&saved.to_bytes().unwrap()).unwrap_err();
        assert!(matches!(refused, StateError::Nonsense { .. }), "{number}: {refused:?}");
        assert!(refused.to_string().contains(words), "{number}: {refused}");
    }
}

#[test]
fn bytes_that_are_cut_or_changed_are_refused_or_harmless() {
    let (mut client, saved) = rich();
    let good = saved.to_bytes().unwrap();
    for len in 0..good.len() {
        assert!(Saved::from_bytes(&good[..len]).is_err(), "{len} bytes");
    }
    let longer = [&good[..], b"x"].concat();
    assert!(matches!(Saved::from_bytes(&longer), Err(StateError::TooLong(1))));
    let mut newer = good.clone();
    newer[17] = 2;
    let refused = Saved::from_bytes(&newer).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the saved state of the file server has version 2; only version 1 is known here"
    );
    fs::write(client.directory.path().join("f"), "secret").unwrap();
    for at in 0..good.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut changed = good.clone();
            changed[at] ^= bit;
            if client.restore(&changed).is_ok() {
                for (node, fh) in (0..10).flat_map(|node| (0..4).map(move |fh| (node, fh))) {
                    let read = client.read(node, fh, 0, 99);
                    assert!(read.is_err() || read == Ok(b"content".to_vec()), "{read:?}");
                }
            }
        }
    }
    let mut exclusive = Client::new();
    assert!(matches!(exclusive.restore(&good), Err(StateError::OtherPolicy(true))));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Mkdir,
    Create,
    Lookup,
    Unlink,
    Rmdir,
    RenameInside,
    RenameOutside,
    RemoveOutside,
    Open,
    Release,
    Opendir,
    Lock,
    Forget,
}

fn step() -> impl Strategy<Value = (Step, u8, u8, u8)> {
    use Step::*;
    let kind = prop::sample::select(vec![
        Mkdir,
        Mkdir,
        Create,
        Create,
        Create,
        Lookup,
        Lookup,
        Unlink,
        Rmdir,
        RenameInside,
        RenameInside,
        RenameOutside,
        RemoveOutside,
        Open,
        Open,
        Release,
        Opendir,
        Lock,
        Lock,
        Forget,
    ]);
    (kind, any::<u8>(), 0u8..4, 0u8..4)
}

/// Does something, successfully or not.
fn take(
    client: &mut Client,
    nodes: &mut Vec<u64>,
    open: &mut Vec<(u64, u64)>,
    (step, at, a, b): (Step, u8, u8, u8),
) {
    let node = nodes[usize::from(at) % nodes.len()];
    let other = nodes[usize::from(at / 2) % nodes.len()];
    let (name, new) = (format!("n{a}"), format!("n{b}"));
    let entry = match step {
        Step::Mkdir => client.mkdir(node, name.as_bytes(), 0o755).ok(),
        Step::Create => {
            client.create(node, name.as_bytes(), libc::O_RDWR, 0o644).ok().map(|(entry, opened)| {
                open.push((entry.nodeid, opened.fh));
                entry
            })
        }
        Step::Lookup => client.lookup(node, name.as_bytes()).ok(),
        Step::Unlink => client.unlink(node, name.as_bytes()).map_or(None, |_| None),
        Step::Rmdir => client.rmdir(node, name.as_bytes()).map_or(None, |_| None),
        Step::RenameInside => {
            client.rename(node, name.as_bytes(), other, new.as_bytes(), 0).map_or(None, |_| None)
        }
        Step::RenameOutside => {
            let _ = fs::rename(client.outside().join(name), client.outside().join("n0").join(new));
            None
        }
        Step::RemoveOutside => {
            let _ = fs::remove_file(client.outside().join(name));
            None
        }
        Step::Open => {
            open.extend(client.open(node, libc::O_RDWR).map(|fh| (node, fh)));
            None
        }
        Step::Opendir => client.opendir(node).map_or(None, |_| None),
        Step::Release => {
            if !open.is_empty() {
                let (node, fh) = open.swap_remove(usize::from(at) % open.len());
                let _ = client.release(node, fh);
            }
            None
        }
        Step::Lock => {
            if !open.is_empty() {
                let on = open[usize::from(at) % open.len()];
                let kind = [libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK][usize::from(b) % 3];
                let start = u64::from(a) * 3;
                let _ = client.lock(on, u64::from(b), kind, (start, start + 5), u32::from(b == 3));
            }
            None
        }
        Step::Forget => {
            client.forget(node, 1);
            None
        }
    };
    nodes.extend(entry.map(|entry| entry.nodeid));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn saved_restored_and_saved_is_what_was_saved(
        steps in prop::collection::vec(step(), 1..80),
        descriptors in 8usize..40,
    ) {
        let mut client = Client::with(Policy::Shared, descriptors, false);
        let (mut nodes, mut open) = (vec![client.top], Vec::new());
        for step in steps {
            take(&mut client, &mut nodes, &mut open, step);
        }
        let first = client.server.save();
        let bytes = first.to_bytes().unwrap();
        prop_assert_eq!(&Saved::from_bytes(&bytes).unwrap(), &first);
        // What one server can reach, the other can.
        let told: Vec<_> = nodes.iter().map(|node| client.getattr(*node).map(|attr| (attr.ino, attr.mode))).collect();
        client.restore(&bytes).unwrap();
        prop_assert_eq!(&client.server.save(), &first);
        for (node, before) in nodes.iter().zip(told) {
            let now = client.getattr(*node).map(|attr| (attr.ino, attr.mode));
            // What the guest has forgotten may be gone: it was only there for what lay in it.
            let known = first.inodes.iter().find(|inode| inode.id == *node && inode.lookups > 0);
            let Some(inode) = known else { continue };
            // And what has no name is out of reach.
            prop_assert_eq!(now, if inode.place == SavedPlace::Nowhere { Err(STALE) } else { before });
        }
    }
}

#[test]
fn a_device_goes_on_in_another_process_without_an_init() {
    const REQUESTS: usize = 1;
    fn call(driver: &mut Driver, message: Vec<u8>) -> (i32, Vec<u8>) {
        driver.offer(REQUESTS, &Chain::new().readable(message).writable(4096)).unwrap();
        let reply = driver.wait(REQUESTS).written;
        let (head, body) = OutHeader::read_from_prefix(&reply).unwrap();
        (head.error, body.to_vec())
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("f"), "content").unwrap();
    let device = || {
        let exports = Exports::new();
        exports.add("0", path(directory.path()), false).unwrap();
        Fs::new("share", Policy::Shared, exports)
    };
    let mut first = Driver::start(device());
    assert_eq!(call(&mut first, init()).0, 0);
    let entry = |body: &[u8]| EntryOut::read_from_prefix(body).unwrap().0.nodeid;
    let top = entry(&call(&mut first, request(opcode::LOOKUP, ROOT, (0, 0), 2, &[b"0\0"])).1);
    let file = entry(&call(&mut first, request(opcode::LOOKUP, top, (0, 0), 3, &[b"f\0"])).1);
    let (_, body) = call(&mut first, request(opcode::OPEN, file, (0, 0), 4, &[OpenIn::default().as_bytes()]));
    let OpenOut { fh, .. } = OpenOut::read_from_bytes(&body).unwrap();
    let read = ReadIn { fh, size: 100, ..ReadIn::default() };
    let read = request(opcode::READ, file, (0, 0), 5, &[read.as_bytes()]);
    assert!(first.mmio().save_device().is_err(), "a device that runs cannot be saved");
    first.mmio().suspend();
    let saved = first.mmio().save_device().unwrap();
    // It goes on here, as if nothing had happened.
    first.mmio().resume();
    assert_eq!(call(&mut first, read.clone()), (0, b"content".to_vec()));

    // And there: registers and rings are another's business, and as good as new.
    let mut second = Driver::start(device());
    second.mmio().suspend();
    assert!(second.mmio().restore_device(b"nonsense".to_vec()).is_err());
    second.mmio().restore_device(saved).unwrap();
    second.mmio().resume();
    assert_eq!(call(&mut second, read.clone()), (0, b"content".to_vec()));
    // A driver that starts afresh is a stranger.
    second.initialise();
    assert_eq!(call(&mut second, read).0, -libc::EIO);
}
