//! What each command on the control socket does.

use super::memory::memory_limit;
use super::{Conductor, deadline, failed, raise, refused, wake};
use crate::agent::CallError;
use crate::error::ErrorKind;
use crate::host::deadline::poll;
use crate::machine::control::server::{Caller, Conduct};
use crate::machine::control::{Command, Outcome, Phase, Request};
use crate::machine::order::Failed;
use husk_protocol::{Answer, Call, ContainerKey, Resources, TerminalSize};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often a watcher is told of one more kill for memory: a guest may claim any number of them.
const OUT_OF_MEMORY_PAUSE: Duration = Duration::from_millis(100);

/// The conductor as the control socket's server calls it.
pub struct Commands(pub Arc<Conductor>);

impl Conduct for Commands {
    fn conduct(&self, request: Request, descriptors: Vec<OwnedFd>, caller: &Caller) {
        let conductor = &self.0;
        let Request { container, command } = request;
        let outcome = match command {
            Command::Join(joining) => return conductor.join(*joining, descriptors, caller),
            Command::Exec { process, terminal } => {
                return conductor.exec(container, *process, terminal, descriptors, caller);
            }
            Command::Watch => return conductor.watch(container, caller),
            Command::Status => conductor.status(container).map(Outcome::Status),
            Command::Start => done(conductor.start(container)),
            Command::Signal { signal, all } => done(conductor.signal(container, signal, all)),
            Command::Pause => done(conductor.pause(container)),
            Command::Resume => done(conductor.resume(container)),
            Command::Resize(size) => done(conductor.resize(container, size)),
            Command::Processes => conductor.ask(Call::Processes { container }, |answer| match answer {
                Answer::Processes(processes) => Some(Outcome::Processes(processes)),
                _ => None,
            }),
            Command::Stats => conductor.ask(Call::Stats { container }, |answer| match answer {
                Answer::Stats(stats) => Some(Outcome::Stats(stats)),
                _ => None,
            }),
            Command::Update(resources) => conductor.update(container, resources),
            Command::Memory { limit } => conductor.size_with(container, limit).map(Outcome::Memory),
        };
        caller.answer(&outcome.unwrap_or_else(Outcome::Failed));
    }
}

impl Conductor {
    fn status(&self, container: ContainerKey) -> Result<Phase, Failed> {
        let state = self.lock();
        let member = state.member(container)?;
        // One that has joined is gone as soon as its end is known; the first is gone with the machine.
        match member.ended.filter(|_| container != self.container) {
            Some(_) => Err(refused(ErrorKind::NotFound, "container not running")),
            None => Ok(member.phase),
        }
    }

    fn update(
        self: &Arc<Self>,
        container: ContainerKey,
        resources: Box<Resources>,
    ) -> Result<Outcome, Failed> {
        let limit = memory_limit(&resources);
        // Held until it counts.
        let _room = limit.map(|limit| self.make_room(Some(container), limit)).transpose()?;
        let outcome = self.ask(Call::Update { container, resources }, |answer| match answer {
            Answer::Done => Some(Outcome::Done),
            _ => None,
        })?;
        if let Some(limit) = limit.filter(|_| container != self.container)
            && let Ok(member) = self.lock().member_mut(container)
        {
            member.memory = limit;
        }
        Ok(outcome)
    }

    fn resize(self: &Arc<Self>, container: ContainerKey, size: TerminalSize) -> Result<(), Failed> {
        let process = self.lock().member(container)?.first;
        self.call(Call::Resize { process, size }, deadline::CALL).map(drop).map_err(|error| failed(&error))
    }

    fn start(self: &Arc<Self>, container: ContainerKey) -> Result<(), Failed> {
        let turn = self.turn(container)?;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.lock();
        let ended = state.has_ended(container);
        let member = state.member(container)?;
        let (phase, within) = (member.phase, member.start_within);
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
        self.call(Call::Start { container }, within).map_err(|error| failed(&error))?;
        // One that has joined may have ended and gone by now: it was started all the same.
        if let Ok(member) = self.lock().member_mut(container) {
            member.phase = Phase::Running;
        }
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
    fn watch(&self, container: ContainerKey, caller: &Caller) {
        let Ok(woken) = wake().map(Arc::new) else { return };
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&container) else {
            drop(state);
            // It has ended; how, its own connection was told.
            return;
        };
        let mut seen = member.out_of_memory;
        member.watchers.push(Arc::clone(&woken));
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
            let Some(member) = state.members.get(&container) else { return };
            let (now, ending) = (member.out_of_memory, member.ended);
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
        if let Some(member) = self.lock().members.get_mut(&container) {
            member.watchers.retain(|watcher| !Arc::ptr_eq(watcher, &woken));
        }
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
