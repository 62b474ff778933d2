//! Exec: one more process in a container.
//!
//! It is born in the container's pid namespace: the agent steps there for the length of one clone, as the namespace for
//! its next child only. So the new process is the agent's own child, and no process stands in between.

use super::create::adjust;
use super::{Outcome, failure, no_container, refused, stdio};
use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::channel;
use crate::child::join::{self, Joined};
use crate::child::{Streams as ChildStreams, cpu_mask};
use crate::container::joined_namespaces;
use crate::machine::CGROUPS;
use crate::poll::Source;
use crate::process::{Phase, ProcessState, ProcessStreams};
use crate::sys::clone::{Side, clone_among};
use crate::sys::{self, file, process as kernel};
use crate::words::chain;
use husk_protocol::{Exec, Failure, FailureKind};
use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;
use std::os::fd::{AsFd, OwnedFd};

/// Begins a process in a container.
pub fn call(agent: &mut Agent, request: u32, exec: &Exec) -> Outcome {
    check(agent, exec)?;
    let (streams, theirs) = stdio::open(agent, &exec.process.stdio)
        .map_err(|error| failure(FailureKind::Guest, chain(&error)))?;
    match clone_joining(agent, request, exec, streams, theirs) {
        Ok(()) => Ok(None),
        Err(error) => {
            streams.drop_all(&mut agent.streams);
            Err(match error.0 {
                // No process can be born in a pid namespace whose first process has ended.
                Errno::ENOMEM | Errno::ESRCH => stopped(),
                _ => refused("make a process in the container", error),
            })
        }
    }
}

fn check(agent: &Agent, exec: &Exec) -> Result<(), Failure> {
    let wrong = |text: &str| Err(failure(FailureKind::InvalidArgument, text));
    if exec.process.args.is_empty() {
        return wrong("process.args is empty");
    }
    if agent.processes.get(exec.key).is_some() {
        return wrong("a process with this number exists");
    }
    let container = agent.containers.get(&exec.container).ok_or_else(|| no_container(exec.container))?;
    match agent.processes.get(container.first).map(|first| &first.phase) {
        Some(Phase::Created | Phase::Starting { .. } | Phase::Running) => Ok(()),
        Some(Phase::Preparing { .. }) => {
            Err(failure(FailureKind::InvalidState, "cannot exec in a container that is being created"))
        }
        Some(Phase::Failed { .. }) | None => Err(stopped()),
    }
}

fn stopped() -> Failure {
    failure(FailureKind::InvalidState, "cannot exec in a stopped container")
}

fn clone_joining(
    agent: &mut Agent,
    request: u32,
    exec: &Exec,
    streams: ProcessStreams,
    theirs: ChildStreams,
) -> sys::Result<()> {
    let gone = sys::Error(Errno::ESRCH);
    let container = agent.containers.get(&exec.container).ok_or(gone)?;
    let first = agent.processes.get(container.first).ok_or(gone)?;
    let (channel, child_end) = channel::open()?;
    let joined = Joined {
        first: &first.pidfd,
        namespaces: joined_namespaces(container.namespaces),
        id: &container.id,
        personality: container.personality,
    };
    let cgroup = cgroup_of(&container.cgroup, exec, first.pid)?;
    let old_affinity = take_affinity(exec)?;
    let namespace = container.namespaces.pid.then_some(&first.pidfd);
    let side = clone_among(namespace, &agent.own_pids, 0, &cgroup);
    if matches!(side, Ok(Side::Child)) {
        join::run(&joined, &exec.process, theirs, &child_end);
    }
    if let Some(mask) = old_affinity {
        let _ = kernel::set_affinity(&mask);
    }
    let Side::Parent { pid, pidfd } = side? else { return Err(gone) };
    drop((child_end, theirs));
    adjust(pid, &exec.process, container.namespaces.user);
    agent.poll.add(&channel, Source::Channel(exec.key), EpollFlags::EPOLLIN)?;
    agent.processes.add(
        exec.key,
        ProcessState {
            container: exec.container,
            pid,
            pidfd,
            phase: Phase::Preparing { request },
            channel: Some(channel),
            streams,
            first: false,
            hooked: false,
        },
    );
    Ok(())
}

/// The cgroup to be born in: the container's, or the one below it that was asked for, or, when the container has moved its
/// processes down to govern them, where its first process is.
fn cgroup_of(cgroup: &Cgroup, exec: &Exec, first: i32) -> sys::Result<OwnedFd> {
    if let Some(below) = &exec.process.cgroup
        && !below.trim_matches('/').is_empty()
    {
        return cgroup.open_below(below);
    }
    let governs =
        cgroup.read("cgroup.subtree_control").is_ok_and(|controllers| !controllers.trim().is_empty());
    if governs {
        let path = std::fs::read_to_string(format!("/proc/{first}/cgroup"))?;
        let path = path.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or("");
        let path = child_path(&format!("{CGROUPS}/{path}"))?;
        return file::open_at(file::here(), &path, libc::O_RDONLY | libc::O_DIRECTORY, 0, file::NO_SYMLINKS);
    }
    Ok(cgroup.as_fd().try_clone_to_owned()?)
}

fn child_path(path: &str) -> sys::Result<std::ffi::CString> {
    crate::child::text(path)
}

/// Goes to the CPUs that the new process is to begin on; gives the mask to come back to.
fn take_affinity(exec: &Exec) -> sys::Result<Option<Vec<u8>>> {
    let Some((Some(initial), _)) = &exec.process.cpu_affinity else { return Ok(None) };
    let mask = cpu_mask(initial).ok_or(sys::Error(Errno::EINVAL))?;
    let old = kernel::affinity()?;
    kernel::set_affinity(&mask)?;
    Ok(Some(old))
}
