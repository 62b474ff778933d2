//! Gets vcpus out of the guest, and lets them in again.
//!
//! ```text
//!   Running --pause--> Paused --resume--> Running
//!      \______________ stop ______________/--> Stopped (for good)
//! ```
//! A vcpu's thread is in KVM_RUN nearly always. To get it out, the word for it to leave at once (`immediate_exit`, in
//! the memory that it shares with KVM) is written first and a signal sent second: a thread that is just about to enter
//! sees the word, one that is inside is interrupted by the signal. Nothing is lost in between.
//!
//! The signal's handler does nothing. It is the last real-time signal, because the others may mean something to the
//! container; vcpu threads block all but this one, all other threads block this one too or do not care.
#![allow(unsafe_code)] // signals, and a word in memory that is shared with KVM

use kvm_ioctls::VcpuFd;
use nix::unistd::Pid;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The gate before the guest, for all its vcpus.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// This process. Asking for it takes a call that not every thread may make.
    process: Pid,
    wanted: Wanted,
    /// Vcpus whose threads have entered and not left.
    vcpus: Vec<Handle>,
    /// Vcpus whose threads will still come.
    expected: usize,
    /// How many of them wait here.
    parked: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Paused,
    Stopped,
}

/// How to reach a vcpu's thread. Valid while it is in the list, which its thread leaves before it drops the vcpu.
struct Handle {
    thread: libc::pid_t,
    immediate_exit: *const AtomicU8,
}

// SAFETY: the pointer is to memory that the whole process maps, is only used for atomic stores, and only while the
// handle is in the list (see `Handle`).
unsafe impl Send for Handle {}

/// What a vcpu's thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Go {
    /// Enter the guest.
    In,
    /// End.
    Home,
}

impl Gate {
    /// An open gate for `vcpus`, whose threads are still to come.
    pub fn new(vcpus: usize) -> Gate {
        let state = State {
            process: Pid::this(),
            wanted: Wanted::Running,
            vcpus: Vec::with_capacity(vcpus),
            expected: vcpus,
            parked: 0,
        };
        Gate { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A vcpu's thread, of this number, begins: it can be reached from now on. First of all it has to [`Gate::pass`].
    pub fn enter(&self, thread: Pid, vcpu: &mut VcpuFd) {
        let thread = thread.as_raw();
        let flag: *mut u8 = &mut vcpu.get_kvm_run().immediate_exit;
        let mut state = self.lock();
        state.vcpus.push(Handle { thread, immediate_exit: flag.cast() });
        state.expected = state.expected.saturating_sub(1);
        self.changed.notify_all();
    }

    /// A vcpu's thread ends. Its vcpu must not have been dropped.
    pub fn leave(&self, thread: Pid) {
        self.lock().vcpus.retain(|handle| handle.thread != thread.as_raw());
        self.changed.notify_all();
    }

    /// Called by a vcpu's thread before it enters the guest for the first time, and whenever it was interrupted: waits
    /// while the guest is paused. `parked` is called once if it has to wait.
    pub fn pass(&self, vcpu: &mut VcpuFd, parked: impl FnOnce(&VcpuFd)) -> Go {
        let mut state = self.lock();
        if state.wanted == Wanted::Paused {
            parked(vcpu);
            state.parked = state.parked.saturating_add(1);
            self.changed.notify_all();
            while state.wanted == Wanted::Paused {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.parked = state.parked.saturating_sub(1);
        }
        // Under the lock, so that it cannot wipe out what the next `pause` writes.
        vcpu.set_kvm_immediate_exit(0);
        if state.wanted == Wanted::Stopped { Go::Home } else { Go::In }
    }

    /// Gets all vcpus out of the guest; when this returns, none runs. Nothing happens if it is paused already.
    pub fn pause(&self) {
        let mut state = self.lock();
        if state.wanted == Wanted::Running {
            state.wanted = Wanted::Paused;
            state.kick();
        }
        while state.wanted == Wanted::Paused
            && state.parked < state.vcpus.len().saturating_add(state.expected)
        {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets them in again.
    pub fn resume(&self) {
        let mut state = self.lock();
        if state.wanted == Wanted::Paused {
            state.wanted = Wanted::Running;
            self.changed.notify_all();
        }
    }

    /// Gets all vcpus out of the guest for good. Does not wait for them.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.wanted = Wanted::Stopped;
        state.kick();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn kick(&self) {
        for vcpu in &self.vcpus {
            // SAFETY: the handle is in the list and the lock is held, so thread and vcpu exist (see `Handle`). The word
            // is a byte in memory that KVM reads and this process writes; it is written by atomic stores here and
            // by its own thread under the same lock.
            unsafe {
                (*vcpu.immediate_exit).store(1, Ordering::SeqCst);
                libc::syscall(libc::SYS_tgkill, self.process.as_raw(), vcpu.thread, kick_signal());
            }
        }
    }
}

/// Prepares the process for kicks: installs a handler that does nothing, so that the signal interrupts KVM_RUN instead
/// of ending the process.
pub fn install_handler() -> std::io::Result<()> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: an all-zero sigaction is a valid one; the handler is a function of the right type that touches nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        match libc::sigaction(kick_signal(), &action, std::ptr::null_mut()) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

/// Called first by a vcpu's thread: it hears nothing but kicks.
pub fn block_other_signals() {
    // SAFETY: the set is initialised by sigfillset before it is used; the calls change this thread's mask only.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::sigdelset(&mut set, kick_signal());
        libc::pthread_sigmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
    }
}

fn kick_signal() -> libc::c_int {
    libc::SIGRTMAX()
}
