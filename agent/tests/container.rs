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
        ls /proc/self/fd | wc -l
        grep '^0:' /proc/self/cgroup; ulimit -n
        cat /proc/keys | wc -c; ls /sys/firmware | wc -l
        echo x > /proc/sys/kernel/domainname || echo read-only
        ls /proc/1/root/run | wc -l
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
    use std::io::Read;
    let mut running = stand.start(container("head -c 100000000 /dev/zero; echo done >&2; exit 4"));
    running.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    // From now on nobody reads stdout. Execs work all the same.
    let mut exec = stand.exec(shell("echo still here")).unwrap();
    let exited = stand.exited(exec.key);
    assert_eq!(exec.finish(exited).stdout, "still here\n");
    // A signal works too, and the end is told at once though nobody has read.
    let target = Target::Container(ContainerKey(0));
    stand.ask(Call::Signal { target, signal: libc::SIGKILL }).unwrap();
    let exited = stand.exited(running.key);
    assert_eq!(exited.status, ProcessStatus::Signal(9));
    assert!(exited.stdout > 0 && exited.stdout < 100_000_000, "{exited:?}");
    let mut rest = Vec::new();
    running.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() as u64 + 1, exited.stdout, "what was counted arrives");
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
fn a_long_output_arrives_whole() {
    let Some(mut stand) = Stand::open("long output") else { return };
    use std::io::Read;
    let mut running = stand.start(container("head -c 134217728 /dev/zero"));
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
    assert_eq!(total, 128 << 20);
    assert_eq!(stand.exited(running.key).stdout, 128 << 20);
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
    let mut container = container("i=0; while [ $i -lt 1000 ]; do (true & ); i=$((i+1)); done; exit 9");
    container.namespaces.pid = false;
    let mut running = stand.start(container);
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).status, ProcessStatus::Code(9));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let agent = stand.agent_pid();
    let children = std::fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).unwrap();
    assert_eq!(children.trim(), "", "zombies");
}

/// Creates a container whose process has a terminal; starts it.
fn start_on_terminal(stand: &mut Stand, script: &str) -> (ProcessKey, std::os::unix::net::UnixStream) {
    let mut container = container(script);
    container.process_key = stand.key();
    let (port, listener) = stand.port();
    let size = TerminalSize { rows: 24, columns: 80 };
    container.process.stdio = Stdio::Terminal { port, size };
    let key = container.process_key;
    stand.ask(Call::Create(Box::new(container))).unwrap();
    stand.ask(Call::Start { container: ContainerKey(0) }).unwrap();
    let (terminal, _) = listener.accept().unwrap();
    terminal.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    (key, terminal)
}

#[test]
fn a_terminal_is_the_controlling_one_and_can_be_resized() {
    use std::io::{Read, Write};
    let Some(mut stand) = Stand::open("terminal") else { return };
    let script = "tty; stty size; echo typed > /dev/tty; ls -l /dev/console | cut -c1; read l; stty size; echo $l; exit 6";
    let (key, mut terminal) = start_on_terminal(&mut stand, script);
    let mut first = vec![0; "/dev/pts/0\r\n24 80\r\ntyped\r\nc\r\n".len()];
    terminal.read_exact(&mut first).unwrap();
    assert_eq!(String::from_utf8_lossy(&first), "/dev/pts/0\r\n24 80\r\ntyped\r\nc\r\n");
    stand.ask(Call::Resize { process: key, size: TerminalSize { rows: 50, columns: 132 } }).unwrap();
    terminal.write_all(b"word\n").unwrap();
    let mut rest = String::new();
    terminal.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "word\r\n50 132\r\nword\r\n");
    let exited = stand.exited(key);
    assert_eq!(exited.status, ProcessStatus::Code(6));
    assert_eq!(exited.stdout, (first.len() + rest.len()) as u64);
}

