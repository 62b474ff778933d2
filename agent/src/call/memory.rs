//! The OOM killer's notices. Not a call: the kernel asks.

use crate::agent::Agent;
use husk_protocol::{ContainerKey, FromAgent};

/// memory.events has changed: tells the host if it was a kill. Many kills at once are one notice.
pub fn act(agent: &mut Agent, key: ContainerKey) {
    let crowded = agent.control.is_crowded();
    let Some(container) = agent.containers.get_mut(&key) else { return };
    let Some(events) = &container.memory else { return };
    let kills = events.count("oom_kill");
    if kills > container.kills_told && !crowded {
        container.kills_told = kills;
        agent.control.send(&FromAgent::OutOfMemory { container: key });
    }
}
