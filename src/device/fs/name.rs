//! Names from the guest, checked before anything else sees them.
//!
//! A [`Name`] is one component and nothing but: it cannot lead out of the directory it is used in. There is no other
//! way for a name of the guest's to reach the host's kernel than through these types.

use super::wire::NAME_MAX;
use rustix::io::Errno;
use std::ffi::CStr;

/// One component of a path: not empty, no `/`, not `.` or `..`, at most 255 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Checks a name. `EINVAL` for one that no well-behaved guest sends; `ENAMETOOLONG` for one that a program inside
    /// may ask for in good faith (the guest's kernel lets 1,024 bytes pass), refused all the same.
    pub fn check(name: &'a CStr) -> Result<Name<'a>, Errno> {
        let bytes = name.to_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        if bytes.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(Name(name))
    }

    /// For a system call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}

/// The name of an extended attribute: no path, so `/` is allowed in it (as the kernel does); not empty, at most 255
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XattrName<'a>(&'a CStr);

impl<'a> XattrName<'a> {
    /// Checks a name: `EINVAL`, or `ERANGE` for one too long, as the kernel says.
    pub fn check(name: &'a CStr) -> Result<XattrName<'a>, Errno> {
        match name.to_bytes().len() {
            0 => Err(Errno::INVAL),
            1..=NAME_MAX => Ok(XattrName(name)),
            _ => Err(Errno::RANGE),
        }
    }

    /// For a system call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}
