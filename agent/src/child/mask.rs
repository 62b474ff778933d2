//! Paths hidden from the container, and paths made read-only.
//!
//! A hidden file is covered by the agent's own /dev/null, opened before the container's root was entered: what the image
//! put at its /dev/null plays no part. A hidden directory is covered by an empty read-only tmpfs, one for all of them.

use super::mount::make_read_only;
use super::resolve::Root;
use crate::sys::{self, mount as kernel};
use nix::errno::Errno;
use nix::sys::stat::fstat;
use std::os::fd::OwnedFd;

/// Why a path could not be hidden or protected.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    /// Hiding.
    #[error("can't mask path {path:?}")]
    Mask {
        /// Which.
        path: String,
        /// Why.
        source: sys::Error,
    },
    /// Protecting.
    #[error("can't make {path:?} read-only")]
    ReadOnly {
        /// Which.
        path: String,
        /// Why.
        source: sys::Error,
    },
}

/// Hides paths. Those that do not exist need no hiding.
pub fn hide(root: &Root, paths: &[String]) -> Result<(), MaskError> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        hide_one(root, path, &mut empty).map_err(|source| MaskError::Mask { path: path.clone(), source })?;
    }
    Ok(())
}

fn hide_one(root: &Root, path: &str, empty: &mut Option<OwnedFd>) -> sys::Result<()> {
    let place = match root.find(path) {
        Err(sys::Error(Errno::ENOENT | Errno::ENOTDIR)) => return Ok(()),
        other => other?,
    };
    let cover = if fstat(&place)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
        match empty {
            Some(empty) => kernel::copy_of(&*empty, c"", false)?,
            None => {
                let first = empty_directory()?;
                *empty = Some(first.try_clone()?);
                first
            }
        }
    } else {
        kernel::copy_of(sys::file::here(), c"/dev/null", false)?
    };
    kernel::attach(cover, place)
}

/// A read-only tmpfs with nothing in it.
fn empty_directory() -> sys::Result<OwnedFd> {
    let configuration = kernel::Configuration::open(c"tmpfs")?;
    configuration.set(c"source", c"tmpfs")?;
    configuration.set(c"nr_blocks", c"1")?;
    configuration.set(c"nr_inodes", c"1")?;
    configuration.set_flag(c"ro")?;
    configuration.mount(libc::MOUNT_ATTR_RDONLY)
}

/// Makes paths read-only: each becomes a mount of itself. Those that do not exist need none.
pub fn protect(root: &Root, paths: &[String]) -> Result<(), MaskError> {
    for path in paths {
        protect_one(root, path).map_err(|source| MaskError::ReadOnly { path: path.clone(), source })?;
    }
    Ok(())
}

fn protect_one(root: &Root, path: &str) -> sys::Result<()> {
    let place = match root.find(path) {
        Err(sys::Error(Errno::ENOENT | Errno::ENOTDIR)) => return Ok(()),
        other => other?,
    };
    let copy = kernel::copy_of(&place, c"", true)?;
    make_read_only(&copy)?;
    kernel::attach(copy, place)
}
