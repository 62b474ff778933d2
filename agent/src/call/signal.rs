//! Signal: to one process by its pidfd, or to every process of a container.

use super::{Outcome, no_container, no_process, refused};
use crate::agent::Agent;
use crate::cgroup;
use crate::job;
use crate::sys::{self, process as kernel};
use husk_protocol::{Answer, ContainerKey, FailureKind, ProcessKey, Target};
use nix::errno::Errno;
use std::path::Path;

/// Sends.
pub fn call(agent: &mut Agent, request: u32, target: Target, signal: i32) -> Outcome {
    match target {
        Target::Process(key) => one(agent, key, signal),
        Target::Container(key) => all(agent, request, key, signal),
    }
}

fn one(agent: &Agent, key: ProcessKey, signal: i32) -> Outcome {
    let process = agent.processes.get(key).ok_or_else(|| no_process(key))?;
    match kernel::signal(&process.pidfd, signal) {
        Ok(()) => Ok(Some(Answer::Done)),
        Err(sys::Error(Errno::ESRCH)) => Err(no_process(key)),
        Err(sys::Error(Errno::EINVAL)) => {
            Err(super::failure(FailureKind::InvalidArgument, format!("signal {signal}: invalid argument")))
        }
        Err(error) => Err(refused("signal a process", error)),
    }
}

fn all(agent: &mut Agent, request: u32, key: ContainerKey, signal: i32) -> Outcome {
    let container = agent.containers.get(&key).ok_or_else(|| no_container(key))?;
    if signal == libc::SIGKILL {
        container.cgroup.kill().map_err(|error| refused("kill the container", error))?;
        return Ok(Some(Answer::Done));
    }
    // How many there are is the container's choice.
    let path = cgroup::path(key);
    job::start(agent, Some(request), move || {
        for pid in members(Path::new(&path)) {
            let _ = kernel::kill(pid, signal); // it may have ended meanwhile
        }
        Ok(Answer::Done)
    });
    Ok(None)
}

/// The pids in a cgroup and below it, as the guest numbers them. In a helper.
pub fn members(cgroup: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    let mut ahead = vec![cgroup.to_owned()];
    while let Some(here) = ahead.pop() {
        let text = std::fs::read_to_string(here.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|&pid| pid > 0));
        let inner = std::fs::read_dir(&here).into_iter().flatten().filter_map(Result::ok);
        ahead.extend(
            inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()),
        );
    }
    pids
}
