//! One more container in the machine, for as long as its connection lasts.
//!
//! ```text
//!   Join --> exports shown, streams offered, Create --> Joined(number) --> [ Signal, Resize ... ]
//!                 \--> Failed                                |  started, paused ... by its number, from elsewhere
//!                                                            |
//!     Exited(status) <-- exports gone <-- Delete <-- last byte delivered <-- its first process ends
//!                                                            \ connection closed --> SIGKILL to all of it
//! ```
//! Its thread is the connection's. Its end is nobody else's; the end of the container that the machine was started for is
//! its own too.
//!
//! SIGKILL needs the guest here: a machine cannot take one container from a kernel that does not help. One that does not
//! within [`deadline::KILL_JOINED`] is broken, or another's by now, and the machine ends, with all that is in it.

use super::member::{Member, start_within};
use super::memory::memory_limit;
use super::shares::Taken;
use super::streams::Offered;
use super::{Conductor, State, deadline, failed, refused, wake};
use crate::agent::CallError;
use crate::error::{ErrorKind, chain};
use crate::host::deadline::{poll, poll_timeout};
use crate::machine::control::server::Caller;
use crate::machine::control::{Command, Outcome, Phase};
use crate::machine::order::{Failed, Joining};
use crate::process::exit::KILLED;
use crate::process::stdio::Descriptors;
use husk_protocol::{Call, Container, ContainerKey, Exited, FailureKind, ProcessKey, Target};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::EventFd;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a wait that is not for a descriptor looks up.
const GLANCE: Duration = Duration::from_millis(20);
/// How long who watches it may take to hear of its end.
const TO_HEAR: Duration = Duration::from_millis(500);

/// A container that has joined.
struct Joined {
    key: ContainerKey,
    first: ProcessKey,
    taken: Taken,
    offered: Offered,
    woken: Arc<EventFd>,
}

impl Conductor {
    pub(super) fn join(self: &Arc<Self>, joining: Joining, descriptors: Vec<OwnedFd>, caller: &Caller) {
        let _attached = self.attach();
        match self.begin_join(joining, descriptors) {
            Ok(joined) => {
                caller.answer(&Outcome::Joined(joined.key));
                let status = self.follow_joined(&joined, caller);
                self.note_end(joined.key, status.unwrap_or(KILLED));
                self.part(joined);
                if let Some(status) = status {
                    caller.answer(&Outcome::Exited(status));
                }
            }
            Err(failed) => caller.answer(&Outcome::Failed(failed)),
        }
    }

    fn begin_join(self: &Arc<Self>, joining: Joining, mut trees: Vec<OwnedFd>) -> Result<Joined, Failed> {
        let Joining { mut container, terminal, exports } = joining;
        let invalid = |message: String| refused(ErrorKind::InvalidArgument, message);
        let streams = trees.split_off(exports.len().min(trees.len()));
        let descriptors = Descriptors::received(streams, terminal).map_err(|error| invalid(chain(&error)))?;
        let shares = self.shares.get().ok_or_else(no_sandbox)?;

        let woken = wake().map(Arc::new).map_err(|error| refused(ErrorKind::Host, error.to_string()))?;
        let (key, first) = self.admit(&container, &woken)?;
        (container.key, container.process_key) = (key, first);
        if let Some(shared) = &mut container.shared {
            shared.with = self.container;
        }
        let taken = shares.take(&mut container, &exports, trees).inspect_err(|_| self.forget(key, first))?;
        let offered = match Offered::of(descriptors, &self.streams) {
            Ok(offered) => offered,
            Err(error) => {
                shares.give_back(taken);
                self.forget(key, first);
                return Err(refused(ErrorKind::Host, chain(&error)));
            }
        };
        container.process.stdio = offered.stdio.clone();
        let joined = Joined { key, first, taken, offered, woken };
        self.let_run();
        if let Err(error) = self.call(Call::Create(Box::new(container)), deadline::CREATE) {
            if matches!(error, CallError::TimedOut(_)) {
                // It may come to life later, when nobody is there for it any more.
                self.tell(kill(key));
            }
            joined.offered.abort();
            self.part(joined);
            return Err(failed(&error));
        }
        if let Some(relay) = self.relay.get() {
            relay.settle();
        }
        self.lock().member_mut(key)?.phase = Phase::Created;
        Ok(joined)
    }

    /// Numbers for it, if there is room for it in a machine that lives.
    fn admit(
        self: &Arc<Self>,
        container: &Container,
        woken: &Arc<EventFd>,
    ) -> Result<(ContainerKey, ProcessKey), Failed> {
        self.has_sandbox(&self.lock())?;
        let limit = memory_limit(&container.resources).unwrap_or(0);
        // Held until it counts.
        let _room = self.make_room(None, limit)?;
        let mut state = self.lock();
        self.has_sandbox(&state)?;
        let key = ContainerKey(state.next_container);
        state.next_container = state.next_container.saturating_add(1);
        let first = state.watch_another(woken);
        let mut member = Member::new(first, start_within(container));
        member.memory = limit;
        state.members.insert(key, member);
        Ok((key, first))
    }

    fn has_sandbox(&self, state: &State) -> Result<(), Failed> {
        let making = state.member(self.container).map_or(true, |first| first.phase == Phase::Creating);
        if making || state.silence.is_some() || state.has_ended(self.container) {
            return Err(no_sandbox());
        }
        Ok(())
    }

    fn forget(&self, key: ContainerKey, first: ProcessKey) {
        let mut state = self.lock();
        state.members.remove(&key);
        state.processes.remove(&first);
    }