#[test]
fn a_terminal_that_the_host_closes_hangs_up() {
    let Some(mut stand) = Stand::open("hang-up") else { return };
    use std::io::Read;
    let script = "trap 'exit 9' HUP; echo; while :; do sleep 0.1; done";
    let (key, mut terminal) = start_on_terminal(&mut stand, script);
    terminal.read_exact(&mut [0; 2]).unwrap();
    drop(terminal);
    assert_eq!(stand.exited(key).status, ProcessStatus::Code(9));
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    use std::io::Read;
    let Some(mut stand) = Stand::open("exec terminal") else { return };
    let _first = stand.start(container("sleep 1000"));
    let mut process = shell("tty; exit 2");
    let (port, listener) = stand.port();
    process.stdio = Stdio::Terminal { port, size: TerminalSize::default() };
    let key = stand.key();
    stand.ask(Call::Exec(Box::new(Exec { container: ContainerKey(0), key, process }))).unwrap();
    let mut text = String::new();
    listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
    assert_eq!(text, "/dev/pts/0\r\n");
    let exited = stand.exited(key);
    assert_eq!((exited.status, exited.stdout), (ProcessStatus::Code(2), text.len() as u64));
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
fn limits_hold_counters_count_and_the_oom_killer_is_told_of() {
    let Some(mut stand) = Stand::open("limits") else { return };
    if !stand.has_controller("memory") {
        return eprintln!("skipped: limits: no memory controller");
    }
    let mut container =
        container("cat /sys/fs/cgroup/pids.max; head -c 200m /dev/zero | tail -c 200m > /dev/null; exit 0");
    let file = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    container.resources.files =
        vec![file("memory.max", "33554432"), file("memory.swap.max", "0"), file("pids.max", "50")];
    let mut running = stand.start(container);
    let key = ContainerKey(0);
    stand.told(|message| matches!(message, FromAgent::OutOfMemory { container } if *container == key));
    let Answer::Stats(stats) = stand.ask(Call::Stats { container: key }).unwrap() else { panic!() };
    assert!(stats.oom_kills >= 1 && stats.cpu_total > 0 && stats.memory_peak > 20 << 20, "{stats:?}");
    assert_eq!((stats.memory_limit, stats.pids_limit), (33_554_432, 50));
    let exited = stand.exited(running.key);
    assert_eq!(running.finish(exited).stdout, "50\n");
}

#[test]
fn only_allowed_devices_can_be_used() {
    let Some(mut stand) = Stand::open("devices") else { return };
    let script =
        "echo x > /dev/null && echo null; mknod /tmp/kmsg c 1 11 && echo made; head -c1 /tmp/kmsg 2>&1";
    let mut container = container(script);
    container.process.capabilities.bounding |= 1 << 27;
    container.process.capabilities.permitted |= 1 << 27;
    container.process.capabilities.effective |= 1 << 27; // mknod
    let run = stand.run(container);
    assert_eq!(run.stdout, "null\nmade\nhead: /tmp/kmsg: Operation not permitted\n", "{}", run.stderr);
}

#[test]
fn an_image_cannot_lead_mounts_out_of_its_root() {
    let Some(mut stand) = Stand::open("escape") else { return };
    let outside = stand.shares().join("7");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "shared").unwrap();
    let root = stand.root();
    // The image's /escape points at the agent's own directories.
    std::os::unix::fs::symlink("/run/husk", root.join("escape")).unwrap();
    std::os::unix::fs::symlink("../../../../../../../run/husk", root.join("relative")).unwrap();
    let mut container = container("cat /run/husk/a/file; cat /run/husk/b/file; ls /run/husk");
    for destination in ["/escape/a", "/relative/b"] {
        container.mounts.push(Mount {
            destination: destination.to_owned(),
            source: MountSource::Share { name: "7".to_owned(), directory: true, recursive: false },
            attributes: MountAttributes::default(),
            propagation: Vec::new(),
            data: String::new(),
            copy_up: false,
        });
    }
    let run = stand.run(container);
    assert_eq!(run.stdout, "sharedshareda\nb\n", "{}", run.stderr);
}

