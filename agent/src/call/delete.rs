//! Delete: lets go of what is left of a container that has ended.

use super::{Outcome, create, failure, no_container};
use crate::agent::Agent;
use crate::cgroup;
use husk_protocol::{Answer, ContainerKey, FailureKind};
use nix::errno::Errno;

/// Removes it. Its mounts went with its last process.
pub fn call(agent: &mut Agent, request: u32, key: ContainerKey) -> Outcome {
    if !agent.containers.contains_key(&key) {
        return Err(no_container(key));
    }
    if agent.processes.of(key).next().is_some() {
        let message = "cannot delete a container that has processes";
        return Err(failure(FailureKind::InvalidState, message));
    }
    agent.containers.remove(&key);
    let path = cgroup::path(key);
    match cgroup::rmdir(&path) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Some(Answer::Done)),
        Err(_) => {
            // It has made cgroups of its own, any number of them.
            create::clear(agent, Some(request), path);
            Ok(None)
        }
    }
}
