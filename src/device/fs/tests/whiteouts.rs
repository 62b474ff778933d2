//! An overlay inside whose layers lie on an overlay outside, as Docker has it in a container: like one on a plain
//! filesystem.

use super::mount::{Mounted, Setup, source};
use super::mounted::alone;
use super::tree::describe;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Mounts an overlay of `lower` (one or more, as the option has them) below `at`, or says why not.
fn overlay(at: &Path, lower: &str, more: &str) -> Option<PathBuf> {
    for name in ["upper", "work", "merged"] {
        fs::create_dir_all(at.join(name)).unwrap();
    }
    let [upper, work, merged] = ["upper", "work", "merged"].map(|name| at.join(name));
    let options = format!("lowerdir={lower},upperdir={},workdir={}{more}", upper.display(), work.display());
    let flags = nix::mount::MsFlags::empty();
    match nix::mount::mount(Some("overlay"), &merged, Some("overlay"), flags, Some(options.as_str())) {
        Ok(()) => Some(merged),
        Err(error) => {
            super::skip(&format!("cannot mount an overlay ({options}): {error}"));
            None
        }
    }
}

/// What an image's layers hold.
fn grow(lower: &Path) {
    fs::create_dir_all(lower.join("etc/conf.d")).unwrap();
    fs::create_dir_all(lower.join("usr/lib/deep")).unwrap();
    fs::create_dir_all(lower.join("usr/share")).unwrap();
    for name in
        ["etc/passwd", "etc/conf.d/a", "etc/conf.d/b", "usr/lib/one", "usr/lib/deep/two", "usr/share/s"]
    {
        fs::write(lower.join(name), format!("lower {name}")).unwrap();
    }
    symlink("one", lower.join("usr/lib/soft")).unwrap();
}

