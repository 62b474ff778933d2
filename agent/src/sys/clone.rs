//! clone3(2): a child in new namespaces, born in its cgroup.

use super::{Error, Result, process, returned};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// `CLONE_INTO_CGROUP` (linux/sched.h); libc lacks it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of the clone we are on.
pub enum Side {
    /// In the new process.
    Child,
    /// In the caller.
    Parent {
        /// The child's pid as the caller sees it.
        pid: i32,
        /// Names the child even after its pid was reaped.
        pidfd: OwnedFd,
    },
}

/// Copies this process into the pid namespace of another (a pidfd), if one is given, and comes back to `own`.
pub fn clone_among(
    pids: Option<&OwnedFd>,
    own: &OwnedFd,
    namespaces: i32,
    cgroup: impl AsFd,
) -> Result<Side> {
    let Some(pids) = pids else { return clone(namespaces, Some(cgroup.as_fd())) };
    process::set_namespaces(pids, libc::CLONE_NEWPID)?;
    let side = clone(namespaces, Some(cgroup.as_fd()));
    if !matches!(side, Ok(Side::Child)) {
        // Only memory could be lacking, and the agent's is not limited: try until it is there.
        while process::set_namespaces(own, libc::CLONE_NEWPID).is_err() {}
    }
    side
}

/// Copies this process. The caller must be single-threaded (the agent is), so that the child may go on as ordinary code.
pub fn clone(namespaces: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<Side> {
    let mut pidfd: RawFd = -1;
    let mut flags = u64::try_from(namespaces | libc::CLONE_PIDFD).unwrap_or_default();
    let mut arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        arguments.flags = flags;
        arguments.cgroup = u64::try_from(cgroup.as_raw_fd()).unwrap_or_default();
    }
    // SAFETY: no CLONE_VM, no stack: the child runs on a copy of ours. Both sides return here; the process has one
    // thread, so no lock is held by a thread that the child lacks.
    let pid = returned(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    let pid = i32::try_from(pid).map_err(|_| Error(nix::errno::Errno::ERANGE))?;
    // SAFETY: CLONE_PIDFD has just made it for us.
    Ok(Side::Parent { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}
