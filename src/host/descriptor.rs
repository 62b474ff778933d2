//! Descriptors that our caller left open.
//!
//! Every descriptor that husk opens itself is close-on-exec. Those it inherits are not ours to judge, but must not reach
//! a hook or the machine process (leaked descriptors of the host were the way out of runc more than once).
#![allow(unsafe_code)] // close_range(2) has no safe wrapper

use nix::errno::Errno;

/// Marks every descriptor from `first` upwards close-on-exec.
pub fn close_on_exec_from(first: u32) -> nix::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing; it only sets a flag on descriptors of this process.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::fs::File;

    #[test]
    fn an_inherited_descriptor_is_closed_at_exec() {
        let file = File::open("/dev/null").unwrap();
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        close_on_exec_from(3).unwrap();
        assert_eq!(fcntl(&file, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
    }
}
