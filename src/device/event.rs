//! Event descriptors, and how devices wait for them.

use crate::host::deadline::poll;
use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout};
use std::os::fd::{AsRawFd, BorrowedFd};
use vmm_sys_util::eventfd::EventFd;

/// The descriptor of `event`, for as long as it is open.
#[allow(unsafe_code)]
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor lives as long as `event`, from which the lifetime is taken.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Looks at `fds`; if `sleep`, first waits until there is something to see. A signal may end that early.
pub(super) fn look(fds: &mut [PollFd<'_>], sleep: bool) -> Result<(), Errno> {
    match poll(fds, if sleep { PollTimeout::NONE } else { PollTimeout::ZERO }) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}
