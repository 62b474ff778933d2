//! What lies behind a process's pages (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A page, as the kernel tells of it.
#[derive(Debug, Clone, Copy)]
pub struct Page(u64);

impl Page {
    /// It is in memory.
    pub fn is_present(self) -> bool {
        self.0 & (1 << 63) != 0
    }

    /// It is in swap.
    pub fn is_swapped(self) -> bool {
        self.0 & (1 << 62) != 0
    }

    /// It is a file's (or shared), and not the process's own.
    pub fn is_of_a_file(self) -> bool {
        self.0 & (1 << 61) != 0
    }
}

/// Shows `visit` the pages of `length` bytes at `address` of a process (its directory in /proc), each with how far behind
/// `address` it begins.
pub fn each(process: &Path, address: u64, length: u64, mut visit: impl FnMut(u64, Page)) -> io::Result<()> {
    let pages = File::open(process.join("pagemap"))?;
    let mut entries = [0; A_READ * ENTRY];
    for first in (0..length).step_by(BYTES_A_READ) {
        let at = (address.saturating_add(first) / PAGE).saturating_mul(ENTRY as u64);
        let left = usize::try_from(length.saturating_sub(first).div_ceil(PAGE)).unwrap_or(A_READ).min(A_READ);
        let wanted = entries.get_mut(..left.saturating_mul(ENTRY)).unwrap_or_default();
        pages.read_exact_at(wanted, at)?;
        for (from, entry) in (first..length).step_by(PAGE as usize).zip(wanted.as_chunks::<ENTRY>().0) {
            visit(from, Page(u64::from_le_bytes(*entry)));
        }
    }
    Ok(())
}

const PAGE: u64 = 4096;
/// Bytes that tell of a page.
const ENTRY: usize = 8;
/// Pages that are asked after at a time.
const A_READ: usize = 512;
const BYTES_A_READ: usize = A_READ * PAGE as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_there_once_it_was_touched() {
        let memory = vec![0_u8; 4 << 20];
        let begin = (memory.as_ptr() as u64).next_multiple_of(PAGE);
        let skipped = usize::try_from(begin).unwrap() - memory.as_ptr() as usize;
        let mut memory = memory;
        // One page beyond a read's worth.
        memory[skipped + 700 * 4096] = 1;
        let mut present = Vec::new();
        each(Path::new("/proc/self"), begin, 1000 * PAGE, |from, page| {
            if page.is_present() && !page.is_swapped() {
                assert!(!page.is_of_a_file());
                present.push(from);
            }
        })
        .unwrap();
        assert!(present.contains(&(700 * PAGE)), "{present:?}");
        assert!(present.iter().all(|from| *from < 1000 * PAGE));
    }
}
