//! The verbs, as callers call them.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    running::kill,
    runtime::{Runtime, run, wait},
    scenario::fresh_id,
};
use serde_json::Value;
use std::{path::Path, process::Stdio, time::Duration};

/// A container whose `create` and `delete` belong to the test.
struct Created {
    id: String,
    bundle: Bundle,
    runtime: Runtime,
}

impl Created {
    fn new(runtime: Runtime, args: &[&str]) -> Created {
        let bundle = Bundle::new(Image::Busybox, args);
        let id = fresh_id();
        let path = bundle.write().to_owned();
        let pid_file = bundle.path.join("pid");
        let mut command = runtime.command([
            "create".as_ref(),
            "--bundle".as_ref(),
            path.as_os_str(),
            "--pid-file".as_ref(),
            pid_file.as_os_str(),
            id.as_ref(),
        ]);
        // What the container inherits must not be our pipes, or their end would never come.
        let out = std::fs::File::create(bundle.path.join("stdout")).expect("a file");
        let err = std::fs::File::create(bundle.path.join("stderr")).expect("a file");
        let status = command.stdout(out).stderr(err).status().expect("it can be run");
        assert!(status.success(), "create failed: {}", text(&bundle.path.join("stderr")));
        Created { id, bundle, runtime }
    }

    fn call(&self, verb: &str) -> husk_integration::runtime::Output {
        self.runtime.call([verb, &self.id])
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.call("state").ok().stdout).expect("state is JSON")
    }

    fn pid(&self) -> i32 {
        let text = text(&self.bundle.path.join("pid"));
        assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "the pid file holds {text:?}");
        text.parse().expect("a number")
    }

    fn stdout(&self) -> String {
        text(&self.bundle.path.join("stdout"))
    }

    fn wait_for(&self, status: &str) {
        for _ in 0..300 {
            if self.state()["status"] == status {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{} does not become {status}: {}", self.id, self.state());
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("the file is there")
}

/// The test process takes in what `create` leaves, as containerd's shim and conmon do.
fn become_subreaper() {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
}

fn reap(pid: i32) -> i32 {
    use nix::sys::wait::{WaitStatus, waitpid};
    match waitpid(nix::unistd::Pid::from_raw(pid), None).expect("it is ours to reap") {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

#[test]
fn create_start_state_kill_delete() {
    become_subreaper();
    let before = Census::take();
    {
        let container = Created::new(Runtime::Husk, &["sh", "-c", "echo started; exec sleep 1000"]);
        let state = container.state();
        assert_eq!(state["status"], "created");
        assert_eq!(state["id"], container.id.as_str());
        assert_eq!(state["pid"], container.pid());
        assert_eq!(state["bundle"], container.bundle.path.to_str().expect("text"));
        assert_eq!(container.stdout(), "", "the program runs before start");
        container.call("start").ok();
        container.wait_for("running");
        for _ in 0..100 {
            if container.stdout() == "started\n" {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(container.stdout(), "started\n");
        let again = container.call("start");
        assert_eq!(again.code, 1);
        assert!(again.stderr.contains("cannot start an already running container"), "{again:?}");
        let refused = container.call("delete");
        assert_eq!(refused.code, 1);
        assert!(refused.stderr.contains("that is not stopped: running"), "{refused:?}");
        Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
        assert_eq!(reap(container.pid()), 137);
        let state = container.state();
        assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("stopped"), Some(0)));
        let late = Runtime::Husk.call(["kill", &container.id, "TERM"]);
        assert!(late.code == 1 && late.stderr.contains("container not running"), "{late:?}");
        container.call("delete").ok();
        let gone = container.call("state");
        assert!(gone.code == 1 && gone.stderr.contains("container does not exist"), "{gone:?}");
    }
    before.assert_unchanged();
}

#[test]
fn the_machine_process_exits_with_the_containers_status() {
    become_subreaper();
    let before = Census::take();
    {
        let container = Created::new(Runtime::Husk, &["sh", "-c", "echo bye; exit 42"]);
        container.call("start").ok();
        assert_eq!(reap(container.pid()), 42);
        assert_eq!(container.stdout(), "bye\n", "the exit came before the last byte");
        container.call("delete").ok();
    }
    before.assert_unchanged();
}

#[test]
fn a_created_container_can_be_deleted() {
    become_subreaper();
    let before = Census::take();
    {
        let container = Created::new(Runtime::Husk, &["true"]);
        let pid = container.pid();
        container.call("delete").ok();
        reap(pid);
    }
    before.assert_unchanged();
}

#[test]
fn signals_sent_to_the_machine_reach_the_program() {
    become_subreaper();
    let container = Created::new(
        Runtime::Husk,
        &[
            "sh",
            "-c",
            "for s in HUP INT TERM USR1 USR2; do trap \"echo $s\" $s; done; trap 'exit 9' QUIT; echo ready; while :; do sleep 0.1; done",
        ],
    );
    container.call("start").ok();
    let heard = |text: &str| {
        for _ in 0..100 {
            if container.stdout().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{text} was not heard: {:?}", container.stdout());
    };
    heard("ready");
    for (name, signal) in
        [("HUP", libc::SIGHUP), ("INT", libc::SIGINT), ("TERM", libc::SIGTERM), ("USR1", libc::SIGUSR1)]
    {
        kill(container.pid(), signal);
        heard(name);
    }
    Runtime::Husk.call(["kill", &container.id, "SIGUSR2"]).ok();
    heard("USR2");
    Runtime::Husk.call(["kill", &container.id, "3"]).ok();
    assert_eq!(reap(container.pid()), 9);
    container.call("delete").ok();
}

#[test]
fn exec_runs_beside_the_first_process() {
    become_subreaper();
    let container = Created::new(Runtime::Husk, &["sleep", "1000"]);
    container.call("start").ok();
    let exec = |args: &[&str]| Runtime::Husk.call([&["exec", &container.id], args].concat());
    assert_eq!(exec(&["echo", "hello"]).ok().stdout, "hello\n");
    assert_eq!(exec(&["sh", "-c", "exit 5"]).code, 5);
    assert_eq!(exec(&["sh", "-c", "kill -9 $$"]).code, 137);
    assert!(exec(&["ps"]).ok().stdout.contains("sleep 1000"));
    let missing = exec(&["nonexistent"]);
    assert_eq!(missing.code, 255);
    assert!(
        missing.stderr.contains("exec failed")
            && missing.stderr.contains("executable file not found in $PATH"),
        "{missing:?}"
    );
    let output = Runtime::Husk
        .call([
            "exec",
            "--cwd",
            "/tmp",
            "--env",
            "A=b c",
            "--user",
            "1000:100",
            &container.id,
            "sh",
            "-c",
            "pwd; echo $A; id -u; id -g",
        ])
        .ok();
    assert_eq!(output.stdout, "/tmp\nb c\n1000\n100\n");
    // stdin
    let mut command = Runtime::Husk.command(["exec", &container.id, "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be run");
    std::io::Write::write_all(&mut child.stdin.take().expect("piped"), b"through\n").expect("cat reads");
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("piped"), &mut seen).expect("text");
    assert_eq!(seen, "through\n");
    assert!(wait(&mut child, Duration::from_secs(20)).expect("it ends").success());
    Runtime::Husk.call(["delete", "--force", &container.id]).ok();
    reap(container.pid());
}

#[test]
fn a_detached_exec_has_a_stand_in() {
    become_subreaper();
    let before = Census::take();
    {
        let container = Created::new(Runtime::Husk, &["sleep", "1000"]);
        container.call("start").ok();
        let detach = |args: &[&str], name: &str| {
            let pid_file = container.bundle.path.join(name);
            let out =
                std::fs::File::create(container.bundle.path.join(format!("{name}.out"))).expect("a file");
            let status = Runtime::Husk
                .command(
                    [
                        &["exec", "--detach", "--pid-file", pid_file.to_str().expect("text"), &container.id],
                        args,
                    ]
                    .concat(),
                )
                .stdout(out)
                .status()
                .expect("it can be run");
            assert!(status.success());
            text(&pid_file).parse::<i32>().expect("a pid and nothing else")
        };
        let pid = detach(&["sh", "-c", "echo out; exit 6"], "one");
        assert_eq!(reap(pid), 6);
        assert_eq!(text(&container.bundle.path.join("one.out")), "out\n");
        // A signal to the stand-in is a signal to the process; SIGKILL of the stand-in ends it too.
        let pid = detach(&["sleep", "2000"], "two");
        kill(pid, libc::SIGTERM);
        assert_eq!(reap(pid), 143);
        let pid = detach(&["sleep", "3000"], "three");
        kill(pid, libc::SIGKILL);
        assert_eq!(reap(pid), 137);
        std::thread::sleep(Duration::from_secs(1));
        let ps = Runtime::Husk.call(["exec", &container.id, "ps"]).ok().stdout;
        assert!(!ps.contains("sleep 2000") && !ps.contains("sleep 3000"), "{ps}");
        Runtime::Husk.call(["delete", "--force", &container.id]).ok();
        reap(container.pid());
    }
    before.assert_unchanged();
}

#[test]
fn sixteen_execs_at_once_all_come_home() {
    become_subreaper();
    let container = Created::new(Runtime::Husk, &["sleep", "1000"]);
    container.call("start").ok();
    let threads: Vec<_> = (0..16)
        .map(|number| {
            let id = container.id.clone();
            std::thread::spawn(move || {
                Runtime::Husk.call(["exec", &id, "sh", "-c", &format!("echo {number}; exit {number}")])
            })
        })
        .collect();
    for (number, thread) in threads.into_iter().enumerate() {
        let output = thread.join().expect("it ends");
        assert_eq!((output.code, output.stdout), (number as i32, format!("{number}\n")));
    }
    Runtime::Husk.call(["delete", "--force", &container.id]).ok();
    reap(container.pid());
}

#[test]
fn list_shows_containers_as_runc_does() {
    become_subreaper();
    let root = "/run/husk-it-list";
    let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    let path = bundle.write().to_owned();
    let call = |args: &[&str]| Runtime::Husk.call([&["--root", root], args].concat());
    let missing = call(&["list", "-q"]);
    assert_eq!(missing.code, 1, "a --root that does not exist is an error, as with runc");
    std::fs::create_dir(root).expect("a directory");
    assert_eq!(call(&["list", "-q"]).ok().stdout, "");
    let id = fresh_id();
    let detached = run({
        let mut command = Runtime::Husk.command([
            "--root",
            root,
            "run",
            "--detach",
            "-b",
            path.to_str().expect("text"),
            &id,
        ]);
        command.stdin(Stdio::null());
        // The container keeps what it inherits: not our pipes.
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("{} >/dev/null 2>&1", render(&command)));
        shell
    });
    assert_eq!(detached.code, 0, "{detached:?}");
    assert_eq!(call(&["list", "-q"]).ok().stdout, format!("{id}\n"));
    let table = call(&["list"]).ok().stdout;
    assert!(table.starts_with("ID") && table.contains("STATUS") && table.contains("running"), "{table}");
    let list: Value = serde_json::from_str(&call(&["list", "--format", "json"]).ok().stdout).expect("JSON");
    assert_eq!(list[0]["id"], id.as_str());
    call(&["delete", "--force", &id]).ok();
    assert!(call(&["delete", &id]).stderr.contains("container does not exist"));
    call(&["delete", "--force", &id]).ok();
    let _ = std::fs::remove_dir(root);
    while nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive)
    {}
}

fn render(command: &std::process::Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_str().expect("text"))).collect::<Vec<_>>().join(" ")
}

#[test]
fn version_features_and_spec() {
    let version = Runtime::Husk.call(["--version"]).ok().stdout;
    assert!(version.starts_with("husk version ") && version.contains("\nspec: 1."), "{version}");
    let features: Value = serde_json::from_str(&Runtime::Husk.call(["features"]).ok().stdout).expect("JSON");
    assert!(
        features["ociVersionMax"].is_string() && features["linux"]["namespaces"].is_array(),
        "{features}"
    );
    Runtime::Husk.call(["check"]).ok();
}
