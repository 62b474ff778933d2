//! The verbs' options.

use husk_integration::{
    bundle::{Bundle, Image},
    created::Created,
    pty::Terminal,
    runtime::{Runtime, wait},
    scenario::fresh_id,
};
use serde_json::{Value, json};
use std::{process::Stdio, time::Duration};

fn sleeping() -> Created {
    Created::started(Runtime::Husk, Bundle::new(Image::Busybox, &["sleep", "1000"]))
}

#[test]
fn ps_takes_the_usual_options_of_ps() {
    let container = sleeping();
    let table = |options: &[&str]| {
        let output = container.call("ps", options).ok().stdout;
        output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(table(&[])[0], "UID PID PPID C STIME TTY TIME CMD");
    assert_eq!(table(&["-ef"])[0], table(&[])[0]);
    let aux = table(&["aux"]);
    assert_eq!(aux[0], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND");
    assert!(
        aux[1].starts_with("0 1 ") && aux[1].ends_with("sleep 1000") && aux[1].contains(" S "),
        "{aux:?}"
    );
    assert_eq!(table(&["-o", "pid,ppid,comm,args"]), ["PID PPID CMD COMMAND", "1 0 sleep sleep 1000"]);
    let refused = container.call("ps", &["--forest"]);
    assert!(refused.code == 1 && refused.stderr.contains("--forest"), "{refused:?}");
    let pids: Vec<i32> =
        serde_json::from_str(&container.call_with("ps", &["--format", "json"], &[]).ok().stdout)
            .expect("JSON");
    assert_eq!(pids, [container.pid()]);
}

#[test]
fn run_keeps_its_container_when_told_to() {
    let bundle = Bundle::new(Image::Busybox, &["sh", "-c", "exit 4"]);
    let path = bundle.write().to_str().expect("text").to_owned();
    let id = fresh_id();
    let output = Runtime::Husk.call(["run", "--keep", "--no-subreaper", "-b", &path, &id]);
    assert_eq!(output.code, 4, "{output:?}");
    let state: Value = serde_json::from_str(&Runtime::Husk.call(["state", &id]).ok().stdout).expect("JSON");
    assert_eq!(state["status"], "stopped");
    Runtime::Husk.call(["delete", &id]).ok();
    let refused = Runtime::Husk.call(["run", "--preserve-fds", "1", "-b", &path, &id]);
    assert!(refused.code == 1 && refused.stderr.contains("--preserve-fds"), "{refused:?}");
    assert_eq!(Runtime::Husk.call(["run", "--preserve-fds", "0", "-b", &path, &id]).code, 4);
}

#[test]
fn an_exec_in_a_paused_container_waits_for_the_thaw() {
    let container = sleeping();
    container.call("pause", &[]).ok();
    assert_eq!(container.state()["status"], "paused");
    let refused = container.sh("true");
    assert_eq!(refused.code, 255);
    assert!(
        refused.stderr.contains("cannot exec in a paused container (use --ignore-paused to override)"),
        "{refused:?}"
    );
    let mut waiting = Runtime::Husk
        .command(["exec", "--ignore-paused", &container.id, "sh", "-c", "exit 8"])
        .stdout(Stdio::null())
        .spawn()
        .expect("husk can be run");
    assert!(wait(&mut waiting, Duration::from_secs(4)).is_none(), "it ran in a frozen container");
    container.call("resume", &[]).ok();
    assert_eq!(wait(&mut waiting, Duration::from_secs(60)).expect("it ends").code(), Some(8));
    assert_eq!(container.state()["status"], "running");
}

#[test]
fn kill_all_reaches_every_process_and_delete_force_ends_all() {
    let mut bundle = Bundle::new(
        Image::Busybox,
        &[
            "sh",
            "-c",
            "for i in 1 2 3; do sh -c \"trap 'echo got $i' USR1; echo up; while :; do sleep 0.2; done\" & done; trap 'echo got first' USR1; echo up; while :; do wait; done",
        ],
    );
    bundle.set("/linux/resources", json!({"pids": {"limit": 60}}));
    let container = Created::started(Runtime::Husk, bundle);
    for _ in 0..100 {
        if container.stdout().matches("up").count() == 4 {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Runtime::Husk.call(["kill", "--all", &container.id, "USR1"]).ok();
    for who in ["1", "2", "3", "first"] {
        container.wait_for_text(&format!("got {who}"));
    }
    container.call_with("delete", &["--force"], &[]).ok();
    assert!(container.call("state", &[]).stderr.contains("does not exist"));
    let late = Runtime::Husk.call(["kill", "--all", &container.id, "KILL"]);
    assert!(late.stderr.contains("does not exist"), "{late:?}");
}

#[test]
fn kill_all_of_a_stopped_container_succeeds_as_with_runc() {
    let container = Created::started(Runtime::Husk, Bundle::new(Image::Busybox, &["true"]));
    container.wait_for("stopped");
    Runtime::Husk.call(["kill", "--all", &container.id, "KILL"]).ok();
    assert!(container.call("kill", &["KILL"]).stderr.contains("container not running"));
}

#[test]
fn exec_takes_a_process_from_a_file_and_more_capabilities() {
    let container = sleeping();
    let caps = |options: &[&str]| {
        container.call_with("exec", options, &["grep", "^Cap", "/proc/self/status"]).ok().stdout
    };
    assert!(caps(&[]).contains("CapEff:\t0000000020000420"), "{}", caps(&[]));
    assert!(caps(&["--cap", "CAP_SYS_ADMIN"]).contains("CapEff:\t0000000020200420"));
    let file = container.bundle.path.join("process.json");
    let process = json!({"user": {"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 0o77}, "cwd": "/tmp", "env": ["PATH=/bin", "A=1"],
        "args": ["sh", "-c", "id -u; id -G; umask; pwd; echo $A; ulimit -n; grep NoNewPrivs /proc/self/status"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}], "noNewPrivileges": true});
    std::fs::write(&file, process.to_string()).expect("it can be written");
    let output = container.call_with("exec", &["--process", file.to_str().expect("text")], &[]).ok();
    assert_eq!(output.stdout, "1000\n1000 5\n0077\n/tmp\n1\n50\nNoNewPrivs:\t1\n");
}

#[test]
fn the_containers_filter_holds_for_execs() {
    let mut bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
               "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}),
    );
    let container = Created::started(Runtime::Husk, bundle);
    let output = container.sh("mkdir /made; grep ^Seccomp: /proc/self/status");
    assert!(output.stderr.contains("not supported") && output.stdout.contains("Seccomp:\t2"), "{output:?}");
}

#[test]
fn sd_notify_of_the_host_is_not_the_containers() {
    let bundle = Bundle::new(Image::Busybox, &["sh", "-c", "echo \"[$NOTIFY_SOCKET]\""]);
    let mut command = Runtime::Husk.command([
        "run".as_ref(),
        "-b".as_ref(),
        bundle.write().as_os_str(),
        fresh_id().as_ref(),
    ]);
    command.env("NOTIFY_SOCKET", "/run/nothing-listens-here");
    let output = husk_integration::runtime::run(command);
    // Refused in plain words, or the container knows nothing of it: never half.
    assert!(
        output.stdout == "[]\n" || (output.code == 1 && output.stderr.contains("NOTIFY_SOCKET")),
        "{output:?}"
    );
}

#[test]
fn the_users_own_terminal_adds_the_carriage_returns() {
    let shown = |runtime: Runtime| {
        let mut bundle = Bundle::new(
            Image::Busybox,
            &[
                "sh",
                "-c",
                "stty -a | grep -o -- '-*onlcr'; stty -a | grep -o -- '-*opost'; printf 'a\\nb\\n'; echo end",
            ],
        );
        bundle.set("/process/terminal", json!(true));
        let command =
            runtime.command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), fresh_id().as_ref()]);
        let mut terminal = Terminal::spawn(command, 24, 80);
        let shown = terminal.expect("end\r\n");
        wait(&mut terminal.child, Duration::from_secs(60)).expect("it ends");
        shown
    };
    let (husk, runc) = (shown(Runtime::Husk), shown(Runtime::Runc));
    assert_eq!(husk, runc);
    assert!(husk.contains("-onlcr\r\n"), "{husk:?}");
}
