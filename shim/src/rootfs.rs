//! The mounts that containerd gives for a root filesystem: made at `rootfs` in the bundle, in the order given, and undone.

use crate::failure::Failure;
use containerd_shim_protos::api::Mount;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::path::{Path, PathBuf};

/// The name of the directory in the bundle.
const NAME: &str = "rootfs";
/// What mount(2) takes as its data, in bytes: a page, with a NUL.
const LONGEST: usize = 4095;

/// Makes them. On failure none is left.
pub fn make(bundle: &Path, mounts: &[Mount]) -> Result<(), Failure> {
    let target = bundle.join(NAME);
    if mounts.is_empty() {
        return Ok(());
    }
    std::fs::create_dir_all(&target)
        .map_err(|error| Failure::host(&format!("mkdir {}", target.display()), &error))?;
    for given in mounts {
        if let Err(errno) = one(given, &target) {
            undo(bundle);
            let attempt = format!("mount rootfs component {} of type {}", given.source, given.type_);
            return Err(Failure::host(&attempt, &errno.into()));
        }
    }
    Ok(())
}

/// Undoes whatever is mounted there.
pub fn undo(bundle: &Path) {
    undo_at(&bundle.join(NAME));
}

/// Undoes whatever is mounted at `target`.
pub fn undo_at(target: &Path) {
    loop {
        match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Somebody looks at it: it goes when they have gone.
            Err(Errno::EBUSY) => {
                if umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

fn one(given: &Mount, target: &Path) -> Result<(), Errno> {
    let target = match given.target.trim_start_matches('/') {
        "" => target.to_owned(),
        below => target.join(below),
    };
    let parsed = Parsed::of(&given.options);
    let kind = Some(given.type_.as_str()).filter(|kind| !kind.is_empty() && *kind != "bind");
    if parsed.data.len() > LONGEST {
        return from_common_directory(given, &target, &parsed);
    }
    mount(Some(given.source.as_str()), &target, kind, parsed.flags, parsed.data())?;
    // A bind mount takes its other flags only when it is there.
    if parsed.flags.contains(MsFlags::MS_BIND) && parsed.flags.intersects(Parsed::OF_A_BIND) {
        let again = parsed.flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount(None::<&str>, &target, None::<&str>, again.difference(MsFlags::MS_REC), None::<&str>)?;
    }
    Ok(())
}

/// Options, sorted.
#[derive(Debug, PartialEq)]
struct Parsed {
    flags: MsFlags,
    data: String,
}

impl Parsed {
    const OF_A_BIND: MsFlags = MsFlags::MS_RDONLY
        .union(MsFlags::MS_NOSUID)
        .union(MsFlags::MS_NODEV)
        .union(MsFlags::MS_NOEXEC)
        .union(MsFlags::MS_NOATIME);

    fn of(options: &[String]) -> Parsed {
        let mut flags = MsFlags::empty();
        let mut data: Vec<&str> = Vec::new();
        for option in options {
            match option.as_str() {
                "ro" => flags.insert(MsFlags::MS_RDONLY),
                "rw" | "defaults" | "loop" => {}
                "bind" => flags.insert(MsFlags::MS_BIND),
                "rbind" => flags.insert(MsFlags::MS_BIND | MsFlags::MS_REC),
                "nosuid" => flags.insert(MsFlags::MS_NOSUID),
                "nodev" => flags.insert(MsFlags::MS_NODEV),
                "noexec" => flags.insert(MsFlags::MS_NOEXEC),
                "noatime" => flags.insert(MsFlags::MS_NOATIME),
                "relatime" => flags.insert(MsFlags::MS_RELATIME),
                other => data.push(other),
            }
        }
        Parsed { flags, data: data.join(",") }
    }

    fn data(&self) -> Option<&str> {
        Some(self.data.as_str()).filter(|data| !data.is_empty())
    }
}

/// An overlay of more layers than fit a page: made with paths from the directory that they have in common. On a thread
/// with a working directory of its own.
fn from_common_directory(given: &Mount, target: &Path, parsed: &Parsed) -> Result<(), Errno> {
    let Some((directory, data)) = shortened(&parsed.data) else { return Err(Errno::E2BIG) };
    if data.len() > LONGEST {
        return Err(Errno::E2BIG);
    }
    let mounted = std::thread::scope(|scope| {
        let own = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(&directory)?;
            mount(
                Some(given.source.as_str()),
                target,
                Some(given.type_.as_str()),
                parsed.flags,
                Some(data.as_str()),
            )
        });
        own.join()
    });
    mounted.unwrap_or(Err(Errno::EINVAL))
}

/// The directory that all layers have in common, and the data with their paths from there.
fn shortened(data: &str) -> Option<(PathBuf, String)> {
    const LAYERS: &str = "lowerdir=";
    let list = data.split(',').find_map(|option| option.strip_prefix(LAYERS))?;
    let layers: Vec<&Path> = list.split(':').map(Path::new).collect();
    let mut common = layers.first()?.parent()?;
    while !layers.iter().all(|layer| layer.starts_with(common)) {
        common = common.parent()?;
    }
    let short = layers.iter().map(|layer| layer.strip_prefix(common).ok()?.to_str());
    let short = short.collect::<Option<Vec<_>>>()?.join(":");
    let options = data.split(',').map(|option| match option.strip_prefix(LAYERS) {
        Some(_) => format!("{LAYERS}{short}"),
        None => option.to_owned(),
    });
    Some((common.to_owned(), options.collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_flags_or_data() {
        let options = ["ro", "rbind", "index=off", "lowerdir=/a:/b"].map(String::from);
        let parsed = Parsed::of(&options);
        assert_eq!(parsed.flags, MsFlags::MS_RDONLY | MsFlags::MS_BIND | MsFlags::MS_REC);
        assert_eq!(parsed.data(), Some("index=off,lowerdir=/a:/b"));
    }

    #[test]
    fn many_layers_are_named_from_where_they_are() {
        let layer = |number: usize| format!("/var/lib/snapshots/{number}/fs");
        let layers: Vec<String> = (0..200).map(layer).collect();
        let data = format!("workdir=/w,upperdir=/u,lowerdir={}", layers.join(":"));
        assert!(data.len() > LONGEST);
        let (directory, short) = shortened(&data).unwrap();
        assert_eq!(directory, Path::new("/var/lib/snapshots"));
        assert!(short.len() < LONGEST, "{}", short.len());
        assert!(short.starts_with("workdir=/w,upperdir=/u,lowerdir=0/fs:1/fs:"), "{short}");
    }

    #[test]
    fn a_mount_that_fails_is_told_with_its_source() {
        let bundle = tempfile::tempdir().unwrap();
        let given = Mount { type_: "overlay".into(), source: "the-source".into(), ..Default::default() };
        let failure = make(bundle.path(), &[given]).unwrap_err();
        assert!(failure.message.contains("the-source"), "{failure}");
        assert!(make(bundle.path(), &[]).is_ok());
    }
}
