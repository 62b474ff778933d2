//! Sockets and FIFOs in what is shared: processes inside reach servers outside, and the other way round.
//!
//! ```text
//!   file server: somebody inside looks at a socket (and waits) --seen--+
//!                somebody inside binds one ---------------------made--+|
//!                a shared FIFO ---------------------------------fifo-+||
//!                                                                    vvv           stream of messages
//!   servers and clients outside <--connect, accept, open-- thread of this module <-------------------> agent's relay
//!                       \------------------- bytes: vsock device, a connection each -------------------/
//! ```
//! The two kernels share inodes; what is bound to them, each has of its own. So where a server listens outside, the agent
//! binds a socket to the same inode inside, before anybody can connect there; where one listens inside, this side has
//! bound one outside. All that is ever connected to or opened outside is what such an inode stands for, by the file
//! server's descriptor of it: never a path, nothing that is not in a share.
//!
//! The thread sleeps until the first such thing is met, and it is the only one here that acts as others: to a server
//! outside, a client from inside is the user that it is inside, as with runc. What the thread can do: connect whatever
//! the modes say (the guest's kernel has looked at them, for the process that asks), and be another user.
//!
//! | The guest can | and then |
//! |---|---|
//! | say that a process of any user connects | so it can with runc, whose container's root can become anybody |
//! | connect without end, or never take what it asked for | [`MOST_CONNECTIONS`] at a time, each with its fixed buffers |
//! | make sockets or look at them without end | [`MOST_SOCKETS`] are served; others are as if nobody listened |
//! | name inodes and ports at will | only those that it was told of mean anything |
//! | break the framing, or never answer | the relay ends; who waits to look at a socket waits [`PATIENCE`] |
//!
//! Not relayed: descriptors that are sent with a message, sequenced-packet sockets, answers to datagrams, FIFOs that
//! are not shared as such but lie in a directory.
//!
//! [`MOST_CONNECTIONS`]: husk_protocol::relay::MOST_CONNECTIONS
//! [`MOST_SOCKETS`]: husk_protocol::relay::MOST_SOCKETS

mod fifo;
mod message;
mod server;
#[cfg(test)]
mod tests;
mod worker;

use super::{Conductor, raise};
use crate::device::fs::{Alias, Made, Neighbour};
use crate::machine::Walls;
use husk_protocol::relay::{self, Node};
use nix::sys::eventfd::EventFd;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How the file server and the conductor reach the thread.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    walls: Walls,
    state: Mutex<State>,
    /// Signalled when a socket is not only asked for any more.
    settled: Condvar,
    /// The container, once its agent can be asked.
    guest: OnceLock<Arc<Conductor>>,
}

#[derive(Default)]
struct State {
    sockets: HashMap<Node, Standing>,
    fifos: HashSet<String>,
    news: Vec<News>,
    thread: Thread,
}

#[derive(Default)]
enum Thread {
    #[default]
    None,
    /// And this wakes it.
    Runs(EventFd),
    /// There is none, and there will be none.
    Broken,
}

/// A socket of the host's, as far as the guest goes.
#[derive(Debug, Clone, Copy)]
enum Standing {
    /// Since then it is not known whether anybody listens.
    Asked(Instant),
    /// Processes inside find us there.
    Served,
    /// At that moment nobody listened. (Once that is so it stays so, but for the moment between bind and its end.)
    Nobody(Instant),
}

/// What the thread is told.
enum News {
    Seen { node: Node, socket: Arc<OwnedFd> },
    Made(Made),
    Gone(Node),
    Fifo { share: String, fifo: Arc<OwnedFd> },
}

impl Relay {
    /// One that nobody has met anything for.
    pub fn new(walls: Walls) -> Relay {
        let state = Mutex::default();
        let shared = Shared { walls, state, settled: Condvar::new(), guest: OnceLock::new() };
        Relay { shared: Arc::new(shared) }
    }

