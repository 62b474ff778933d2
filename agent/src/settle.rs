//! What becomes of a process: the notes of its child, its end.

use crate::agent::Agent;
use crate::call::failure;
use crate::channel::{Note, Order};
use crate::container::Maps;
use crate::process::Phase;
use crate::stream::StreamId;
use crate::sys;
use crate::{cgroup, log};
use husk_protocol::{
    Answer, ContainerKey, Exited, Failure, FailureKind, FromAgent, IdMap, ProcessKey, ProcessStatus,
    TerminalSize,
};
use nix::errno::Errno;
use std::fmt::Write;
use std::os::fd::OwnedFd;

/// Takes what a child has told so far.
pub fn notes(agent: &mut Agent, key: ProcessKey) {
    loop {
        let Some(process) = agent.processes.get(key) else { return };
        let Some(channel) = &process.channel else { return };
        match channel.take() {
            Ok(Some(note)) => act(agent, key, note),
            Err(sys::Error(Errno::EAGAIN)) => return,
            Ok(None) | Err(_) => return hung_up(agent, key),
        }
    }
}

fn act(agent: &mut Agent, key: ProcessKey, note: Note) {
    match note {
        Note::Unshared => proceed(agent, key),
        Note::Terminal(master) => give_terminal(agent, key, master),
        Note::Prepared => prepared(agent, key),
        Note::Hooked => {
            if let Some(process) = agent.processes.get_mut(key) {
                process.hooked = false;
            }
        }
        Note::Failed(failure) => failed(agent, key, failure),
    }
}

/// A program that could not be executed is the answer to Start, and the process's end is told; any other failure is told
/// when the child is gone.
fn failed(agent: &mut Agent, key: ProcessKey, failure: Failure) {
    let Some(process) = agent.processes.get_mut(key) else { return };
    match process.phase {
        Phase::Starting { request } if process.first => {
            process.phase = Phase::Running;
            process.channel = None;
            agent.reply(request, Err(failure));
        }
        Phase::Preparing { request } | Phase::Starting { request } => {
            process.phase = Phase::Failed { request, failure };
            process.channel = None;
        }
        Phase::Created | Phase::Running | Phase::Failed { .. } => {}
    }
}

/// Writes what the child's namespaces need, and lets it go on.
pub fn proceed(agent: &mut Agent, key: ProcessKey) {
    let Some(process) = agent.processes.get(key) else { return };
    let Some(container) = agent.containers.get(&process.container) else { return };
    let written = write_maps(process.pid, &container.maps);
    let ordered = written.and_then(|()| match &process.channel {
        Some(channel) => channel.order(Order::Proceed),
        None => Ok(()),
    });
    if let Err(error) = ordered {
        let message = format!("set up the user namespace: {error}");
        let _ = sys::process::signal(&process.pidfd, libc::SIGKILL); // its end is handled when it comes
        act(agent, key, Note::Failed(failure(FailureKind::Guest, message)));
    }
}

fn write_maps(pid: i32, maps: &Maps) -> sys::Result<()> {
    let write = |name: &str, text: String| -> sys::Result<()> {
        if text.is_empty() { Ok(()) } else { Ok(std::fs::write(format!("/proc/{pid}/{name}"), text)?) }
    };
    let lines = |map: &[IdMap]| {
        map.iter().fold(String::new(), |mut text, IdMap { inside, outside, size }| {
            let _ = writeln!(text, "{inside} {outside} {size}"); // a String takes everything
            text
        })
    };
    let clocks = maps.clocks.iter().fold(String::new(), |mut text, offset| {
        let _ = writeln!(text, "{} {} {}", offset.clock, offset.seconds, offset.nanoseconds);
        text
    });
    write("uid_map", lines(&maps.uids))?;
    write("gid_map", lines(&maps.gids))?;
    write("timens_offsets", clocks)
}

fn give_terminal(agent: &mut Agent, key: ProcessKey, master: OwnedFd) {
    let Some(process) = agent.processes.get(key) else { return };
    let (Some(stream), Some(size)) = (process.streams.stdout, process.streams.terminal) else { return };
    give_master(agent, stream, size, master);
}

