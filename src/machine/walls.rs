//! The walls around each thread of the machine process: which capabilities it keeps, and which system calls it may make.
//!
//! ```text
//!   a thread begins -> its capabilities are narrowed -> it takes what it can take only now -> its list of system calls
//!                                                                                        -> the first byte of the guest
//! ```
//! The lists stand in [`calls`], each as short as what the thread does allows. A call that is not on its thread's list ends
//! the process by SIGSYS: to whoever waits, the container was killed. There is no capability but on the file servers'
//! threads, the relay's (which connects to sockets as the users inside) and the network's.
//!
//! A thread begins with the walls of its maker, and walls can only be made narrower. So it matters who makes whom:
//!
//! ```text
//!   main (walls last of all) -+- vcpus, vsock, rng, agent, root files
//!                             +- share files ---- relay (made before its maker's walls go up)
//!                             +- control -------- one for each connection, with the same list -- memory, if it is plugged then
//!                             +- network -------- interfaces' devices (and a thread for each of their queue pairs), names
//!                             +- balloon, memory
//! ```
//! Those that make threads cannot make processes: clone3(2), whose flags no filter can see, is answered as by a kernel
//! that does not know it (the C library then makes threads by clone(2)), and clone(2) has to be one of a thread.

mod calls;

pub use calls::Thread;

use super::order::SystemCalls;
use crate::host::capability;
use crate::host::seccomp::Otherwise;
use std::io;

/// The walls as the operator wants them.
#[derive(Debug, Clone, Copy)]
pub struct Walls {
    system_calls: SystemCalls,
}

impl Walls {
    /// Such walls.
    pub const fn new(system_calls: SystemCalls) -> Walls {
        Walls { system_calls }
    }

    /// The calling thread is this one from here on: what it needs and its walls would not let it do is done by `prepare`,
    /// with the thread's capabilities already. An error means that the thread must not serve.
    pub fn enter<T>(self, thread: Thread, prepare: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        capability::narrow(thread.capabilities())?;
        let prepared = prepare()?;
        let otherwise = match self.system_calls {
            SystemCalls::Enforce => Otherwise::Kill,
            SystemCalls::Log => Otherwise::Log,
            SystemCalls::Allow => return Ok(prepared),
        };
        thread.program().enter(otherwise)?;
        Ok(prepared)
    }
}

/// As [`Walls::enter`], for a thread that can only give up: whether it may serve. Why not is logged.
pub(super) fn entered(walls: Walls, thread: Thread, prepare: impl FnOnce() -> io::Result<()>) -> bool {
    let result = walls.enter(thread, prepare);
    if let Err(error) = &result {
        tracing::error!(?thread, %error, "the walls of a thread do not stand");
    }
    result.is_ok()
}

/// Has all threads use one heap. With more, the C library's allocator opens files in /proc and /sys, once, in whichever thread
/// happens to be the first to want one heap too many or to give one back. Nor would they be worth the address space and the
/// calls at each thread's start: threads here allocate little. To be called before there are others.
#[allow(unsafe_code)]
pub(super) fn use_one_heap() {
    // SAFETY: a number for the allocator, which takes it under its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(test)]
mod tests;
