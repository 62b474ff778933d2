//! From being made to its end: what a container's callers are told, and when.

use super::*;

#[test]
fn a_container_is_created_started_and_ends_with_its_status_after_its_last_byte() {
    let mut stage = created(&["echo", "hello"]);
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Created));
    assert_eq!(stage.ask(Command::Start).unwrap(), Outcome::Done);
    let mut text = String::new();
    stage.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(stage.status(), 7);
}

#[test]
fn a_reader_that_takes_its_time_gets_every_byte_before_the_exit() {
    let words = "x".repeat(300_000);
    let mut stage = started(&["echo", &words]);
    std::thread::sleep(Duration::from_millis(700));
    assert!(!stage.life.is_finished());
    let mut text = String::new();
    stage.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), words.len());
    assert_eq!(stage.status(), 7);
}

#[test]
fn without_the_parents_word_nothing_is_made_and_without_the_parent_the_machine_ends() {
    let stage = stage(&["echo", "x"], true, Duration::from_secs(60));
    assert!(receive_report(&stage.parent, Some(Duration::from_millis(100))).is_err());
    drop(stage.parent);
    let failed = stage.life.join().unwrap().unwrap_err();
    assert!(failed.message.contains("is gone"), "{}", failed.message);
}

#[test]
fn a_guest_whose_agent_never_speaks_fails_in_time_with_words_and_the_kernels_last_lines() {
    let stage = stage(&["echo", "x"], false, Duration::from_millis(100));
    let failed = stage.life.join().unwrap().unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Guest);
    for part in ["within 0.1 s", "husk check", "Kernel panic"] {
        assert!(failed.message.contains(part), "{}", failed.message);
    }
}

#[test]
fn a_guest_that_ends_before_its_agent_is_up_fails_at_once() {
    let stage = stage(&["echo", "x"], false, Duration::from_secs(60));
    stage.guest.finish("the guest asked for a reset");
    let failed = stage.life.join().unwrap().unwrap_err();
    assert!(
        failed.message.contains("before its agent was up: the guest asked for a reset"),
        "{}",
        failed.message
    );
}

#[test]
fn a_guest_that_ends_under_a_container_ends_it_with_255() {
    let stage = started(&["sleep"]);
    stage.guest.finish("the guest asked for a reset");
    assert_eq!(stage.status(), 255);
}

#[test]
fn a_second_start_is_refused_in_runcs_words() {
    let stage = started(&["sleep"]);
    let error = stage.ask(Command::Start).unwrap_err();
    assert_eq!(error.to_string(), "cannot start an already running container");
    stage.kill().unwrap();
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_paused_container_still_answers_and_its_vcpus_run_only_while_it_does() {
    let stage = started(&["sleep"]);
    assert_eq!(stage.ask(Command::Pause).unwrap(), Outcome::Done);
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Paused));
    assert!(!stage.guest.runs.load(Ordering::SeqCst));
    assert_eq!(stage.ask(Command::Processes).unwrap(), Outcome::Processes(vec![]));
    assert!(eventually(|| !stage.guest.runs.load(Ordering::SeqCst)));
    assert_eq!(stage.guest.pauses.load(Ordering::SeqCst), 2);
    assert_eq!(stage.ask(Command::Pause).unwrap_err().to_string(), "cannot pause a container that is paused");
    let (_, write) = std::io::pipe().unwrap();
    let mut waiting = stage.exec(&["echo", "x"], write);
    let error = waiting.receive(Some(Duration::from_millis(200))).unwrap_err();
    assert!(matches!(error, ClientError::Wire(WireError::TimedOut)), "it ran in a frozen container: {error}");
    assert_eq!(stage.ask(Command::Resume).unwrap(), Outcome::Done);
    assert_eq!(waiting.receive(SOON).unwrap(), Outcome::Done);
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Running));
    assert!(stage.guest.runs.load(Ordering::SeqCst));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn what_a_container_frees_is_taken_back_once_it_has_lived_a_while() {
    let stage = started(&["sleep"]);
    let looked_at = || stage.guest.looked_at.lock().unwrap().clone();
    assert!(looked_at().is_empty());
    assert!(eventually(|| !looked_at().is_empty()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(looked_at(), [BALLOON]);
    stage.kill().unwrap();
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_watcher_hears_of_memory_and_of_the_end() {
    let stage = started(&["sleep"]);
    let mut watcher = Connection::open(&stage.control).unwrap();
    watcher.send(&Command::Watch, &[]).unwrap();
    assert!(eventually(|| stage.conductor.lock().members[&ContainerKey(0)].watchers.len() == 1));
    (0..100_000).for_each(|_| stage.conductor.out_of_memory(ContainerKey(0)));
    stage.conductor.out_of_memory(ContainerKey(9));
    assert_eq!(watcher.receive(SOON).unwrap(), Outcome::OutOfMemory);
    stage.kill().unwrap();
    let mut heard = watcher.receive(SOON).unwrap();
    let mut times = 1;
    while heard == Outcome::OutOfMemory {
        heard = watcher.receive(SOON).unwrap();
        times += 1;
    }
    assert_eq!(heard, Outcome::Exited(137));
    assert!(times < 10, "a guest's flood reached a caller");
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_connection_to_localhost_is_led_to_who_listens_inside_and_reset_if_nobody_does() {
    let stage = started(&["sleep"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut doors = localhost::Doors::new(Arc::clone(&stage.conductor));
    let mut connect = |to| {
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        doors.lead(listener.accept().unwrap().0.into(), to);
        client
    };
    let mut said = String::new();
    connect(LISTENED).read_to_string(&mut said).unwrap();
    assert_eq!(said, "served");
    let refused = connect(1).read(&mut [0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    stage.kill().unwrap();
}
