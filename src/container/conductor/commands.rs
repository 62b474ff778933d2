//! What each command on the control socket does.

use super::{Conductor, deadline, failed, raise, refused, wake};
use crate::agent::CallError;
use crate::error::ErrorKind;
use crate::machine::control::server::{Caller, Conduct};
use crate::machine::control::{Command, Outcome, Phase};
use crate::machine::order::Failed;
use husk_protocol::{Answer, Call};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How often a watcher is told of one more kill for memory: a guest may claim any number of them.
const OUT_OF_MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// The conductor as the control socket's server calls it.
pub struct Commands(pub Arc<Conductor>);

impl Conduct for Commands {
    fn conduct(&self, command: Command, descriptors: Vec<OwnedFd>, caller: &Caller) {
        let conductor = &self.0;
        let container = conductor.container;
        let outcome = match command {
            Command::Exec { process, terminal } => {
                return conductor.exec(*process, terminal, descriptors, caller);
            }
            Command::Watch => return conductor.watch(caller),
            Command::Status => Ok(Outcome::Status(conductor.lock().phase)),
            Command::Start => done(conductor.start()),
            Command::Signal { signal, all } => done(conductor.signal(signal, all)),
            Command::Pause => done(conductor.pause()),
            Command::Resume => done(conductor.resume()),
            Command::Resize(size) => {
                conductor.ask(Call::Resize { process: conductor.first, size }, |answer| match answer {
                    Answer::Done => Some(Outcome::Done),
                    _ => None,
                })
            }
            Command::Processes => conductor.ask(Call::Processes { container }, |answer| match answer {
                Answer::Processes(processes) => Some(Outcome::Processes(processes)),
                _ => None,
            }),
            Command::Stats => conductor.ask(Call::Stats { container }, |answer| match answer {
                Answer::Stats(stats) => Some(Outcome::Stats(stats)),
                _ => None,
            }),
            Command::Update(resources) => {
                conductor.ask(Call::Update { container, resources }, |answer| match answer {
                    Answer::Done => Some(Outcome::Done),
                    _ => None,
                })
            }
        };
        caller.answer(&outcome.unwrap_or_else(Outcome::Failed));
    }
}

impl Conductor {
    fn start(self: &Arc<Self>) -> Result<(), Failed> {
        let _turn = self.turn();
        let state = self.lock();
        let ended = state.ending.is_some()
            || state.processes.get(&self.first).is_some_and(|first| first.ended.is_some());
        let phase = state.phase;
        drop(state);
        match phase {
            _ if ended => {
                return Err(refused(ErrorKind::InvalidState, "cannot start a container that has stopped"));
            }
            Phase::Created => {}
            Phase::Creating => {
                return Err(refused(ErrorKind::InvalidState, "the container is still being created"));
            }
            Phase::Running | Phase::Paused => {
                return Err(refused(ErrorKind::InvalidState, "cannot start an already running container"));
            }
        }
        // Callers put interfaces into the namespace between create and start.
        self.settle_network()?;
        let within = self.start_within.get().copied().unwrap_or(deadline::EXECUTE);
        self.call(Call::Start { container: self.container }, within).map_err(|error| failed(&error))?;
        self.lock().phase = Phase::Running;
        Ok(())
    }

    /// Asks the agent, and makes an outcome of an answer of the right kind.
    fn ask(
        self: &Arc<Self>,
        call: Call,
        outcome: impl FnOnce(Answer) -> Option<Outcome>,
    ) -> Result<Outcome, Failed> {
        let answer = self.call(call, deadline::CALL).map_err(|error| failed(&error))?;
        outcome(answer).ok_or_else(|| failed(&CallError::Unexpected))
    }

    /// Tells a caller of kills for memory, until the container ends or the caller leaves.
    fn watch(&self, caller: &Caller) {
        let Ok(woken) = wake().map(Arc::new) else { return };
        let mut state = self.lock();
        let mut seen = state.out_of_memory;
        state.watchers.push(Arc::clone(&woken));
        drop(state);
        let _attached = self.attach();
        raise(&woken);
        loop {
            let mut ready = [
                PollFd::new(woken.as_fd(), PollFlags::POLLIN),
                PollFd::new(caller.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
            // A watcher has nothing to say: it left, or is not one of ours.
            if ready.last().and_then(PollFd::any).unwrap_or(true) {
                break;
            }
            let _ = woken.read();
            let state = self.lock();
            let (now, ending) = (state.out_of_memory, state.ending);
            drop(state);
            if now != seen {
                seen = now;
                caller.answer(&Outcome::OutOfMemory);
                if ending.is_none() {
                    std::thread::sleep(OUT_OF_MEMORY_PAUSE);
                }
            }
            if let Some(status) = ending {
                caller.answer(&Outcome::Exited(status));
                break;
            }
        }
        self.lock().watchers.retain(|watcher| !Arc::ptr_eq(watcher, &woken));
    }

    /// Has the end wait for a connection, a while, until what this returns is dropped.
    pub(super) fn attach(&self) -> Attached<'_> {
        let mut state = self.lock();
        state.attached = state.attached.saturating_add(1);
        Attached(self)
    }
}

/// A connection that wants to hear of the end.
pub(super) struct Attached<'a>(&'a Conductor);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.attached = state.attached.saturating_sub(1);
        self.0.detached.notify_all();
    }
}

fn done(result: Result<(), Failed>) -> Result<Outcome, Failed> {
    result.map(|()| Outcome::Done)
}
