//! `pause`: the first process of a pod whose sandbox containerd leaves to us. This very program is bound into the guest, so
//! that no image has to be there for it.

use crate::failure::Failure;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Stays until it is told to end. In a pod with one set of processes it is the first of them, and takes in orphans.
pub fn pause() -> Result<(), Failure> {
    let failed = |errno: nix::Error| Failure::host("wait for signals", &errno.into());
    let mut awaited = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        awaited.add(signal);
    }
    awaited.thread_block().map_err(failed)?;
    loop {
        if awaited.wait().map_err(failed)? != Signal::SIGCHLD {
            return Ok(());
        }
        // One signal may tell of several.
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG))
            && status != WaitStatus::StillAlive
        {}
    }
}
