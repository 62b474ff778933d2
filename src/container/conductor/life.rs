//! The main thread's part: the container comes up, lives, ends, and its status is ours.
//!
//! ```text
//!   guest boots ---- agent greets --\
//!   parent's hooks -- Proceed -------+--> Create --> Created reported --> ... first process ends
//!                                                                              |
//!                  status <-- execs heard <-- last byte delivered <-/
//! ```
//! It never waits for anything alone: signals, the parent, the guest's end and the agent are all watched at once.

use super::member::{Member, start_within};
use super::streams::Offered;
use super::{Conductor, deadline, failed, pause, raise, refused};
use crate::agent::CallError;
use crate::error::ErrorKind;
use crate::host::clock::Jumps;
use crate::host::deadline::{poll, poll_timeout};
use crate::host::fault;
use crate::machine::control::Phase;
use crate::machine::order::{self, Failed, Report};
use crate::process::exit::{GUEST_LOST, KILLED};
use crate::process::signal::{Arrived, Signals};
use crate::process::terminal;
use husk_protocol::{Answer, Call, Container, Exited, VERSION};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often a wait that is not for a descriptor looks up.
const GLANCE: Duration = Duration::from_millis(50);

/// How long a container must have lived for what it frees to be worth a device: none of a short life, or of a start.
const BALLOON_AFTER: Duration = Duration::from_secs(2);

/// The life of one container, as the main thread leads it.
pub struct Life {
    /// Its conductor, which converses with the agent already.
    pub conductor: Arc<Conductor>,
    /// The machine process's signals.
    pub signals: Signals,
    /// The terminal whose size is to be followed: our controlling terminal.
    pub terminal: Option<OwnedFd>,
    /// The container's first process's streams.
    pub offered: Offered,
    /// Jumps of the host's clock, which the guest's is to follow.
    pub jumps: Jumps,
}

/// What it begins with.
pub struct Boot {
    /// What to make; its process's streams are filled in.
    pub container: Container,
    /// When the guest began to run.
    pub since: Instant,
    /// How long it may take from then to its agent's greeting.
    pub timeout: Duration,
    /// A secret for a guest that is a copy of another, to be told before anything else.
    pub renewal: Option<[u8; 32]>,
    /// How much memory the machine is to have before the container is made, in MiB.
    pub memory_mib: u32,
}

/// What a wait ended with.
struct Woken {
    /// The parent has said something, or gone.
    parent: bool,
    /// Signals that arrived.
    signals: Vec<Arrived>,
    /// The host's clock has jumped.
    jumped: bool,
}