#[test]
fn proc_is_not_mounted_through_a_link_and_nothing_below_it() {
    let Some(mut stand) = Stand::open("proc") else { return };
    let proc = stand.root().join("proc");
    std::fs::remove_dir(&proc).unwrap();
    std::os::unix::fs::symlink("/tmp", &proc).unwrap();
    let failure = stand.create(container("true")).map(drop).unwrap_err();
    let words = "error mounting \"proc\" to rootfs at \"/proc\": filesystem \"proc\" must be mounted on ordinary directory";
    assert_eq!(failure.message, words);
    std::fs::remove_file(&proc).unwrap();
    std::fs::create_dir(&proc).unwrap();

    std::fs::create_dir(stand.shares().join("7")).unwrap();
    let mut container = container("true");
    container.mounts.push(Mount {
        destination: "/proc/sys".to_owned(),
        source: MountSource::Share { name: "7".to_owned(), directory: true, recursive: false },
        attributes: MountAttributes::default(),
        propagation: Vec::new(),
        data: String::new(),
        copy_up: false,
    });
    let failure = stand.create(container).map(drop).unwrap_err();
    assert!(
        failure.message.ends_with("\"/proc/sys\" cannot be mounted because it is inside /proc"),
        "{failure:?}"
    );
}

#[test]
fn a_container_with_a_user_namespace_is_root_of_its_own() {
    let Some(mut stand) = Stand::open("user namespace") else { return };
    let chowned =
        std::process::Command::new("chown").args(["-Rh", "100000:100000"]).arg(stand.root()).status();
    assert!(chowned.unwrap().success());
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && echo null; touch /made && ls -ln /made | cut -d' ' -f1-8 | tr -s ' '; ulimit -n; ls /sys | grep -c kernel";
    let mut container = container(script);
    container.namespaces.user = true;
    container.uid_map = vec![IdMap { inside: 0, outside: 100_000, size: 65_536 }];
    container.gid_map = container.uid_map.clone();
    let mut running = stand.start(container);
    let exited = stand.exited(running.key);
    let run = running.finish(exited);
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[..3], ["0", " 0 100000 65536", "null"], "{run:?}");
    assert_eq!(lines[4..], ["1024", "1"], "{run:?}");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(stand.root().join("made")).unwrap().uid(), 100_000);
}

#[test]
fn clocks_of_a_time_namespace_are_shifted() {
    let Some(mut stand) = Stand::open("time namespace") else { return };
    let mut container = container("cut -d. -f1 /proc/uptime");
    container.namespaces.time = true;
    let day = TimeOffset { clock: "boottime".to_owned(), seconds: 10_000_000, nanoseconds: 0 };
    container.time_offsets = vec![day];
    let run = stand.run(container);
    assert!(run.stdout.trim().parse::<u64>().unwrap() >= 10_000_000, "{run:?}");
}

#[test]
fn nothing_of_the_agents_is_left_in_a_process() {
    let Some(mut stand) = Stand::open("leaks") else { return };
    let script = "ls /proc/self/fd | tr '\\n' ' '; cat /proc/self/mountinfo | wc -l; cat /proc/self/mountinfo; grep -E '^(SigBlk|SigIgn|SigCgt):' /proc/self/status";
    let _first = stand.start(container("sleep 1000"));
    let exec = |stand: &mut Stand| {
        let mut exec = stand.exec(shell(script)).unwrap();
        let exited = stand.exited(exec.key);
        exec.finish(exited)
    };
    let run = exec(&mut stand);
    assert!(run.stdout.starts_with("0 1 2 3 "), "{run:?}"); // 3 is the listing itself
    assert!(!run.stdout.contains("/run/husk"), "{run:?}");
    assert!(run.stdout.contains("SigBlk:\t0000000000000000"), "{run:?}");
    let ignored = run.stdout.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_eq!(ignored & (1 << (libc::SIGPIPE - 1)), 0, "{run:?}");
}

