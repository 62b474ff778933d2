//! Real work through a real kernel.

use super::super::Policy;
use super::mount::{Mounted, Setup};
use super::tree::{assert_same, describe, grow};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Packs one directory and unpacks it in another, everything included.
fn copy_with_tar(from: &Path, to: &Path) {
    let everything = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "--sparse"];
    let mut pack = Command::new("tar")
        .args(everything)
        .args(["-cf", "-", "-C"])
        .arg(from)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let unpacked = Command::new("tar")
        .args(everything)
        .args(["-xpf", "-", "-C"])
        .arg(to)
        .stdin(pack.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(unpacked.success() && pack.wait().unwrap().success());
}

/// One after the other: the machines that run tests have few cores, and these tests keep two of them busy.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn a_tree_goes_in_and_out_unchanged(setup: Setup, files: usize) {
    let _alone = alone();
    let Some(mounted) = Mounted::new(setup) else { return };
    let (original, back) = (mounted.beside.join("original"), mounted.beside.join("back"));
    fs::create_dir(&back).unwrap();
    grow(&original, files);
    let expected = describe(&original);
    copy_with_tar(&original, &mounted.inside);
    assert_same(&expected, &describe(&mounted.inside));
    copy_with_tar(&mounted.inside, &back);
    assert_same(&expected, &describe(&back));
    rustix::fs::syncfs(File::open(&mounted.inside).unwrap()).unwrap();
    assert_same(&expected, &describe(&mounted.outside));
    let removed = Command::new("rm").arg("-rf").arg(mounted.inside.join("d0")).status().unwrap();
    assert!(removed.success() && !mounted.outside.join("d0").exists());
}

#[test]
fn a_tree_of_20_000_files_goes_in_and_out_unchanged() {
    a_tree_goes_in_and_out_unchanged(Setup { in_memory: true, ..Setup::default() }, 20_000);
}

#[test]
fn a_tree_on_disk_goes_in_and_out_unchanged() {
    a_tree_goes_in_and_out_unchanged(Setup::default(), 300);
}

#[test]
fn a_shared_tree_goes_in_and_out_unchanged() {
    a_tree_goes_in_and_out_unchanged(
        Setup { policy: Policy::Shared, in_memory: true, ..Setup::default() },
        3000,
    );
}

/// Runs a test in a mount of each kind.
pub fn in_each(test: impl Fn(&Mounted)) {
    let _alone = alone();
    for policy in [Policy::Exclusive, Policy::Shared] {
        let Some(mounted) = Mounted::new(Setup { policy, in_memory: true, ..Setup::default() }) else {
            return;
        };
        test(&mounted);
    }
}

#[test]
fn a_walk_over_many_files_stays_within_its_descriptors() {
    let _alone = alone();
    let setup = Setup { descriptors: 24, in_memory: true, ..Setup::default() };
    let Some(mounted) = Mounted::new(setup) else { return };
    for i in 0..8000 {
        let directory = mounted.outside.join(format!("a{}/b{}/c{}", i / 1000, i / 100 % 10, i / 20 % 5));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("f{i}")), format!("{i}")).unwrap();
    }
    let count = |path: &Path| {
        let found = Command::new("find").arg(path).args(["-type", "f", "-size", "-9"]).output().unwrap();
        assert!(found.status.success());
        found.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    assert_eq!(count(&mounted.inside), 8000);
    let deepest = File::open(mounted.inside.join("a3/b3/c3")).unwrap();
    // The tree is moved about while the kernel remembers all of it.
    for i in 0..8 {
        let from = mounted.inside.join(format!("a{i}"));
        fs::create_dir_all(mounted.inside.join(format!("moved/{i}"))).unwrap();
        fs::rename(from.join("b3"), mounted.inside.join(format!("moved/{i}/b"))).unwrap();
        fs::rename(&from, mounted.inside.join(format!("moved/{i}/a"))).unwrap();
    }
    for i in (0..8000).step_by(7) {
        let (a, b, c) = (i / 1000, i / 100 % 10, i / 20 % 5);
        let directory = if b == 3 { format!("moved/{a}/b/c{c}") } else { format!("moved/{a}/a/b{b}/c{c}") };
        assert_eq!(
            fs::read_to_string(mounted.inside.join(directory).join(format!("f{i}"))).unwrap(),
            format!("{i}")
        );
    }
    assert_eq!(rustix::fs::openat(&deepest, "f3379", OFlags::RDONLY, Mode::empty()).map(drop), Ok(()));
    // More open at once than there are descriptors.
    let open: Vec<File> = (0..200)
        .map(|i| {
            File::open(mounted.inside.join(format!("moved/0/a/b{}/c{}/f{i}", i / 100, i / 20 % 5))).unwrap()
        })
        .collect();
    for (i, mut file) in open.iter().enumerate() {
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, format!("{i}"));
    }
    assert!(mounted.most_inodes.load(Ordering::Relaxed) > 8000);
    let most = mounted.most_descriptors.load(Ordering::Relaxed);
    assert!((20..=24).contains(&most), "{most} descriptors");
}