    /// From now on the guest can be told.
    pub fn serve_guest(&self, conductor: &Arc<Conductor>) {
        // There is one.
        let _ = self.shared.guest.set(Arc::clone(conductor));
    }

    /// Waits until processes inside find what they can find now. Nothing to wait for if nothing was met.
    pub(super) fn settle(&self) {
        let until = Instant::now().checked_add(PATIENCE);
        let mut state = self.shared.lock();
        while state.is_unsettled() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
            if left.is_zero() {
                return;
            }
            state = self.shared.settled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Neighbour for Relay {
    /// The thread is made, as a child of the file server's, whose rights it needs in part. Later that could make none.
    fn settle(&self) {
        let mut state = self.shared.lock();
        state.thread = match worker::begin(Arc::clone(&self.shared)) {
            Ok(wake) => Thread::Runs(wake),
            Err(error) => {
                tracing::error!(%error, "cannot relay sockets");
                Thread::Broken
            }
        };
    }

    fn alias(&self, name: &[u8]) -> Option<Alias> {
        relay::bound_node(name).map(Alias::Bind).or_else(|| relay::named_node(name).map(Alias::Node))
    }

    fn seen(&self, node: Node, socket: &Arc<OwnedFd>) -> bool {
        let mut state = self.shared.lock();
        let now = Instant::now();
        match state.sockets.get(&node) {
            _ if matches!(state.thread, Thread::Broken) => return true,
            Some(Standing::Served) => return true,
            Some(Standing::Asked(since)) => return since.elapsed() > PATIENCE,
            Some(Standing::Nobody(then)) if then.elapsed() < FRESH => return true,
            None if state.sockets.len() >= MOST_KNOWN => return true,
            Some(Standing::Nobody(_)) | None => {}
        }
        if !self.tell(&mut state, News::Seen { node, socket: Arc::clone(socket) }) {
            return true;
        }
        state.sockets.insert(node, Standing::Asked(now));
        false
    }

    fn made(&self, made: Made) {
        // One too many is closed: nobody listens there then.
        self.tell(&mut self.shared.lock(), News::Made(made));
    }

    fn gone(&self, node: Node) {
        let mut state = self.shared.lock();
        state.sockets.remove(&node);
        self.tell(&mut state, News::Gone(node));
    }

    fn fifo(&self, export: &CStr, fifo: &Arc<OwnedFd>) {
        let share = export.to_string_lossy().into_owned();
        let mut state = self.shared.lock();
        if state.fifos.insert(share.clone()) {
            self.tell(&mut state, News::Fifo { share, fifo: Arc::clone(fifo) });
        }
    }
}

impl Relay {
    /// Leaves something to the thread. False: nothing will come of it.
    fn tell(&self, state: &mut State, news: News) -> bool {
        let Thread::Runs(wake) = &state.thread else { return false };
        if state.news.len() >= MOST_NEWS && !matches!(news, News::Gone(_)) {
            return false;
        }
        state.news.push(news);
        raise(wake);
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has become of a socket that was asked for.
    fn settle(&self, node: Node, standing: Standing) {
        // It may have gone meanwhile.
        if let Some(known) = self.lock().sockets.get_mut(&node) {
            *known = standing;
        }
        self.settled.notify_all();
    }

    /// The thread is no more.
    fn give_up(&self) {
        let mut state = self.lock();
        state.thread = Thread::Broken;
        state.sockets.clear();
        let news = std::mem::take(&mut state.news);
        self.settled.notify_all();
        drop(state);
        drop(news);
    }
}

impl State {
    fn is_unsettled(&self) -> bool {
        self.sockets.values().any(|standing| matches!(standing, Standing::Asked(_)))
    }
}

/// How long a process inside that looks at a socket waits at most.
const PATIENCE: Duration = Duration::from_secs(10);
/// For how long it is believed that nobody listens.
const FRESH: Duration = Duration::from_millis(100);
/// Sockets that are remembered, whether or not anybody listens.
const MOST_KNOWN: usize = 4096;
/// What may wait for the thread.
const MOST_NEWS: usize = 256;
