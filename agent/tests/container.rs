//! Containers made by the real agent on the kernel at hand. See `stand` for what is needed.

mod stand;

use husk_protocol::*;
use stand::{Stand, container, shell};

/// Not a test of itself: the agent's side of every other one.
#[test]
#[ignore = "started by the other tests"]
fn serve_as_agent() {
    stand::serve_as_agent();
}

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
fn the_inside_looks_as_the_spec_says() {
    let Some(mut stand) = Stand::open("inside") else { return };
    let script = "
        echo pid $$; hostname; pwd; echo home $HOME
        id -u; grep -E '^(CapBnd|CapEff|CapPrm|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status
        ls /dev | sort | tr '\\n' ' '; echo
        ls -l /proc/self/fd | grep -c -- '->'
        grep '^0:' /proc/self/cgroup; ulimit -n
        grep -c . /proc/kcore; ls /sys/firmware | grep -c .
        echo x > /proc/sys/kernel/domainname || echo read-only
        ls /proc/1/root/run | grep -c .
        cat /proc/self/oom_score_adj; umask";
    let run = stand.run(container(script));
    let expected = "pid 1
inside
/
home /root
0
CapInh:\t0000000000000000
CapPrm:\t0000000020000420
CapEff:\t0000000020000420
CapBnd:\t0000000020000420
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t0
core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 
4
0::/
1024
0
0
read-only
0
0
0022
";
    assert_eq!(run.stdout, expected, "{}", run.stderr);
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
fn end_of_stdin_reaches_the_process() {
    let Some(mut stand) = Stand::open("stdin") else { return };
    use std::io::Write;
    let mut running = stand.start(container("cat | md5sum"));
    let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(&bytes).unwrap();
    drop(stdin);
    let exited = stand.exited(running.key);
    let run = running.finish(exited);
    assert_eq!(
        run.stdout,
        "e2ab06c9ee4cb2b37e1f7d6d2c3c5a1b  -\n".replace("e2ab06c9ee4cb2b37e1f7d6d2c3c5a1b", &md5(&bytes))
    );
}

/// The checksum by the host's own tool.
fn md5(bytes: &[u8]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let mut tool = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tool.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = tool.wait_with_output().unwrap().stdout;
    String::from_utf8_lossy(&output).split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_else() {
    let Some(mut stand) = Stand::open("stopped reader") else { return };
    let mut running = stand.start(container("head -c 100000000 /dev/zero; echo done >&2; exit 4"));
    // Nobody reads stdout. Execs work all the same.
    let mut exec = stand.exec(shell("echo still here")).unwrap();
    let exited = stand.exited(exec.key);
    assert_eq!(exec.finish(exited).stdout, "still here\n");
    // A signal works too, and the end is told at once though nobody has read.
    let target = Target::Container(ContainerKey(0));
    stand.ask(Call::Signal { target, signal: libc::SIGKILL }).unwrap();
    let exited = stand.exited(running.key);
    assert_eq!(exited.status, ProcessStatus::Signal(9));
    assert!(exited.stdout > 0 && exited.stdout < 100_000_000);
    assert!(running.finish(exited).stdout.bytes().all(|byte| byte == 0));
}

#[test]
fn a_reader_that_leaves_breaks_the_pipe() {
    let Some(mut stand) = Stand::open("broken pipe") else { return };
    let mut running = stand.start(container("yes; echo status $? >&2"));
    use std::io::Read;
    let mut some = [0u8; 1000];
    let mut stdout = running.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let exited = stand.exited(running.key);
    let mut stderr = String::new();
    running.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(exited.status, ProcessStatus::Code(0));
    assert!(stderr.contains("status 141"), "{stderr}"); // 128 + SIGPIPE
}

#[test]
fn a_gibibyte_arrives_whole() {
    let Some(mut stand) = Stand::open("gibibyte") else { return };
    use std::io::Read;
    let mut running = stand.start(container("head -c 1073741824 /dev/zero"));
    let mut stdout = running.stdout.take().unwrap();
    let mut total = 0u64;
    let mut bytes = vec![0u8; 1 << 20];
    loop {
        let length = stdout.read(&mut bytes).unwrap();
        if length == 0 {
            break;
        }
        total += length as u64;
    }
    assert_eq!(total, 1 << 30);
    assert_eq!(stand.exited(running.key).stdout, 1 << 30);
}

#[test]
fn what_a_short_process_wrote_is_never_lost() {
    let Some(mut stand) = Stand::open("short") else { return };
    let mut first = stand.start(container("sleep 1000"));
    for number in 0..100 {
        let mut exec =
            stand.exec(shell(&format!("echo {number}; echo {number} >&2; exit {number}"))).unwrap();
        let exited = stand.exited(exec.key);
        let run = exec.finish(exited);
        let line = format!("{number}\n");
        assert_eq!(
            run,
            stand::Run { status: ProcessStatus::Code(number), stdout: line.clone(), stderr: line }
        );
    }
    stand.ask(Call::Signal { target: Target::Process(first.key), signal: libc::SIGKILL }).unwrap();
    let exited = stand.exited(first.key);
    assert_eq!(first.finish(exited).status, ProcessStatus::Signal(9));
}

#[test]
fn a_storm_of_orphans_is_reaped() {
    let Some(mut stand) = Stand::open("orphans") else { return };
    // In a container without a pid namespace of its own, orphans are the agent's.
    let mut container = container("i=0; while [ $i -lt 20000 ]; do (true & ); i=$((i+1)); done; exit 9");
    container.namespaces.pid = false;
    let mut running = stand.start(container);
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).status, ProcessStatus::Code(9));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let agent = stand.agent_pid();
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    assert_eq!(children.trim(), "", "zombies");
}