#[test]
fn a_directory_of_100_000_names_lists_completely_while_it_changes() {
    let _alone = alone();
    // On disk: that is where cookies are hashes.
    let Some(mounted) = Mounted::new(Setup::default()) else { return };
    for i in 0..100_000 {
        // Links are quicker made than files.
        match i % 1000 {
            0 => drop(File::create(mounted.outside.join(format!("stays {i}"))).unwrap()),
            n => fs::hard_link(
                mounted.outside.join(format!("stays {}", i - n)),
                mounted.outside.join(format!("stays {i}")),
            )
            .unwrap(),
        }
    }
    let (inside, outside) = (mounted.inside.clone(), mounted.outside.clone());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                // Inside and outside by turns, made and removed and renamed.
                let directory = if i % 2 == 0 { &inside } else { &outside };
                fs::write(directory.join(format!("passes {i}")), "").unwrap();
                fs::rename(directory.join(format!("passes {i}")), directory.join(format!("went {i}")))
                    .unwrap();
                fs::remove_file(directory.join(format!("went {i}"))).unwrap();
            }
        });
        for _ in 0..2 {
            let mut seen = HashMap::new();
            for entry in fs::read_dir(&inside).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name.starts_with("stays") {
                    *seen.entry(name).or_insert(0) += 1;
                }
            }
            assert_eq!((seen.len(), seen.values().max()), (100_000, Some(&1)));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn files_without_a_name_work_and_can_get_one() {
    in_each(|mounted| {
        let fd =
            rustix::fs::openat(CWD, &mounted.inside, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR | Mode::WUSR)
                .unwrap();
        let mut file = File::from(fd);
        file.write_all(b"nameless").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        let named = mounted.inside.join("named");
        let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, proc.as_str(), CWD, &named, AtFlags::SYMLINK_FOLLOW).unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&named).unwrap(), "nameless");
        assert_eq!(fs::metadata(&named).unwrap().nlink(), 1);

        // One that loses its name.
        let mut open = OpenOptions::new().read(true).write(true).open(&named).unwrap();
        fs::remove_file(&named).unwrap();
        open.set_len(3).unwrap();
        open.seek(std::io::SeekFrom::End(0)).unwrap();
        open.write_all(b"!").unwrap();
        assert_eq!((open.metadata().unwrap().nlink(), open.metadata().unwrap().len()), (0, 4));
        let again = File::open(format!("/proc/self/fd/{}", open.as_raw_fd())).unwrap();
        let mut content = [0; 4];
        again.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"nam!");

        // A directory that does.
        let directory = mounted.inside.join("cwd");
        fs::create_dir(&directory).unwrap();
        let held = File::open(&directory).unwrap();
        fs::remove_dir(&directory).unwrap();
        assert_eq!(held.metadata().unwrap().nlink(), 0);
        let made = rustix::fs::openat(&held, "x", OFlags::CREATE | OFlags::RDWR, Mode::RUSR);
        assert_eq!(made.map(drop), Err(rustix::io::Errno::NOENT));
    });
}

