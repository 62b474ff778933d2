//! Create: a container up to its program, which waits to be started.
//!
//! Here is only what needs the agent's own rights: streams, cgroup, shared file systems, the clone, and what a child may not
//! write about itself. The rest is [`crate::child::first`]'s.

use super::{Outcome, failure, refused, stdio, update};
use crate::agent::Agent;
use crate::cgroup::events::Events;
use crate::cgroup::{self, Cgroup};
use crate::channel::{self, ChildEnd};
use crate::child::{self, Streams as ChildStreams, device, text};
use crate::container::{ContainerState, cloned_namespaces};
use crate::machine::device_node;
use crate::poll::Source;
use crate::process::{Phase, ProcessState, ProcessStreams};
use crate::sys::clone::{Side, clone_among};
use crate::sys::{self, file, process as kernel};
use crate::words::chain;
use crate::{job, settle, start};
use husk_protocol::{Container, Failure, FailureKind, MountSource, Process};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use std::time::{Duration, Instant};

/// How long processes that were killed may take to leave their cgroup, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(5);

/// Begins to make a container.
pub fn call(agent: &mut Agent, request: u32, container: &Container) -> Outcome {
    check(agent, container)?;
    share(agent, container)?;
    let mut cgroup =
        Cgroup::make(container.key).map_err(|error| failure(FailureKind::Guest, chain(&error)))?;
    let begun = cgroup
        .limit(&container.resources.files)
        .and_then(|()| cgroup.govern_devices(&container.resources.devices))
        .map_err(|error| failure(FailureKind::Guest, chain(&error)))
        .and_then(|()| begin(agent, request, container, cgroup));
    if let Err(failure) = begun {
        let _ = cgroup::rmdir(&cgroup::path(container.key)); // nothing has been in it
        return Err(failure);
    }
    if let Some(vcpus) = container.resources.vcpus {
        update::bring_vcpus(agent, None, vcpus);
    }
    Ok(None)
}

fn check(agent: &Agent, container: &Container) -> Result<(), Failure> {
    let wrong = |text: &str| Err(failure(FailureKind::InvalidArgument, text));
    if agent.containers.contains_key(&container.key) {
        return wrong("a container with this number exists");
    }
    if agent.processes.get(container.process_key).is_some() {
        return wrong("a process with this number exists");
    }
    if container.process.args.is_empty() {
        return wrong("process.args is empty");
    }
    sandbox(agent, container)?;
    if !container.namespaces.mount {
        let text = "a container without a mount namespace of its own is not supported";
        return Err(failure(FailureKind::Unsupported, text));
    }
    Ok(())
}

/// The first process of the container whose namespaces this one shares.
fn sandbox<'a>(agent: &'a Agent, container: &Container) -> Result<Option<&'a ProcessState>, Failure> {
    let Some(shared) = container.shared else { return Ok(None) };
    let first = agent.containers.get(&shared.with).and_then(|sandbox| agent.processes.get(sandbox.first));
    match first {
        Some(first) if !matches!(first.phase, Phase::Preparing { .. } | Phase::Failed { .. }) => {
            Ok(Some(first))
        }
        _ => Err(failure(FailureKind::InvalidState, "the sandbox does not run")),
    }
}

/// Mounts the shared file systems that the container needs.
fn share(agent: &mut Agent, container: &Container) -> Result<(), Failure> {
    let machine = &*agent.machine;
    agent.shared.need_roots(machine).map_err(|error| refused("mount the root file systems", error))?;
    if container.mounts.iter().any(|mount| matches!(mount.source, MountSource::Share { .. })) {
        agent.shared.need_shares(machine).map_err(|error| refused("mount the shared directories", error))?;
    }
    if container.namespaces.user {
        start::need_sysfs().map_err(|error| refused("mount sysfs", error))?;
        make_nodes(container).map_err(|error| refused("make device nodes", error))?;
    }
    Ok(())
}

/// Nodes for a container that may not make its own.
fn make_nodes(container: &Container) -> sys::Result<()> {
    for (number, device) in container.devices.iter().enumerate() {
        let path = text(&device_node(container.key.0, number))?;
        let _ = nix::unistd::unlink(path.as_c_str());
        device::mknod(file::here(), &path, device).map_err(sys::Error)?;
        let (owner, group) = (Some(device.uid.into()), Some(device.gid.into()));
        nix::unistd::chown(path.as_c_str(), owner, group)?;
    }
    Ok(())
}

