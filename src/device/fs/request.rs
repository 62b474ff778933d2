//! The decoder: bytes of a request to an [`Operation`]. Pure; sees no file and no guest memory.
//!
//! It is strict: a struct that is cut short, bytes left over, a name that is not one component, and the request is
//! refused before any part of the server has seen it.

use super::name::{Name, XattrName};
use super::wire::*;
use rustix::io::Errno;
use std::ffi::CStr;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The longest request that is not a WRITE: an attribute's value of 64 KiB, a name and a struct; or a batch of 4,000
/// inodes to forget.
pub const MAX_BODY: usize = (64 << 10) + 4096;

/// The longest target of a symbolic link, with its NUL (PATH_MAX).
const MAX_TARGET: usize = 4096;

/// The size of a [`ForgetOne`].
const FORGET_SIZE: u32 = 16;

/// What the guest wants. The inode it speaks of is in the request's header.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is the protocol's operation of that name")]
pub enum Operation<'a> {
    Init(InitIn),
    Destroy,
    Lookup(Name<'a>),
    Forget(ForgetIn),
    BatchForget(Forgets<'a>),
    Getattr(GetattrIn),
    Setattr(SetattrIn),
    Readlink,
    Symlink {
        name: Name<'a>,
        target: &'a CStr,
    },
    Mknod {
        how: MknodIn,
        name: Name<'a>,
    },
    Mkdir {
        how: MkdirIn,
        name: Name<'a>,
    },
    Unlink(Name<'a>),
    Rmdir(Name<'a>),
    Rename {
        newdir: u64,
        flags: u32,
        old: Name<'a>,
        new: Name<'a>,
    },
    Link {
        how: LinkIn,
        name: Name<'a>,
    },
    Open(OpenIn),
    Create {
        how: CreateIn,
        name: Name<'a>,
    },
    Tmpfile(CreateIn),
    Read(ReadIn),
    /// The data is not part of the decoded bytes: it goes straight from guest memory to the file.
    Write(WriteIn),
    Statfs,
    Release(ReleaseIn),
    Flush(FlushIn),
    Fsync(FsyncIn),
    Setxattr {
        how: SetxattrIn,
        name: XattrName<'a>,
        value: &'a [u8],
    },
    Getxattr {
        size: u32,
        name: XattrName<'a>,
    },
    Listxattr(GetxattrIn),
    Removexattr(XattrName<'a>),
    Opendir,
    Readdir(ReadIn),
    Readdirplus(ReadIn),
    Releasedir(ReleaseIn),
    Fsyncdir(FsyncIn),
    Fallocate(FallocateIn),
    Lseek(LseekIn),
    CopyFileRange(CopyFileRangeIn),
    Getlk(LkIn),
    Setlk(LkIn),
    Setlkw(LkIn),
    Interrupt(InterruptIn),
    Syncfs,
}

/// Decodes what follows the header. `ENOSYS` for an operation that we do not have, `EINVAL` for nonsense.
pub fn decode<'a>(header: &InHeader, body: &'a [u8]) -> Result<Operation<'a>, Errno> {
    // Extensions come only for features that we do not negotiate.
    if header.extension_words != 0 {
        return Err(Errno::INVAL);
    }
    let mut rest = Body(body);
    let operation = match header.opcode {
        opcode::INIT => Operation::Init(rest.init()?),
        opcode::DESTROY => Operation::Destroy,
        opcode::LOOKUP => Operation::Lookup(rest.name()?),
        opcode::FORGET => Operation::Forget(rest.fixed()?),
        opcode::BATCH_FORGET => Operation::BatchForget(rest.forgets()?),
        opcode::GETATTR => Operation::Getattr(rest.fixed()?),
        opcode::SETATTR => Operation::Setattr(rest.fixed()?),
        opcode::READLINK => Operation::Readlink,
        opcode::SYMLINK => Operation::Symlink { name: rest.name()?, target: rest.target()? },
        opcode::MKNOD => Operation::Mknod { how: rest.fixed()?, name: rest.name()? },
        opcode::MKDIR => Operation::Mkdir { how: rest.fixed()?, name: rest.name()? },
        opcode::UNLINK => Operation::Unlink(rest.name()?),
        opcode::RMDIR => Operation::Rmdir(rest.name()?),
        opcode::RENAME => {
            let how: RenameIn = rest.fixed()?;
            Operation::Rename { newdir: how.newdir, flags: 0, old: rest.name()?, new: rest.name()? }
        }
        opcode::RENAME2 => {
            let how: Rename2In = rest.fixed()?;
            Operation::Rename { newdir: how.newdir, flags: how.flags, old: rest.name()?, new: rest.name()? }
        }
        opcode::LINK => Operation::Link { how: rest.fixed()?, name: rest.name()? },
        opcode::OPEN => Operation::Open(rest.fixed()?),
        opcode::CREATE => Operation::Create { how: rest.fixed()?, name: rest.name()? },
        opcode::TMPFILE => {
            let how = rest.fixed()?;
            // The kernel names what has no name `/`; nothing is made under that.
            if !matches!(rest.c_str()?.to_bytes(), b"/" | b"") {
                return Err(Errno::INVAL);
            }
            Operation::Tmpfile(how)
        }
        opcode::READ => Operation::Read(rest.fixed()?),
        opcode::WRITE => Operation::Write(rest.fixed()?),
        opcode::STATFS => Operation::Statfs,
        opcode::RELEASE => Operation::Release(rest.fixed()?),
        opcode::FLUSH => Operation::Flush(rest.fixed()?),
        opcode::FSYNC => Operation::Fsync(rest.fixed()?),
        opcode::SETXATTR => {
            let how: SetxattrIn = rest.fixed()?;
            let name = rest.xattr_name()?;
            Operation::Setxattr { how, name, value: rest.bytes(how.size)? }
        }
        opcode::GETXATTR => {
            let how: GetxattrIn = rest.fixed()?;
            Operation::Getxattr { size: how.size, name: rest.xattr_name()? }
        }
        opcode::LISTXATTR => Operation::Listxattr(rest.fixed()?),
        opcode::REMOVEXATTR => Operation::Removexattr(rest.xattr_name()?),
        opcode::OPENDIR => {
            rest.fixed::<OpenIn>()?;
            Operation::Opendir
        }
        opcode::READDIR => Operation::Readdir(rest.fixed()?),
        opcode::READDIRPLUS => Operation::Readdirplus(rest.fixed()?),
        opcode::RELEASEDIR => Operation::Releasedir(rest.fixed()?),
        opcode::FSYNCDIR => Operation::Fsyncdir(rest.fixed()?),
        opcode::FALLOCATE => Operation::Fallocate(rest.fixed()?),
        opcode::LSEEK => Operation::Lseek(rest.fixed()?),
        opcode::COPY_FILE_RANGE => Operation::CopyFileRange(rest.fixed()?),
        opcode::GETLK => Operation::Getlk(rest.fixed()?),
        opcode::SETLK => Operation::Setlk(rest.fixed()?),
        opcode::SETLKW => Operation::Setlkw(rest.fixed()?),
        opcode::INTERRUPT => Operation::Interrupt(rest.fixed()?),
        opcode::SYNCFS => {
            rest.bytes(8)?;
            Operation::Syncfs
        }
        _ => return Err(Errno::NOSYS),
    };
    if !rest.0.is_empty() {
        return Err(Errno::INVAL);
    }
    Ok(operation)
}

/// The inodes of a BATCH_FORGET.
#[derive(Debug, Clone, Copy)]
pub struct Forgets<'a>(&'a [u8]);

impl Forgets<'_> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = ForgetOne> {
        self.0.chunks_exact(size_of::<ForgetOne>()).filter_map(|one| ForgetOne::read_from_bytes(one).ok())
    }
}