#[test]
fn renames_with_flags_do_what_they_say() {
    in_each(|mounted| {
        let path = |name: &str| mounted.inside.join(name);
        fs::write(path("a"), "a").unwrap();
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/b"), "b").unwrap();
        let rename = |from, to, flags| rustix::fs::renameat_with(CWD, path(from), CWD, path(to), flags);
        assert_eq!(rename("a", "d/b", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
        rename("a", "d/b", RenameFlags::EXCHANGE).unwrap();
        assert_eq!(
            (fs::read_to_string(path("a")).unwrap(), fs::read_to_string(path("d/b")).unwrap()),
            ("b".into(), "a".into())
        );
        rename("a", "d", RenameFlags::EXCHANGE).unwrap();
        assert!(path("a").is_dir() && path("a/b").is_file() && path("d").is_file());
        rename("a/b", "c", RenameFlags::WHITEOUT).unwrap();
        let whiteout = fs::symlink_metadata(path("a/b")).unwrap();
        assert_eq!((whiteout.mode() & libc::S_IFMT, whiteout.rdev()), (libc::S_IFCHR, 0));
        assert_eq!(fs::read_to_string(path("c")).unwrap(), "a");
        assert_eq!(fs::read_to_string(mounted.outside.join("c")).unwrap(), "a");
    });
}

#[test]
fn a_writer_without_privileges_takes_set_user_id_bits_away() {
    in_each(|mounted| {
        for (who, expected) in [(1000, 0o777), (0, 0o6777)] {
            let file = mounted.inside.join(format!("suid{who}"));
            fs::write(&file, "x").unwrap();
            rustix::fs::lsetxattr(
                &file,
                "security.capability",
                &super::tree::CAPABILITY,
                XattrFlags::empty(),
            )
            .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o6777)).unwrap();
            fs::set_permissions(mounted.inside.parent().unwrap(), fs::Permissions::from_mode(0o755)).ok();
            // The temporary directories above are closed to others: the file is handed over open.
            let open = OpenOptions::new().append(true).open(&file).unwrap();
            let status = Command::new("sh")
                .args(["-c", "echo y"])
                .uid(who)
                .gid(who)
                .stdout(Stdio::from(open))
                .status();
            assert!(status.unwrap().success());
            for path in [file.clone(), mounted.outside.join(format!("suid{who}"))] {
                assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, expected, "{who} {path:?}");
                assert!(!super::tree::xattrs(&path).contains_key("security.capability"));
            }
        }
    });
}

#[test]
fn default_acls_and_group_ids_are_inherited() {
    in_each(|mounted| {
        let directory = mounted.inside.join("acl");
        fs::create_dir(&directory).unwrap();
        // user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::---
        let entry = |tag: u16, permissions: u16, id: u32| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let none = u32::MAX;
        let acl = [
            vec![2, 0, 0, 0],
            entry(1, 7, none),
            entry(2, 7, 1234),
            entry(4, 5, none),
            entry(16, 7, none),
            entry(32, 0, none),
        ]
        .concat();
        rustix::fs::lsetxattr(&directory, "system.posix_acl_default", &acl, XattrFlags::empty()).unwrap();
        let child = directory.join("child");
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("umask 077; echo x > '{}'", child.display()))
            .status()
            .unwrap();
        assert!(status.success());
        // The umask does not count where there is a default ACL.
        assert_eq!(fs::metadata(&child).unwrap().mode() & 0o777, 0o660);
        assert!(super::tree::xattrs(&child).contains_key("system.posix_acl_access"));
        assert_eq!(super::tree::xattrs(&child), super::tree::xattrs(&mounted.outside.join("acl/child")));
        let plain = mounted.inside.join("plain");
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("umask 077; echo x > '{}'", plain.display()))
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(fs::metadata(&plain).unwrap().mode() & 0o777, 0o600);
    });
}

