//! Helpers: copies of the agent that do what might take long or wait for a container, and answer a request with it.
//!
//! Reading a process's command line, for one, waits on memory that the process may have mapped from a file system of its
//! own. A helper that hangs holds a pid and a pipe, nothing else; how many may be under way is bounded.

use crate::agent::Agent;
use crate::call::failure;
use crate::poll::Source;
use crate::sys::clone::{Side, clone};
use crate::sys::{self, file, process as kernel};
use husk_protocol::{Answer, Failure, FailureKind, FromAgent, frame};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// Helpers at one time.
const MOST: usize = 64;

/// Helpers under way.
#[derive(Default)]
pub struct Jobs {
    all: BTreeMap<u32, Job>,
    next: u32,
}

struct Job {
    request: Option<u32>,
    pid: i32,
    answer: OwnedFd,
    bytes: Vec<u8>,
}

/// Runs `work` in a helper; its outcome answers `request`, if there is one.
pub fn start(agent: &mut Agent, request: Option<u32>, work: impl FnOnce() -> Result<Answer, Failure>) {
    if let Err(error) = try_start(agent, request, work) {
        match request {
            Some(request) => {
                let message = format!("start a helper process: {error}");
                agent.reply(request, Err(failure(FailureKind::Guest, message)));
            }
            None => crate::log::error(&format!("start a helper process: {error}")),
        }
    }
}

fn try_start(
    agent: &mut Agent,
    request: Option<u32>,
    work: impl FnOnce() -> Result<Answer, Failure>,
) -> sys::Result<()> {
    if agent.jobs.all.len() >= MOST {
        return Err(sys::Error(Errno::EAGAIN));
    }
    let (answer, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&answer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    match clone(0, None)? {
        Side::Child => run(request, &theirs, work),
        Side::Parent { pid, .. } => {
            let number = agent.jobs.next;
            agent.jobs.next = number.wrapping_add(1);
            agent.poll.add(&answer, Source::Job(number), EpollFlags::EPOLLIN)?;
            agent.jobs.all.insert(number, Job { request, pid, answer, bytes: Vec::new() });
            Ok(())
        }
    }
}

/// In the helper.
fn run(request: Option<u32>, answer: &OwnedFd, work: impl FnOnce() -> Result<Answer, Failure>) -> ! {
    let _ = file::close_all_but(&[answer.as_raw_fd()]);
    let _ = kernel::restore_signals();
    let outcome = work();
    if let Some(id) = request
        && let Ok(bytes) = frame::encode(&FromAgent::Reply { id, outcome })
    {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match nix::unistd::write(answer, rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(_) => break,
            }
        }
    }
    kernel::exit(0)
}

/// A helper has written, or has ended.
pub fn act(agent: &mut Agent, number: u32) {
    let Some(job) = agent.jobs.all.get_mut(&number) else { return };
    let mut bytes = [0u8; 16 << 10];
    match nix::unistd::read(&job.answer, &mut bytes) {
        Ok(length @ 1..) => job.bytes.extend_from_slice(bytes.get(..length).unwrap_or_default()),
        Err(Errno::EAGAIN | Errno::EINTR) => {}
        Ok(0) | Err(_) => finish(agent, number),
    }
}

/// Passes the answer on, if it is whole.
fn finish(agent: &mut Agent, number: u32) {
    let Some(job) = agent.jobs.all.remove(&number) else { return };
    let Some(request) = job.request else { return };
    let whole = job
        .bytes
        .split_first_chunk::<4>()
        .is_some_and(|(prefix, rest)| frame::length(*prefix).is_ok_and(|length| length == rest.len()));
    if whole {
        agent.control.send_frame(&job.bytes);
    } else {
        let message = "a helper process ended before it had an answer".to_owned();
        agent.reply(request, Err(failure(FailureKind::Guest, message)));
    }
}

/// A child that is no process of the host's has ended. If it was a helper, its pipe tells the rest.
pub fn ended(agent: &mut Agent, pid: i32) {
    let number = agent.jobs.all.iter().find(|(_, job)| job.pid == pid).map(|(number, _)| *number);
    if let Some(number) = number {
        // Nobody else holds the pipe: all that was written is there.
        for _ in 0..=(frame::LONGEST >> 12) {
            if !agent.jobs.all.contains_key(&number) {
                return;
            }
            act(agent, number);
        }
    }
}