/// What is not decoded yet.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn fixed<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// INIT grew over the years: what an older guest does not send reads as zero.
    fn init(&mut self) -> Result<InitIn, Errno> {
        let mut whole = [0u8; size_of::<InitIn>()];
        if self.0.len() < 16 {
            return Err(Errno::INVAL);
        }
        let sent = self.0.len().min(whole.len());
        let (taken, rest) = self.0.split_at_checked(sent).ok_or(Errno::INVAL)?;
        for (to, byte) in whole.iter_mut().zip(taken) {
            *to = *byte;
        }
        self.0 = rest;
        InitIn::read_from_bytes(&whole).map_err(|_| Errno::INVAL)
    }

    fn forgets(&mut self) -> Result<Forgets<'a>, Errno> {
        let how: BatchForgetIn = self.fixed()?;
        let bytes = how.count.checked_mul(FORGET_SIZE).ok_or(Errno::INVAL)?;
        Ok(Forgets(self.bytes(bytes)?))
    }

    fn bytes(&mut self, count: u32) -> Result<&'a [u8], Errno> {
        let count = usize::try_from(count).map_err(|_| Errno::INVAL)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(taken)
    }

    fn c_str(&mut self) -> Result<&'a CStr, Errno> {
        let found = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = self.0.get(found.to_bytes_with_nul().len()..).ok_or(Errno::INVAL)?;
        Ok(found)
    }

    fn name(&mut self) -> Result<Name<'a>, Errno> {
        Name::check(self.c_str()?)
    }

    fn xattr_name(&mut self) -> Result<XattrName<'a>, Errno> {
        XattrName::check(self.c_str()?)
    }

    fn target(&mut self) -> Result<&'a CStr, Errno> {
        let target = self.c_str()?;
        match target.to_bytes_with_nul().len() {
            0 | 1 => Err(Errno::NOENT),
            2..=MAX_TARGET => Ok(target),
            _ => Err(Errno::NAMETOOLONG),
        }
    }
}
