//! Death of any part: the container is over, it is told once, and nothing is left.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    init::with_init,
    running::{Running, kill},
    runtime::{self, Runtime},
    scenario::{fresh_id, run_configured},
};
use serde_json::json;
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn running(args: &[&str]) -> Running {
    Running::new(Bundle::new(Image::Busybox, args), Stdio::null(), Stdio::inherit())
}

#[test]
fn the_machine_process_is_killed() {
    let before = Census::take();
    {
        let mut container = running(&["sleep", "1000"]);
        kill(container.pid, libc::SIGKILL);
        assert_eq!(container.end(), 137);
        let _ = Runtime::Husk.call(["delete", "--force", &container.id]);
    }
    before.assert_unchanged();
}

#[test]
fn husk_run_is_killed() {
    let before = Census::take();
    {
        let mut container = running(&["sleep", "1000"]);
        kill(i32::try_from(container.child.id()).expect("a pid"), libc::SIGKILL);
        let _ = container.end();
        // As with runc, the container goes on; it can be found and deleted.
        Runtime::Husk.call(["delete", "--force", &container.id]).ok();
        // It has become ours to reap if this process is a subreaper (other tests make it one), else init's.
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(container.pid), None);
    }
    before.assert_unchanged();
}

#[test]
fn the_guest_panics() {
    let before = Census::take();
    {
        let mut bundle = Bundle::new(Image::Busybox, &["sh", "-c", PANIC]);
        // So that the container may set a system control of the guest, and fills its memory soon.
        bundle.set("/linux/readonlyPaths", json!([]));
        bundle.set("/linux/resources", json!({"memory": {"limit": 16 << 20}}));
        let output = run_configured(&bundle, "");
        assert_ne!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains("panic"), "nobody says why: {output:?}");
    }
    before.assert_unchanged();
}

/// Every lack of memory is a panic from here on.
const PANIC: &str = "echo 2 > /proc/sys/vm/panic_on_oom && exec tail /dev/zero";

#[test]
fn a_guest_that_panics_before_its_agent_says_why() {
    let before = Census::take();
    {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        let output = run_configured(&bundle, &with_init(&bundle, b"not a program", 20_000));
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains("No working init found"), "{output:?}");
    }
    before.assert_unchanged();
}

#[test]
fn a_guest_whose_agent_never_answers_costs_the_time_limit_and_shows_its_last_lines() {
    let before = Census::take();
    {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        // As /init, busybox waits for its children for ever.
        let busybox = std::fs::read(bundle.rootfs().join("bin/busybox")).expect("the image has busybox");
        let started = Instant::now();
        let output = run_configured(&bundle, &with_init(&bundle, &busybox, 5_000));
        assert_eq!(output.code, 1, "{output:?}");
        assert!(started.elapsed() > Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
        assert!(
            output.stderr.contains("within 5 s") && output.stderr.contains("initial console"),
            "{output:?}"
        );
    }
    before.assert_unchanged();
}

/// A hook that looks at the machine's process (Docker's looks for its network namespace) fails when that has gone.
#[test]
fn a_guest_that_is_lost_under_a_hook_is_what_is_told() {
    let before = Census::take();
    {
        let mut bundle = Bundle::new(Image::Busybox, &["true"]);
        let script = "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); while [ -e /proc/$pid/ns/net ]; do sleep 0.1; done; exit 1";
        bundle.config["hooks"] = json!({"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"], "timeout": 60}]});
        let output = run_configured(&bundle, &with_init(&bundle, b"not a program", 20_000));
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains("No working init found"), "{output:?}");
    }
    before.assert_unchanged();
}

#[test]
fn no_dev_kvm() {
    let before = Census::take();
    for (hide, words) in [
        ("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3", "no such file or directory"),
        ("mount --bind /dev/null /dev/kvm", "/dev/kvm"),
    ] {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        let script = format!("{hide} && exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(Runtime::Husk.program());
        command.args(["run", "-b"]).arg(bundle.write()).arg(fresh_id()).stdin(Stdio::null());
        let output = runtime::run(command);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains("/dev/kvm") && output.stderr.contains(words), "{output:?}");
    }
    before.assert_unchanged();
}

/// PID 1 of the guest is in sight of a container that shares the guest's process namespace, and beyond its signals.
#[test]
fn the_agent_cannot_be_killed_from_inside() {
    let before = Census::take();
    {
        let mut bundle =
            Bundle::new(Image::Busybox, &["sh", "-c", "kill -9 1; kill -11 1; kill -19 1; echo lives"]);
        without_pid_namespace(&mut bundle);
        let output = run_configured(&bundle, "");
        assert_eq!((output.code, output.stdout.as_str()), (0, "lives\n"), "{output:?}");
    }
    before.assert_unchanged();
}

/// What a container with CAP_SYS_BOOT in the guest's own process namespace can do: end its own machine.
#[test]
fn the_guest_reboots_under_its_agent() {
    let before = Census::take();
    {
        let mut bundle = Bundle::new(Image::Busybox, &["reboot", "-f"]);
        without_pid_namespace(&mut bundle);
        for set in ["bounding", "effective", "permitted"] {
            bundle.set(&format!("/process/capabilities/{set}/-"), json!("CAP_SYS_BOOT"));
        }
        let started = Instant::now();
        let output = run_configured(&bundle, "");
        assert_ne!(output.code, 0, "{output:?}");
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    }
    before.assert_unchanged();
}

fn without_pid_namespace(bundle: &mut Bundle) {
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().expect("an array");
    namespaces.retain(|namespace| namespace["type"] != "pid");
}

#[test]
fn a_fork_bomb_inside_can_be_killed() {
    let before = Census::take();
    {
        let mut container = running(&["sh", "-c", "f() { f | f & }; f; while :; do sleep 1; done"]);
        std::thread::sleep(Duration::from_secs(3));
        let started = Instant::now();
        Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
        assert_eq!(container.end(), 137);
        eprintln!("a fork bomb killed in {:?}", started.elapsed());
        let _ = Runtime::Husk.call(["delete", "--force", &container.id]);
    }
    before.assert_unchanged();
}
