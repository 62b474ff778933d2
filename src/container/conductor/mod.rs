//! Conducts the containers of a machine: joins the guest, the conversation with its agent, the streams, and what other
//! commands ask on the control socket.
//!
//! ```text
//!   Creating --create--> Created --start--> Running <--pause/resume--> Paused
//!       \_______________________\_________________\______________________\----> ending (drain) --> process exit
//! ```
//! The machine's part is here: the agent, the guest, the numbers, the end; its [`memory`]. What is known of each container is a
//! [`member`]. A machine has the one for which it was started and with which it ends, and those that [`join`] it, as
//! containers of a pod join their sandbox's.
//!
//! Three kinds of thread meet here. The main thread ([`life`]) brings the container up and down and receives signals.
//! The conversation's thread only writes down what the agent says ([`Hear`]) and wakes whoever waits for it. Each
//! control connection has its own ([`commands`], [`exec`]), which may wait for the agent, but never longer than the
//! deadlines below.
//!
//! Killing never needs the guest ([`kill`]): the guest is asked first, because its output and its status are wanted, and
//! its machine ends without it if it does not answer at once. What containers wrote needs no last call: files are
//! written through, and what a process had mapped and changed is written when its mapping goes, with the process.

mod commands;
mod exec;
mod join;
mod kill;
mod life;
pub mod localhost;
mod member;
mod memory;
pub mod network;
mod pause;
mod relay;
mod shares;
pub mod streams;
#[cfg(test)]
mod tests;

pub use commands::Commands;
pub use life::{Boot, Life};
pub use memory::Size;
pub use network::{Network, Tuns};
pub use relay::Relay;
pub use shares::Shares;

use crate::agent::{CallError, Conversation, Hear};
use crate::error::{ErrorKind, Kind, chain};
use crate::machine::growth::GrowthError;
use crate::machine::order::Failed;
use crate::machine::slots::SlotError;
use crate::machine::{Walls, walls};
use husk_protocol::{Answer, Call, ContainerKey, Exited, ProcessKey, Ready};
use member::Member;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use streams::Streams;

/// The guest, as far as the conductor has to do with it.
pub trait Guest: Send + Sync {
    /// Stops its vcpus; when this returns, none runs.
    fn pause(&self);
    /// Lets them run again.
    fn resume(&self);
    /// Readable once the guest has ended.
    fn end(&self) -> BorrowedFd<'_>;
    /// How it ended, if it has.
    fn how_it_ended(&self) -> Option<String>;
    /// The last lines of its kernel, for people.
    fn last_words(&self) -> String;
    /// Puts a balloon into a slot, by which it gives back what memory it frees: the slot, for its agent to look at.
    fn plug_balloon(&self) -> Result<u32, SlotError>;
    /// Gives it so many bytes more than it began with (not than it has): the slot of the device by which its agent takes them.
    fn plug_memory(&self, bytes: u64) -> Result<u32, GrowthError>;
}

/// The conductor of a machine's containers.
pub struct Conductor {
    /// The container that the machine was started for.
    container: ContainerKey,
    /// That container's first process.
    first: ProcessKey,
    guest: Arc<dyn Guest>,
    streams: Arc<dyn Streams>,
    memory: memory::Memory,
    /// Set before the container is made. Without it no other can join.
    shares: OnceLock<Shares>,
    /// Set before the container is made.
    network: OnceLock<Network>,
    /// Set before the container is made.
    relay: OnceLock<Relay>,
    /// Set before anything is asked.
    agent: OnceLock<Arc<Conversation>>,
    vcpus: Mutex<pause::Vcpus>,
    state: Mutex<State>,
    /// Signalled when [`State::attached`] falls.
    detached: Condvar,
    /// Wakes the main thread.
    attention: EventFd,
    walls: Walls,
}

