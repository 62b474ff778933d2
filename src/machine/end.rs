//! How a guest ended: reported once, by the thread that saw it, and read by everyone who waits.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// How.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It asked for a reset, as it does when it reboots and when its kernel panics.
    Reset,
    /// Its processor gave up (a triple fault).
    Shutdown,
    /// KVM could not go on with a vcpu.
    VcpuFailed {
        /// Which.
        vcpu: u8,
        /// In KVM's words.
        reason: String,
    },
}

impl std::fmt::Display for Ended {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ended::Reset => out.write_str("the guest asked for a reset"),
            Ended::Shutdown => out.write_str("the guest's processor gave up (triple fault)"),
            Ended::VcpuFailed { vcpu, reason } => write!(out, "KVM cannot run vcpu {vcpu}: {reason}"),
        }
    }
}

/// The end of a guest, whether it has come or not.
pub struct End {
    event: EventFd,
    come: AtomicBool,
    how: Mutex<Option<Ended>>,
    changed: Condvar,
}

impl End {
    /// Not yet.
    pub fn open() -> std::io::Result<End> {
        let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(End { event, come: AtomicBool::new(false), how: Mutex::new(None), changed: Condvar::new() })
    }

    /// It has ended. Only the first report counts; what follows is its consequence.
    pub fn report(&self, ended: Ended) {
        let mut how = self.lock();
        if how.is_none() {
            *how = Some(ended);
            self.come.store(true, Ordering::Release);
            // Written once, so the counter cannot be full.
            let _ = self.event.write(1);
            self.changed.notify_all();
        }
    }

    /// Whether it has come; cheap.
    pub fn has_come(&self) -> bool {
        self.come.load(Ordering::Acquire)
    }

    /// How it ended, if it has.
    pub fn how(&self) -> Option<Ended> {
        self.lock().clone()
    }

    /// Waits for it.
    pub fn wait(&self) -> Ended {
        let mut how = self.lock();
        loop {
            if let Some(ended) = &*how {
                return ended.clone();
            }
            how = self.changed.wait(how).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Ended>> {
        self.how.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Readable from the end on.
impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_report_counts() {
        let end = End::open().unwrap();
        assert_eq!(end.how(), None);
        end.report(Ended::Reset);
        end.report(Ended::Shutdown);
        assert_eq!(end.wait(), Ended::Reset);
    }
}
