//! The container's mounts: each is made detached, given its attributes, and attached to a place resolved in the root.

use super::copy_up;
use super::resolve::{Root, text};
use crate::machine;
use crate::sys::{self, mount as kernel};
use husk_protocol::{Mount, MountAttributes, MountSource};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use std::os::fd::{AsFd, OwnedFd};

/// Why a mount could not be made, worded like runc.
#[derive(Debug, thiserror::Error)]
#[error("error mounting {what:?} to rootfs at {destination:?}")]
pub struct MountError {
    what: String,
    destination: String,
    source: Step,
}

/// What was being attempted.
#[derive(Debug, thiserror::Error)]
pub enum Step {
    /// The place could not be made or opened.
    #[error("create mountpoint")]
    Place(#[source] sys::Error),
    /// The shared entry could not be opened.
    #[error("open source")]
    Source(#[source] sys::Error),
    /// The kernel refused the file system.
    #[error("mount {kind}{}", complaint.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    FileSystem {
        /// Its type.
        kind: String,
        /// What it said about its options.
        complaint: Option<String>,
        /// The errno.
        source: sys::Error,
    },
    /// The kernel refused the attributes.
    #[error("set mount attributes")]
    Attributes(#[source] sys::Error),
    /// The kernel refused the propagation.
    #[error("set mount propagation {flags:#x}")]
    Propagation {
        /// `MS_*`.
        flags: u64,
        /// The errno.
        source: sys::Error,
    },
    /// The kernel refused the place.
    #[error("attach mount")]
    Attach(#[source] sys::Error),
    /// The image has something else there.
    #[error("filesystem {0:?} must be mounted on ordinary directory")]
    NotOrdinary(String),
    /// Only a few files of /proc may be covered.
    #[error("{0:?} cannot be mounted because it is inside /proc")]
    InsideProc(String),
    /// The root itself.
    #[error("mounting over the root is not supported")]
    Root,
    /// `tmpcopyup` failed.
    #[error("copy up")]
    CopyUp(#[source] sys::Error),
}

/// What a mount may depend on beside itself.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings {
    /// The container has a user namespace of its own.
    pub user_namespace: bool,
    /// The container has a cgroup namespace of its own.
    pub cgroup_namespace: bool,
}

/// Makes a mount. What it gives is to be made read-only when all is set up (runc does so for tmpfs and /dev, where other
/// mounts and nodes are still to be made).
pub fn make(root: &Root, mount: &Mount, around: Surroundings) -> Result<Option<OwnedFd>, MountError> {
    let what = match &mount.source {
        MountSource::Share { .. } => "bind".to_owned(),
        MountSource::Filesystem { kind, .. } => kind.clone(),
        MountSource::Cgroup => "cgroup".to_owned(),
    };
    step(root, mount, around).map_err(|source| MountError {
        what,
        destination: mount.destination.clone(),
        source,
    })
}

fn step(root: &Root, mount: &Mount, around: Surroundings) -> Result<Option<OwnedFd>, Step> {
    let place = place(root, mount)?;
    guard_proc(&place, mount)?;
    let late = is_late(mount);
    let mut attributes = mount.attributes;
    if late {
        attributes.set &= !libc::MS_RDONLY;
    }
    let fresh = match &mount.source {
        MountSource::Share { name, recursive, .. } => share(name, *recursive)?,
        MountSource::Filesystem { kind, source } => {
            let made = file_system(kind, source, &place, &mount.data, attributes);
            if kind == "sysfs" && around.user_namespace { made.or_else(guests_sysfs)? } else { made? }
        }
        MountSource::Cgroup => cgroup(around)?,
    };
    if mount.copy_up {
        copy_up::copy(&place, &fresh).map_err(Step::CopyUp)?;
    }
    set_attributes(&fresh, attributes)?;
    kernel::attach(&fresh, &place).map_err(Step::Attach)?;
    for &flags in &mount.propagation {
        propagate(&fresh, flags).map_err(|source| Step::Propagation { flags, source })?;
    }
    Ok(late.then_some(fresh))
}

/// Whether `ro` has to wait: nodes and mount points are still to be made in it.
fn is_late(mount: &Mount) -> bool {
    let tmpfs = matches!(&mount.source, MountSource::Filesystem { kind, .. } if kind == "tmpfs");
    mount.attributes.set & libc::MS_RDONLY != 0 && (tmpfs || clean(&mount.destination) == "/dev")
}

/// Opens, or makes, the place to mount on.
fn place(root: &Root, mount: &Mount) -> Result<OwnedFd, Step> {
    let path = mount.destination.as_str();
    if clean(path) == "/" {
        return Err(Step::Root);
    }
    match &mount.source {
        MountSource::Share { directory: false, .. } => root.file(path).map_err(Step::Place),
        // proc and sysfs decide what the container can do to the guest: an image must not choose where they go.
        MountSource::Filesystem { kind, .. } if kind == "proc" || kind == "sysfs" => {
            match root.find_without_links(path) {
                Err(sys::Error(Errno::ENOENT)) => root.directory(path).map_err(Step::Place),
                Err(sys::Error(Errno::ELOOP | Errno::ENOTDIR)) => Err(Step::NotOrdinary(kind.clone())),
                Err(error) => Err(Step::Place(error)),
                Ok(place) if is_directory(&place).map_err(Step::Place)? => Ok(place),
                Ok(_) => Err(Step::NotOrdinary(kind.clone())),
            }
        }
        _ => root.directory(path).map_err(Step::Place),
    }
}

/// Files of /proc that may be covered (what lxcfs and some callers put there).
const COVERABLE: [&str; 12] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/net/dev",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
    "/proc/fs/nfsd",
    "/proc/sys/crypto/fips_enabled",
];

/// A mount below /proc would let a container fake what the kernel says of it, or have writes go elsewhere.
fn guard_proc(place: &OwnedFd, mount: &Mount) -> Result<(), Step> {
    let path = clean(&mount.destination);
    let on_proc =
        nix::sys::statfs::fstatfs(place).map_err(|errno| Step::Place(errno.into()))?.filesystem_type()
            == nix::sys::statfs::PROC_SUPER_MAGIC;
    let is_proc = matches!(&mount.source, MountSource::Filesystem { kind, .. } if kind == "proc");
    let allowed = match path.as_str() {
        "/proc" => is_proc,
        path if on_proc || path.starts_with("/proc/") => COVERABLE.contains(&path),
        _ => true,
    };
    if !allowed {
        return Err(Step::InsideProc(mount.destination.clone()));
    }
    Ok(())
}

/// A detached copy of a shared entry.
fn share(name: &str, recursive: bool) -> Result<OwnedFd, Step> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Step::Source(sys::Error(Errno::EINVAL)));
    }
    let path = text(&format!("{}/{name}", machine::SHARES)).map_err(Step::Source)?;
    kernel::copy_of(sys::file::here(), &path, recursive).map_err(Step::Source)
}

