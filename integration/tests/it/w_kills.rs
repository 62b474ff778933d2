//! Death at each named point of a container's life: of the process that is there, of the command, of the machine. Whatever
//! comes of it, the container can be deleted and its id used again, and nothing is left.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    pod,
    running::reap,
    runtime::{Output, Runtime, wait},
    scenario::{fresh_id, size},
};
use nix::unistd::Pid;
use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// What is being done when the point is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Create,
    Start,
    Exec,
    /// `create` of a container in its sandbox's machine.
    Join,
    /// The container's process has ended by itself.
    Ending,
    Delete,
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// Who came to the point.
    Itself,
    Command,
    Machine,
}

const CREATE: &[(&str, &[Victim])] = &[
    ("decided", &[Victim::Itself]),
    ("reserved", &[Victim::Itself]),
    ("machine started", &[Victim::Itself, Victim::Machine]),
    ("creation noted", &[Victim::Itself, Victim::Machine]),
    ("group made", &[Victim::Itself, Victim::Machine]),
    ("machine: in place", &[Victim::Itself, Victim::Command]),
    ("order given", &[Victim::Itself, Victim::Machine]),
    ("hooks run", &[Victim::Itself, Victim::Machine]),
    ("machine: assembled", &[Victim::Itself, Victim::Command]),
    ("machine: jailed", &[Victim::Itself, Victim::Command]),
    ("machine: running", &[Victim::Itself, Victim::Command]),
    ("machine: agent up", &[Victim::Itself, Victim::Command]),
    ("machine: container made", &[Victim::Itself, Victim::Command]),
    ("created", &[Victim::Itself, Victim::Machine]),
    ("handed over", &[Victim::Itself, Victim::Machine]),
];
const START: &[(&str, &[Victim])] =
    &[("to be started", &[Victim::Itself, Victim::Machine]), ("started", &[Victim::Itself, Victim::Machine])];
const EXEC: &[(&str, &[Victim])] = &[
    ("stand-in: in place", &[Victim::Itself, Victim::Command, Victim::Machine]),
    ("stand-in: process runs", &[Victim::Itself, Victim::Command, Victim::Machine]),
];
const JOIN: &[(&str, &[Victim])] = &[
    ("stand-in: to join", &[Victim::Itself, Victim::Command, Victim::Machine]),
    ("stand-in: joined", &[Victim::Itself, Victim::Command, Victim::Machine]),
];
const ENDING: &[(&str, &[Victim])] =
    &[("machine: exit seen", &[Victim::Itself]), ("machine: ending", &[Victim::Itself])];
const DELETE: &[(&str, &[Victim])] = &[
    ("to be deleted", &[Victim::Itself, Victim::Machine]),
    ("killed", &[Victim::Itself]),
    ("group removed", &[Victim::Itself]),
    ("deleted", &[Victim::Itself]),
];

/// All of a kind of points; in the emulated machine with one victim each.
fn all(doing: Doing, points: &[(&str, &[Victim])]) {
    for (point, victims) in points {
        for victim in &victims[..size(victims.len(), 1)] {
            eprintln!("{doing:?}, {point}: {victim:?}");
            dies(doing, point, *victim);
        }
    }
}

#[test]
fn who_dies_during_create_leaves_nothing_that_delete_does_not_find() {
    all(Doing::Create, CREATE);
}

#[test]
fn who_dies_during_start_leaves_nothing_that_delete_does_not_find() {
    all(Doing::Start, START);
}

#[test]
fn who_dies_during_exec_leaves_nothing_that_delete_does_not_find() {
    all(Doing::Exec, EXEC);
}

#[test]
fn who_dies_while_a_container_joins_leaves_nothing_that_delete_does_not_find() {
    all(Doing::Join, JOIN);
}

#[test]
fn a_machine_that_dies_at_its_containers_end_leaves_nothing_that_delete_does_not_find() {
    all(Doing::Ending, ENDING);
}

#[test]
fn who_dies_during_delete_leaves_nothing_that_another_delete_does_not_find() {
    all(Doing::Delete, DELETE);
}

