//! A memory's content in a file: which parts of it are there, written out, and laid over another memory.
#![allow(unsafe_code)] // mmap over memory that the guest is going to use
#![allow(clippy::arithmetic_side_effects, reason = "on our own layout, page by page; overflow aborts")]

use crate::device::Memory;
use crate::host::pagemap;
use crate::machine::memory::{self, MemoryError, PAGE};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// A part of a memory's content that lies in a file; page-aligned, all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Its guest address.
    pub at: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Lays a file's content over memory that nobody has seen yet. The file is never written to: a page that the guest
/// changes becomes its own.
pub fn overlay(memory: &Memory, file: &File, stretches: &[Stretch]) -> Result<(), MemoryError> {
    for stretch in stretches {
        let Stretch { at, offset, length } = *stretch;
        let outside = || MemoryError::Outside { what: "the template's memory".to_owned(), at, length };
        let size = usize::try_from(length).map_err(|_| outside())?;
        let place = memory.get_slice(GuestAddress(at), size).map_err(|_| outside())?;
        let from = libc::off_t::try_from(offset).map_err(|_| outside())?;
        if size == 0 || [at, offset, length].iter().any(|value| value & PAGE_MASK != 0) {
            return Err(outside());
        }
        let guard = place.ptr_guard_mut();
        let flags = libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED;
        // SAFETY: the place is ours, so long, and part of a mapping for guest memory of which nothing is used yet.
        let mapped = unsafe {
            libc::mmap(guard.as_ptr().cast(), size, memory::PROTECTION, flags, file.as_raw_fd(), from)
        };
        if mapped == libc::MAP_FAILED {
            return Err(MemoryError::Read {
                what: "the template's memory".to_owned(),
                source: io::Error::last_os_error(),
            });
        }
        memory::advise(guard.as_ptr(), size, libc::MADV_DONTDUMP)?;
    }
    Ok(())
}

/// Which of `memory`'s pages exist and hold something, as stretches whose `offset` counts all of them one after another.
/// Fewer than [`WORTH_A_GAP`] empty pages between two are taken along.
pub fn filled(memory: &Memory) -> io::Result<Vec<Stretch>> {
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut offset = 0;
    for (guest, ours, size) in memory::slots(memory) {
        pagemap::each(Path::new("/proc/self"), ours, size, |from, page| {
            let at = guest + from;
            if !(page.is_present() || page.is_swapped()) || is_empty(memory, at) {
                return;
            }
            match stretches.last_mut() {
                Some(last) if last.at >= guest && at - (last.at + last.length) < WORTH_A_GAP * PAGE => {
                    offset += at + PAGE - (last.at + last.length);
                    last.length = at + PAGE - last.at;
                }
                _ => {
                    stretches.push(Stretch { at, offset, length: PAGE });
                    offset += PAGE;
                }
            }
        })?;
    }
    Ok(stretches)
}

fn is_empty(memory: &Memory, at: u64) -> bool {
    let mut page = [0_u8; PAGE as usize];
    memory.read_slice(&mut page, GuestAddress(at)).is_ok() && page.iter().all(|byte| *byte == 0)
}

/// Writes what [`filled`] found to `file`, one stretch after the other.
pub fn write_out(memory: &Memory, stretches: &[Stretch], file: &File) -> io::Result<()> {
    for stretch in stretches {
        let length = usize::try_from(stretch.length).unwrap_or(0);
        let place = memory.get_slice(GuestAddress(stretch.at), length).map_err(io::Error::other)?;
        let guard = place.ptr_guard();
        // SAFETY: the place was checked to be so long, and no vcpu and no device runs that could change it.
        let bytes = unsafe { std::slice::from_raw_parts(guard.as_ptr(), length) };
        file.write_all_at(bytes, stretch.offset)?;
    }
    Ok(())
}

const PAGE_MASK: u64 = PAGE - 1;
/// Each stretch is a mapping, and a gap costs room in the file.
const WORTH_A_GAP: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_memory_holds_is_found_written_and_laid_over_another() {
        let saved = memory::map(&[0..4 << 20, 16 << 20..20 << 20]).unwrap();
        let put = |at: u64, byte: u8| saved.write_slice(&[byte; 5000], GuestAddress(at)).unwrap();
        // Two that are close, one that is far, one at the very end of the second range.
        [(0x1000, 1), (0x9010, 2), (2 << 20, 3), ((20 << 20) - 5000, 4)]
            .into_iter()
            .for_each(|(at, byte)| put(at, byte));
        // Touched, and empty: not worth a byte.
        put(3 << 20, 0);
        let stretches = filled(&saved).unwrap();
        let at = |stretch: &Stretch| (stretch.at, stretch.offset, stretch.length);
        assert_eq!(
            stretches.iter().map(at).collect::<Vec<_>>(),
            [(0x1000, 0, 0xa000), (2 << 20, 0xa000, 0x2000), ((20 << 20) - 0x2000, 0xc000, 0x2000)]
        );
        let file = tempfile::tempfile().unwrap();
        write_out(&saved, &stretches, &file).unwrap();
        let restored = memory::map(&[0..4 << 20, 16 << 20..20 << 20]).unwrap();
        overlay(&restored, &file, &stretches).unwrap();
        for at in (0..4 << 20).chain(16 << 20..20 << 20).step_by(4096) {
            let [mut one, mut other] = [[0_u8; 4096]; 2];
            saved.read_slice(&mut one, GuestAddress(at)).unwrap();
            restored.read_slice(&mut other, GuestAddress(at)).unwrap();
            assert!(one == other, "{at:#x}");
        }
        // What one guest writes, neither the file nor another guest has.
        restored.write_slice(&[9; 100], GuestAddress(0x1000)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte, [1]);
    }

    #[test]
    fn a_stretch_that_does_not_fit_is_refused() {
        let memory = memory::map(&[0..4 << 20]).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        for (at, offset, length) in [
            (4 << 20, 0, 4096),
            ((4 << 20) - 4096, 0, 8192),
            (1, 0, 4096),
            (0, 1, 4096),
            (0, 0, 1),
            (0, 0, 0),
            (u64::MAX - 4095, 0, 4096),
            (0, 1 << 63, 4096),
        ] {
            let error = overlay(&memory, &file, &[Stretch { at, offset, length }]).unwrap_err();
            assert!(matches!(error, MemoryError::Outside { .. }), "{at:#x} {offset:#x} {length:#x}: {error}");
        }
    }
}
