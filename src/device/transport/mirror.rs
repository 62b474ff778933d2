//! A window's registers as a page that the guest reads without leaving.
//!
//! The machine shows the page to the guest as memory that cannot be written: a read is a read, and a write leaves the
//! guest as it does without the page. Each interrupt begins with a read of the interrupt status, which is what this is
//! for. Whoever changes what a register shows writes it here, too.
//!
//! Not here: whether there is such a page. A transport without one works the same, and slower.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// One window's page, in a mapping of pages.
#[derive(Clone)]
pub struct Mirror {
    pages: Arc<MmapRegion>,
    at: usize,
}

impl Mirror {
    /// The page at `at` bytes of `pages`, which the guest sees where the window is; `None` when there is none.
    pub fn new(pages: Arc<MmapRegion>, at: usize) -> Option<Mirror> {
        let end = at.checked_add(PAGE)?;
        (at.is_multiple_of(PAGE) && end <= pages.size()).then_some(Mirror { pages, at })
    }

    /// A register, to be changed by several threads.
    pub(super) fn register(&self, offset: u64) -> Option<&AtomicU32> {
        let offset = usize::try_from(offset).ok().filter(|offset| *offset < PAGE)?;
        self.pages.get_atomic_ref(self.at.checked_add(offset)?).ok()
    }

    /// Shows a register's value.
    pub(super) fn show(&self, offset: u64, value: u32) {
        if let Some(register) = self.register(offset) {
            register.store(value, Ordering::SeqCst);
        }
    }

    /// Shows the configuration space, as far as there is room.
    pub(in crate::device) fn show_config(&self, bytes: &[u8], generation: u32) {
        let (from, room) = (CONFIG.saturating_add(self.at), PAGE.saturating_sub(CONFIG));
        // It lies inside the mapping, as `new` has seen.
        let _ = self.pages.as_volatile_slice().write_slice(bytes.get(..room).unwrap_or(bytes), from);
        self.show(super::registers::CONFIG_GENERATION, generation);
    }
}

const PAGE: usize = 0x1000;
/// Where the configuration space begins.
const CONFIG: usize = 0x100;