fn give_master(agent: &mut Agent, stream: StreamId, size: TerminalSize, master: OwnedFd) {
    if size != TerminalSize::default() {
        let _ = sys::terminal::resize(&master, size); // the child has tried before
    }
    if let Err(error) = agent.streams.give_terminal(&agent.poll, stream, master) {
        log::error(&format!("take a terminal: {error}"));
    }
}

fn prepared(agent: &mut Agent, key: ProcessKey) {
    let Some(process) = agent.processes.get_mut(key) else { return };
    let Phase::Preparing { request } = process.phase else { return };
    if !process.first {
        process.phase = Phase::Starting { request };
        return;
    }
    process.phase = Phase::Created;
    let answer = Answer::Created { guest_pid: process.pid };
    agent.reply(request, Ok(answer));
}

/// The child's end of the channel is closed: it executes its program, or it is dead.
fn hung_up(agent: &mut Agent, key: ProcessKey) {
    let Some(process) = agent.processes.get_mut(key) else { return };
    process.channel = None;
    if let Phase::Starting { request } = process.phase {
        if process.hooked {
            return; // it is answered when its end is known
        }
        process.phase = Phase::Running;
        let answer = if process.first { Answer::Done } else { Answer::Created { guest_pid: process.pid } };
        agent.reply(request, Ok(answer));
    }
}

/// A process that the host asked for has ended and was reaped.
pub fn ended(agent: &mut Agent, key: ProcessKey, status: ProcessStatus) {
    notes(agent, key); // its last words come first
    let Some(process) = agent.processes.remove(key) else { return };
    // Asked before a container that never came to be loses its cgroup.
    let early = failure(FailureKind::Guest, died(status, out_of_memory(process.container)));
    if process.first {
        first_ended(agent, process.container, &process.phase);
    }
    match process.phase {
        Phase::Preparing { request } => {
            process.streams.drop_all(&mut agent.streams);
            agent.reply(request, Err(early));
        }
        Phase::Failed { request, failure } => {
            process.streams.drop_all(&mut agent.streams);
            agent.reply(request, Err(failure));
        }
        Phase::Created | Phase::Starting { .. } | Phase::Running => {
            if let Phase::Starting { request } = process.phase {
                agent.reply(request, Err(early));
            }
            let (stdout, stderr) = process.streams.release(&agent.poll, &mut agent.streams);
            agent.control.send(&FromAgent::Exited(Exited { process: key, status, stdout, stderr }));
        }
    }
}

/// Why there was no program to run; for memory in runc's words.
fn died(status: ProcessStatus, out_of_memory: bool) -> String {
    match status {
        ProcessStatus::Signal(_) if out_of_memory => {
            "container init was OOM-killed (memory limit too low?)".to_owned()
        }
        ProcessStatus::Code(code) => format!("the set-up process ended early with status {code}"),
        ProcessStatus::Signal(signal) => format!("the set-up process was killed by signal {signal}"),
    }
}

/// Whether the kernel has killed anything of this container for memory.
fn out_of_memory(key: ContainerKey) -> bool {
    let text = std::fs::read_to_string(format!("{}/memory.events", cgroup::path(key))).unwrap_or_default();
    cgroup::events::number(&text, "oom_kill").unwrap_or(0) > 0
}

/// With a container's first process everything in it ends: the kernel sees to it if it has a pid namespace.
fn first_ended(agent: &mut Agent, key: ContainerKey, phase: &Phase) {
    let Some(container) = agent.containers.get(&key) else { return };
    if !container.own_pids
        && let Err(error) = container.cgroup.kill()
    {
        log::error(&format!("kill the rest of a container: {error}"));
    }
    if matches!(phase, Phase::Preparing { .. } | Phase::Failed { .. }) {
        // It never came to be: nobody will delete it. Nothing but its first process has been in the cgroup.
        agent.containers.remove(&key);
        if let Err(errno) = cgroup::rmdir(&cgroup::path(key)) {
            log::error(&format!("remove a cgroup: {}", sys::Error(errno)));
        }
    }
}