#[test]
fn fifos_sockets_devices_and_programs_work_inside() {
    in_each(|mounted| {
        let path = |name: &str| mounted.inside.join(name);
        rustix::fs::mknodat(CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        let mut reader = Command::new("cat").arg(path("fifo")).stdout(Stdio::piped()).spawn().unwrap();
        fs::write(path("fifo"), "through the fifo").unwrap();
        let mut got = String::new();
        reader.stdout.take().unwrap().read_to_string(&mut got).unwrap();
        assert!(reader.wait().unwrap().success());
        assert_eq!(got, "through the fifo");
        let listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::net::UnixStream::connect(path("socket")).unwrap();
        drop(listener);
        rustix::fs::mknodat(
            CWD,
            path("zero"),
            rustix::fs::FileType::CharacterDevice,
            Mode::RWXU,
            rustix::fs::makedev(1, 5),
        )
        .unwrap();
        let mut zeros = [1; 16];
        File::open(path("zero")).unwrap().read_exact(&mut zeros).unwrap();
        assert_eq!(zeros, [0; 16]);
        fs::copy("/bin/true", path("program")).unwrap();
        assert!(Command::new(path("program")).status().unwrap().success());
        // While it runs it cannot be written to, afterwards it can.
        fs::write(path("program"), "#!/bin/sh\nexit 3\n").unwrap();
        assert_eq!(Command::new(path("program")).status().unwrap().code(), Some(3));
    });
}

#[test]
fn what_others_change_in_a_shared_tree_is_seen_at_once() {
    let _alone = alone();
    let setup = Setup { policy: Policy::Shared, in_memory: true, ..Setup::default() };
    let Some(mounted) = Mounted::new(setup) else { return };
    let (inside, outside) = (mounted.inside.join("f"), mounted.outside.join("f"));
    assert!(!inside.exists());
    for i in 0..200 {
        let content = format!("{i}").repeat(i % 5 + 1);
        fs::write(&outside, &content).unwrap();
        assert_eq!(fs::read_to_string(&inside).unwrap(), content);
        assert_eq!(fs::metadata(&inside).unwrap().len(), content.len() as u64);
        // Replaced the way careful programs do.
        fs::write(mounted.outside.join("new"), "new").unwrap();
        fs::rename(mounted.outside.join("new"), &outside).unwrap();
        assert_eq!(fs::read_to_string(&inside).unwrap(), "new");
        fs::remove_file(&outside).unwrap();
        assert!(!inside.exists());
    }
    let mut log = OpenOptions::new().append(true).create(true).open(&inside).unwrap();
    let mut other = OpenOptions::new().append(true).open(&outside).unwrap();
    for _ in 0..100 {
        log.write_all(b"in.").unwrap();
        other.write_all(b"out.").unwrap();
    }
    assert_eq!(fs::read_to_string(&outside).unwrap(), "in.out.".repeat(100));
}

#[test]
fn a_file_replaced_behind_an_exclusive_guests_back_is_found_a_second_later() {
    let _alone = alone();
    let Some(mounted) = Mounted::new(Setup { in_memory: true, ..Setup::default() }) else { return };
    let (inside, outside) = (mounted.inside.join("f"), mounted.outside.join("f"));
    fs::write(&inside, "old").unwrap();
    assert_eq!(fs::read_to_string(&inside).unwrap(), "old");
    fs::remove_file(&outside).unwrap();
    fs::write(&outside, "new, from the host").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(fs::read_to_string(&inside).unwrap(), "new, from the host");
    // And one that has grown, under the same name.
    fs::write(&outside, "longer, from the host as well").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(fs::read_to_string(&inside).unwrap(), "longer, from the host as well");
}

#[test]
fn other_filesystems_below_an_export_are_visible_and_told_apart() {
    let _alone = alone();
    let Some(mounted) = Mounted::new(Setup { in_memory: true, ..Setup::default() }) else { return };
    let below = mounted.beside.join("tree");
    fs::create_dir_all(below.join("other")).unwrap();
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &below.join("other"), Some("tmpfs"), flags, None::<&str>).unwrap();
    for i in 0..50 {
        fs::write(below.join(format!("f{i}")), "").unwrap();
        fs::write(below.join(format!("other/f{i}")), "").unwrap();
    }
    let outside: Vec<u64> =
        (0..50).map(|i| fs::metadata(below.join(format!("f{i}"))).unwrap().ino()).collect();
    let other: Vec<u64> =
        (0..50).map(|i| fs::metadata(below.join(format!("other/f{i}"))).unwrap().ino()).collect();
    assert!(outside.iter().any(|ino| other.contains(ino)), "the test needs numbers that collide");
    mounted.exports.add("1", super::mount::source(&below), false).unwrap();
    let root = mounted.inside.parent().unwrap().join("1");
    let mut seen = std::collections::HashSet::new();
    for directory in [root.clone(), root.join("other")] {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
            let meta = fs::symlink_metadata(entry.path()).unwrap();
            assert!(seen.insert((meta.dev(), meta.ino())), "{:?}", entry.path());
        }
    }
    assert_eq!(seen.len(), 101);
    fs::write(root.join("other/new"), "x").unwrap();
    assert_eq!(fs::read_to_string(below.join("other/new")).unwrap(), "x");
    assert_eq!(
        fs::rename(root.join("f0"), root.join("other/moved")).unwrap_err().raw_os_error(),
        Some(libc::EXDEV)
    );
}

