//! What an interface leaves to its device: ethtool(8)'s `-K`, as its ioctl has it.

use super::{Error, Result, returned};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::AsRawFd;

/// Turns a feature on, by ethtool's name for it; nothing happens if the interface's device does not have it.
pub fn turn_on(interface: &str, feature: &str) -> Result<()> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (to, from) in name.iter_mut().take(libc::IFNAMSIZ.saturating_sub(1)).zip(interface.bytes()) {
        *to = from;
    }
    let mut names = Names { command: GSTRINGS, set: FEATURES, count: 0, names: [[0; NAME]; MOST] };
    ask(&socket, name, &mut names)?;
    let count = usize::try_from(names.count).unwrap_or(MOST);
    let is_it = |name: &[u8; NAME]| {
        name.strip_prefix(feature.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    };
    let at = names.names.iter().take(count).position(is_it).ok_or(Error(Errno::EOPNOTSUPP))?;
    let mut set = Set { command: SFEATURES, blocks: 0, bits: [[0; 2]; MOST / 32] };
    set.blocks = u32::try_from(count.div_ceil(32)).unwrap_or(0);
    if let Some(block) = set.bits.get_mut(at / 32) {
        // What is meant, and what it is to be.
        *block = [1 << (at % 32); 2];
    }
    ask(&socket, name, &mut set)
}

fn ask<T: Question>(socket: &impl AsRawFd, name: [u8; libc::IFNAMSIZ], question: &mut T) -> Result<()> {
    let mut request = Request { name, data: std::ptr::from_mut(question).cast(), rest: [0; 16] };
    // SAFETY: the request is a `struct ifreq` that points to a structure of ethtool's, which begins with its command and
    // has room for the most that the kernel has to say to that (see `Question`).
    let value = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    returned(value.into()).map(drop)
}

/// What may be asked: structures that are long enough for any answer of a kernel that has no more than [`MOST`] features.
trait Question {}

impl Question for Names {}
impl Question for Set {}

/// `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    data: *mut libc::c_void,
    rest: [u8; 16],
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Names {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; NAME]; MOST],
}

/// `struct ethtool_sfeatures`.
#[repr(C)]
struct Set {
    command: u32,
    blocks: u32,
    bits: [[u32; 2]; MOST / 32],
}

// linux/sockios.h, linux/ethtool.h
const SIOCETHTOOL: libc::c_ulong = 0x8946;
const GSTRINGS: u32 = 0x1b;
const SFEATURES: u32 = 0x3b;
const FEATURES: u32 = 4;
const NAME: usize = 32;
/// The kernel keeps features in 64 bits; twice as many for kernels to come.
const MOST: usize = 128;
