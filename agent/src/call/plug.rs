//! TakeMemory: memory that the host plugs into this guest.
//!
//! ```text
//!   bind the driver, once --> the kernel adds block after block, in its own time --> all of it is there --> answered
//! ```
//! What the kernel had sized at its start by the memory it saw then is sized anew, as far as it can be, so that a guest that
//! began small is like one that began as large as it is now.

use super::{Outcome, device, failure, refused};
use crate::agent::Agent;
use crate::sys::process as kernel;
use crate::{job, start};
use husk_protocol::{Answer, Failure, FailureKind};
use nix::sys::sysinfo::sysinfo;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the kernel's driver shows that it is there.
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_mem";
/// How long the kernel may take: it is less than the host waits. Plugging is work for each page.
const PATIENCE: Duration = Duration::from_secs(25);
const GLANCE: Duration = Duration::from_millis(1);
/// Below that a kernel that starts leaves large pages off.
const LARGE_PAGES_FROM: u64 = 512 << 20;
const LARGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage";

/// Waits in a helper until there are so many bytes more than at the first time that this was asked for.
pub fn call(agent: &mut Agent, request: u32, slot: u32, bytes: u64) -> Outcome {
    start::need_sysfs().map_err(|error| refused("mount sysfs", error))?;
    let now = total().map_err(|error| refused("look at the memory", error))?;
    let target = agent.memory_at_boot.get_or_insert(now).saturating_add(bytes);
    job::start(agent, Some(request), move || {
        take(slot, now, target)?;
        size_anew(now, target);
        Ok(Answer::Done)
    });
    Ok(None)
}

fn take(slot: u32, before: u64, target: u64) -> Result<(), Failure> {
    if !Path::new(DRIVER).exists() {
        let text = "the guest's kernel has no driver for memory that is plugged (CONFIG_VIRTIO_MEM)";
        return Err(failure(FailureKind::Unsupported, text));
    }
    device::bind(slot)?;
    let began = Instant::now();
    loop {
        let now = total().map_err(|error| refused("look at the memory", error))?;
        if now >= target {
            return Ok(());
        }
        if began.elapsed() >= PATIENCE {
            let [wanted, came] = [target, now].map(|bytes| bytes.saturating_sub(before) >> 20);
            let text =
                format!("of {wanted} MiB that were plugged, {came} came within {} s", PATIENCE.as_secs());
            return Err(failure(FailureKind::Guest, text));
        }
        std::thread::sleep(GLANCE);
    }
}

/// How much memory the kernel gives out, in bytes.
fn total() -> nix::Result<u64> {
    sysinfo().map(|info| info.ram_total())
}

/// Raises what a kernel derives from its memory when it starts. What cannot be raised stays as it is.
fn size_anew(before: u64, now: u64) {
    for file in ["/proc/sys/kernel/threads-max", "/proc/sys/fs/file-max"] {
        let _ = fs::read_to_string(file).map(|text| {
            let raised = text.trim().parse().map(|value| scaled(value, before, now));
            raised.map(|value| fs::write(file, value.to_string()))
        });
    }
    // Whoever has no limit of its own said gets the agent's.
    let agent = nix::unistd::getppid().as_raw();
    for resource in [libc::RLIMIT_NPROC, libc::RLIMIT_SIGPENDING] {
        if let Ok(old) = kernel::limit(agent, resource, None) {
            let [rlim_cur, rlim_max] = [old.rlim_cur, old.rlim_max].map(|value| scaled(value, before, now));
            let _ = kernel::limit(agent, resource, Some(libc::rlimit64 { rlim_cur, rlim_max }));
        }
    }
    let off = |text: String| text.contains("[never]");
    let enabled = format!("{LARGE_PAGES}/enabled");
    if before < LARGE_PAGES_FROM && now >= LARGE_PAGES_FROM && fs::read_to_string(&enabled).is_ok_and(off) {
        let _ = fs::write(enabled, "madvise")
            .and_then(|()| fs::write(format!("{LARGE_PAGES}/defrag"), "madvise"));
    }
}

/// A number that goes with memory. One that is no limit stays none.
fn scaled(value: u64, before: u64, now: u64) -> u64 {
    let scaled = u128::from(value).saturating_mul(now.into()).checked_div(before.into());
    u64::try_from(scaled.unwrap_or(0)).unwrap_or(u64::MAX).max(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_memory_grows_with_it_and_never_shrinks() {
        assert_eq!(scaled(1000, 256, 1024), 4000);
        assert_eq!(scaled(1000, 1024, 256), 1000);
        assert_eq!(scaled(1000, 0, 256), 1000);
        assert_eq!([scaled(u64::MAX, 1, 2), scaled(u64::MAX, 2, 2)], [u64::MAX; 2]);
        assert!(total().unwrap() > 0);
    }
}
