//! Event descriptors as the poll calls of the `nix` crate want them.

use std::os::fd::{AsRawFd, BorrowedFd};
use vmm_sys_util::eventfd::EventFd;

/// The descriptor of `event`, for as long as it is open.
#[allow(unsafe_code)]
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor lives as long as `event`, from which the lifetime is taken.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
