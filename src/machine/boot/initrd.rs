//! Loads the initial RAM file system, which holds the agent, directly behind the kernel.
//!
//! Behind the kernel and not at the end of memory: its place then does not depend on how much memory a guest has, and
//! kernel, initrd and what the kernel allocates first share page tables.

use super::kernel::Kernel;
use crate::device::Memory;
use crate::machine::memory::{self, MemoryError};
use crate::machine::parts::Part;
use std::ops::Range;

/// Loads `part` behind `kernel`, inside `room`, and says where it lies.
pub fn load(
    memory: &Memory,
    part: &Part,
    kernel: &Kernel,
    room: Range<u64>,
) -> Result<Range<u64>, InitrdError> {
    let place = place(part.length(), kernel, &room)?;
    memory::place(memory, place.start, part, 0, part.length())?;
    Ok(place)
}

fn place(length: u64, kernel: &Kernel, room: &Range<u64>) -> Result<Range<u64>, InitrdError> {
    let size = kernel.end.saturating_sub(kernel.start);
    // The kernel unpacks the archive before it frees it, so its content is there twice for a moment. What lies below
    // the kernel counts as room to work.
    let needed = size.saturating_add(length.saturating_mul(2)).saturating_add(KERNEL_NEEDS);
    let start = kernel.end.checked_next_multiple_of(ALIGNMENT);
    let end = start.and_then(|start| start.checked_add(length));
    match (start, end) {
        (Some(start), Some(end)) if end <= room.end && needed <= room.end => Ok(start..end),
        (_, end) => Err(InitrdError::TooLittleMemory {
            kernel_kib: size >> 10,
            initrd_kib: length >> 10,
            needed_mib: needed.max(end.unwrap_or(u64::MAX)).div_ceil(1 << 20),
            memory_mib: room.end >> 20,
        }),
    }
}

/// Why the initrd could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// It does not fit.
    #[error(
        "{memory_mib} MiB of memory are too few: the guest needs {needed_mib} MiB to start \
         (kernel {kernel_kib} KiB, initrd {initrd_kib} KiB and once more that for its content, and room to work)"
    )]
    TooLittleMemory {
        /// The kernel's size in memory.
        kernel_kib: u64,
        /// The initrd's size.
        initrd_kib: u64,
        /// What would be enough.
        needed_mib: u64,
        /// What there is (below the hole).
        memory_mib: u64,
    },
    /// It cannot be put into guest memory.
    #[error("cannot load the initrd")]
    Place(#[from] MemoryError),
}

/// Large-page alignment, so that kernel and initrd do not share a large page.
const ALIGNMENT: u64 = 2 << 20;
/// What a kernel needs beside itself and the initrd to reach its first process; found by trying.
const KERNEL_NEEDS: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel { entry: 0x100_0000, start: 0x100_0000, end: 0x2a3_4000 };

    #[test]
    fn the_initrd_lies_behind_the_kernel() {
        assert_eq!(place(5 << 20, &KERNEL, &(0x10_0000..64 << 20)).unwrap(), 44 << 20..49 << 20);
    }

    #[test]
    fn too_little_memory_is_said_in_numbers() {
        let error = place(9 << 20, &KERNEL, &(0x10_0000..60 << 20)).unwrap_err().to_string();
        assert!(
            error.starts_with("60 MiB of memory are too few: the guest needs 61 MiB to start"),
            "{error}"
        );
        let room = 0x10_0000..3 << 30;
        assert!(place(u64::MAX, &KERNEL, &room).is_err());
        assert!(place(1, &Kernel { end: u64::MAX, ..KERNEL }, &room).is_err());
        assert!(place(3 << 30, &KERNEL, &room).is_err());
    }
}