fn begin(agent: &mut Agent, request: u32, container: &Container, cgroup: Cgroup) -> Result<(), Failure> {
    let (streams, theirs) = stdio::open(agent, &container.process.stdio)
        .map_err(|error| failure(FailureKind::Guest, chain(&error)))?;
    clone_first(agent, request, container, cgroup, streams, theirs).map_err(|error| {
        streams.drop_all(&mut agent.streams);
        match error.0 {
            // No process can be born in a pid namespace whose first process has ended.
            Errno::ENOMEM | Errno::ESRCH if container.shared.is_some() => {
                failure(FailureKind::InvalidState, "the sandbox does not run")
            }
            _ => refused("make the container's first process", error),
        }
    })
}

fn clone_first(
    agent: &mut Agent,
    request: u32,
    container: &Container,
    cgroup: Cgroup,
    streams: ProcessStreams,
    theirs: ChildStreams,
) -> sys::Result<()> {
    let (channel, child_end): (_, ChildEnd) = channel::open()?;
    let namespaces = container.namespaces;
    let sandbox = sandbox(agent, container).ok().flatten().map(|first| &first.pidfd);
    let pids = sandbox.filter(|_| container.shared.is_some_and(|shared| shared.pid));
    let (pid, pidfd) = match clone_among(pids, &agent.own_pids, cloned_namespaces(namespaces), &cgroup)? {
        Side::Child => child::first::run(container, sandbox, theirs, &child_end),
        Side::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop((child_end, theirs));
    adjust(pid, &container.process, namespaces.user);
    let memory = watch_memory(agent, container, &cgroup);
    agent.containers.insert(container.key, ContainerState::new(container, cgroup, memory));
    agent.poll.add(&channel, Source::Channel(container.process_key), EpollFlags::EPOLLIN)?;
    agent.processes.add(
        container.process_key,
        ProcessState {
            container: container.key,
            pid,
            pidfd,
            phase: Phase::Preparing { request },
            channel: Some(channel),
            streams,
            first: true,
            hooked: !container.start_hooks.hooks.is_empty(),
        },
    );
    if namespaces.user && !namespaces.time {
        settle::proceed(agent, container.process_key);
    }
    Ok(())
}

/// What only the agent may set of a new child: how the OOM killer sees it, and limits above the agent's own when it has
/// lost its rights in a user namespace. A failure shows in the child, when it sets the limit itself.
pub fn adjust(pid: i32, process: &Process, user_namespace: bool) {
    let score = process.oom_score_adj.unwrap_or(0);
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        crate::log::error(&format!("set oom_score_adj of a process: {error}"));
    }
    if !user_namespace {
        return;
    }
    for limit in &process.rlimits {
        if let Ok(old) = kernel::limit(pid, limit.resource, None) {
            let raised = libc::rlimit64 { rlim_cur: old.rlim_cur, rlim_max: limit.hard.max(old.rlim_max) };
            let _ = kernel::limit(pid, limit.resource, Some(raised));
        }
    }
}

/// Begins to listen for the OOM killer.
fn watch_memory(agent: &Agent, container: &Container, cgroup: &Cgroup) -> Option<Events> {
    let events = Events::open(cgroup, "memory.events").ok()?;
    agent.poll.add(&events, Source::Memory(container.key), EpollFlags::EPOLLPRI).ok()?;
    Some(events)
}

/// Takes away what was made for a container that is gone. In a helper.
pub fn clear(agent: &mut Agent, request: Option<u32>, path: String) {
    job::start(agent, request, move || {
        let until = Instant::now().checked_add(PATIENCE);
        let removed = loop {
            match cgroup::remove_tree(&path) {
                // What was killed takes a moment to go.
                Err(sys::Error(Errno::EBUSY)) if until.is_some_and(|until| Instant::now() < until) => {
                    std::thread::sleep(GLANCE);
                }
                removed => break removed,
            }
        };
        removed
            .map(|()| husk_protocol::Answer::Done)
            .map_err(|error| refused("remove the container's cgroup", error))
    });
}
