//! Update: new limits for a container, and vcpus for the guest.

use super::{Outcome, failure, no_container, refused};
use crate::agent::Agent;
use crate::cgroup::{self, Cgroup, CgroupError};
use crate::words::chain;
use crate::{job, start};
use husk_protocol::{Answer, ContainerKey, FailureKind, Resources};

/// Applies them: the limits in a helper, since the kernel may have to reclaim memory for a lower one.
pub fn call(agent: &mut Agent, request: u32, key: ContainerKey, resources: &Resources) -> Outcome {
    let container = agent.containers.get_mut(&key).ok_or_else(|| no_container(key))?;
    let failed = |error: CgroupError| failure(FailureKind::Guest, chain(&error));
    if !resources.devices.is_empty() {
        container.cgroup.govern_devices(&resources.devices).map_err(failed)?;
    }
    if let Some(vcpus) = resources.vcpus {
        bring_vcpus(agent, None, vcpus);
    }
    if resources.files.is_empty() {
        return Ok(Some(Answer::Done));
    }
    let path = cgroup::path(key);
    let files = &resources.files;
    job::start(agent, Some(request), move || {
        let cgroup = Cgroup::open_at(&path).map_err(|error| refused("open the container's cgroup", error))?;
        cgroup.limit(files).map(|()| Answer::Done).map_err(failed)
    });
    Ok(None)
}

/// Brings that many vcpus online, and the others offline. In a helper: each takes the kernel milliseconds.
pub fn bring_vcpus(agent: &mut Agent, request: Option<u32>, vcpus: u32) {
    if let Err(error) = start::need_sysfs() {
        return crate::log::error(&format!("mount sysfs: {error}"));
    }
    job::start(agent, request, move || {
        let mut cpu = 1u32; // the first cannot go
        loop {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/online");
            let wanted = if cpu < vcpus { "1" } else { "0" };
            match std::fs::read_to_string(&path) {
                Err(_) => return Ok(Answer::Done), // there are no more
                Ok(state) if state.trim() == wanted => {}
                Ok(_) => std::fs::write(&path, wanted)
                    .map_err(|error| refused(&format!("bring vcpu {cpu} to {wanted}"), error))?,
            }
            cpu = cpu.saturating_add(1);
        }
    });
}