/// A detached mount of the container's cgroup hierarchy.
fn cgroup(around: Surroundings) -> Result<OwnedFd, Step> {
    // A new mount outside of a cgroup namespace would reset the hierarchy's options for the whole guest.
    if !around.cgroup_namespace {
        let path = text(machine::CGROUPS).map_err(Step::Source)?;
        return kernel::copy_of(sys::file::here(), &path, false).map_err(Step::Source);
    }
    let refused = |source| Step::FileSystem { kind: "cgroup2".to_owned(), complaint: None, source };
    let configuration = kernel::Configuration::open(c"cgroup2").map_err(refused)?;
    configuration.set(c"source", c"cgroup").map_err(refused)?;
    configuration.mount(0).map_err(refused)
}

/// A detached mount of a file system of the guest kernel.
fn file_system(
    kind: &str,
    source: &str,
    place: &OwnedFd,
    data: &str,
    attributes: MountAttributes,
) -> Result<OwnedFd, Step> {
    let plain = |source| Step::FileSystem { kind: kind.to_owned(), complaint: None, source };
    let configuration = kernel::Configuration::open(&text(kind).map_err(plain)?).map_err(plain)?;
    let refused =
        |source| Step::FileSystem { kind: kind.to_owned(), complaint: configuration.complaint(), source };
    configuration.set(c"source", &text(source).map_err(plain)?).map_err(refused)?;
    let has_mode = data.split(',').any(|option| option.starts_with("mode="));
    if kind == "tmpfs" && !has_mode {
        // A tmpfs over a directory looks like that directory, as runc has it.
        let mode = fstat(place).map_err(|errno| plain(errno.into()))?.st_mode & 0o7777;
        configuration.set(c"mode", &text(&format!("{mode:o}")).map_err(plain)?).map_err(refused)?;
    }
    for option in options(data) {
        let set = match option.split_once('=') {
            Some((key, value)) => configuration.set(&text(key).map_err(plain)?, &text(value).map_err(plain)?),
            None => configuration.set_flag(&text(&option).map_err(plain)?),
        };
        set.map_err(refused)?;
    }
    for (flag, name) in SUPERBLOCK_FLAGS {
        if attributes.set & flag != 0 {
            configuration.set_flag(name).map_err(refused)?;
        }
    }
    configuration.mount(0).map_err(refused)
}

/// The network namespace is the guest's own, so a user namespace may not have a sysfs of its own: the guest's is shown
/// instead, as callers of rootless runc get the host's.
fn guests_sysfs(refusal: Step) -> Result<OwnedFd, Step> {
    match refusal {
        Step::FileSystem { source: sys::Error(Errno::EPERM), .. } => {
            kernel::copy_of(sys::file::here(), c"/sys", true).map_err(Step::Source)
        }
        other => Err(other),
    }
}

