//! Calls about processes: namespaces, limits, scheduling, signals by pidfd.

use super::{Error, Result, returned};
use husk_protocol::ProcessStatus;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};

/// setns(2) with a namespace's descriptor or a pidfd and several flags at once.
pub fn set_namespaces(of: impl AsFd, flags: i32) -> Result<()> {
    // SAFETY: plain numbers. The agent has one thread, as user and mount namespaces need.
    returned(libc::c_long::from(unsafe { libc::setns(of.as_fd().as_raw_fd(), flags) }))?;
    Ok(())
}

/// pidfd_send_signal(2).
pub fn signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo means the default one.
    returned(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0)
    })?;
    Ok(())
}

/// kill(2), real-time signals included.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: plain numbers.
    returned(libc::c_long::from(unsafe { libc::kill(pid, signal) }))?;
    Ok(())
}

/// Reads and sets a limit of a process (0: our own). `None` for `new` only reads.
pub fn limit(pid: i32, resource: u32, new: Option<libc::rlimit64>) -> Result<libc::rlimit64> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `new` is null or one struct, `old` is one struct.
    returned(libc::c_long::from(unsafe { libc::prlimit64(pid, resource, new, &raw mut old) }))?;
    Ok(old)
}

/// sched_setattr(2) on ourselves.
pub fn set_scheduler(attributes: &libc::sched_attr) -> Result<()> {
    // SAFETY: the struct carries its own size.
    returned(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) })?;
    Ok(())
}

/// ioprio_set(2) on ourselves.
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    let value = (u32::from(class) << 13) | u32::from(level);
    // SAFETY: plain numbers; 1 is IOPRIO_WHO_PROCESS.
    returned(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) })?;
    Ok(())
}

/// personality(2).
pub fn set_personality(value: u64) -> Result<()> {
    // SAFETY: a plain number.
    returned(libc::c_long::from(unsafe { libc::personality(value) }))?;
    Ok(())
}

/// Gives this process a session keyring of that name.
pub fn join_session_keyring(name: &CStr) -> Result<()> {
    // SAFETY: the name ends with a NUL.
    returned(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    Ok(())
}

/// Sets the ids of this process, real, effective and saved, without glibc's care for other threads (there are none).
pub fn set_ids(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    set_groups(groups)?;
    // SAFETY: plain numbers.
    returned(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: plain numbers.
    returned(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) })?;
    Ok(())
}

/// Sets the supplementary groups. A user namespace may deny it: setting none there is no failure.
fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` numbers.
    match returned(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }) {
        Err(Error(nix::errno::Errno::EPERM)) if groups.is_empty() => Ok(()),
        other => other.map(drop),
    }
}

/// setdomainname(2).
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes.
    returned(libc::c_long::from(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }))?;
    Ok(())
}

/// The working directory as the kernel names it; ENOENT if it is unreachable from the root.
pub fn working_directory() -> Result<Vec<u8>> {
    let mut path = vec![0u8; 4096];
    // SAFETY: the buffer is ours and its length is told.
    let length = returned(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) })?;
    path.truncate(usize::try_from(length).unwrap_or(0).saturating_sub(1));
    // Outside of our root the kernel puts a word in round brackets before the path.
    if path.first() == Some(&b'/') { Ok(path) } else { Err(Error(nix::errno::Errno::ENOENT)) }
}

/// execve(2): returns only when it fails.
pub fn execute(program: &CStr, arguments: &[CString], environment: &[CString]) -> Error {
    fn pointers(of: &[CString]) -> Vec<*const libc::c_char> {
        of.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    }
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end with a null and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    Error::last()
}

/// Ends this process at once: nothing of its parent's that it has a copy of is flushed or dropped.
pub fn exit(status: i32) -> ! {
    // SAFETY: no return.
    unsafe { libc::_exit(status) }
}

/// Reaps one child that has ended, if there is one: its pid and how it ended. (nix loses a child that a real-time signal
/// has ended.)
pub fn reap() -> Result<Option<(i32, ProcessStatus)>> {
    let mut status = 0;
    // SAFETY: `status` is one int.
    let pid = returned(libc::c_long::from(unsafe {
        libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL)
    }))?;
    let byte = |value: i32| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    let status = if libc::WIFSIGNALED(status) {
        ProcessStatus::Signal(byte(libc::WTERMSIG(status)))
    } else {
        ProcessStatus::Code(byte(libc::WEXITSTATUS(status)))
    };
    Ok(i32::try_from(pid).ok().filter(|&pid| pid > 0).map(|pid| (pid, status)))
}

/// Gives all signals back to a program: none blocked, and SIGPIPE, which Rust's start-up ignores, kills again.
pub fn restore_signals() -> Result<()> {
    // SAFETY: SIG_DFL is no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Has writes to what nobody reads fail, and not kill.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Has a command begin in a process group of its own, by fork and execve alone: what the standard library would rather
/// use (posix_spawn, clone3) is not among the calls that an older filter knows.
pub fn in_own_group(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let lead = || nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
    // SAFETY: setpgid(2) alone is called between fork and execve.
    unsafe { command.pre_exec(move || Ok(lead()?)) };
}

/// Takes the CPUs of this process's affinity mask, as the kernel's bytes.
pub fn affinity() -> Result<Vec<u8>> {
    let mut mask = vec![0u8; 128];
    // SAFETY: the buffer is ours and its length is told.
    let length =
        returned(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, mask.len(), mask.as_mut_ptr()) })?;
    mask.truncate(usize::try_from(length).unwrap_or(0));
    Ok(mask)
}

/// Sets the affinity mask of this process.
pub fn set_affinity(mask: &[u8]) -> Result<()> {
    // SAFETY: the buffer is ours and its length is told.
    returned(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) })?;
    Ok(())
}

/// Brings the loopback interface up.
pub fn loopback_up() -> Result<()> {
    use std::os::fd::FromRawFd;
    // SAFETY: the socket is new and ours.
    let socket = unsafe {
        let raw = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        returned(libc::c_long::from(raw))?;
        std::os::fd::OwnedFd::from_raw_fd(raw)
    };
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, &from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    returned(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::c_ulong, &raw const request)
    }))?;
    Ok(())
}

/// The clock that counts from the guest's start, in nanoseconds.
pub fn uptime() -> u64 {
    let Ok(time) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME) else { return 0 };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
}
