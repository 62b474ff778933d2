//! Containers that join a machine which runs.

use super::*;

/// Seen on a busy machine: it had ended before the agent's answer was looked at, and its start was said to have failed.
#[test]
fn a_container_that_joins_and_ends_at_once_was_started() {
    let stage = started(&["sleep"]);
    let (_read, write) = std::io::pipe().unwrap();
    let mut joined = stage.join(&["echo", "words"], "max", write);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Joined(ContainerKey(1)));
    stage.manners.hasty.store(true, Ordering::SeqCst);
    assert_eq!(stage.ask_of(1, Command::Start).unwrap(), Outcome::Done);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Exited(7));
    stage.manners.hasty.store(false, Ordering::SeqCst);
    stage.kill().unwrap();
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_container_that_joins_lives_and_ends_by_itself() {
    let stage = started(&["sleep"]);
    let (mut read, write) = std::io::pipe().unwrap();
    let mut joined = stage.join(&["echo", "from the second"], "max", write);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Joined(ContainerKey(1)));
    assert_eq!(stage.ask_of(1, Command::Status).unwrap(), Outcome::Status(Phase::Created));
    assert_eq!(stage.ask_of(0, Command::Status).unwrap(), Outcome::Status(Phase::Running));
    assert_eq!(stage.ask_of(1, Command::Start).unwrap(), Outcome::Done);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Exited(7));
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the second");
    // Whoever asks for it now, or for one that never was, asks for nothing.
    for number in [1, 77] {
        for command in [Command::Status, Command::Start, Command::Pause, Command::Stats] {
            let refused = stage.ask_of(number, command.clone());
            // What the played agent answers for anybody is not ours.
            assert!(refused.is_err() || command == Command::Stats, "{number} {command:?}: {refused:?}");
        }
    }
    let mut next = stage.join(&["sleep"], "max", null());
    assert_eq!(next.receive(SOON).unwrap(), Outcome::Joined(ContainerKey(2)), "a number is given once");
    stage.kill().unwrap();
    assert_eq!(next.receive(SOON).unwrap(), Outcome::Exited(137));
    assert_eq!(stage.status(), 137);
}

#[test]
fn signals_and_pauses_are_for_the_container_that_is_named() {
    let stage = started(&["sleep"]);
    let mut joined = stage.join(&["sleep"], "max", null());
    joined.receive(SOON).unwrap();
    stage.ask_of(1, Command::Start).unwrap();
    joined.send(&Command::Signal { signal: libc::SIGUSR1, all: false }, &[]).unwrap();
    stage.ask_of(1, Command::Signal { signal: libc::SIGUSR2, all: true }).unwrap();
    let sent = [
        (Target::Process(ProcessKey(1)), libc::SIGUSR1),
        (Target::Container(ContainerKey(1)), libc::SIGUSR2),
    ];
    assert!(eventually(|| sent.iter().all(|sent| stage.signals.lock().unwrap().contains(sent))));
    // The vcpus stop with the last of them, and run again with the first.
    stage.ask_of(1, Command::Pause).unwrap();
    assert_eq!(stage.ask_of(0, Command::Status).unwrap(), Outcome::Status(Phase::Running));
    assert!(stage.guest.runs.load(Ordering::SeqCst));
    stage.ask_of(0, Command::Pause).unwrap();
    assert!(!stage.guest.runs.load(Ordering::SeqCst));
    stage.ask_of(1, Command::Resume).unwrap();
    assert!(stage.guest.runs.load(Ordering::SeqCst));
    assert_eq!(stage.ask_of(0, Command::Status).unwrap(), Outcome::Status(Phase::Paused));
    stage.ask_of(1, Command::Signal { signal: libc::SIGKILL, all: true }).unwrap();
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Exited(137));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_container_whose_connection_closes_is_killed_and_nothing_of_it_stays() {
    let stage = started(&["sleep"]);
    let mut joined = stage.join(&["sleep"], "max", null());
    joined.receive(SOON).unwrap();
    stage.ask_of(1, Command::Start).unwrap();
    drop(joined);
    let killed = (Target::Container(ContainerKey(1)), libc::SIGKILL);
    assert!(eventually(|| stage.signals.lock().unwrap().contains(&killed)));
    assert!(eventually(|| stage.conductor.lock().members.len() == 1));
    assert_eq!(stage.conductor.lock().processes.len(), 1);
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_sandbox_that_is_being_made_or_has_ended_cannot_be_joined() {
    let stage = stage(&["sleep"], true, Duration::from_secs(60));
    let refused = stage.join(&["sleep"], "max", null()).receive(SOON).unwrap_err().to_string();
    assert_eq!(refused, "the sandbox is not running");
    send_proceed(&stage.parent).unwrap();
    assert_eq!(receive_report(&stage.parent, SOON).unwrap(), Report::Created { cold: true });
    // Without what it was said to come with.
    let joining = Joining { container: container(&["x"]), terminal: None, exports: vec![] };
    let mut connection = Connection::open(&stage.control).unwrap();
    let null = null();
    connection.send(&Command::Join(Box::new(joining)), &[null.as_fd(); 3]).unwrap();
    let refused = connection.receive(SOON).unwrap_err().to_string();
    assert!(refused.contains("disagree"), "{refused}");
    assert!(eventually(|| stage.conductor.lock().members.len() == 1));
    stage.kill().unwrap();
    stage.status();
}
