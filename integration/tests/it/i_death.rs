//! Death of any part: the container is over, it is told once, and nothing is left.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    running::{Running, kill},
    runtime::Runtime,
};
use std::{
    process::Stdio,
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
        let mut container = running(&["sh", "-c", "sleep 1000"]);
        let _ = Runtime::Husk.call([
            "exec",
            "--cap",
            "CAP_SYS_ADMIN",
            &container.id,
            "sh",
            "-c",
            "mount -t proc p /mnt && echo c > /mnt/sysrq-trigger",
        ]);
        // The guest may have no magic key; what matters is that kill works whatever state it is in.
        let started = Instant::now();
        let _ = Runtime::Husk.call(["kill", &container.id, "KILL"]);
        assert_ne!(container.end(), 0);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        let _ = Runtime::Husk.call(["delete", "--force", &container.id]);
    }
    before.assert_unchanged();
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