impl Life {
    /// Brings the container up and reports it. An error is for the caller to report; then the machine ends.
    pub fn create(&self, parent: &UnixStream, boot: Boot) -> Result<(), Failed> {
        let Boot { mut container, since, timeout, renewal, memory_mib } = boot;
        self.await_agent(parent, since, timeout)?;
        let cold = renewal.is_none();
        if let Some(seed) = renewal {
            for call in [Call::Renew { seed }, pause::set_clock()] {
                self.conductor.call(call, deadline::CALL).map_err(|error| failed(&error))?;
            }
        }
        tracing::debug!(milliseconds = elapsed(since), "the agent is up, and the parent's hooks have run");
        fault::point("machine: agent up");
        self.conductor.grow_to(memory_mib)?;
        container.process.stdio = self.offered.stdio.clone();
        self.member(|member| member.start_within = start_within(&container));

        // Kernel parameters of an interface are set when the container is made.
        self.conductor.settle_network()?;
        let conductor = Arc::clone(&self.conductor);
        let agent = self.conductor.agent.get().ok_or_else(|| failed(&CallError::Over))?;
        agent.begin(Call::Create(Box::new(container)), move |outcome| {
            conductor.lock().created = Some(outcome);
            conductor.attend();
        });
        let until = Instant::now().checked_add(deadline::CREATE);
        loop {
            let created = self.conductor.lock().created.take();
            match created {
                Some(Ok(Answer::Created { .. })) => break,
                Some(Ok(_)) => return Err(failed(&CallError::Unexpected)),
                Some(Err(CallError::Over)) => return Err(self.guest_lost("while the container was made")),
                Some(Err(error)) => return Err(failed(&error)),
                None => {}
            }
            self.still_wanted(self.wait(Some(parent), until))?;
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(failed(&CallError::TimedOut(deadline::CREATE)));
            }
        }
        if let Some(relay) = self.conductor.relay.get() {
            relay.settle();
        }
        tracing::debug!(milliseconds = elapsed(since), "the container exists");
        fault::point("machine: container made");
        // What KVM tells a guest of the wall clock can be seconds off (seen: as long as the boot had taken). An agent that can
        // read the host's has done so; one that cannot is not busy now, and hears of it in time.
        self.conductor.tell(pause::set_clock());
        // Before the report, so that a `start` that follows it at once finds it so.
        self.member(|member| member.phase = Phase::Created);
        // A parent that is gone by now cannot say whether the container is wanted.
        order::send_report(parent, &Report::Created { cold }).map_err(|_| abandoned())
    }

    /// Changes what is known of the container.
    fn member<T>(&self, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        self.conductor.lock().members.get_mut(&self.conductor.container).map(change)
    }

    /// When somebody first asked to kill it.
    fn killed(&self) -> Option<Instant> {
        self.member(|member| member.killed).flatten()
    }

    /// Waits for the agent's greeting and the parent's word, in whatever order they come.
    fn await_agent(&self, parent: &UnixStream, since: Instant, timeout: Duration) -> Result<(), Failed> {
        let until = since.checked_add(timeout);
        let mut proceed = false;
        loop {
            let state = self.conductor.lock();
            let greeting = state.greeting.clone();
            let silence = state.silence.clone();
            drop(state);
            match &greeting {
                Some(ready) if ready.version != VERSION => {
                    let message = format!(
                        "the agent in the guest speaks version {} of the protocol, and this husk version {VERSION}: \
                         they must come from the same build",
                        ready.version
                    );
                    return Err(refused(ErrorKind::Guest, message));
                }
                Some(_) if proceed => return Ok(()),
                _ => {}
            }
            if self.conductor.guest.how_it_ended().is_some() || silence.is_some() {
                return Err(self.guest_lost("before its agent was up"));
            }
            // Once it has greeted, only the parent's hooks are waited for, and those are the parent's to end.
            let until = if greeting.is_some() { None } else { until };
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(self.no_agent(timeout));
            }
            let woken = self.wait(Some(parent), until);
            if woken.parent && !proceed {
                order::receive_proceed(parent).map_err(|_| abandoned())?;
                proceed = true;
            } else {
                self.still_wanted(woken)?;
            }
        }
    }

    /// Whether there is still somebody for whom to make a container.
    fn still_wanted(&self, woken: Woken) -> Result<(), Failed> {
        if woken.parent {
            return Err(abandoned());
        }
        match woken.signals.iter().find(|signal| asks_to_end(signal)) {
            Some(signal) => Err(refused(
                ErrorKind::Host,
                format!("the machine process received signal {} before the container existed", signal.number),
            )),
            None if self.conductor.lock().unanswered => {
                Err(refused(ErrorKind::InvalidState, "the container was killed while it was made"))
            }
            None => Ok(()),
        }
    }

    /// Lives on until the container has ended; returns the status for the machine process to end with.
    pub fn lead(self) -> u8 {
        let mut balloon = Instant::now().checked_add(BALLOON_AFTER);
        let ended = loop {
            let state = self.conductor.lock();
            let ended = state.processes.get(&self.conductor.first).and_then(|first| first.ended.clone());
            let (unanswered, silence) = (state.unanswered, state.silence.clone());
            drop(state);
            let killed = self.killed();
            if let Some(exited) = ended {
                break Some(exited);
            }
            let until = killed.and_then(|killed| killed.checked_add(deadline::KILL_EXIT));
            if unanswered || until.is_some_and(|until| Instant::now() >= until) {
                break None;
            }
            if silence.is_some() || self.conductor.guest.how_it_ended().is_some() {
                if killed.is_none() {
                    tracing::error!("{}", self.guest_lost("under the container").message);
                    return self.end(GUEST_LOST);
                }
                break None;
            }
            let woken = self.wait(None, [until, balloon].into_iter().flatten().min());
            if balloon.is_some_and(|at| Instant::now() >= at) {
                balloon = None;
                self.conductor.take_freed_memory();
            }
            // A paused guest is told when it is resumed.
            if woken.jumped && self.member(|member| member.phase) != Some(Phase::Paused) {
                self.conductor.tell(pause::set_clock());
            }
            woken.signals.into_iter().for_each(|signal| self.pass_on(signal));
        };
        match ended {
            Some(exited) => {
                tracing::debug!(status = exited.status.code(), "the container's process has ended");
                fault::point("machine: exit seen");
                self.drain(&exited);
                self.end(exited.status.code())
            }
            None => self.end(KILLED),
        }
    }

    /// A signal for the container's process, or news of its terminal.
    fn pass_on(&self, signal: Arrived) {
        match (signal.from_kernel, signal.number, &self.terminal) {
            (true, libc::SIGWINCH, Some(terminal)) => {
                if let Ok(size) = terminal::size(terminal) {
                    self.conductor.tell(Call::Resize { process: self.conductor.first, size });
                }
            }
            // A hang-up of the terminal reaches the guest as the end of its stream; all else that the kernel sends is
            // for us and not for the process that we stand for.
            (true, ..) => {}
            (false, number, _) => self.conductor.forward(number),
        }
    }

    /// Waits for the last byte of the container's output.
    fn drain(&self, exited: &Exited) {
        self.offered.end_input();
        let begun = Instant::now();
        let mut guest_gone = None;
        loop {
            let now = Instant::now();
            if self.conductor.guest.how_it_ended().is_some() {
                // What it had sent is still delivered; what it claims to have sent and has not never comes.
                guest_gone.get_or_insert(now);
            }
            let of_guest = guest_gone.and_then(|gone: Instant| gone.checked_add(deadline::EXEC_OUTPUT));
            let limit = match (self.kill_limit(begun), of_guest) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            let glance = now.checked_add(GLANCE).unwrap_or(now);
            let until = limit.map_or(glance, |limit| limit.min(glance));
            if self.offered.wait_delivered(exited.stdout, exited.stderr, until) {
                return;
            }
            let told_to_end = std::iter::from_fn(|| self.signals.next()).any(|signal| asks_to_end(&signal));
            if told_to_end || limit.is_some_and(|limit| Instant::now() >= limit) {
                return;
            }
        }
    }

    /// Until when output is waited for, if the container was killed: [`deadline::KILLED_OUTPUT`] from the request or
    /// the exit, whichever is later.
    fn kill_limit(&self, exited: Instant) -> Option<Instant> {
        let killed = self.killed()?;
        let output = exited.max(killed).checked_add(deadline::KILLED_OUTPUT)?;
        Some(output.min(killed.checked_add(deadline::KILL_ALL)?))
    }

    /// Tells everyone, and is done.
    fn end(&self, status: u8) -> u8 {
        let conductor = &self.conductor;
        let mut state = conductor.lock();
        state.ending = Some(status);
        for (key, member) in &mut state.members {
            // The others go with the machine.
            member.ended.get_or_insert(if *key == conductor.container { status } else { KILLED });
        }
        state.wake_all();
        drop(state);
        self.hear_out();
        fault::point("machine: ending");
        tracing::debug!("the machine ends");
        status
    }

    /// Waits, a while, until the connections that want to have heard of the end.
    fn hear_out(&self) {
        let begun = Instant::now();
        let killed = self.killed().is_some();
        let mut state = self.conductor.lock();
        while state.attached > 0 {
            let patience = if killed || state.ending == Some(KILLED) {
                deadline::KILLED_OUTPUT
            } else {
                deadline::EXEC_OUTPUT
            };
            if begun.elapsed() >= patience {
                return;
            }
            let waited = self.conductor.detached.wait_timeout(state, GLANCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for anything that concerns this thread.
    fn wait(&self, parent: Option<&UnixStream>, until: Option<Instant>) -> Woken {
        let mut watched = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.conductor.attention.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.conductor.guest.end(), PollFlags::POLLIN),
            PollFd::new(self.jumps.as_fd(), PollFlags::POLLIN),
        ];
        watched.extend(parent.map(|parent| PollFd::new(parent.as_fd(), PollFlags::POLLIN)));
        // It fails for a signal only, and those are blocked.
        let _ = poll(&mut watched, poll_timeout(until));
        let parent = parent.is_some() && watched.last().and_then(PollFd::any).unwrap_or(false);
        let _ = self.conductor.attention.read();
        Woken {
            parent,
            signals: std::iter::from_fn(|| self.signals.next()).collect(),
            jumped: self.jumps.any(),
        }
    }

    /// The guest has ended, or its agent is gone: how, and what its kernel said last.
    fn guest_lost(&self, when: &str) -> Failed {
        let guest = &self.conductor.guest;
        // Its agent is gone a moment before its kernel has finished complaining about that.
        let until = Instant::now().checked_add(deadline::LAST_WORDS);
        while guest.how_it_ended().is_none() && until.is_some_and(|until| Instant::now() < until) {
            let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let _ = poll(&mut [PollFd::new(guest.end(), PollFlags::POLLIN)], timeout);
        }
        let silence = self.conductor.lock().silence.clone();
        let how = guest.how_it_ended().or(silence).unwrap_or_else(|| "its agent is gone".to_owned());
        refused(ErrorKind::Guest, format!("the guest ended {when}: {how}; {}", guest.last_words()))
    }

    fn no_agent(&self, timeout: Duration) -> Failed {
        let message = format!(
            "the guest did not reach its agent within {} s: KVM on this host may not run ordinary guests \
             (`husk check` tells), or its kernel or agent is not one of husk's; {}",
            timeout.as_secs_f32(),
            self.conductor.guest.last_words()
        );
        refused(ErrorKind::Guest, message)
    }
}

/// Whether a signal asks a machine process to end that has no container's process to pass it on to.
fn asks_to_end(signal: &Arrived) -> bool {
    matches!(signal.number, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT | libc::SIGHUP)
        && !signal.from_kernel
}

fn elapsed(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn abandoned() -> Failed {
    refused(ErrorKind::Host, "the command that asked for the container is gone")
}

impl Drop for Life {
    /// Nothing is left waiting in the guest for a life that was never led, and nothing on the host after any.
    fn drop(&mut self) {
        if let Some(network) = self.conductor.network.get() {
            network.end();
        }
        if let Some(agent) = self.conductor.agent.get() {
            agent.end();
        }
        raise(&self.conductor.attention);
    }
}
