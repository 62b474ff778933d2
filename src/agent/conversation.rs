//! One conversation with an agent: requests out, answers and events in.
//!
//! ```text
//!   begin/call --> outbox --> [ one thread: poll, send, receive, decode ] --> answers to who asked
//!                                                                         --> events to Hear
//!   opened --> Ready heard --> requests and answers ... --> over (once, for good)
//! ```
//! Nobody who asks ever waits for the guest to *take* a request, only for its answer and only as long as it wants to:
//! what does not go out at once is kept, bounded, for the thread to send. So a guest that stops reading cannot hold up
//! a kill.
//!
//! What a hostile agent can do, and what comes of it:
//!
//! | it sends | we |
//! |---|---|
//! | a length beyond the limit, bytes that are no message, a second greeting, anything before the greeting | end the conversation |
//! | an answer to what nobody asked (any more), or a second one | drop it |
//! | nothing | give up at the deadline of each request |
//! | an error without end, or with control characters | cut it short, and show them as what they are not |
//! | events without end | pass them on one by one; [`Hear`] must not keep them |

use super::CallError;
use super::inbox::{Broken, Inbox};
use crate::host::deadline::poll;
use husk_protocol::{Answer, Call, ContainerKey, Exited, FromAgent, Ready, Request, frame};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most requests under way. Execs and signals of 64 callers fit many times.
const MOST_REQUESTS: usize = 512;

/// The most bytes that wait for the guest to take them.
const MOST_WAITING: usize = 16 << 20;

/// How much is read at once.
const CHUNK: usize = 32 << 10;

const STACK: usize = 256 << 10;

/// Who hears what the agent says by itself. Called on the conversation's thread: must not wait, least of all for an
/// answer of the same agent, and must not keep everything that it hears.
pub trait Hear: Send + Sync + 'static {
    /// The conversation's thread begins, and has heard nothing yet. An error ends it.
    fn begin(&self) -> std::io::Result<()> {
        Ok(())
    }
    /// The agent serves. Said once, before anything else.
    fn ready(&self, ready: Ready);
    /// It says that a process has ended. May be unknown, and may be said again.
    fn exited(&self, exited: Exited);
    /// It says that the guest kernel killed for memory.
    fn out_of_memory(&self, container: ContainerKey);
    /// The conversation is over, for this reason. Said once, after everything else.
    fn over(&self, why: &str);
}

/// A conversation. It goes on while the guest wants; dropping this does not end it, [`Conversation::end`] does.
pub struct Conversation {
    socket: UnixStream,
    /// Wakes the thread when there is something in the outbox.
    wake: EventFd,
    state: Mutex<State>,
}

struct State {
    next_id: u32,
    asked: HashMap<u32, Then>,
    /// Encoded requests; the first may have gone out in part.
    outbox: VecDeque<Vec<u8>>,
    /// How much of the first has gone out.
    sent: usize,
    /// Bytes in the outbox.
    waiting: usize,
    over: bool,
}

/// What is done with an answer.
type Then = Box<dyn FnOnce(Result<Answer, CallError>) + Send>;

