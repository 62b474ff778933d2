//! What a file server remembers, as it is saved.
//!
//! ```text
//!   Server --server/save.rs--> Saved --bytes--> a file, another process --bytes--> Saved --server/restore.rs--> Server
//!                                                                    check: nothing is believed
//! ```
//! Plain data, no descriptors. An inode is written down as where it is (a name in a directory that is written down as
//! well, up to its export) and as what proves that it is the same one. Not as a file handle (`name_to_handle_at`): to open
//! one takes CAP_DAC_READ_SEARCH, which the machine does not keep, and it would not be bound to the export.
//!
//! What cannot be saved: a file without a name. Its descriptor is all there was of it; the guest is told `ESTALE`.
//! Neither can a wait for a lock, which ends with `EINTR` when the device stops.
//!
//! Bytes are hostile on the way in, as any file is. The version counts up with every change of these structs.

mod check;

use super::ranges::Range;
use rustix::fs::{Statx, StatxFlags};
use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Of a device for what others change as well.
    pub shared: bool,
    /// What INIT has settled, if it came to that.
    pub agreed: Option<SavedAgreement>,
    /// The exports that there are, and those gone of which the guest still knows inodes; by number.
    pub exports: Vec<SavedExport>,
    /// The highest number that an export ever had.
    pub last_export: u32,
    /// Mounts and filesystems; `SavedInode::mount` is an index here.
    pub mounts: Vec<SavedMount>,
    /// Inodes, by number.
    pub inodes: Vec<SavedInode>,
    /// The highest number that an inode ever had.
    pub last_node: u64,
    /// What is open, by number.
    pub handles: Vec<SavedHandle>,
    /// The highest number that a handle ever had.
    pub last_handle: u64,
    /// Who has locks on what, by file, kind and owner.
    pub owners: Vec<SavedOwner>,
}

/// What INIT has settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedAgreement {
    /// The guest mounts other filesystems by itself.
    pub submounts: bool,
    /// The guest says what it opens.
    pub opens: bool,
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedExport {
    /// Its number: the guest's cookie in a listing of the root.
    pub id: u32,
    /// Its name; `None` for one that is gone.
    pub name: Option<Vec<u8>>,
}

/// A filesystem, as far as it can be known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMount {
    /// Its magic number.
    pub magic: u64,
    /// What it calls itself; 0 if it does not.
    pub fsid: u64,
    /// Its device's number.
    pub device: (u32, u32),
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedInode {
    /// The guest's number for it.
    pub id: u64,
    /// Through which export it was found.
    pub export: u32,
    /// Where it is.
    pub place: SavedPlace,
    /// On which mount.
    pub mount: u32,
    /// Its number there.
    pub ino: u64,
    /// Its type, as in a mode.
    pub kind: u32,
    /// What tells it from another one that has its number later.
    pub stamp: Stamp,
    /// Whether the guest sees its number changed.
    pub salted: bool,
    /// Whether the guest mounts another filesystem there.
    pub submount: bool,
    /// How often the guest was told of it.
    pub lookups: u64,
}

/// Where an inode is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedPlace {
    /// It is an export's source.
    Export,
    /// Under a name in a directory, which has a place as well.
    Below {
        /// The directory.
        parent: u64,
        /// The name.
        name: Vec<u8>,
    },
    /// Out of reach: `ESTALE`.
    Nowhere,
}

/// A moment in an inode's life, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stamp {
    /// When it was made.
    Birth(u64),
    /// Where the filesystem does not say that: when it was changed last.
    Change(u64),
}

impl Stamp {
    /// Of what was looked at.
    pub fn of(seen: &Statx) -> Stamp {
        let nanoseconds = |seconds: i64, rest: u32| {
            seconds.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(rest.into())
        };
        let birth = nanoseconds(seen.stx_btime.tv_sec, seen.stx_btime.tv_nsec);
        if seen.stx_mask & StatxFlags::BTIME.bits() != 0 && birth != 0 {
            return Stamp::Birth(birth);
        }
        Stamp::Change(nanoseconds(seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec))
    }

    /// The birth, or 0.
    pub fn birth(self) -> u64 {
        match self {
            Stamp::Birth(birth) => birth,
            Stamp::Change(_) => 0,
        }
    }
}

/// Something open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHandle {
    /// The guest's number for it.
    pub fh: u64,
    /// The inode.
    pub node: u64,
    /// As what.
    pub kind: SavedHandleKind,
}

/// As what an inode is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedHandleKind {
    /// A file, perhaps for writing.
    File {
        /// Whether it may be written to.
        write: bool,
    },
    /// A directory.
    Directory {
        /// The host's cookie of the next name.
        position: u64,
    },
    /// The root.
    Root,
}

/// An owner's locks on one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOwner {
    /// The file.
    pub node: u64,
    /// Whether it is a flock.
    pub flock: bool,
    /// The guest's name for the owner.
    pub owner: u64,
    /// Through which handle it asked first.
    pub fh: u64,
    /// The process inside that asked last.
    pub pid: u32,
    /// What it has, never nothing.
    pub ranges: Vec<Range>,
}

/// Why a state could not be saved or restored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It does not begin as it should.
    #[error("this is not the saved state of a file server")]
    NotOurs,
    /// Made by another husk.
    #[error("the saved state of the file server has version {0}; only version {VERSION} is known here")]
    Version(u32),
    /// Cut short, or not by us.
    #[error("the saved state of the file server cannot be read")]
    Malformed(#[source] postcard::Error),
    /// There is something behind it.
    #[error("the saved state of the file server has {0} bytes too many")]
    TooLong(usize),
    /// It cannot have come about.
    #[error("the saved state of the file server makes no sense: {noun} {number} {what}")]
    Nonsense {
        /// Of what it speaks.
        noun: &'static str,
        /// Which one.
        number: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// It belongs to the other device.
    #[error("the saved state is that of a file server for {} trees", if *.0 { "shared" } else { "exclusive" })]
    OtherPolicy(bool),
    /// The process inside would go on in the belief that it has it.
    #[error("a lock on inode {node} of the saved state belongs to somebody else by now")]
    Lock {
        /// The file.
        node: u64,
    },
    /// The host failed us.
    #[error("the file server cannot {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Saved {
    /// As bytes: a mark, the version, the structs.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StateError> {
        let mut bytes = MARK.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        postcard::to_extend(self, bytes).map_err(StateError::Malformed)
    }

    /// From bytes, whoever made them. What is returned can have come about.
    pub fn from_bytes(bytes: &[u8]) -> Result<Saved, StateError> {
        let rest = bytes.strip_prefix(MARK).ok_or(StateError::NotOurs)?;
        let (version, rest) = rest.split_first_chunk().ok_or(StateError::NotOurs)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(StateError::Version(version));
        }
        let (saved, rest) = postcard::take_from_bytes::<Saved>(rest).map_err(StateError::Malformed)?;
        if !rest.is_empty() {
            return Err(StateError::TooLong(rest.len()));
        }
        saved.check()?;
        Ok(saved)
    }
}

/// What every state begins with.
const MARK: &[u8] = b"husk file server\0";
/// The structs above, as they are now.
const VERSION: u32 = 1;
