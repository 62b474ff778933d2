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
//! | events without end | pass them on one by one; [`Hear`] must not keep them |

use super::CallError;
use husk_protocol::{Answer, Call, ContainerKey, Exited, FromAgent, Ready, Request, frame};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
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
            let why = match listener.listen(&*hear) {
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
        let mut inbox = Inbox { bytes: Vec::new(), greeted: false };
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
                    inbox.bytes.extend_from_slice(chunk.get(..count).unwrap_or(&[]));
                    inbox.take(|message| self.dispatch(message, hear))?;
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
                    then(outcome.map_err(CallError::Failed));
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

/// Bytes that have come and are no whole message yet.
struct Inbox {
    bytes: Vec<u8>,
    /// Whether the agent has greeted.
    greeted: bool,
}

impl Inbox {
    /// Takes all whole messages out.
    fn take(&mut self, mut with: impl FnMut(FromAgent)) -> Result<(), Broken> {
        let mut rest = self.bytes.as_slice();
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let length = frame::length(*prefix)?;
            let Some((message, after)) = after.split_at_checked(length) else { break };
            let message = frame::decode::<FromAgent>(message)?;
            if matches!(message, FromAgent::Ready(_)) == self.greeted {
                return Err(Broken::OutOfTurn);
            }
            self.greeted = true;
            with(message);
            rest = after;
        }
        let taken = self.bytes.len().saturating_sub(rest.len());
        self.bytes.drain(..taken);
        Ok(())
    }
}

