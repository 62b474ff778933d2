//! Beginnings and ends of containers and their processes.

use super::stand::{Stand, container, shell};
use husk_protocol::*;

#[test]
fn a_container_runs_and_its_status_and_bytes_come_back() {
    let Some(mut stand) = Stand::open("run") else { return };
    let run = stand.run(container("echo hello; echo problem >&2; exit 7"));
    assert_eq!(run.status, ProcessStatus::Code(7));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("hello\n", "problem\n"));
    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    assert!(!stand.cgroup().exists());
    assert!(stand.untaken().is_empty(), "{:?}", stand.untaken());
}

#[test]
fn a_program_that_cannot_run_fails_create_in_runcs_words() {
    let Some(mut stand) = Stand::open("lookup") else { return };
    std::fs::write(stand.root().join("etc/plain"), "").unwrap();
    for (program, words) in [
        ("no-such", "exec: \"no-such\": executable file not found in $PATH"),
        ("/no/such", "exec: \"/no/such\": stat /no/such: no such file or directory"),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ] {
        let mut container = container("");
        container.process.args = vec![program.to_owned()];
        let failure = stand.create(container).map(drop).unwrap_err();
        assert_eq!(failure, Failure { kind: FailureKind::Guest, message: words.to_owned() });
    }
    assert!(!stand.cgroup().exists(), "what failed has left something behind");
    assert_eq!(stand.run(container("echo again")).stdout, "again\n");
}

#[test]
fn a_text_that_is_no_program_fails_start_and_its_end_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let Some(mut stand) = Stand::open("start") else { return };
    let path = stand.root().join("bin/text");
    std::fs::write(&path, "no program").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut container = container("");
    container.process.args = vec!["/bin/text".to_owned()];
    let running = stand.create(container).unwrap();
    let failure = stand.ask(Call::Start { container: ContainerKey(0) }).unwrap_err();
    assert_eq!(failure.message, "exec /bin/text: exec format error");
    assert_eq!(stand.exited(running.key).status, ProcessStatus::Code(1));
}

#[test]
fn an_exec_joins_and_its_failures_have_runcs_words() {
    let Some(mut stand) = Stand::open("exec") else { return };
    let mut first = stand.start(container("read line; echo $line; exit 3"));
    let mut exec =
        stand.exec(shell("hostname; echo $$ | grep -c '^1$'; grep '^0:' /proc/self/cgroup; exit 5")).unwrap();
    let exited = stand.exited(exec.key);
    let run = exec.finish(exited);
    assert_eq!((run.status, run.stdout.as_str()), (ProcessStatus::Code(5), "inside\n0\n0::/\n"));

    let mut wrong = shell("");
    wrong.args = vec!["no-such".to_owned()];
    let failure = stand.exec(wrong).map(drop).unwrap_err();
    assert_eq!(failure.message, "exec: \"no-such\": executable file not found in $PATH");
    let mut wrong = shell("");
    wrong.cwd = "/no/such".to_owned();
    let failure = stand.exec(wrong).map(drop).unwrap_err();
    let words = "chdir to cwd (\"/no/such\") set in config.json failed: no such file or directory";
    assert_eq!(failure.message, words);

    use std::io::Write;
    first.stdin.as_mut().unwrap().write_all(b"bye\n").unwrap();
    let exited = stand.exited(first.key);
    let run = first.finish(exited);
    assert_eq!((run.status, run.stdout.as_str()), (ProcessStatus::Code(3), "bye\n"));
    let failure = stand.exec(shell("true")).map(drop).unwrap_err();
    assert_eq!(failure.message, "cannot exec in a stopped container");
}

#[test]
fn a_storm_of_orphans_is_reaped() {
    let Some(mut stand) = Stand::open("orphans") else { return };
    // In a container without a pid namespace of its own, orphans are the agent's.
    // As many as the machine can make in five seconds.
    let script =
        "end=$(($(date +%s)+5)); while [ $(date +%s) -lt $end ]; do (true & ); (true & ); done; exit 9";
    let mut container = container(script);
    container.namespaces.pid = false;
    let mut running = stand.start(container);
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).status, ProcessStatus::Code(9));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let agent = stand.agent_pid();
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    assert_eq!(children.trim(), "", "zombies");
}

#[test]
fn processes_are_numbered_as_in_the_container() {
    let Some(mut stand) = Stand::open("processes") else { return };
    let first = stand.start(container("sleep 1000 & wait"));
    let exec = stand.exec(shell("exec sleep 2000")).unwrap();
    let container = ContainerKey(0);
    let listed = loop {
        let Answer::Processes(listed) = stand.ask(Call::Processes { container }).unwrap() else { panic!() };
        if listed.len() == 3 && listed.iter().all(|process| !process.command.contains("wait\0")) {
            break listed;
        }
    };
    let one = |key| listed.iter().find(|process| process.key == key).unwrap();
    assert_eq!((one(Some(first.key)).pid, one(Some(first.key)).parent), (1, 0));
    assert_eq!(one(None).parent, 1);
    assert!(one(Some(exec.key)).pid > 1);
    assert!(one(Some(exec.key)).command.contains("sleep 2000"), "{listed:?}");
}

#[test]
fn a_frozen_container_stands_still_until_it_is_thawed() {
    let Some(mut stand) = Stand::open("freeze") else { return };
    let mut running = stand.start(container("read l; echo $l"));
    let container = ContainerKey(0);
    stand.ask(Call::Freeze { container, frozen: true }).unwrap();
    let events = std::fs::read_to_string(stand.cgroup().join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 1"), "{events}");
    use std::io::Write;
    running.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    stand.ask(Call::Freeze { container, frozen: false }).unwrap();
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).stdout, "go\n");
}

#[test]
fn a_real_time_signal_ends_a_process_and_is_told() {
    let Some(mut stand) = Stand::open("real-time signal") else { return };
    let _first = stand.start(container("sleep 1000"));
    let exec = stand.exec(shell("exec sleep 1000")).unwrap();
    stand.ask(Call::Signal { target: Target::Process(exec.key), signal: 40 }).unwrap();
    assert_eq!(stand.exited(exec.key).status, ProcessStatus::Signal(40));
    let gone = stand.ask(Call::Signal { target: Target::Process(exec.key), signal: 40 }).unwrap_err();
    assert_eq!(gone.kind, FailureKind::NotFound);
}
