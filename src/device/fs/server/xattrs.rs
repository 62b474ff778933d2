//! Extended attributes. Reached by `N` in `/proc/self/fd`, the thread's working directory: that works for every kind
//! of inode without opening it, which calls on descriptors do not.
//!
//! `trusted.*` is kept outside as `user.husk.trusted.*`: the right to set the real ones is CAP_SYS_ADMIN, which the machine does
//! not have, and an overlay inside cannot do without them. The guest's kernel lets its own administrator alone use them;
//! under their name outside nobody inside can. The price: on the host they are of no effect, and whoever owns the file can
//! change them; those that the host has set are not seen inside; and on symbolic links and special files they are
//! refused (`EPERM`), as all of `user.*` is, with which overlayfs reckons.

use super::super::inodes::NodeId;
use super::super::name::XattrName;
use std::borrow::Cow;
use std::ffi::{CStr, CString};

use super::super::wire::{GetxattrOut, ROOT, SETXATTR_ACL_KILL_SGID, SetxattrIn};
use super::reach::FdName;
use super::reply::Reply;
use super::{Outcome, Server};
use rustix::fs::{XattrFlags, getxattr, getxattr_query, listxattr, listxattr_query, removexattr, setxattr};
use rustix::io::Errno;

/// The largest value, and the longest list (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const MAX_SIZE: usize = 64 << 10;

impl Server {
    pub(super) fn getxattr(
        &mut self,
        id: NodeId,
        name: XattrName<'_>,
        size: u32,
        out: &mut Reply<'_>,
    ) -> Outcome {
        if id == ROOT {
            return Err(Errno::NODATA);
        }
        let name = outside(name).map_err(|_| Errno::NODATA)?;
        let node = self.path(id)?;
        let node = FdName::of(&node);
        match size {
            0 => out.put_size(getxattr_query(node.as_c_str(), &*name)?),
            _ => out.put_up_to(size, |buffer| getxattr(node.as_c_str(), &*name, buffer)),
        }
    }

    pub(super) fn listxattr(&mut self, id: NodeId, size: u32, out: &mut Reply<'_>) -> Outcome {
        if id == ROOT {
            return if size == 0 { out.put_size(0) } else { Ok(()) };
        }
        let node = self.path(id)?;
        let node = FdName::of(&node);
        let mut names = vec![0; listxattr_query(node.as_c_str())?.min(MAX_SIZE)];
        let len = listxattr(node.as_c_str(), names.as_mut_slice())?;
        names.truncate(len);
        let names = inside(names);
        match usize::try_from(size).unwrap_or(MAX_SIZE) {
            0 => out.put_size(names.len()),
            size if size < names.len() => Err(Errno::RANGE),
            _ => out.put_bytes(&names),
        }
    }

    pub(super) fn setxattr(
        &mut self,
        id: NodeId,
        how: &SetxattrIn,
        name: XattrName<'_>,
        value: &[u8],
    ) -> Outcome {
        self.writable(id)?;
        let flags = XattrFlags::from_bits(how.flags).ok_or(Errno::INVAL)?;
        let name = outside(name)?;
        let node = self.path(id)?;
        let set = || setxattr(FdName::of(&node).as_c_str(), &*name, value, flags);
        match how.setxattr_flags & SETXATTR_ACL_KILL_SGID {
            0 => set(),
            _ => self.rights.without_fsetid(set),
        }
    }

    pub(super) fn removexattr(&mut self, id: NodeId, name: XattrName<'_>) -> Outcome {
        self.writable(id)?;
        let name = outside(name)?;
        let node = self.path(id)?;
        removexattr(FdName::of(&node).as_c_str(), &*name)
    }
}

/// The name outside of what is `name` inside.
fn outside(name: XattrName<'_>) -> Result<Cow<'_, CStr>, Errno> {
    let bytes = name.as_c_str().to_bytes();
    if bytes.starts_with(OURS) {
        return Err(Errno::PERM);
    }
    if !bytes.starts_with(TRUSTED) {
        return Ok(Cow::Borrowed(name.as_c_str()));
    }
    let name = CString::new([OURS, bytes].concat()).map_err(|_| Errno::INVAL)?;
    XattrName::check(&name)?;
    Ok(Cow::Owned(name))
}

/// A list of names outside as it is inside.
fn inside(names: Vec<u8>) -> Vec<u8> {
    if !names.split(|byte| *byte == 0).any(|name| name.starts_with(OURS)) {
        return names;
    }
    let seen = names.split_inclusive(|byte| *byte == 0).filter_map(|name| match name.strip_prefix(OURS) {
        Some(ours) => ours.starts_with(TRUSTED).then_some(ours),
        None => Some(name),
    });
    seen.flatten().copied().collect()
}

/// Names that only the guest's administrator may use.
const TRUSTED: &[u8] = b"trusted.";
/// What stands before them outside.
const OURS: &[u8] = b"user.husk.";

impl Reply<'_> {
    /// How large what the guest asks for is.
    fn put_size(&mut self, size: usize) -> Outcome {
        self.put(&GetxattrOut { size: u32::try_from(size).map_err(|_| Errno::RANGE)?, padding: 0 })
    }

    /// What `get` writes into a buffer of `size` bytes.
    fn put_up_to(&mut self, size: u32, get: impl FnOnce(&mut [u8]) -> Result<usize, Errno>) -> Outcome {
        let size = usize::try_from(size).unwrap_or(MAX_SIZE).min(MAX_SIZE).min(self.room());
        let mut buffer = vec![0; size];
        let len = get(&mut buffer)?;
        self.put_bytes(buffer.get(..len).ok_or(Errno::RANGE)?)
    }
}