#[track_caller]
fn dies(doing: Doing, point: &str, victim: Victim) {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    let before = Census::take();
    {
        let sandbox = (doing == Doing::Join).then(|| pod::sandbox(|_| {}));
        let words: &[&str] = if doing == Doing::Ending { &["true"] } else { &["sleep", "1000"] };
        let bundle = match &sandbox {
            Some(sandbox) => pod::member(sandbox, words),
            None => Bundle::new(Image::Busybox, words),
        };
        let (id, path) = (fresh_id(), bundle.write().to_str().expect("it is text").to_owned());
        let create = ["create", "--bundle", &path, &id];
        let without_it = Census::take();
        let husk = |words: &[&str]| quiet(Runtime::Husk, words, None).ok();
        let stopping = |words: &[&str]| begin(Runtime::Stopping, words, Some(point));
        let mut command = match doing {
            Doing::Create | Doing::Join => stopping(&create),
            Doing::Start => {
                husk(&create);
                stopping(&["start", &id])
            }
            Doing::Exec => {
                husk(&create);
                husk(&["start", &id]);
                stopping(&["exec", "--detach", &id, "sleep", "4242"])
            }
            Doing::Ending => {
                quiet(Runtime::Stopping, &create, Some(point)).ok();
                begin(Runtime::Husk, &["start", &id], None)
            }
            Doing::Delete => {
                husk(&create);
                husk(&["start", &id]);
                stopping(&["delete", "--force", &id])
            }
        };
        let stopped = stopped(&mut command);
        let machine = || match doing {
            Doing::Create => *children(command.id()).first().expect("the machine"),
            Doing::Join => sandbox.as_ref().expect("it was made").pid(),
            _ => pid_of(&id),
        };
        match victim {
            Victim::Itself => signal(stopped, libc::SIGKILL),
            Victim::Command => signal(command.id() as i32, libc::SIGKILL),
            Victim::Machine => signal(machine(), libc::SIGKILL),
        }
        signal(stopped, libc::SIGCONT);
        wait(&mut command, Duration::from_secs(60)).expect("the command ends");
        if doing == Doing::Exec && victim != Victim::Machine {
            assert_eq!(
                quiet(Runtime::Husk, &["exec", &id, "sh", "-c", GONE], None).code,
                0,
                "it still runs inside"
            );
        }
        husk(&["delete", "--force", &id]);
        assert_eq!(Runtime::Husk.call(["state", &id]).code, 1, "it is still known");
        if sandbox.is_none() || victim != Victim::Machine {
            reap();
            without_it.assert_unchanged();
            husk(&create);
            husk(&["delete", "--force", &id]);
        }
    }
    reap();
    before.assert_unchanged();
}

/// Fails if what was run is there after three seconds.
const GONE: &str = "for i in 1 2 3 4 5 6 7 8 9 10; do grep -q '[4]242' /proc/[0-9]*/cmdline || exit 0; sleep 0.3; done; exit 1";

#[test]
fn kills_at_random_moments_leave_nothing_that_delete_does_not_find() {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let mut seed = now.as_nanos() as u64 | 1;
    let mut random = |below: u64| {
        // Xorshift: any numbers will do, and those that were drawn are shown.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let before = Census::take();
    for round in 0..size(1000, 10) {
        let (after, of_machine) = (Duration::from_millis(random(3000)), random(2) == 0);
        eprintln!(
            "round {round}: {} after {after:?}",
            if of_machine { "the machine" } else { "the command" }
        );
        {
            let bundle = Bundle::new(Image::Busybox, &["true"]);
            let (id, path) = (fresh_id(), bundle.write().to_str().expect("it is text").to_owned());
            let mut command = begin(Runtime::Husk, &["run", "--bundle", &path, &id], None);
            std::thread::sleep(after);
            let machine = children(command.id()).first().copied().filter(|_| of_machine);
            // It may have ended, and has not been reaped.
            signal(machine.unwrap_or(command.id() as i32), libc::SIGKILL);
            wait(&mut command, Duration::from_secs(60)).expect("the command ends");
            quiet(Runtime::Husk, &["delete", "--force", &id], None).ok();
        }
        reap();
        before.assert_unchanged();
    }
}

/// Starts a command that shares no pipe with us: what it leaves behind may keep it.
fn begin(runtime: Runtime, words: &[&str], point: Option<&str>) -> Child {
    let mut command: Command = runtime.command(words);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.envs(point.map(|point| ("HUSK_FAULT_POINT", point)));
    command.spawn().expect("it can be run")
}

/// The same to its end.
#[track_caller]
fn quiet(runtime: Runtime, words: &[&str], point: Option<&str>) -> Output {
    let status = wait(&mut begin(runtime, words, point), Duration::from_secs(60));
    let code = husk_integration::runtime::code(status.unwrap_or_else(|| panic!("{words:?} does not end")));
    Output { code, stdout: String::new(), stderr: format!("{words:?}") }
}

/// Waits until the command or what it has started has stopped.
#[track_caller]
fn stopped(command: &mut Child) -> i32 {
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        for entry in fs::read_dir("/proc").expect("it is mounted").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
                return pid;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = command.kill();
    panic!("nobody has come to the point");
}

fn children(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn pid_of(id: &str) -> i32 {
    let state: serde_json::Value =
        serde_json::from_str(&Runtime::Husk.call(["state", id]).ok().stdout).expect("it is JSON");
    i32::try_from(state["pid"].as_i64().expect("a pid")).expect("a pid")
}

fn signal(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).expect("there is such a signal");
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}
