//! /dev: the nodes and links that every container has, and those that its spec adds.

use super::resolve::{Root, text};
use crate::machine;
use crate::sys::{self, mount as kernel};
use husk_protocol::{Device, DeviceKind};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{UnlinkatFlags, fchownat, symlinkat, unlinkat};
use std::os::fd::AsFd;

/// Why a device could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A node.
    #[error("error creating device node {path:?}")]
    Node {
        /// Where.
        path: String,
        /// Why.
        source: sys::Error,
    },
    /// A symbolic link.
    #[error("error creating symlink {path:?}")]
    Link {
        /// Where.
        path: String,
        /// Why.
        source: sys::Error,
    },
}

/// A node that every container has.
struct Default {
    path: &'static str,
    major: u32,
    minor: u32,
}

/// The nodes that every container has, with mode 0666.
const DEFAULTS: [Default; 6] = [
    Default { path: "/dev/null", major: 1, minor: 3 },
    Default { path: "/dev/zero", major: 1, minor: 5 },
    Default { path: "/dev/full", major: 1, minor: 7 },
    Default { path: "/dev/random", major: 1, minor: 8 },
    Default { path: "/dev/urandom", major: 1, minor: 9 },
    Default { path: "/dev/tty", major: 5, minor: 0 },
];

/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];

/// Makes the default nodes, the spec's nodes, and the links. With a user namespace nodes cannot be made in it: the
/// agent has made them, and they are bound.
pub fn make(root: &Root, devices: &[Device], container: u32, bind: bool) -> Result<(), DeviceError> {
    for default in DEFAULTS {
        // A spec may list a default device with a mode or an owner of its own: that one counts.
        if devices.iter().any(|device| device.path == default.path) {
            continue;
        }
        let device = character(default.path, default.major, default.minor, 0o666);
        node(root, &device, bind.then(|| default.path.to_owned()))?;
    }
    for (number, device) in devices.iter().enumerate() {
        node(root, device, bind.then(|| machine::device_node(container, number)))?;
    }
    for (target, path) in LINKS {
        link(root, target, path).map_err(|source| DeviceError::Link { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// Makes /dev/ptmx a link into the container's own devpts.
pub fn make_ptmx(root: &Root) -> Result<(), DeviceError> {
    let path = "/dev/ptmx";
    let replace = || -> sys::Result<()> {
        let (parent, name) = root.parent(path)?;
        match unlinkat(&parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(symlinkat("pts/ptmx", &parent, name.as_c_str())?)
    };
    replace().map_err(|source| DeviceError::Link { path: path.to_owned(), source })
}

fn node(root: &Root, device: &Device, bound: Option<String>) -> Result<(), DeviceError> {
    let made = match bound {
        Some(from) => bind(root, &from, &device.path),
        None => make_node(root, device),
    };
    made.map_err(|source| DeviceError::Node { path: device.path.clone(), source })
}

fn make_node(root: &Root, device: &Device) -> sys::Result<()> {
    let (parent, name) = root.parent(&device.path)?;
    match mknod(&parent, &name, device) {
        Err(Errno::EEXIST) => return Ok(()), // the image's own, or an earlier start's
        other => other?,
    }
    let (owner, group) = (Some(device.uid.into()), Some(device.gid.into()));
    fchownat(&parent, name.as_c_str(), owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// A character device of root's.
pub fn character(path: &str, major: u32, minor: u32, mode: u32) -> Device {
    Device { path: path.to_owned(), kind: DeviceKind::Character, major, minor, mode, uid: 0, gid: 0 }
}

/// Makes a node. Of the caller's umask nothing is left in it: the agent's children run with none.
pub fn mknod(parent: impl AsFd, name: &std::ffi::CStr, device: &Device) -> nix::Result<()> {
    let kind = match device.kind {
        DeviceKind::Character => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    };
    let number = makedev(u64::from(device.major), u64::from(device.minor));
    mknodat(parent, name, kind, Mode::from_bits_truncate(device.mode & 0o7777), number)
}

fn bind(root: &Root, from: &str, path: &str) -> sys::Result<()> {
    let place = root.file(path)?;
    let copy = kernel::copy_of(sys::file::here(), &text(from)?, false)?;
    kernel::attach(copy, place)
}

fn link(root: &Root, target: &str, path: &str) -> sys::Result<()> {
    let (parent, name) = root.parent(path)?;
    match symlinkat(target, &parent, name.as_c_str()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
