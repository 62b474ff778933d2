//! The mount calls that work on descriptors: a mount is made detached, given its attributes, and only then attached.
//! Nothing is ever named by a path twice, so nothing can be swapped in between.

use super::{Result, descriptor, returned};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `AT_RECURSIVE` (linux/fcntl.h).
const AT_RECURSIVE: u32 = 0x8000;

/// A file system being configured (fsopen(2)).
pub struct Configuration(OwnedFd);

impl Configuration {
    /// Begins a file system of type `kind`.
    pub fn open(kind: &CStr) -> Result<Self> {
        // SAFETY: the name ends with a NUL.
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC) }).map(Self)
    }

    /// Sets an option that has a value.
    pub fn set(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.command(libc::FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr())
    }

    /// Sets an option that has none.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.command(libc::FSCONFIG_SET_FLAG, key.as_ptr(), std::ptr::null())
    }

    /// Makes the file system, and a detached mount of it with these `MOUNT_ATTR_*`.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        self.command(libc::FSCONFIG_CMD_CREATE, std::ptr::null(), std::ptr::null())?;
        // SAFETY: plain numbers.
        descriptor(unsafe {
            libc::syscall(libc::SYS_fsmount, self.0.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes)
        })
    }

    /// What the file system says about the last failure, if it says anything.
    pub fn complaint(&self) -> Option<String> {
        let mut text = [0u8; 256];
        let length = nix::unistd::read(&self.0, &mut text).ok()?;
        // One message a read: a letter for its level, a space, the text.
        let text = text.get(2..length)?;
        Some(String::from_utf8_lossy(text).trim_end().to_owned())
    }

    fn command(&self, command: u32, key: *const libc::c_char, value: *const libc::c_char) -> Result<()> {
        let fd = self.0.as_raw_fd();
        // SAFETY: key and value are null or end with a NUL, as `command` wants them.
        returned(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) })?;
        Ok(())
    }
}

/// A detached copy of the mount at `path` under `directory` (itself if the path is empty): what a bind mount is made of.
pub fn copy_of(directory: impl AsFd, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | empty_path(path);
    if recursive {
        flags |= AT_RECURSIVE;
    }
    // SAFETY: the path ends with a NUL.
    descriptor(unsafe {
        libc::syscall(libc::SYS_open_tree, directory.as_fd().as_raw_fd(), path.as_ptr(), flags)
    })
}

/// Attaches a detached mount on the directory or file that `target` is open on.
pub fn attach(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are the empty string.
    returned(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            target.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    })?;
    Ok(())
}

/// A change of mount attributes (mount_setattr(2)).
#[derive(Debug, Clone, Copy, Default)]
pub struct Change {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 for no change.
    pub propagation: u64,
    /// The whole tree.
    pub recursive: bool,
}

/// Changes the attributes of the mount that `mount` is open on.
pub fn change(mount: impl AsFd, change: Change) -> Result<()> {
    let attributes = libc::mount_attr {
        attr_set: change.set,
        attr_clr: change.clear,
        propagation: change.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH.unsigned_abs() | if change.recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is empty, the struct lives across the call and its size is told.
    returned(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}

/// `AT_EMPTY_PATH` if the path is.
fn empty_path(path: &CStr) -> u32 {
    if path.is_empty() { libc::AT_EMPTY_PATH.unsigned_abs() } else { 0 }
}
