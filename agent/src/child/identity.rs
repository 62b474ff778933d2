//! Who the process is and what it may do: capabilities, ids, no_new_privs, system call filter, limits, scheduling.
//!
//! The order matters and is runc's: see [`super::program`].

use crate::sys::{self, privilege, process as kernel};
use husk_protocol::{Capabilities, IoPriority, Process, ResourceLimit, Scheduler, User};
use nix::errno::Errno;

/// Why the process cannot become what it is to be.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A limit.
    #[error("error setting rlimit type {resource}")]
    Limit {
        /// `RLIMIT_*`.
        resource: u32,
        /// Why.
        source: sys::Error,
    },
    /// PR_SET_NO_NEW_PRIVS.
    #[error("set no_new_privs")]
    NoNewPrivileges(#[source] sys::Error),
    /// The filter.
    #[error("error loading seccomp filter into kernel")]
    Filter(#[source] sys::Error),
    /// A user notification descriptor would have to leave the guest.
    #[error("seccomp user notification is not supported")]
    Notification,
    /// The bounding set.
    #[error("unable to drop capability {0} from the bounding set")]
    Bounding(u32, #[source] sys::Error),
    /// The other sets.
    #[error("unable to apply caps")]
    Capabilities(#[source] sys::Error),
    /// User and groups.
    #[error("unable to set up user {uid}:{gid}")]
    User {
        /// Who.
        uid: u32,
        /// And group.
        gid: u32,
        /// Why.
        source: sys::Error,
    },
    /// Scheduler.
    #[error("error setting scheduler")]
    Scheduler(#[source] sys::Error),
    /// I/O priority.
    #[error("error setting io priority")]
    IoPriority(#[source] sys::Error),
    /// Personality.
    #[error("error setting personality")]
    Personality(#[source] sys::Error),
    /// CPU affinity.
    #[error("error setting CPU affinity {0:?}")]
    Affinity(String, #[source] sys::Error),
}

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;

/// Limits, soft and hard.
pub fn set_limits(limits: &[ResourceLimit]) -> Result<(), IdentityError> {
    for limit in limits {
        let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
        kernel::limit(0, limit.resource, Some(new))
            .map_err(|source| IdentityError::Limit { resource: limit.resource, source })?;
    }
    Ok(())
}

/// How it is scheduled.
pub fn set_scheduling(process: &Process, personality: Option<u64>) -> Result<(), IdentityError> {
    if let Some(scheduler) = process.scheduler {
        kernel::set_scheduler(&attributes(scheduler)).map_err(IdentityError::Scheduler)?;
    }
    if let Some(IoPriority { class, level }) = process.io_priority {
        kernel::set_io_priority(class, level).map_err(IdentityError::IoPriority)?;
    }
    if let Some(personality) = personality {
        kernel::set_personality(personality).map_err(IdentityError::Personality)?;
    }
    Ok(())
}

fn attributes(scheduler: Scheduler) -> libc::sched_attr {
    libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(48),
        sched_policy: scheduler.policy,
        sched_flags: scheduler.flags,
        sched_nice: scheduler.nice,
        sched_priority: scheduler.priority,
        sched_runtime: scheduler.runtime,
        sched_deadline: scheduler.deadline,
        sched_period: scheduler.period,
    }
}

/// The CPUs it may run on, as a cpuset list.
pub fn set_affinity(list: &str) -> Result<(), IdentityError> {
    let failed = |source| IdentityError::Affinity(list.to_owned(), source);
    let mask = cpu_mask(list).ok_or_else(|| failed(sys::Error(Errno::EINVAL)))?;
    kernel::set_affinity(&mask).map_err(failed)
}

/// `0-2,7` as the kernel's bit mask.
pub fn cpu_mask(list: &str) -> Option<[u8; 128]> {
    let mut mask = [0u8; 128];
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= 1024 {
            return None;
        }
        for cpu in first..=last {
            *mask.get_mut(cpu.checked_div(8)?)? |= 1u8 << (cpu & 7);
        }
    }
    Some(mask)
}

/// no_new_privs, if wanted.
pub fn set_no_new_privileges(wanted: bool) -> Result<(), IdentityError> {
    if wanted { privilege::set_no_new_privileges().map_err(IdentityError::NoNewPrivileges) } else { Ok(()) }
}

/// The system call filter, if there is one.
pub fn load_filter(process: &Process) -> Result<(), IdentityError> {
    if process.seccomp.is_empty() {
        return Ok(());
    }
    if process.seccomp_flags & NEW_LISTENER != 0 {
        return Err(IdentityError::Notification);
    }
    privilege::load_filter(&process.seccomp, process.seccomp_flags).map_err(IdentityError::Filter)
}

/// Takes away what the bounding set does not hold, and lets the rest survive the change of user.
pub fn bound(capabilities: &Capabilities) -> Result<(), IdentityError> {
    for capability in 0..u64::BITS {
        if capabilities.bounding & (1u64 << capability) != 0 {
            continue;
        }
        match privilege::drop_from_bounding(capability) {
            Ok(()) => {}
            Err(sys::Error(Errno::EINVAL)) => break, // the kernel knows no more
            Err(error) => return Err(IdentityError::Bounding(capability, error)),
        }
    }
    privilege::keep_capabilities(true).map_err(IdentityError::Capabilities)
}

/// Becomes the user.
pub fn become_user(user: &User) -> Result<(), IdentityError> {
    kernel::set_ids(user.uid, user.gid, &user.additional_gids).map_err(|source| IdentityError::User {
        uid: user.uid,
        gid: user.gid,
        source,
    })
}

/// The other four sets, ambient last. The kernel raises only what is permitted and inheritable; runc leaves out the
/// rest without a word, and its default configuration counts on that (ambient named, inheritable not).
pub fn set_capabilities(capabilities: &Capabilities) -> Result<(), IdentityError> {
    let apply = || -> sys::Result<()> {
        privilege::keep_capabilities(false)?;
        privilege::set_capabilities(privilege::Sets {
            effective: capabilities.effective,
            permitted: capabilities.permitted,
            inheritable: capabilities.inheritable,
        })?;
        privilege::clear_ambient()?;
        let ambient = capabilities.ambient & capabilities.permitted & capabilities.inheritable;
        (0..u64::BITS)
            .filter(|capability| ambient & (1u64 << capability) != 0)
            .try_for_each(privilege::raise_ambient)
    };
    apply().map_err(IdentityError::Capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_list_is_a_mask() {
        assert_eq!(cpu_mask("0-2,9").unwrap()[..2], [0b111, 0b10]);
        assert_eq!(cpu_mask("1023").unwrap()[127], 0x80);
        for wrong in ["", "x", "3-1", "1024", "1,,2", "-1"] {
            assert!(cpu_mask(wrong).is_none(), "{wrong}");
        }
    }
}