#[test]
fn an_overlay_can_be_exported_and_copied_up_while_files_are_open() {
    let _alone = alone();
    // Few, but enough to keep the ten files below that lose the name by which they were seen last.
    let Some(mounted) = Mounted::new(Setup { in_memory: true, descriptors: 24, ..Setup::default() }) else {
        return;
    };
    let path = |name: &str| mounted.beside.join(name);
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(path(name)).unwrap();
    }
    // The lower layer is another filesystem: numbers change when a file is copied up.
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), &path("lower"), Some("tmpfs"), flags, None::<&str>).unwrap();
    fs::create_dir(path("lower/d")).unwrap();
    for i in 0..40 {
        fs::write(path(&format!("lower/d/f{i}")), format!("lower {i}")).unwrap();
    }
    let options = format!(
        "xino=off,lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    if let Err(error) =
        nix::mount::mount(Some("overlay"), &path("merged"), Some("overlay"), flags, Some(options.as_str()))
    {
        return super::skip(&format!("cannot mount an overlay: {error}"));
    }
    mounted.exports.add("1", super::mount::source(&path("merged")), false).unwrap();
    let root = mounted.inside.parent().unwrap().join("1/d");
    let open: Vec<File> = (0..40).map(|i| File::open(root.join(format!("f{i}"))).unwrap()).collect();
    for i in 0..40 {
        let file = root.join(format!("f{i}"));
        if i % 4 == 0 {
            // Copied up by a rename there and back, or by a link.
            fs::rename(&file, root.join("elsewhere")).unwrap();
            fs::rename(root.join("elsewhere"), &file).unwrap();
        } else if i % 4 == 1 {
            fs::hard_link(&file, root.join("link")).unwrap();
            fs::remove_file(root.join("link")).unwrap();
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let mut append = OpenOptions::new().append(true).open(&file).unwrap();
        append.write_all(b", upper").unwrap();
    }
    for (i, mut file) in open.iter().enumerate() {
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap_or_else(|error| panic!("file {i}: {error}"));
        assert_eq!(content, format!("lower {i}, upper"));
        assert_eq!(fs::read_to_string(path(&format!("upper/d/f{i}"))).unwrap(), format!("lower {i}, upper"));
    }
    // The names are looked up again, with what they stand for: still the inodes that are open.
    let listed: Vec<_> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().metadata().unwrap()).collect();
    assert_eq!(listed.len(), 40);
    for (i, file) in open.iter().enumerate() {
        let name = root.join(format!("f{i}"));
        match i % 3 {
            0 => fs::rename(&name, root.join(format!("g{i}"))).unwrap(),
            1 => fs::hard_link(&name, root.join(format!("g{i}"))).unwrap(),
            _ => fs::copy(&name, root.join(format!("g{i}"))).map(drop).unwrap(),
        }
        let meta = fs::metadata(root.join(format!("g{i}"))).unwrap();
        assert_eq!(meta.ino() == file.metadata().unwrap().ino(), i % 3 != 2, "f{i}");
        fs::write(root.join(format!("g{i}")), "rewritten").unwrap();
        let mut content = [0; 9];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content == b"rewritten", i % 3 != 2, "f{i}");
    }
    // A file that is another one by now, under the same name: in an overlay the name decides, as long as the guest
    // has the tree to itself.
    fs::write(root.join("name"), "old").unwrap();
    assert_eq!(fs::metadata(root.join("name")).unwrap().len(), 3);
    fs::write(path("merged/d/new"), "new and longer").unwrap();
    fs::rename(path("merged/d/new"), path("merged/d/name")).unwrap();
    let renamed = fs::rename(root.join("name"), root.join("known"));
    assert!(
        renamed.is_ok() && fs::set_permissions(root.join("known"), fs::Permissions::from_mode(0o640)).is_ok()
    );
    drop(open);
    fs::remove_dir_all(&root).unwrap();
    assert!(!path("merged/d").exists());
}