struct State {
    /// The containers.
    members: BTreeMap<ContainerKey, Member>,
    /// The agent's greeting.
    greeting: Option<Ready>,
    /// Why there is no conversation any more.
    silence: Option<String>,
    /// What came of the agent's `Create` of the container that the machine was started for.
    created: Option<Result<Answer, CallError>>,
    /// The processes whose ends somebody here waits for. What the agent says of others is ignored.
    processes: HashMap<ProcessKey, Watched>,
    next_key: u32,
    next_container: u32,
    /// The guest was asked to kill and did not take part.
    unanswered: bool,
    /// The status that the machine process is going to end with.
    ending: Option<u8>,
    /// Connections that want to hear of the end.
    attached: usize,
}

struct Watched {
    ended: Option<Exited>,
    wake: Arc<EventFd>,
}

impl Conductor {
    /// For the container `container` with the first process `first`, in a guest that runs and has memory of this size.
    pub fn open(
        container: ContainerKey,
        first: ProcessKey,
        guest: Arc<dyn Guest>,
        streams: Arc<dyn Streams>,
        size: Size,
        walls: Walls,
    ) -> std::io::Result<Arc<Conductor>> {
        let attention = wake()?;
        let watched = Watched { ended: None, wake: Arc::new(wake()?) };
        let state = State {
            members: BTreeMap::from([(container, Member::new(first, deadline::EXECUTE))]),
            greeting: None,
            silence: None,
            created: None,
            processes: HashMap::from([(first, watched)]),
            next_key: first.0.saturating_add(1),
            next_container: container.0.saturating_add(1),
            unanswered: false,
            ending: None,
            attached: 0,
        };
        Ok(Arc::new(Conductor {
            container,
            first,
            guest,
            streams,
            memory: memory::Memory::new(size),
            shares: OnceLock::new(),
            network: OnceLock::new(),
            relay: OnceLock::new(),
            agent: OnceLock::new(),
            vcpus: Mutex::default(),
            state: Mutex::new(state),
            detached: Condvar::new(),
            attention,
            walls,
        }))
    }

    /// Begins to converse with the agent over `socket`.
    pub fn converse(self: &Arc<Self>, socket: std::os::unix::net::UnixStream) -> std::io::Result<()> {
        let hear: Arc<dyn Hear> = self.clone();
        let conversation = Conversation::open(socket, hear)?;
        // Only the first counts; there is no second.
        let _ = self.agent.set(conversation);
        Ok(())
    }

    /// Lets other containers join, with what they share.
    pub fn take_shares(&self, shares: Shares) {
        // There is one.
        let _ = self.shares.set(shares);
    }

    /// Looks after the machine's network, from the agent's greeting on.
    pub fn take_network(&self, network: Network) {
        // There is one.
        let _ = self.network.set(network);
    }

    /// Has sockets and FIFOs in what is shared relayed, once something of the kind is met.
    pub fn take_relay(self: &Arc<Self>, relay: Relay) {
        relay.serve_guest(self);
        // There is one.
        let _ = self.relay.set(relay);
    }

    /// Waits until the guest has the interfaces that are in the network namespace at this moment.
    fn settle_network(self: &Arc<Self>) -> Result<(), Failed> {
        let Some(network) = self.network.get() else { return Ok(()) };
        network.serve_guest(self);
        network.settle()
    }

    /// Asks the agent, whether or not the guest is paused, and waits for its answer.
    fn call(self: &Arc<Self>, call: Call, within: Duration) -> Result<Answer, CallError> {
        let _awake = pause::Awake::keep(self);
        self.agent.get().ok_or(CallError::Over)?.call(call, within)
    }

    /// Asks the agent for something whose answer nobody waits for.
    fn tell(self: &Arc<Self>, call: Call) {
        let Some(agent) = self.agent.get() else { return };
        let awake = pause::Awake::keep(self);
        agent.begin(call, move |outcome| {
            drop(awake);
            if let Err(error) = outcome {
                tracing::debug!(%error, "the agent did not do what it was told");
            }
        });
    }

