//! The container's network: what is in the network namespace of the machine process is shown to the guest, at its start
//! and as it changes.
//!
//! ```text
//!   namespace on the host            the thread of this module                     guest
//!   eth0 appears            --> TAP made and joined ([`adopt`]) --> device in a spare slot --> agent binds the driver
//!   name, MTU, addresses,   --> compared with what the guest was told ([`plan`]) ------------> agent hands requests to
//!   routes, neighbours change                                                                  its kernel
//!   eth0 goes away          --> driver unbound, slot vacated, TAP kept for the next one
//! ```
//! The interfaces on the host's side keep their addresses, so that whoever looks into the namespace finds what was put
//! there; what arrives at them goes to the guest.
//!
//! One thread does all of it, and it is the only one with CAP_NET_ADMIN; it never touches a byte that comes from the
//! guest, but for the interfaces' numbers and names in the agent's answers, which only go back to the guest. It passes
//! over everything again after each change, so that nothing depends on the order in which things are heard of.

mod adopt;
mod names;
mod plan;

use super::{Conductor, deadline, failed, refused};
use crate::device::vsock::Endpoint;
use crate::error::{ErrorKind, Kind, chain};
use crate::host::deadline::poll;
use crate::host::netlink::Netlink;
use crate::host::network::Snapshot;
use crate::host::tap::{self, Tun};
use crate::machine::order::Failed;
use crate::machine::slots::SlotError;
use crate::machine::{Spares, Walls, walls};
use adopt::{Adopted, Inside};
use husk_protocol::{Answer, Call};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::EventFd;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How others reach the thread.
pub struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled when a pass has ended.
    passed: Condvar,
    wake: EventFd,
    /// The container, once its agent can be asked.
    guest: OnceLock<Arc<Conductor>>,
}

#[derive(Default)]
struct State {
    /// Passes that were asked for, and the last that a finished pass answers.
    asked: u64,
    answered: u64,
    /// What came of the last pass.
    outcome: Option<Failed>,
    /// Whether to let everything go.
    over: bool,
}

/// What was opened while there were paths.
pub struct Tuns {
    spare: Vec<Tun>,
    /// For further queues of TAPs: as many as an interface takes, and those of all that get any.
    others: usize,
    more: Vec<Tun>,
    missing: Option<io::Error>,
    /// From which ports the namespace's own sockets ask, if that can be set.
    ports: Option<File>,
}

