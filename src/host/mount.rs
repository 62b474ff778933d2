//! Mounts by descriptor: made or copied where nobody sees them, then attached.
#![allow(unsafe_code)] // mount_setattr(2) has no wrapper

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Which mounts below a tree are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The one at its top.
    Top,
    /// All.
    All,
}

/// A copy of what is mounted at `path` and, for [`Depth::All`], below it. Attached nowhere; it goes away with the
/// descriptor unless it is attached. `path` may also be a file. Symbolic links are followed.
pub fn copy_tree(path: &Path, depth: Depth) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if depth == Depth::All {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// A new tmpfs for `bytes`, attached nowhere.
pub fn tmpfs(bytes: u64) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "source", "husk")?;
    rustix::mount::fsconfig_set_string(&context, "size", bytes.to_string())?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0700")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Attaches a tree at `name` below the directory `at`. The descriptor then stands for the attached tree.
pub fn attach(tree: impl AsFd, at: impl AsFd, name: impl AsRef<Path>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", at, name.as_ref(), flags)?)
}

/// What to change about mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Nothing can be changed through them.
    pub read_only: bool,
    /// No set-user-id programs, no devices, no programs at all.
    pub inert: bool,
    /// Nothing that is mounted or unmounted elsewhere shows up below.
    pub private: bool,
}

/// Changes the mounts of a tree that is known by descriptor.
pub fn set_attributes(tree: impl AsFd, depth: Depth, attributes: Attributes) -> io::Result<()> {
    let mut set = 0;
    if attributes.read_only {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if attributes.inert {
        set |= libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    }
    let propagation = if attributes.private { libc::MS_PRIVATE } else { 0 };
    change(tree, depth, libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 })
}

/// Changes how access times are kept: `MOUNT_ATTR_*`, what is cleared first.
pub fn set_access_times(tree: impl AsFd, depth: Depth, set: u64, clear: u64) -> io::Result<()> {
    change(tree, depth, libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 })
}

fn change(tree: impl AsFd, depth: Depth, change: libc::mount_attr) -> io::Result<()> {
    let recursive = if depth == Depth::All { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open, the path is a NUL-terminated constant, and the structure is initialised, of the
    // size that is given, and only read.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The flags of the mount that `path` is on, as `MS_*` of mount(2). Symbolic links are followed.
pub fn flags(path: &Path) -> io::Result<u64> {
    let seen = rustix::fs::statvfs(path)?.f_flag.bits();
    let given = FLAGS.iter().filter(|(flag, _)| seen & flag != 0).fold(0, |all, (_, flag)| all | flag);
    // The one that is told by none of the others.
    let strict = given & (libc::MS_NOATIME | libc::MS_RELATIME) == 0;
    Ok(given | if strict { libc::MS_STRICTATIME } else { 0 })
}

/// What statfs(2) calls a flag, and what mount(2) does.
const FLAGS: [(u64, u64); 8] = [
    (libc::ST_RDONLY, libc::MS_RDONLY),
    (libc::ST_NOSUID, libc::MS_NOSUID),
    (libc::ST_NODEV, libc::MS_NODEV),
    (libc::ST_NOEXEC, libc::MS_NOEXEC),
    (libc::ST_NOATIME, libc::MS_NOATIME),
    (libc::ST_NODIRATIME, libc::MS_NODIRATIME),
    (libc::ST_RELATIME, libc::MS_RELATIME),
    (ST_NOSYMFOLLOW, MS_NOSYMFOLLOW),
];

/// linux/statfs.h and linux/mount.h; libc lacks them.
const ST_NOSYMFOLLOW: u64 = 0x2000;
const MS_NOSYMFOLLOW: u64 = 0x100;

/// Lets mounts that are made elsewhere below the root show up here, and none of ours there.
pub fn follow_only() -> io::Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Makes the current directory, which has to be the top of a mount, the root of this process, and takes the old root
/// with everything below it away.
pub fn enter_root() -> io::Result<()> {
    // Both at the same place: the old root then lies on top of the new one, and is the one that is unmounted.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Whether an error means that the host's kernel is too old for mounts by descriptor.
pub fn is_too_old(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOSYS.raw_os_error())
}
