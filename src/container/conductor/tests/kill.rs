//! Kills: answered and done in time, whatever the guest and its agent do.

use super::*;

#[test]
fn a_kill_is_answered_and_the_container_ends_with_137() {
    let stage = started(&["sleep"]);
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_kill_ends_the_machine_in_time_when_the_agent_is_mute() {
    let stage = started(&["sleep"]);
    stage.manners.mute.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_kill_ends_the_machine_in_time_when_the_agent_only_says_that_it_has_killed() {
    let stage = started(&["sleep"]);
    stage.manners.lies.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
    assert!(begun.elapsed() < Duration::from_millis(2300), "{:?}", begun.elapsed());
}

#[test]
fn a_kill_ends_the_wait_for_a_reader_that_has_stopped() {
    let stage = started(&["echo", &"x".repeat(300_000)]);
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    let stdout = { stage.conductor.clone() };
    assert_eq!(stage.status(), 7);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(stdout);
}

#[test]
fn an_agent_that_claims_output_which_never_comes_can_still_be_killed() {
    let stage = created(&["echo", "x"]);
    stage.manners.boasts.store(1 << 40, Ordering::SeqCst);
    stage.ask(Command::Start).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 7);
}

#[test]
fn a_paused_container_can_be_killed() {
    let stage = started(&["sleep"]);
    stage.ask(Command::Pause).unwrap();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_kill_before_the_container_exists_ends_the_machine() {
    let stage = stage(&["sleep"], false, Duration::from_secs(60));
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Creating));
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert!(stage.life.join().unwrap().is_err());
}

#[test]
fn a_guest_that_does_not_end_a_container_that_was_killed_loses_its_machine() {
    let stage = started(&["sleep"]);
    let mut joined = stage.join(&["sleep"], "max", null());
    joined.receive(SOON).unwrap();
    stage.ask_of(1, Command::Start).unwrap();
    stage.manners.lies.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    stage.ask_of(1, Command::Signal { signal: libc::SIGKILL, all: true }).unwrap();
    assert_eq!(joined.receive(Some(Duration::from_secs(20))).unwrap(), Outcome::Exited(137));
    assert!(begun.elapsed() >= deadline::KILL_JOINED, "{:?}", begun.elapsed());
    assert_eq!(stage.status(), 137);
}
