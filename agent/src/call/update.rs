//! Update: new limits for a container, and vcpus for the guest.

use super::{Outcome, failure, no_container, refused};
use crate::agent::Agent;
use crate::words::chain;
use crate::{job, start};
use husk_protocol::{Answer, ContainerKey, FailureKind, Resources};

/// Applies them.
pub fn call(agent: &mut Agent, key: ContainerKey, resources: &Resources) -> Outcome {
    let container = agent.containers.get_mut(&key).ok_or_else(|| no_container(key))?;
    container.cgroup.apply(resources, false).map_err(|error| failure(FailureKind::Guest, chain(&error)))?;
    if let Some(vcpus) = resources.vcpus {
        bring_vcpus(agent, None, vcpus);
    }
    Ok(Some(Answer::Done))
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