/// Splits options at commas that are not escaped.
fn options(data: &str) -> Vec<String> {
    let mut options = vec![String::new()];
    let mut escaped = false;
    for letter in data.chars() {
        if letter == ',' && !escaped {
            options.push(String::new());
        } else if let Some(last) = options.last_mut() {
            last.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    options.retain(|option| !option.is_empty());
    options
}

/// `MS_*` flags that belong to the file system rather than to the mount.
const SUPERBLOCK_FLAGS: [(u64, &std::ffi::CStr); 5] = [
    (libc::MS_RDONLY, c"ro"),
    (libc::MS_SYNCHRONOUS, c"sync"),
    (libc::MS_DIRSYNC, c"dirsync"),
    (libc::MS_MANDLOCK, c"mand"),
    (libc::MS_LAZYTIME, c"lazytime"),
];

/// `MS_*` flags and their `MOUNT_ATTR_*`.
const MOUNT_FLAGS: [(u64, u64); 6] = [
    (libc::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
    (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
    (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
    (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
    (libc::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
    (MS_NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// linux/mount.h; libc lacks it.
const MS_NOSYMFOLLOW: u64 = 0x100;

/// Gives a detached mount its attributes.
fn set_attributes(mount: impl AsFd, attributes: MountAttributes) -> Result<(), Step> {
    let change = change_of(attributes);
    if change.set | change.clear != 0 {
        kernel::change(&mount, change).map_err(Step::Attributes)?;
    }
    if attributes.recursive_set | attributes.recursive_clear != 0 {
        let mut clear = attributes.recursive_clear;
        if (attributes.recursive_set | clear) & libc::MOUNT_ATTR__ATIME != 0 {
            clear |= libc::MOUNT_ATTR__ATIME;
        }
        let change =
            kernel::Change { set: attributes.recursive_set, clear, recursive: true, ..Default::default() };
        kernel::change(&mount, change).map_err(Step::Attributes)?;
    }
    Ok(())
}

/// mount(2)'s flags as mount_setattr(2) wants them: access times are one field, not flags.
fn change_of(attributes: MountAttributes) -> kernel::Change {
    let pick = |flags: u64| {
        MOUNT_FLAGS
            .iter()
            .filter(|(flag, _)| flags & flag != 0)
            .fold(0, |all, (_, attribute)| all | attribute)
    };
    let (mut set, mut clear) = (pick(attributes.set), pick(attributes.clear & !attributes.set));
    let times = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
    if (attributes.set | attributes.clear) & times != 0 {
        clear |= libc::MOUNT_ATTR__ATIME;
        set |= if attributes.set & libc::MS_NOATIME != 0 {
            libc::MOUNT_ATTR_NOATIME
        } else if attributes.set & libc::MS_STRICTATIME != 0 {
            libc::MOUNT_ATTR_STRICTATIME
        } else {
            libc::MOUNT_ATTR_RELATIME
        };
    }
    kernel::Change { set, clear, ..Default::default() }
}

/// Applies one `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED` or `MS_UNBINDABLE`, with or without `MS_REC`.
pub fn propagate(mount: impl AsFd, flags: u64) -> sys::Result<()> {
    let change = kernel::Change {
        propagation: flags & !libc::MS_REC,
        recursive: flags & libc::MS_REC != 0,
        ..Default::default()
    };
    kernel::change(mount, change)
}

/// Makes a mount read-only, whatever else it is.
pub fn make_read_only(mount: impl AsFd) -> sys::Result<()> {
    kernel::change(mount, kernel::Change { set: libc::MOUNT_ATTR_RDONLY, ..Default::default() })
}

fn is_directory(place: &OwnedFd) -> sys::Result<bool> {
    Ok(fstat(place)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// A path without `.`, `..`, doubled or closing slashes, by its text alone.
fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_by_its_text() {
        for (path, cleaned) in
            [("/", "/"), ("//proc/./x/..", "/proc"), ("dev/", "/dev"), ("/../../proc", "/proc"), ("", "/")]
        {
            assert_eq!(clean(path), cleaned);
        }
    }

    #[test]
    fn options_are_split_at_commas_that_are_not_escaped() {
        assert_eq!(options("mode=755,size=64k"), ["mode=755", "size=64k"]);
        assert_eq!(options(r"lowerdir=/a\,b:/c,,index=off"), [r"lowerdir=/a\,b:/c", "index=off"]);
        assert!(options("").is_empty());
    }

    #[test]
    fn access_times_are_replaced_as_one_field() {
        let attributes =
            MountAttributes { set: libc::MS_NOATIME | libc::MS_NOSUID, ..MountAttributes::default() };
        let change = change_of(attributes);
        assert_eq!(change.set, libc::MOUNT_ATTR_NOATIME | libc::MOUNT_ATTR_NOSUID);
        assert_eq!(change.clear, libc::MOUNT_ATTR__ATIME);
    }

    #[test]
    fn a_flag_both_set_and_cleared_is_set() {
        let attributes =
            MountAttributes { set: libc::MS_RDONLY, clear: libc::MS_RDONLY, ..MountAttributes::default() };
        let change = change_of(attributes);
        assert_eq!((change.set, change.clear), (libc::MOUNT_ATTR_RDONLY, 0));
    }
}
