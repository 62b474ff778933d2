//! `tmpcopyup`: what the image has at a place is copied into the tmpfs that is about to cover it.
//!
//! Runs in the child, on the image's content: depth is bounded, nothing but regular files is opened, a full tmpfs ends it.

use crate::sys::{self, Result, file};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, mkdirat, mknodat};
use nix::unistd::{fchownat, symlinkat};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};

/// Directories deeper than this are refused.
const DEEPEST: usize = 128;

/// Copies what is below `from` to below `to`.
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<()> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let from = file::open_at(from, c".", flags, 0, 0)?;
    let to = file::open_at(to, c".", flags, 0, 0)?;
    copy_directory(from, &to, 0)
}

fn copy_directory(from: OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(sys::Error(Errno::ELOOP));
    }
    let names: Vec<CString> = {
        let mut directory = Dir::from_fd(from.try_clone()?)?;
        directory
            .iter()
            .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_owned()))
            .filter(|name| !matches!(name.to_bytes(), b"." | b".."))
            .collect()
    };
    names.iter().try_for_each(|name| copy_entry(&from, to, name, depth))
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> Result<()> {
    let entry = file::open_at(from, name, libc::O_PATH | libc::O_NOFOLLOW, 0, 0)?;
    let status = fstat(&entry)?;
    let mode = Mode::from_bits_truncate(status.st_mode & 0o7777);
    match SFlag::from_bits_truncate(status.st_mode & libc::S_IFMT) {
        SFlag::S_IFDIR => {
            mkdirat(to, name, mode)?;
            let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let inner = file::open_at(to, name, flags, 0, 0)?;
            copy_directory(file::open_at(from, name, flags, 0, 0)?, &inner, depth.saturating_add(1))?;
        }
        SFlag::S_IFLNK => symlinkat(nix::fcntl::readlinkat(&entry, OsStr::new(""))?.as_os_str(), to, name)?,
        SFlag::S_IFREG => copy_file(from, to, name)?,
        kind => mknodat(to, name, kind, mode, status.st_rdev)?,
    }
    own(to, name, &status, mode)
}

fn copy_file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<()> {
    let flags = (OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let mut reader = std::fs::File::from(file::open_at(from, name, flags, 0, 0)?);
    let flags = (OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW).bits();
    let mut writer = std::fs::File::from(file::open_at(to, name, flags, 0o600, 0)?);
    std::io::copy(&mut reader, &mut writer)?;
    Ok(())
}

fn own(to: &OwnedFd, name: &CStr, status: &FileStat, mode: Mode) -> Result<()> {
    let (owner, group) = (Some(status.st_uid.into()), Some(status.st_gid.into()));
    fchownat(to, name, owner, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if status.st_mode & libc::S_IFMT != libc::S_IFLNK {
        fchmodat(to, name, mode, FchmodatFlags::FollowSymlink)?; // just made by us: no link
    }
    Ok(())
}