impl Tuns {
    /// Opens as many as there can be interfaces, in the present network namespace, and those for further queues: for the
    /// first interfaces as many as there are vcpus. A host without them is found out only if there is an interface.
    pub fn open(vcpus: u8) -> Tuns {
        let ports = File::options().write(true).open("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let others = usize::from(vcpus).clamp(1, MOST_PAIRS).saturating_sub(1);
        let mut tuns = Tuns { spare: Vec::new(), others, more: Vec::new(), missing: None, ports };
        for _ in 0..crate::machine::spare::INTERFACE_SLOTS {
            match Tun::open() {
                Ok(tun) => tuns.spare.push(tun),
                Err(error) => {
                    tuns.missing = Some(error);
                    return tuns;
                }
            }
        }
        // Without one of these, interfaces have fewer queues.
        let more = others.saturating_mul(WITH_PAIRS);
        tuns.more.extend((0..more).map_while(|_| Tun::open().ok()));
        tuns
    }
}

impl Network {
    /// Begins to look after the calling thread's network namespace. The guest need not run yet.
    pub fn begin(spares: Arc<Spares>, tuns: Tuns, walls: Walls) -> io::Result<Network> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            passed: Condvar::new(),
            wake: super::wake()?,
            guest: OnceLock::new(),
        });
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_NEIGH
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV6_ROUTE;
        let worker = Worker {
            shared: Arc::clone(&shared),
            netlink: Netlink::open()?,
            events: Netlink::listen(groups)?,
            spares,
            tuns,
            idle: Vec::new(),
            adopted: BTreeMap::new(),
            told: Default::default(),
            names: false,
            walls,
        };
        std::thread::Builder::new().name("network".to_owned()).spawn(move || worker.serve())?;
        Ok(Network { shared })
    }

    /// From now on the guest can be told.
    pub fn serve_guest(&self, conductor: &Arc<Conductor>) {
        // There is one.
        let _ = self.shared.guest.set(Arc::clone(conductor));
    }

    /// Waits until the guest has what is in the namespace at this moment.
    pub fn settle(&self) -> Result<(), Failed> {
        let mut state = self.shared.lock();
        state.asked = state.asked.saturating_add(1);
        let number = state.asked;
        super::raise(&self.shared.wake);
        let until = Instant::now().checked_add(PATIENCE);
        while state.answered < number {
            let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
            if left.is_zero() {
                let text = format!("the container's network was not set up within {} s", PATIENCE.as_secs());
                return Err(refused(ErrorKind::Host, text));
            }
            state = self.shared.passed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.outcome.clone().map_or(Ok(()), Err)
    }

    /// Lets the interfaces go: whoever uses the namespace next finds them as they were.
    pub fn end(&self) {
        let mut state = self.shared.lock();
        if state.over {
            return;
        }
        state.over = true;
        state.asked = state.asked.saturating_add(1);
        let number = state.asked;
        super::raise(&self.shared.wake);
        let until = Instant::now().checked_add(PATIENCE_AT_END);
        while state.answered < number {
            let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            state = self.shared.passed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own.
struct Worker {
    shared: Arc<Shared>,
    netlink: Netlink,
    events: Netlink,
    spares: Arc<Spares>,
    tuns: Tuns,
    /// TAPs of interfaces that have gone.
    idle: Vec<Arc<tap::Tap>>,
    /// By the interface's number on the host.
    adopted: BTreeMap<u32, Adopted>,
    /// Addresses, routes and neighbours that the guest was told of, in its numbers.
    told: plan::Told,
    /// Whether the guest's name look-ups reach the namespace's resolver.
    names: bool,
    walls: Walls,
}

impl Worker {
    fn serve(mut self) {
        if let Err(error) = self.walls.enter(walls::Thread::Network, || Ok(())) {
            tracing::error!(%error, "the walls of the network's thread do not stand");
            return;
        }
        let mut complaints = 0_u32;
        let mut first = true;
        loop {
            let asked = self.shared.lock().asked;
            if !first && asked == self.shared.lock().answered {
                self.wait();
            }
            first = false;
            let state = self.shared.lock();
            let (asked, over) = (state.asked, state.over);
            drop(state);
            let outcome = if over {
                self.adopted.keys().for_each(|index| tap::part(&mut self.netlink, *index));
                Ok(())
            } else {
                self.pass()
            };
            if let Err(error) = &outcome
                && complaints < MOST_COMPLAINTS
            {
                complaints = complaints.saturating_add(1);
                tracing::error!("the container's network: {}", chain(error));
            }
            let mut state = self.shared.lock();
            state.answered = asked;
            state.outcome = outcome.err().map(|error| failed(&error));
            self.shared.passed.notify_all();
            if over {
                return;
            }
        }
    }

    /// Sleeps until something has changed or is asked for. Changes come in bursts: the end of one is waited for, a
    /// little.
    fn wait(&mut self) {
        let mut timeout = PollTimeout::NONE;
        for _ in 0..MOST_QUIET {
            let mut ready = [
                PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            ];
            // It fails for a signal only, and those are blocked.
            let _ = poll(&mut ready, timeout);
            let [asked, changed] = ready.map(|one| one.any().unwrap_or(false));
            if asked {
                let _ = self.shared.wake.read();
                return;
            }
            if !changed || !self.events.drain() {
                return;
            }
            timeout = PollTimeout::from(QUIET);
        }
    }

    /// Makes the guest's network what the namespace's is.
    fn pass(&mut self) -> Result<(), NetworkError> {
        // What changes from here on is heard of again.
        self.events.drain();
        let adopted = &self.adopted;
        let ours: Vec<u32> =
            adopted.values().map(|one| one.tap.index).chain(self.idle.iter().map(|tap| tap.index)).collect();
        let snapshot = Snapshot::take(&mut self.netlink, |index, link| adopt::is_wanted(index, link, &ours))
            .map_err(NetworkError::Look)?;
        // One that cannot be had is no reason to leave the others as they are.
        let mut outcome = self.let_go(&snapshot, &ours);
        for (index, link) in &snapshot.links {
            if adopt::is_wanted(*index, link, &ours) {
                outcome = outcome.and(self.adopt(*index, link));
            }
        }
        let Some(guest) = self.shared.guest.get().map(Arc::clone) else { return outcome };
        self.attach(&guest)?;
        let insides =
            self.adopted.iter().filter_map(|(index, one)| Some((*index, one.inside.as_ref()?))).collect();
        let (requests, told) = plan::requests(&snapshot, &insides, &self.told);
        if !requests.is_empty() {
            tracing::debug!(requests = requests.len(), "the guest's network changes");
            match guest.call(Call::ConfigureNetwork(requests), deadline::CALL) {
                Ok(_) => {}
                Err(source) => return Err(NetworkError::Guest { what: "set up its network", source }),
            }
        }
        self.told = told;
        for (index, adopted) in &mut self.adopted {
            if let (Some(inside), Some(link)) = (&mut adopted.inside, snapshot.links.get(index)) {
                inside.link = Some(link.clone());
                inside.name = link.name.clone();
            }
        }
        outcome.and(self.serve_names(&guest))
    }

    /// Has the guest's name look-ups reach the namespace's resolver, once it has one.
    fn serve_names(&mut self, guest: &Arc<Conductor>) -> Result<(), NetworkError> {
        if self.names || self.adopted.is_empty() || !names::is_there() {
            return Ok(());
        }
        self.spare_answers()?;
        let (ours, theirs) = UnixStream::pair().map_err(NetworkError::Names)?;
        let to_guest = theirs.try_clone().map_err(NetworkError::Names)?;
        let ends = Endpoint { from_guest: Some(theirs.into()), to_guest: Some(to_guest.into()) };
        let (port, _) = guest.streams.offer(ends).map_err(NetworkError::Names)?;
        names::begin_relay(ours, self.walls).map_err(NetworkError::Names)?;
        let what = "take name look-ups";
        if let Err(source) = guest.call(Call::ServeNames { port }, deadline::CALL) {
            guest.streams.withdraw(port);
            return Err(NetworkError::Guest { what, source });
        }
        tracing::debug!("name look-ups reach the namespace's resolver");
        self.names = true;
        Ok(())
    }

    /// The resolver asks others in turn, from within the namespace, at whose interfaces everything that arrives goes to
    /// the guest: answers to it must not.
    fn spare_answers(&mut self) -> Result<(), NetworkError> {
        let (first, last) = (tap::NAME_PORTS.start(), tap::NAME_PORTS.end());
        if let Some(mut ports) = self.tuns.ports.take() {
            ports.write_all(format!("{first} {last}").as_bytes()).map_err(NetworkError::Names)?;
        }
        for (index, adopted) in &self.adopted {
            tap::spare_answers(&mut self.netlink, &adopted.tap, *index).map_err(NetworkError::Names)?;
        }
        Ok(())
    }

    /// Has the agent bind the devices that it has not seen yet.
    fn attach(&mut self, guest: &Arc<Conductor>) -> Result<(), NetworkError> {
        let mut fresh: Vec<&mut Adopted> =
            self.adopted.values_mut().filter(|one| one.inside.is_none()).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let slots = fresh.iter().map(|one| one.slot).collect();
        let what = "take an interface";
        let answer = guest.call(Call::AttachInterfaces { slots }, deadline::CALL);
        match answer.map_err(|source| NetworkError::Guest { what, source })? {
            Answer::Interfaces(interfaces) if interfaces.len() == fresh.len() => {
                for (adopted, interface) in fresh.iter_mut().zip(interfaces) {
                    adopted.inside =
                        Some(Inside { index: interface.index, name: interface.name, link: None });
                }
                Ok(())
            }
            _ => Err(NetworkError::Guest { what, source: crate::agent::CallError::Unexpected }),
        }
    }
}

/// Why the guest does not have the network that it should have.
#[derive(Debug, thiserror::Error)]
enum NetworkError {
    /// The namespace cannot be looked at.
    #[error("cannot list what is in the network namespace")]
    Look(#[source] io::Error),
    /// No TAP.
    #[error("cannot make a TAP for the interface {name}: this takes /dev/net/tun (the tun module)")]
    NoTun {
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too many.
    #[error(
        "the interface {name} is one too many: a container has at most {most}",
        most = crate::machine::spare::INTERFACE_SLOTS
    )]
    TooMany {
        /// The interface.
        name: String,
    },
    /// Somebody else's.
    #[error(
        "the interface {name} has an ingress queueing discipline already: another machine uses this network \
         namespace, or a traffic filter was put there"
    )]
    Taken {
        /// The interface.
        name: String,
    },
    /// The host refused.
    #[error("cannot {what} the interface {name}")]
    Host {
        /// What.
        what: &'static str,
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No slot for it.
    #[error("cannot give the guest the interface {name}")]
    Slot {
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: SlotError,
    },
    /// No relay for names.
    #[error("cannot pass name look-ups on")]
    Names(#[source] io::Error),
    /// The guest did not do it.
    #[error("the guest did not {what}")]
    Guest {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: crate::agent::CallError,
    },
}

impl Kind for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            NetworkError::TooMany { .. } => ErrorKind::Unsupported,
            NetworkError::Taken { .. } => ErrorKind::InvalidState,
            NetworkError::Guest { source, .. } => source.kind(),
            _ => ErrorKind::Host,
        }
    }
}

/// How long the whole of it may take when a container waits for it.
const PATIENCE: Duration = Duration::from_secs(60);
const PATIENCE_AT_END: Duration = Duration::from_millis(500);
/// A burst of changes is over when nothing was heard for so long (milliseconds), or after so many times.
const QUIET: u8 = 4;
const MOST_QUIET: usize = 25;
const MOST_COMPLAINTS: u32 = 32;
/// Most queue pairs of an interface, and how many interfaces get more than one pair.
const MOST_PAIRS: usize = 8;
const WITH_PAIRS: usize = 2;
