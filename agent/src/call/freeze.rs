//! Freeze and thaw: asked of the cgroup, answered when the kernel says it is so, or when it has taken too long.

use super::{Outcome, failure, no_container, refused};
use crate::agent::Agent;
use crate::cgroup::events::Events;
use crate::container::Freezing;
use crate::poll::Source;
use husk_protocol::{Answer, ContainerKey, FailureKind};
use nix::sys::epoll::EpollFlags;
use std::time::{Duration, Instant};

/// A process in an uninterruptible wait cannot be frozen before it is over.
const PATIENCE: Duration = Duration::from_secs(5);

/// Begins.
pub fn call(agent: &mut Agent, request: u32, key: ContainerKey, frozen: bool) -> Outcome {
    let container = agent.containers.get_mut(&key).ok_or_else(|| no_container(key))?;
    if container.freezing.is_some() {
        return Err(failure(FailureKind::InvalidState, "the container is being frozen or thawed"));
    }
    let what = if frozen { "freeze the container" } else { "thaw the container" };
    let events = Events::open(&container.cgroup, "cgroup.events").map_err(|error| refused(what, error))?;
    container
        .cgroup
        .write("cgroup.freeze", if frozen { "1" } else { "0" })
        .map_err(|error| refused(what, error))?;
    if events.count("frozen") == u64::from(frozen) {
        return Ok(Some(Answer::Done));
    }
    agent
        .poll
        .add(&events, Source::Cgroup(key), EpollFlags::EPOLLPRI)
        .map_err(|error| refused(what, error))?;
    let deadline = Instant::now().checked_add(PATIENCE).unwrap_or_else(Instant::now);
    container.freezing = Some(Freezing { request, frozen, deadline, events });
    act(agent, key); // it may have come between the look and the wait
    Ok(None)
}

/// cgroup.events has changed.
pub fn act(agent: &mut Agent, key: ContainerKey) {
    let Some(container) = agent.containers.get_mut(&key) else { return };
    let done = |freezing: &mut Freezing| freezing.events.count("frozen") == u64::from(freezing.frozen);
    if let Some(freezing) = container.freezing.take_if(done) {
        agent.reply(freezing.request, Ok(Answer::Done));
    }
}

/// How long the loop may wait: until the first deadline.
pub fn patience(agent: &Agent) -> Option<u16> {
    let deadlines = agent.containers.values().filter_map(|container| container.freezing.as_ref());
    let first = deadlines.map(|freezing| freezing.deadline).min()?;
    let left = first.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
    Some(u16::try_from(left).unwrap_or(u16::MAX))
}

/// Answers what has taken too long; a freeze is taken back.
pub fn expire(agent: &mut Agent) {
    let now = Instant::now();
    let late = |freezing: &mut Freezing| freezing.deadline <= now;
    let mut expired = Vec::new();
    for container in agent.containers.values_mut() {
        if let Some(freezing) = container.freezing.take_if(late) {
            if freezing.frozen {
                let _ = container.cgroup.write("cgroup.freeze", "0");
            }
            expired.push(freezing.request);
        }
    }
    for request in expired {
        agent.reply(request, Err(failure(FailureKind::Guest, "unable to freeze or thaw in time")));
    }
}