    /// From here on, memory that the guest frees is the host's again.
    fn take_freed_memory(self: &Arc<Self>) {
        match self.guest.plug_balloon() {
            Ok(slot) => self.tell(Call::AttachDevice { slot }),
            Err(error) => tracing::warn!(error = chain(&error), "memory that the guest frees stays with it"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the main thread: something has changed.
    fn attend(&self) {
        raise(&self.attention);
    }
}

impl State {
    /// A number for one more process, whose end wakes `wake`.
    fn watch_another(&mut self, wake: &Arc<EventFd>) -> ProcessKey {
        let key = ProcessKey(self.next_key);
        self.next_key = self.next_key.saturating_add(1);
        self.processes.insert(key, Watched { ended: None, wake: Arc::clone(wake) });
        key
    }

    /// Wakes all who wait for anything.
    fn wake_all(&self) {
        self.members.values().for_each(Member::wake_watchers);
        self.processes.values().for_each(|process| raise(&process.wake));
    }
}

/// Notes what the agent says. Nothing here waits, and nothing grows with how often it is said.
impl Hear for Conductor {
    fn begin(&self) -> std::io::Result<()> {
        self.walls.enter(walls::Thread::Agent, || Ok(()))
    }

    fn ready(&self, ready: Ready) {
        self.lock().greeting = Some(ready);
        self.attend();
    }

    fn exited(&self, exited: Exited) {
        let mut state = self.lock();
        let Some(process) = state.processes.get_mut(&exited.process) else { return };
        if process.ended.is_some() {
            return;
        }
        raise(&process.wake);
        let first = exited.process == self.first;
        process.ended = Some(exited);
        drop(state);
        if first {
            self.attend();
        }
    }

    fn out_of_memory(&self, container: ContainerKey) {
        if let Some(member) = self.lock().members.get_mut(&container) {
            member.out_of_memory = member.out_of_memory.wrapping_add(1);
            member.wake_watchers();
        }
    }

    fn over(&self, why: &str) {
        let mut state = self.lock();
        state.silence = Some(why.to_owned());
        state.wake_all();
        drop(state);
        self.attend();
    }
}

fn wake() -> std::io::Result<EventFd> {
    Ok(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?)
}

fn raise(wake: &EventFd) {
    // It can only fail when it has been raised 2^64 - 2 times and nobody looked: then it is raised.
    let _ = wake.write(1);
}

/// What a caller is told of an error.
fn failed<E: Kind>(error: &E) -> Failed {
    Failed { kind: error.kind(), message: chain(error) }
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> Failed {
    Failed { kind, message: message.into() }
}

/// How long things may take. They are generous, because a host may be slow (a processor emulated in software, a cgroup
/// with 5 % of one), and a guest that answers late is better than a container lost.
mod deadline {
    use std::time::Duration;

    /// `Create`: mounts, device nodes and the look-up of the program. Less than the parent waits, which has no words.
    pub const CREATE: Duration = Duration::from_secs(50);
    /// `Start` and `Exec`: until execve has read the program from the root filesystem.
    pub const EXECUTE: Duration = Duration::from_secs(90);
    /// A hook that has no time limit. Its author may be slow, but a machine is not held for ever.
    pub const HOOK: Duration = Duration::from_secs(366 * 24 * 3600);
    /// `TakeMemory`: more than the agent gives the kernel for it.
    pub const MEMORY: Duration = Duration::from_secs(40);
    /// All else.
    pub const CALL: Duration = Duration::from_secs(30);
    /// SIGKILL: until the agent says that it has been sent.
    pub const KILL_ANSWER: Duration = Duration::from_secs(1);
    /// SIGKILL: from the request until the container's process must have ended.
    pub const KILL_EXIT: Duration = Duration::from_millis(1800);
    /// SIGKILL: from the request until the machine process ends, whatever is still under way.
    pub const KILL_ALL: Duration = Duration::from_secs(2);
    /// After a SIGKILL: output that nobody reads.
    pub const KILLED_OUTPUT: Duration = Duration::from_millis(500);
    /// SIGKILL to a container that has joined: until its machine ends, if the guest does not end it.
    pub const KILL_JOINED: Duration = Duration::from_secs(10);
    /// Until the guest has let go of a container that has ended.
    pub const PART: Duration = Duration::from_secs(6);
    /// Output of execs, after the container has ended.
    pub const EXEC_OUTPUT: Duration = Duration::from_secs(10);
    /// After the conversation has ended: until the guest says why (a panic takes a moment to print).
    pub const LAST_WORDS: Duration = Duration::from_secs(1);
}
