//! Each way in which an agent can lie, and what comes of it.

use super::*;
use husk_protocol::{Failure, FailureKind, ProcessKey, ProcessStatus};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

const SOON: Duration = Duration::from_secs(5);
const MOMENT: Duration = Duration::from_millis(50);
/// Any call that carries nothing of note.
const QUESTION: Call = Call::Start { container: ContainerKey(0) };

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
        conversation.begin(QUESTION, move |outcome| answer.send((which, outcome)).unwrap());
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
    assert_eq!(conversation.call(QUESTION, SOON), Err(CallError::Over));
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
    assert_eq!(conversation.call(QUESTION, MOMENT), Err(CallError::TimedOut(MOMENT)));
    // Its late answer belongs to nobody, and not to the next question either.
    let late = agent.hear();
    agent.answer(late.id);
    assert_eq!(conversation.call(QUESTION, MOMENT), Err(CallError::TimedOut(MOMENT)));
}

#[test]
fn hostile_4_answers_that_nobody_asked_for_are_dropped() {
    let (conversation, mut agent, _heard) = greeted();
    (0..10_000).for_each(|id| agent.answer(id));
    let asking = std::thread::spawn(move || conversation.call(QUESTION, SOON));
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
        std::thread::spawn(move || conversation.call(QUESTION, SOON))
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
    // One at a time, so that none is refused because the agent is slow to take it.
    for _ in 0..MOST_REQUESTS {
        conversation.begin(QUESTION, |_| {});
        agent.hear();
    }
    assert_eq!(conversation.call(QUESTION, SOON), Err(CallError::Busy));
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
    assert_eq!(conversation.call(QUESTION, SOON), Ok(Answer::Done));
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