/// What small files cost, in requests, as a program that unpacks an archive makes them: this is what a container's
/// time on files mostly goes to.
#[test]
fn small_files_take_few_requests() {
    const FILES: usize = 200;
    let _alone = alone();
    let Some(mounted) = Mounted::new(Setup::default()) else { return };
    let source = mounted.beside.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..FILES {
        fs::write(source.join(number.to_string()), format!("content of {number}\n")).unwrap();
    }
    // As a container has it: without the way to the export, whose name is looked up each time.
    let inside = mounted.beside.join("inside");
    fs::create_dir(&inside).unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&mounted.inside), &inside, None::<&str>, bind, None::<&str>).unwrap();
    let archive = mounted.beside.join("archive");
    let tar = |args: &[&str], directory: &Path| {
        let done = Command::new("tar").args(args).arg(&archive).arg("-C").arg(directory).arg(".").status();
        assert!(done.unwrap().success());
    };
    tar(&["-cf"], &source);
    let mut much = Vec::new();
    let mut phase = |what: &str, most: usize| {
        let counts = std::mem::take(&mut *mounted.requests.lock().unwrap());
        let all: usize = counts.values().sum();
        println!("{what}: {all} requests, by opcode {counts:?}");
        if all > most * FILES + 60 {
            much.push(format!("{what}: {all} requests for {FILES} files: {counts:?}"));
        }
    };
    phase("mount", 1);
    tar(&["-xf"], &inside);
    phase("unpack", 9);
    tar(&["-cf"], &inside);
    phase("pack", 2);
    for number in 0..FILES {
        fs::read(inside.join(number.to_string())).unwrap();
    }
    phase("read", 1);
    for number in 0..FILES {
        fs::write(inside.join(number.to_string()), "other").unwrap();
    }
    phase("overwrite", 4);
    for number in 0..FILES {
        fs::write(inside.join(format!("new{number}")), "new").unwrap();
    }
    phase("write", 5);
    for number in 0..FILES {
        fs::remove_file(inside.join(format!("new{number}"))).unwrap();
    }
    phase("remove", 3);
    nix::mount::umount2(&inside, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert!(much.is_empty(), "{much:#?}");
}

/// A lock on a range of bytes, for one process or one open file.
fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: 0, l_start: start, l_len: len, l_pid: 0 }
}

