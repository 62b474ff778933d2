//! A tree with everything a root filesystem may hold, and its comparison.

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, llistxattr, lsetxattr, makedev, mknodat};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

/// A file capability (cap_net_raw), as the kernel stores it.
pub const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Makes `files` regular files and some of everything else below `root`.
pub fn grow(root: &Path, files: usize) {
    fs::create_dir_all(root).unwrap();
    for i in 0..files {
        let directory = root.join(format!("d{}/e{}", i / 1000, i / 100 % 10));
        if i % 100 == 0 {
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o755 | (i as u32 / 100 % 4) << 9))
                .unwrap();
        }
        let file = directory.join(format!("file {i}"));
        fs::write(&file, format!("{i}\n").repeat(i % 50)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode([0o644, 0o600, 0o755, 0o444][i % 4])).unwrap();
        match i % 97 {
            0 => fs::hard_link(&file, directory.join(format!("hard {i}"))).unwrap(),
            1 => symlink(format!("../nowhere/{i}"), directory.join(format!("soft {i}"))).unwrap(),
            2 => node(&directory.join(format!("fifo {i}")), FileType::Fifo, 0),
            3 => node(&directory.join(format!("char {i}")), FileType::CharacterDevice, makedev(1, 3)),
            4 => node(&directory.join(format!("block {i}")), FileType::BlockDevice, makedev(259, 70_000)),
            5 => lsetxattr(&file, "user.note", format!("{i}").as_bytes(), XattrFlags::empty()).unwrap(),
            6 => {
                lchown(&file, Some(1000 + i as u32), Some(2000)).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o6755)).unwrap();
            }
            7 => lsetxattr(&file, "security.capability", &CAPABILITY, XattrFlags::empty()).unwrap(),
            8 => {
                let link = directory.join(format!("owned soft {i}"));
                symlink("x", &link).unwrap();
                lchown(&link, Some(7), Some(8)).unwrap();
            }
            9 => lsetxattr(&file, "trusted.husk", b"\0\x01\x02", XattrFlags::empty()).unwrap(),
            10 => {
                let mut sparse = fs::File::create(directory.join(format!("sparse {i}"))).unwrap();
                sparse.seek(SeekFrom::Start(1 << 20)).unwrap();
                sparse.write_all(b"end").unwrap();
            }
            _ => {}
        }
        let time = filetime(i);
        fs::File::options().write(true).open(&file).map(|file| file.set_modified(time).unwrap()).unwrap();
    }
}

fn filetime(i: usize) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000 + i as u64, 123_456_000 + i as u32)
}

fn node(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Everything that must survive of a tree, by path. Hard links are told by the first of their names.
pub fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut links = BTreeMap::new();
    walk(root, &mut |path, meta| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let kind = FileType::from_raw_mode(meta.mode());
        let content = match kind {
            FileType::RegularFile => format!("{:?}", fs::read(path).map(|bytes| checksum(&bytes))),
            FileType::Symlink => format!("{:?}", fs::read_link(path)),
            _ => String::new(),
        };
        let size = if kind == FileType::Directory { 0 } else { meta.size() };
        let rdev =
            if kind == FileType::CharacterDevice || kind == FileType::BlockDevice { meta.rdev() } else { 0 };
        let sparse = kind == FileType::RegularFile && meta.blocks() * 512 < meta.size() / 2;
        let nlink = if kind == FileType::Directory { 0 } else { meta.nlink() };
        let mtime = if kind == FileType::Directory { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
        let first = links.entry((meta.dev(), meta.ino())).or_insert(name.clone()).clone();
        let linked = if nlink > 1 { first } else { String::new() };
        let line = format!(
            "{:o} {}:{} {size} {nlink} {linked} {rdev:x} {mtime:?} {sparse} {:?} {content}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            xattrs(path)
        );
        found.insert(name, line);
    });
    found
}

fn walk(path: &Path, see: &mut impl FnMut(&Path, &fs::Metadata)) {
    let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        see(&entry.path(), &meta);
        if meta.is_dir() {
            walk(&entry.path(), see);
        }
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |sum, byte| sum.rotate_left(7).wrapping_mul(31) ^ u64::from(*byte))
}

/// All extended attributes.
pub fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0; 4096];
    let len = llistxattr(path, &mut list[..]).unwrap();
    let names = list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let mut value = vec![0; 4096];
            let len = lgetxattr(path, &name, &mut value[..]).unwrap();
            value.truncate(len);
            // What a guest's administrator has set, outside.
            (name.strip_prefix("user.husk.").unwrap_or(&name).to_owned(), value)
        })
        .collect()
}

/// Compares two descriptions and shows the first differences.
pub fn assert_same(left: &BTreeMap<String, String>, right: &BTreeMap<String, String>) {
    let differences: Vec<String> = left
        .keys()
        .chain(right.keys().filter(|name| !left.contains_key(*name)))
        .filter(|name| left.get(*name) != right.get(*name))
        .take(5)
        .map(|name| format!("{name}:\n  {:?}\n  {:?}", left.get(name), right.get(name)))
        .collect();
    assert!(differences.is_empty(), "trees differ:\n{}", differences.join("\n"));
    assert!(!left.is_empty());
}
