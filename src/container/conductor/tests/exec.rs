//! Further processes of a container.

use super::*;

#[test]
fn an_exec_is_answered_when_it_runs_and_again_when_it_has_ended() {
    let stage = started(&["sleep"]);
    let (mut read, write) = std::io::pipe().unwrap();
    let mut exec = stage.exec(&["echo", "from exec"], write);
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Exited(7));
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from exec");
    assert!(matches!(exec.receive(SOON), Err(ClientError::Gone)));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn signals_and_sizes_on_an_execs_connection_are_for_its_process() {
    let stage = started(&["sleep"]);
    let mut exec = stage.exec(&["sleep"], null());
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    exec.send(&Command::Signal { signal: libc::SIGUSR1, all: false }, &[]).unwrap();
    exec.send(&Command::Resize(Default::default()), &[]).unwrap();
    exec.send(&Command::Signal { signal: libc::SIGKILL, all: false }, &[]).unwrap();
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Exited(137));
    let key = Target::Process(ProcessKey(1));
    assert_eq!(*stage.signals.lock().unwrap(), [(key, libc::SIGUSR1), (key, libc::SIGKILL)]);
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn an_exec_whose_connection_closes_is_killed_inside() {
    let stage = started(&["sleep"]);
    let mut exec = stage.exec(&["sleep"], null());
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    drop(exec);
    let killed = (Target::Process(ProcessKey(1)), libc::SIGKILL);
    assert!(eventually(|| stage.signals.lock().unwrap().contains(&killed)));
    assert!(eventually(|| stage.conductor.lock().processes.len() == 1));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn an_exec_that_outlives_its_container_is_told_of_its_end() {
    let stage = started(&["sleep"]);
    let mut exec = stage.exec(&["sleep"], null());
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    stage.kill().unwrap();
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Exited(137));
    assert_eq!(stage.status(), 137);
}

#[test]
fn an_exec_without_its_descriptors_is_refused() {
    let stage = started(&["sleep"]);
    let mut connection = Connection::open(&stage.control).unwrap();
    connection
        .send(&Command::Exec { process: Box::new(process(&["echo", "x"])), terminal: None }, &[])
        .unwrap();
    let error = connection.receive(SOON).unwrap_err();
    assert!(error.to_string().contains("three descriptors"), "{error}");
    stage.kill().unwrap();
    stage.status();
}