#[test]
fn locks_are_the_hosts_and_go_when_the_file_is_closed() {
    use nix::fcntl::{FcntlArg, fcntl};
    let _alone = alone();
    let Some(mounted) = Mounted::new(Setup { policy: Policy::Shared, ..Setup::default() }) else { return };
    fs::write(mounted.outside.join("f"), "0123456789").unwrap();
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path.join("f")).unwrap();
    let try_lock =
        |file: &File, kind, start, len| fcntl(file, FcntlArg::F_OFD_SETLK(&range(kind, start, len)));
    let refused = Err(nix::errno::Errno::EAGAIN);

    // Ranges: what is locked inside is locked outside, and the other way round; what is beside is free.
    let (inside, outside) = (open(&mounted.inside), open(&mounted.outside));
    fcntl(&inside, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 2, 3))).unwrap();
    assert_eq!(try_lock(&outside, libc::F_RDLCK, 4, 1), refused);
    assert_eq!(try_lock(&outside, libc::F_WRLCK, 5, 1), Ok(0));
    assert_eq!(fcntl(&inside, FcntlArg::F_SETLK(&range(libc::F_RDLCK, 0, 0))), refused);
    let mut asked = range(libc::F_WRLCK, 0, 0);
    fcntl(&inside, FcntlArg::F_GETLK(&mut asked)).unwrap();
    assert_eq!((i32::from(asked.l_type), asked.l_start, asked.l_len), (libc::F_WRLCK, 5, 1));
    // Another file of the same process, closed: POSIX wants all its locks gone with that.
    drop(open(&mounted.inside));
    assert_eq!(try_lock(&outside, libc::F_WRLCK, 0, 0), Ok(0));
    assert_eq!(try_lock(&outside, libc::F_UNLCK, 0, 0), Ok(0));
    // An open file that owns locks itself.
    let owner = open(&mounted.inside);
    assert_eq!(try_lock(&owner, libc::F_WRLCK, 0, 1), Ok(0));
    assert_eq!(try_lock(&inside, libc::F_WRLCK, 0, 1), refused);
    drop(owner);
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(5));
        try_lock(&outside, libc::F_WRLCK, 0, 1) == Ok(0)
    });
    assert!(gone, "the lock outlives its owner");
    assert_eq!(try_lock(&outside, libc::F_UNLCK, 0, 0), Ok(0));

    // flock, between two of the guest's and with the host's.
    let other = open(&mounted.inside);
    inside.lock_shared().unwrap();
    other.lock_shared().unwrap();
    assert!(outside.try_lock().is_err());
    drop(inside);
    other.unlock().unwrap();
    outside.lock().unwrap();
    assert!(other.try_lock_shared().is_err());
}

#[test]
fn who_waits_for_a_lock_gets_it_or_can_be_interrupted() {
    let _alone = alone();
    let Some(mounted) = Mounted::new(Setup { policy: Policy::Shared, ..Setup::default() }) else { return };
    let path = mounted.inside.join("f");
    fs::write(&path, "").unwrap();
    let holder = File::open(mounted.outside.join("f")).unwrap();
    holder.lock().unwrap();
    let flock = |command: &str| Command::new("flock").arg(&path).args(["-c", command]).spawn().unwrap();
    let (mut waits, mut killed) = (flock("true"), flock("true"));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(waits.try_wait().unwrap().is_none(), "the host has the lock");
    // The server goes on meanwhile.
    assert_eq!(fs::read(&path).unwrap(), b"");
    killed.kill().unwrap();
    assert!(killed.wait().unwrap().code().is_none());
    holder.unlock().unwrap();
    assert!(waits.wait().unwrap().success());
}

/// The program in `files.c`, run where the host has files and where the guest would: it says the same.
#[test]
fn a_program_finds_its_files_as_on_the_host() {
    let _alone = alone();
    for policy in [Policy::Exclusive, Policy::Shared] {
        let Some(mounted) = Mounted::new(Setup { policy, ..Setup::default() }) else { return };
        let program = mounted.beside.join("files");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/device/fs/tests/files.c");
        let Ok(compiled) = Command::new("gcc").args(["-O1", "-w", "-o"]).arg(&program).arg(source).status()
        else {
            return super::skip("there is no gcc");
        };
        assert!(compiled.success());
        let own = mounted.outside.join("own");
        fs::create_dir(&own).unwrap();
        let run = |directory: &Path| {
            let done = Command::new("timeout").arg("60").arg(&program).arg(directory).arg("2000").output();
            let done = done.unwrap();
            assert!(done.status.success(), "{done:?}");
            String::from_utf8(done.stdout).unwrap()
        };
        let expected = run(&own);
        assert!(expected.contains("many: 0 twice, 0 missing"), "{expected}");
        let there = mounted.inside.join("there");
        fs::create_dir(&there).unwrap();
        let seen = run(&there);
        for (seen, expected) in seen.lines().zip(expected.lines()) {
            assert_eq!(seen, expected, "{policy:?}");
        }
        assert_eq!(seen.lines().count(), expected.lines().count());
    }
}
