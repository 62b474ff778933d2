//! FUSE as it stands on the wire (protocol 7.38 to 7.45): numbers and structs, nothing else.
//!
//! All structs are little endian because host and guest are; they hold no padding that is not named, so that none of
//! the host's memory can leak into the guest. Names follow the protocol; the meaning of a field stands where it is used.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Declares structs of the protocol, which come from bytes and go to bytes as they stand.
macro_rules! wire_structs {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        #[allow(missing_docs, reason = "fields are the protocol's own")]
        pub struct $name { $(pub $field: $type),* }
    )*};
}

wire_structs! {
    /// Before every request.
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, extension_words: u16, padding: u16 }
    /// Before every reply.
    OutHeader { len: u32, error: i32, unique: u64 }
    /// A file's attributes.
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// The reply to everything that makes an inode known.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }
    /// The reply to GETATTR and SETATTR.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// FORGET.
    ForgetIn { nlookup: u64 }
    /// One of BATCH_FORGET.
    ForgetOne { nodeid: u64, nlookup: u64 }
    /// BATCH_FORGET.
    BatchForgetIn { count: u32, dummy: u32 }
    /// GETATTR.
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    /// MKNOD.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// MKDIR.
    MkdirIn { mode: u32, umask: u32 }
    /// RENAME.
    RenameIn { newdir: u64 }
    /// RENAME2.
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    /// LINK.
    LinkIn { oldnodeid: u64 }
    /// SETATTR.
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// OPEN and OPENDIR.
    OpenIn { flags: u32, open_flags: u32 }
    /// CREATE and TMPFILE.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// The reply to OPEN and OPENDIR, and the second half of that to CREATE.
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    /// RELEASE and RELEASEDIR.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// FLUSH.
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// READ, READDIR and READDIRPLUS.
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// WRITE; the data follows.
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// The reply to WRITE and COPY_FILE_RANGE.
    WriteOut { size: u32, padding: u32 }
    /// The reply to STATFS.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    /// FSYNC and FSYNCDIR.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// SETXATTR, in its extended form; name and value follow.
    SetxattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }
    /// GETXATTR (the name follows) and LISTXATTR.
    GetxattrIn { size: u32, padding: u32 }
    /// The reply to both when the guest asks for the size only.
    GetxattrOut { size: u32, padding: u32 }
    /// INIT.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11] }
    /// The reply to INIT.
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    /// FALLOCATE.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// Before each name in the reply to READDIR.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// LSEEK.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// The reply to LSEEK.
    LseekOut { offset: u64 }
    /// GETLK, SETLK and SETLKW. `end` is the last byte.
    LkIn { fh: u64, owner: u64, start: u64, end: u64, kind: u32, pid: u32, lk_flags: u32, padding: u32 }
    /// The reply to GETLK.
    LkOut { start: u64, end: u64, kind: u32, pid: u32 }
    /// INTERRUPT.
    InterruptIn { unique: u64 }
    /// COPY_FILE_RANGE.
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
}

/// The directory that the guest mounts.
pub const ROOT: u64 = 1;
/// Protocol version that we speak; the minor one is the newest whose structs are all above.
pub const VERSION: (u32, u32) = (7, 38);
/// The oldest minor version that we accept: it has the extended INIT and SETXATTR.
pub const OLDEST_MINOR: u32 = 36;
/// The longest file name that Linux has.
pub const NAME_MAX: usize = 255;

#[allow(missing_docs, reason = "the protocol's own")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
}

/// Features of INIT; those from bit 32 on travel in `flags2`.
#[allow(missing_docs, reason = "the protocol's own")]
pub mod feature {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
}

/// `SetattrIn::valid`.
#[allow(missing_docs, reason = "the protocol's own")]
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `OpenOut::open_flags`: keep what is cached of the file.
pub const FOPEN_KEEP_CACHE: u32 = 1 << 1;
/// `OpenIn::open_flags`: clear set-user-id and set-group-id when truncating.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `WriteIn::write_flags`: a write from the page cache, whoever made it.
pub const WRITE_CACHE: u32 = 1 << 0;
/// `WriteIn::write_flags`: clear set-user-id and set-group-id.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `LkIn::lk_flags`: flock, not fcntl.
pub const LK_FLOCK: u32 = 1 << 0;
/// `ReleaseIn::release_flags`: the handle held a flock.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `GetattrIn::getattr_flags`: `fh` holds.
pub const GETATTR_FH: u32 = 1 << 0;
/// `FsyncIn::fsync_flags`: data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// `SetxattrIn::setxattr_flags`: clear set-group-id as a change of the ACL does.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `Attr::flags`: a directory where another filesystem begins.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;