#[test]
fn a_working_directory_that_leads_out_is_refused() {
    let Some(mut stand) = Stand::open("cwd") else { return };
    let _first = stand.start(container("sleep 1000"));
    for number in 0..64 {
        let mut process = shell("pwd; ls");
        process.cwd = format!("/proc/self/fd/{number}");
        let failure = stand.exec(process).map(drop).unwrap_err();
        assert!(failure.message.starts_with("chdir to cwd"), "{failure:?}");
    }
}

#[test]
fn a_seccomp_filter_holds_in_the_first_process_and_in_execs() {
    let Some(mut stand) = Stand::open("seccomp") else { return };
    // if nr == mkdir (83) or mkdirat (258): errno EPERM; else allow
    let filter: Vec<(u16, u8, u8, u32)> = vec![
        (0x20, 0, 0, 0),
        (0x15, 1, 0, 83),
        (0x15, 0, 1, 258),
        (0x06, 0, 0, 0x0005_0001),
        (0x06, 0, 0, 0x7fff_0000),
    ];
    let bytes: Vec<u8> = filter
        .iter()
        .flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat())
        .collect();
    for no_new_privileges in [true, false] {
        let script = "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status; read line";
        let mut container = container(script);
        container.process.seccomp = bytes.clone();
        container.process.no_new_privileges = no_new_privileges;
        let mut running = stand.start(container);
        let mut process = shell("mkdir /tmp/y 2>&1; grep Seccomp: /proc/self/status");
        process.seccomp = bytes.clone();
        process.no_new_privileges = no_new_privileges;
        let mut exec = stand.exec(process).unwrap();
        let exited = stand.exited(exec.key);
        let words = "Operation not permitted\nSeccomp:\t2\n";
        assert!(exec.finish(exited).stdout.ends_with(words));
        drop(running.stdin.take());
        let exited = stand.exited(running.key);
        assert!(running.finish(exited).stdout.ends_with(words));
        stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    }
}

#[test]
fn a_container_that_governs_cgroups_of_its_own_takes_execs_and_is_deleted() {
    let Some(mut stand) = Stand::open("nested cgroups") else { return };
    let script =
        "mkdir -p /sys/fs/cgroup/a/b/c && echo $$ > /sys/fs/cgroup/a/b/cgroup.procs && echo moved && read l";
    let mut container = container(script);
    for mount in &mut container.mounts {
        if mount.destination == "/sys/fs/cgroup" {
            mount.attributes.set = 0;
        }
    }
    let mut running = stand.start(container);
    use std::io::Read;
    running.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let target = Target::Container(ContainerKey(0));
    stand.ask(Call::Signal { target, signal: libc::SIGTERM }).unwrap();
    stand.ask(Call::Signal { target, signal: libc::SIGKILL }).unwrap();
    assert_eq!(stand.exited(running.key).status, ProcessStatus::Signal(9));
    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    assert!(!stand.cgroup().exists());
}

#[test]
fn copy_up_fills_a_tmpfs_with_what_it_covers() {
    let Some(mut stand) = Stand::open("copy up") else { return };
    std::fs::create_dir(stand.root().join("etc/inner")).unwrap();
    std::fs::write(stand.root().join("etc/inner/file"), "content").unwrap();
    let mut container = container("cat /etc/inner/file; echo changed > /etc/inner/file; stat -c %a /etc");
    let mut tmpfs = container.mounts[1].clone();
    tmpfs.destination = "/etc".to_owned();
    tmpfs.data = String::new();
    tmpfs.copy_up = true;
    container.mounts.push(tmpfs);
    let run = stand.run(container);
    assert_eq!(run.stdout, "content755\n", "{}", run.stderr);
    assert_eq!(std::fs::read_to_string(stand.root().join("etc/inner/file")).unwrap(), "content");
}