    /// Follows it to its end: its status, or `None` if the caller left before.
    fn follow_joined(self: &Arc<Self>, joined: &Joined, caller: &Caller) -> Option<u8> {
        let mut left = false;
        loop {
            let killed = self.killed(joined.key);
            let until = killed.and_then(|killed| killed.checked_add(deadline::KILL_JOINED));
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => self.give_up(joined),
                _ => self.await_news(joined, (!left).then_some(caller), until),
            }
            let _ = joined.woken.read();
            let state = self.lock();
            let ended = state.processes.get(&joined.first).and_then(|process| process.ended.clone());
            let lost = state.silence.is_some() || state.ending.is_some();
            drop(state);
            match ended {
                Some(_) if left => {
                    joined.offered.abort();
                    return None;
                }
                Some(exited) => return self.drain_joined(joined, &exited, caller),
                // The machine goes away under it.
                None if lost => return Some(KILLED),
                None => {}
            }
            if !left && is_ready(caller) && !self.obey(joined, caller) {
                left = true;
                self.ask_to_end(joined.key);
            }
        }
    }

    /// Waits for its end, or a word of its caller's.
    fn await_news(&self, joined: &Joined, caller: Option<&Caller>, until: Option<Instant>) {
        let mut ready = vec![PollFd::new(joined.woken.as_fd(), PollFlags::POLLIN)];
        ready.extend(caller.map(|caller| PollFd::new(caller.as_fd(), PollFlags::POLLIN)));
        // It fails for a signal only, and those are blocked.
        let _ = poll(&mut ready, poll_timeout(until));
    }

    /// Does what its caller says. False: the caller has left.
    fn obey(self: &Arc<Self>, joined: &Joined, caller: &Caller) -> bool {
        match caller.next() {
            Ok(Command::Signal { signal: libc::SIGKILL, .. }) => self.ask_to_end(joined.key),
            Ok(Command::Signal { signal, .. }) => {
                self.tell(Call::Signal { target: Target::Process(joined.first), signal });
            }
            Ok(Command::Resize(size)) => self.tell(Call::Resize { process: joined.first, size }),
            Ok(_) | Err(_) => return false,
        }
        true
    }

    /// SIGKILL to all of it, without waiting.
    fn ask_to_end(self: &Arc<Self>, key: ContainerKey) {
        if let Ok(member) = self.lock().member_mut(key) {
            member.killed.get_or_insert_with(Instant::now);
        }
        self.let_run();
        self.tell(kill(key));
    }

    /// It was to be killed, and the guest did not take part.
    fn give_up(&self, joined: &Joined) {
        tracing::error!("the guest does not end a container that was killed: its machine ends");
        self.lock().unanswered = true;
        self.attend();
        // Until the main thread has seen to it.
        self.await_news(joined, None, Instant::now().checked_add(deadline::KILL_ALL));
    }

    /// Waits until its output has been delivered. Its reader may take as long as it likes, while somebody waits for the
    /// status and nobody kills it.
    fn drain_joined(&self, joined: &Joined, exited: &Exited, caller: &Caller) -> Option<u8> {
        joined.offered.end_input();
        let begun = Instant::now();
        loop {
            let until = Instant::now().checked_add(GLANCE)?;
            if joined.offered.wait_delivered(exited.stdout, exited.stderr, until) {
                return Some(exited.status.code());
            }
            let killed = self.killed(joined.key).map(|killed| killed.max(begun));
            let late = killed.is_some_and(|killed| killed.elapsed() >= deadline::KILLED_OUTPUT);
            if late || self.lock().ending.is_some() {
                joined.offered.abort();
                return Some(exited.status.code());
            }
            if is_ready(caller) {
                match caller.next() {
                    // SIGKILL to a process that has ended: it is not waited for any longer.
                    Ok(Command::Signal { signal: libc::SIGKILL, .. }) => {
                        joined.offered.abort();
                        return Some(exited.status.code());
                    }
                    Ok(_) => {}
                    Err(_) => {
                        joined.offered.abort();
                        return None;
                    }
                }
            }
        }
    }

    fn killed(&self, key: ContainerKey) -> Option<Instant> {
        self.lock().member(key).ok()?.killed
    }

    fn note_end(&self, key: ContainerKey, status: u8) {
        if let Ok(member) = self.lock().member_mut(key) {
            member.ended.get_or_insert(status);
            member.wake_watchers();
        }
    }

    /// Lets go of what it had, inside and outside.
    fn part(self: &Arc<Self>, joined: Joined) {
        let until = Instant::now().checked_add(deadline::PART).unwrap_or_else(Instant::now);
        loop {
            let state = self.lock();
            let over = state.silence.is_some() || state.ending.is_some();
            drop(state);
            if over || Instant::now() >= until {
                break;
            }
            // Processes that were added to it end with it, a moment later.
            match self.call(Call::Delete { container: joined.key }, deadline::PART) {
                Err(CallError::Failed(failure)) if failure.kind == FailureKind::InvalidState => {
                    std::thread::sleep(GLANCE);
                }
                _ => break,
            }
        }
        if let Some(shares) = self.shares.get() {
            shares.give_back(joined.taken);
        }
        let hear = Instant::now().checked_add(TO_HEAR).unwrap_or_else(Instant::now);
        while self.lock().member(joined.key).is_ok_and(|member| !member.watchers.is_empty())
            && Instant::now() < hear
        {
            std::thread::sleep(GLANCE);
        }
        self.forget(joined.key, joined.first);
    }
}

fn is_ready(caller: &Caller) -> bool {
    let mut ready = [PollFd::new(caller.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0) | Err(Errno::EINTR))
}

fn kill(key: ContainerKey) -> Call {
    Call::Signal { target: Target::Container(key), signal: libc::SIGKILL }
}

fn no_sandbox() -> Failed {
    refused(ErrorKind::NotFound, "the sandbox is not running")
}
