//! The kernel's random number generator.

use super::{Result, file, returned};
use std::os::fd::AsRawFd;

/// Mixes a secret in, credits it, and has every processor's generator begin anew from it.
pub fn renew(seed: &[u8; 32]) -> Result<()> {
    let generator = file::open_at(file::here(), c"/dev/random", libc::O_RDWR, 0, 0)?;
    let pool = PoolInfo { entropy_count: 256, size: 32, bytes: *seed };
    let generator = generator.as_raw_fd();
    // SAFETY: RNDADDENTROPY reads the structure and as many bytes behind it as it says, which are part of it.
    returned(libc::c_long::from(unsafe { libc::ioctl(generator, RNDADDENTROPY, &raw const pool) }))?;
    // SAFETY: RNDRESEEDCRNG takes no argument.
    returned(libc::c_long::from(unsafe { libc::ioctl(generator, RNDRESEEDCRNG) })).map(drop)
}

/// `struct rand_pool_info` (linux/random.h) with its bytes.
#[repr(C)]
struct PoolInfo {
    /// In bits.
    entropy_count: libc::c_int,
    /// In bytes.
    size: libc::c_int,
    bytes: [u8; 32],
}

// linux/random.h: _IOW('R', 3, int[2]) and _IO('R', 7); libc lacks them.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