/// How the agent broke the protocol.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the agent sent something that is not a message")]
    Frame(#[from] frame::FrameError),
    #[error("the agent greeted twice, or spoke before it greeted")]
    OutOfTurn,
    #[error("the connection to the agent failed")]
    Host(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use husk_protocol::{Failure, FailureKind, ProcessKey, ProcessStatus};
    use std::io::{Read, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    const SOON: Duration = Duration::from_secs(5);
    const MOMENT: Duration = Duration::from_millis(50);

    /// Writes down what was heard.
    struct Ears(Mutex<Sender<Heard>>);

    #[derive(Debug, PartialEq)]
    enum Heard {
        Ready,
        Exited(Exited),
        OutOfMemory,
        Over(String),
    }

    impl Ears {
        fn say(&self, heard: Heard) {
            let _ = self.0.lock().unwrap().send(heard);
        }
    }

    impl Hear for Ears {
        fn ready(&self, _: Ready) {
            self.say(Heard::Ready);
        }
        fn exited(&self, exited: Exited) {
            self.say(Heard::Exited(exited));
        }
        fn out_of_memory(&self, _: ContainerKey) {
            self.say(Heard::OutOfMemory);
        }
        fn over(&self, why: &str) {
            self.say(Heard::Over(why.to_owned()));
        }
    }

    /// The guest's end, as a test plays it.
    struct Agent(UnixStream);

    impl Agent {
        fn say(&mut self, message: &FromAgent) {
            self.0.write_all(&frame::encode(message).unwrap()).unwrap();
        }

        fn greet(&mut self) {
            self.say(&FromAgent::Ready(Ready { version: husk_protocol::VERSION, uptime: 1 }));
        }

        fn hear(&mut self) -> Request {
            let mut prefix = [0; 4];
            self.0.read_exact(&mut prefix).unwrap();
            let mut message = vec![0; frame::length(prefix).unwrap()];
            self.0.read_exact(&mut message).unwrap();
            frame::decode(&message).unwrap()
        }

        fn answer(&mut self, id: u32) {
            self.say(&FromAgent::Reply { id, outcome: Ok(Answer::Done) });
        }
    }

    fn begun() -> (Arc<Conversation>, Agent, Receiver<Heard>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (say, heard) = channel();
        let conversation = Conversation::open(ours, Arc::new(Ears(Mutex::new(say)))).unwrap();
        (conversation, Agent(theirs), heard)
    }

    fn greeted() -> (Arc<Conversation>, Agent, Receiver<Heard>) {
        let (conversation, mut agent, heard) = begun();
        agent.greet();
        assert_eq!(heard.recv_timeout(SOON).unwrap(), Heard::Ready);
        (conversation, agent, heard)
    }

    fn over(heard: &Receiver<Heard>) -> String {
        match heard.recv_timeout(SOON).unwrap() {
            Heard::Over(why) => why,
            other => panic!("heard {other:?} instead of the end"),
        }
    }

    fn exited(process: u32) -> Exited {
        Exited { process: ProcessKey(process), status: ProcessStatus::Code(0), stdout: 0, stderr: 0 }
    }

    #[test]
    fn answers_find_who_asked_in_whatever_order_they_come() {
        let (conversation, mut agent, _heard) = greeted();
        let (answer, answers) = channel();
        for which in 0..2 {
            let answer = answer.clone();
            conversation.begin(Call::Flush, move |outcome| answer.send((which, outcome)).unwrap());
        }
        let (first, second) = (agent.hear(), agent.hear());
        let failure = Failure { kind: FailureKind::Guest, message: "disk full".into() };
        agent.say(&FromAgent::Reply { id: second.id, outcome: Err(failure.clone()) });
        agent.answer(first.id);
        assert_eq!(answers.recv_timeout(SOON).unwrap(), (1, Err(CallError::Failed(failure))));
        assert_eq!(answers.recv_timeout(SOON).unwrap(), (0, Ok(Answer::Done)));
    }

    #[test]
    fn events_are_heard() {
        let (_conversation, mut agent, heard) = greeted();
        agent.say(&FromAgent::OutOfMemory { container: ContainerKey(0) });
        agent.say(&FromAgent::Exited(exited(3)));
        assert_eq!(heard.recv_timeout(SOON).unwrap(), Heard::OutOfMemory);
        assert_eq!(heard.recv_timeout(SOON).unwrap(), Heard::Exited(exited(3)));
    }

    #[test]
    fn hostile_1_bytes_that_are_no_message_end_the_conversation() {
        let (conversation, mut agent, heard) = greeted();
        agent.0.write_all(&[3, 0, 0, 0, 255, 255, 255]).unwrap();
        assert!(over(&heard).contains("not a message"));
        assert_eq!(conversation.call(Call::Flush, SOON), Err(CallError::Over));
    }

    #[test]
    fn hostile_2_an_endless_length_ends_the_conversation_at_once() {
        let (_conversation, mut agent, heard) = greeted();
        agent.0.write_all(&[255; 4]).unwrap();
        assert!(over(&heard).contains("longer than"));
    }

    #[test]
    fn hostile_3_an_agent_that_never_answers_costs_the_deadline_and_no_more() {
        let (conversation, mut agent, _heard) = greeted();
        assert_eq!(conversation.call(Call::Flush, MOMENT), Err(CallError::TimedOut(MOMENT)));
        // Its late answer belongs to nobody, and not to the next question either.
        let late = agent.hear();
        agent.answer(late.id);
        assert_eq!(conversation.call(Call::Flush, MOMENT), Err(CallError::TimedOut(MOMENT)));
    }

    #[test]
    fn hostile_4_answers_that_nobody_asked_for_are_dropped() {
        let (conversation, mut agent, _heard) = greeted();
        (0..10_000).for_each(|id| agent.answer(id));
        let asking = std::thread::spawn(move || conversation.call(Call::Flush, SOON));
        let request = agent.hear();
        agent.answer(request.id.wrapping_add(7));
        agent.answer(request.id);
        agent.answer(request.id);
        assert_eq!(asking.join().unwrap(), Ok(Answer::Done));
    }

    #[test]
    fn hostile_5_speaking_before_the_greeting_ends_the_conversation() {
        let (_conversation, mut agent, heard) = begun();
        agent.say(&FromAgent::Exited(exited(0)));
        assert!(over(&heard).contains("before it greeted"));
    }

    #[test]
    fn hostile_6_a_second_greeting_ends_the_conversation() {
        let (_conversation, mut agent, heard) = greeted();
        agent.greet();
        assert!(over(&heard).contains("greeted twice"));
    }

    #[test]
    fn hostile_7_leaving_in_the_middle_of_a_message_tells_everyone_who_waits() {
        let (conversation, mut agent, heard) = greeted();
        let asking = {
            let conversation = Arc::clone(&conversation);
            std::thread::spawn(move || conversation.call(Call::Flush, SOON))
        };
        agent.hear();
        agent.0.write_all(&[100, 0, 0, 0, 1]).unwrap();
        drop(agent);
        assert_eq!(asking.join().unwrap(), Err(CallError::Over));
        over(&heard);
        assert!(conversation.is_over());
    }

    #[test]
    fn hostile_8_an_agent_that_takes_nothing_holds_up_no_one_and_fills_no_memory() {
        let (conversation, _agent, _heard) = greeted();
        let long = "x".repeat(1 << 20);
        let update = || {
            let files = vec![("memory.max".to_owned(), long.clone())];
            let resources = husk_protocol::Resources { files, ..Default::default() };
            Call::Update { container: ContainerKey(0), resources: Box::new(resources) }
        };
        let begun = std::time::Instant::now();
        let (answer, answers) = channel();
        for _ in 0..64 {
            let answer = answer.clone();
            conversation.begin(update(), move |outcome| answer.send(outcome).unwrap());
        }
        assert!(begun.elapsed() < SOON);
        assert_eq!(answers.recv_timeout(SOON).unwrap(), Err(CallError::Busy));
        assert!(conversation.lock().waiting <= MOST_WAITING);
    }

    #[test]
    fn hostile_9_requests_that_are_never_answered_are_bounded() {
        let (conversation, mut agent, _heard) = greeted();
        let drain = std::thread::spawn(move || (0..MOST_REQUESTS).for_each(|_| drop(agent.hear())));
        for _ in 0..MOST_REQUESTS {
            conversation.begin(Call::Flush, |_| {});
        }
        assert_eq!(conversation.call(Call::Flush, SOON), Err(CallError::Busy));
        drain.join().unwrap();
    }

    #[test]
    fn hostile_10_a_flood_of_events_in_odd_pieces_does_not_drown_an_answer() {
        let (conversation, mut agent, heard) = greeted();
        let flood = std::thread::spawn(move || {
            let one = frame::encode(&FromAgent::OutOfMemory { container: ContainerKey(u32::MAX) }).unwrap();
            let many = one.repeat(100_000);
            many.chunks(4093).for_each(|piece| agent.0.write_all(piece).unwrap());
            let request = agent.hear();
            agent.answer(request.id);
            agent
        });
        assert_eq!(conversation.call(Call::Flush, SOON), Ok(Answer::Done));
        flood.join().unwrap();
        assert_eq!(heard.iter().take(100_000).filter(|heard| *heard == Heard::OutOfMemory).count(), 100_000);
    }

    #[test]
    fn a_request_larger_than_the_sockets_buffer_goes_out_while_the_agent_reads() {
        let (conversation, mut agent, _heard) = greeted();
        let long = "x".repeat(3 << 20);
        let resources = husk_protocol::Resources { files: vec![("a".into(), long)], ..Default::default() };
        let call = Call::Update { container: ContainerKey(0), resources: Box::new(resources) };
        let expected = call.clone();
        let asking = std::thread::spawn(move || conversation.call(call, SOON));
        let request = agent.hear();
        assert_eq!(request.call, expected);
        agent.answer(request.id);
        assert_eq!(asking.join().unwrap(), Ok(Answer::Done));
    }
}