impl Conversation {
    /// Begins a conversation over `socket`, with a thread of its own.
    pub fn open(socket: UnixStream, hear: Arc<dyn Hear>) -> std::io::Result<Arc<Conversation>> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        let state = State {
            next_id: 0,
            asked: HashMap::new(),
            outbox: VecDeque::new(),
            sent: 0,
            waiting: 0,
            over: false,
        };
        let conversation = Arc::new(Conversation { socket, wake, state: Mutex::new(state) });
        let listener = Arc::clone(&conversation);
        std::thread::Builder::new().name("agent".into()).stack_size(STACK).spawn(move || {
            let heard = hear.begin().map_err(Broken::Host).and_then(|()| listener.listen(&*hear));
            let why = match heard {
                Ok(()) => "the guest closed the connection".to_owned(),
                Err(broken) => crate::error::chain(&broken),
            };
            listener.finish();
            hear.over(&why);
        })?;
        Ok(conversation)
    }

    /// Asks, and has `then` called with the answer: on the conversation's thread, or on the caller's if it is clear at
    /// once that there will be none. Returns a number with which the question can be [withdrawn](Self::withdraw).
    pub fn begin(&self, call: Call, then: impl FnOnce(Result<Answer, CallError>) + Send + 'static) -> u32 {
        let mut state = self.lock();
        let id = state.next_id;
        let refused = match (state.over, state.asked.len() >= MOST_REQUESTS) {
            (true, _) => Some(CallError::Over),
            (_, true) => Some(CallError::Busy),
            _ => None,
        };
        let encoded = match refused {
            Some(error) => Err(error),
            None => match frame::encode(&Request { id, call }) {
                Ok(bytes) if state.waiting.saturating_add(bytes.len()) > MOST_WAITING => Err(CallError::Busy),
                Ok(bytes) => Ok(bytes),
                Err(_) => Err(CallError::TooLong),
            },
        };
        match encoded {
            Ok(bytes) => {
                // Numbers of questions that are still open are not reused: at most MOST_REQUESTS of 2^32 are.
                state.next_id = id.wrapping_add(1);
                state.asked.insert(id, Box::new(then));
                state.waiting = state.waiting.saturating_add(bytes.len());
                state.outbox.push_back(bytes);
                self.send_some(&mut state);
                if !state.outbox.is_empty() {
                    // It can only fail if it is readable already.
                    let _ = self.wake.write(1);
                }
            }
            Err(error) => {
                drop(state);
                then(Err(error));
            }
        }
        id
    }

    /// Asks, and waits for the answer at most this long.
    pub fn call(&self, call: Call, within: Duration) -> Result<Answer, CallError> {
        let (answer, answered) = sync_channel(1);
        let id = self.begin(call, move |outcome| {
            // Nobody listens any more after the deadline.
            let _ = answer.send(outcome);
        });
        match answered.recv_timeout(within) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.withdraw(id);
                Err(CallError::TimedOut(within))
            }
            Err(RecvTimeoutError::Disconnected) => Err(CallError::Over),
        }
    }

    /// Forgets a question: what the agent may still answer to it is dropped, and so is what was to be done with it.
    pub fn withdraw(&self, id: u32) {
        let then = self.lock().asked.remove(&id);
        drop(then);
    }

    /// Ends the conversation from our side.
    pub fn end(&self) {
        // It may be closed already.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Sends and receives until the guest closes the connection or breaks the protocol.
    fn listen(&self, hear: &dyn Hear) -> Result<(), Broken> {
        let mut inbox = Inbox::default();
        let mut chunk = vec![0; CHUNK];
        loop {
            let wanted = if self.lock().outbox.is_empty() {
                PollFlags::POLLIN
            } else {
                PollFlags::POLLIN | PollFlags::POLLOUT
            };
            let mut ready =
                [PollFd::new(self.socket.as_fd(), wanted), PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(Broken::Host(error.into())),
            }
            // Not readable: it was not this that woke us.
            let _ = self.wake.read();
            self.send_some(&mut self.lock());
            match recv(self.socket.as_raw_fd(), &mut chunk, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    inbox.take(chunk.get(..count).unwrap_or(&[]), |message| self.dispatch(message, hear))?;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(()),
                Err(error) => return Err(Broken::Host(error.into())),
            }
        }
    }

    /// One message, of a kind that may come at this moment.
    fn dispatch(&self, message: FromAgent, hear: &dyn Hear) {
        match message {
            FromAgent::Ready(ready) => hear.ready(ready),
            FromAgent::Exited(exited) => hear.exited(exited),
            FromAgent::OutOfMemory { container } => hear.out_of_memory(container),
            FromAgent::Reply { id, outcome } => {
                let then = self.lock().asked.remove(&id);
                if let Some(then) = then {
                    then(outcome.map_err(CallError::told));
                }
            }
        }
    }

    /// Sends what the socket takes without waiting.
    fn send_some(&self, state: &mut State) {
        while let Some(first) = state.outbox.front() {
            let rest = first.get(state.sent..).unwrap_or(&[]);
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(count) if count < rest.len() => state.sent = state.sent.saturating_add(count),
                Ok(_) => {
                    state.waiting = state.waiting.saturating_sub(first.len());
                    state.sent = 0;
                    state.outbox.pop_front();
                }
                // Full: later. Broken: the thread will read that.
                Err(_) => return,
            }
        }
    }

    /// Nothing more comes: everyone who waits is told.
    fn finish(&self) {
        self.end();
        let mut state = self.lock();
        state.over = true;
        state.outbox.clear();
        state.waiting = 0;
        let asked = std::mem::take(&mut state.asked);
        drop(state);
        for (_, then) in asked {
            then(Err(CallError::Over));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