/// What programs do to a root filesystem.
fn work(merged: &Path) {
    let at = |name: &str| merged.join(name);
    fs::remove_file(at("etc/passwd")).unwrap();
    fs::remove_dir_all(at("etc/conf.d")).unwrap();
    // Opaque: nothing of the old one shows.
    fs::create_dir(at("etc/conf.d")).unwrap();
    fs::write(at("etc/conf.d/c"), "new").unwrap();
    // A file leaves a whiteout behind; one takes the place of another, and of a whiteout.
    fs::rename(at("usr/lib/one"), at("usr/lib/uno")).unwrap();
    fs::rename(at("usr/lib/deep/two"), at("usr/share/s")).unwrap();
    fs::rename(at("usr/share/s"), at("usr/lib/one")).unwrap();
    fs::write(at("etc/passwd"), "again").unwrap();
    fs::remove_file(at("etc/passwd")).unwrap();
    // Directories of below are moved by copying, or by a redirection.
    if fs::rename(at("usr/lib"), at("usr/bib")).is_err() {
        fs::create_dir(at("usr/bib")).unwrap();
        fs::rename(at("usr/lib/uno"), at("usr/bib/uno")).unwrap();
        fs::remove_dir_all(at("usr/lib")).unwrap();
    }
    fs::set_permissions(at("usr/bib/uno"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::hard_link(at("usr/bib/uno"), at("usr/hard")).unwrap();
    fs::rename(at("usr/share"), at("usr/bib/share"))
        .or_else(|_| fs::create_dir(at("usr/bib/share")))
        .unwrap();
}

/// Names with their contents, without times.
fn shown(root: &Path) -> BTreeMap<String, String> {
    let without_time = |line: String| line.split(" (").next().unwrap().to_owned();
    let described = describe(root).into_iter();
    described
        .filter(|(name, _)| !name.contains("work"))
        .map(|(name, line)| {
            let path = root.join(&name);
            let content = fs::read(&path).ok().map(|bytes| String::from_utf8(bytes).unwrap());
            (name, format!("{} {content:?}", without_time(line)))
        })
        .collect()
}

#[test]
fn layers_on_an_overlay_outside_are_as_those_on_a_plain_filesystem() {
    let _alone = alone();
    for more in ["", ",redirect_dir=on,metacopy=on"] {
        let Some(mounted) = Mounted::new(Setup { in_memory: true, ..Setup::default() }) else { return };
        // Outside: an overlay, whose lower layer holds the image that is the lower one inside.
        let image = mounted.beside.join("image");
        grow(&image.join("layers/lower"));
        let Some(root) = overlay(&mounted.beside.join("root"), &image.display().to_string(), "") else {
            return;
        };
        mounted.exports.add("1", source(&root), false).unwrap();
        let inside = mounted.inside.parent().unwrap().join("1");
        let plain = mounted.beside.join("plain");
        grow(&plain.join("lower"));
        let mut seen = Vec::new();
        for layers in [inside.join("layers"), plain] {
            let lower = layers.join("lower").display().to_string();
            let Some(merged) = overlay(&layers, &lower, more) else {
                panic!("it can be mounted: {layers:?}")
            };
            work(&merged);
            let busy = shown(&merged);
            nix::mount::umount(&merged).unwrap();
            // The upper layer as whoever packs it up finds it, then as the next mount does.
            let upper: BTreeMap<String, (u32, u64)> = describe(&layers.join("upper"))
                .into_keys()
                .map(|name| {
                    let meta = fs::symlink_metadata(layers.join("upper").join(&name)).unwrap();
                    (name, (meta.mode(), meta.rdev()))
                })
                .collect();
            let merged = overlay(&layers, &lower, more).unwrap();
            assert_eq!(shown(&merged), busy, "{layers:?}{more}");
            nix::mount::umount(&merged).unwrap();
            // As the lower layer of another container.
            let lowers = format!("{}:{lower}", layers.join("upper").display());
            let merged = overlay(&layers.join("next"), &lowers, more).unwrap();
            let next = shown(&merged);
            nix::mount::umount(&merged).unwrap();
            seen.push((busy, upper, next));
        }
        let expected = seen.pop().unwrap();
        let found = seen.pop().unwrap();
        assert_eq!(found.0, expected.0, "as it is used{more}");
        assert_eq!(found.1, expected.1, "its upper layer{more}");
        assert_eq!(found.2, expected.2, "on top of it{more}");
        assert!(
            expected.1.values().any(|(mode, _)| FileType::from_raw_mode(*mode) == FileType::CharacterDevice)
        );
    }
}

#[test]
fn a_whiteout_is_a_device_that_is_none_outside_and_only_on_overlays() {
    let _alone = alone();
    let Some(mounted) = Mounted::new(Setup { in_memory: true, ..Setup::default() }) else { return };
    let image = mounted.beside.join("image");
    fs::create_dir(&image).unwrap();
    let Some(root) = overlay(&mounted.beside.join("root"), &image.display().to_string(), "") else { return };
    mounted.exports.add("1", source(&root), false).unwrap();
    let inside = mounted.inside.parent().unwrap().join("1");
    let make = |path: &Path, number: u64| {
        mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), number)
    };
    let number = |path: &Path| {
        let meta = fs::symlink_metadata(path).unwrap();
        assert!(meta.file_type().is_char_device());
        meta.rdev()
    };
    make(&inside.join("whiteout"), 0).unwrap();
    make(&inside.join("null"), makedev(1, 3)).unwrap();
    assert_eq!(number(&inside.join("whiteout")), 0);
    assert_eq!(number(&root.join("whiteout")), makedev(0, 0x6875));
    assert_eq!(fs::File::open(root.join("whiteout")).unwrap_err().raw_os_error(), Some(libc::ENXIO));
    for place in [&inside, &root] {
        assert_eq!(number(&place.join("null")), makedev(1, 3));
    }
    // Elsewhere it is what it is.
    make(&mounted.inside.join("whiteout"), 0).unwrap();
    make(&mounted.inside.join("other"), makedev(0, 0x6875)).unwrap();
    for place in [&mounted.inside, &mounted.outside] {
        assert_eq!(number(&place.join("whiteout")), 0);
        assert_eq!(number(&place.join("other")), makedev(0, 0x6875));
    }

    // A rename that leaves one behind does all of it or nothing.
    let rename = |old: &str, new: &str, flags: RenameFlags| {
        let (old, new) = (inside.join(old), inside.join(new));
        renameat_with(CWD, old, CWD, new, RenameFlags::WHITEOUT | flags).map_err(|error| error.raw_os_error())
    };
    fs::write(inside.join("a"), "a").unwrap();
    fs::write(inside.join("b"), "b").unwrap();
    fs::write(inside.join(".husk-whiteout-0"), "mine").unwrap();
    let none = RenameFlags::empty();
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(libc::EEXIST));
    assert_eq!(rename("missing", "b", none), Err(libc::ENOENT));
    assert_eq!(fs::read(inside.join("b")).unwrap(), b"b");
    assert_eq!(rename("a", "b", none), Ok(()));
    assert_eq!(number(&inside.join("a")), 0);
    assert_eq!(fs::read(inside.join("b")).unwrap(), b"a");
    fs::hard_link(inside.join("b"), inside.join("c")).unwrap();
    assert_eq!(rename("b", "c", none), Ok(()), "two names of one file stay");
    assert_eq!(fs::read(inside.join("b")).unwrap(), b"a");
    let mut names: Vec<_> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [".husk-whiteout-0", "a", "b", "c", "null", "whiteout"]);
}
