//! Extended attributes. Reached by `N` in `/proc/self/fd`, the thread's working directory: that works for every kind
//! of inode without opening it, which calls on descriptors do not.

use super::super::inodes::NodeId;
use super::super::name::XattrName;
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
        let node = self.path(id)?;
        let (node, name) = (FdName::of(&node), name.as_c_str());
        match size {
            0 => out.put_size(getxattr_query(node.as_c_str(), name)?),
            _ => out.put_up_to(size, |buffer| getxattr(node.as_c_str(), name, buffer)),
        }
    }

    pub(super) fn listxattr(&mut self, id: NodeId, size: u32, out: &mut Reply<'_>) -> Outcome {
        if id == ROOT {
            return if size == 0 { out.put_size(0) } else { Ok(()) };
        }
        let node = self.path(id)?;
        let node = FdName::of(&node);
        match size {
            0 => out.put_size(listxattr_query(node.as_c_str())?),
            _ => out.put_up_to(size, |buffer| listxattr(node.as_c_str(), buffer)),
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
        let node = self.path(id)?;
        let set = || setxattr(FdName::of(&node).as_c_str(), name.as_c_str(), value, flags);
        match how.setxattr_flags & SETXATTR_ACL_KILL_SGID {
            0 => set(),
            _ => self.rights.without_fsetid(set),
        }
    }

    pub(super) fn removexattr(&mut self, id: NodeId, name: XattrName<'_>) -> Outcome {
        self.writable(id)?;
        let node = self.path(id)?;
        removexattr(FdName::of(&node).as_c_str(), name.as_c_str())
    }
}

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
