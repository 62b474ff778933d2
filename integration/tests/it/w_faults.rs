//! System calls that fail: whichever of a command's, and of the machine that it starts, it ends with success or an error in
//! words, and what is left can be deleted.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    runtime::{Runtime, code, wait},
    scenario::{fresh_id, size},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// An error, and the calls that can end with it. (Not mprotect(2): the standard library makes it before there is a `main`.)
const FAULTS: &[(&str, &[&str])] = &[
    (
        "EMFILE",
        &[
            "openat",
            "open_tree",
            "socket",
            "socketpair",
            "dup",
            "memfd_create",
            "epoll_create1",
            "eventfd2",
            "pidfd_open",
            "accept4",
        ],
    ),
    ("ENOSPC", &["openat", "mkdir", "write", "rename", "renameat", "ftruncate", "bind"]),
    (
        "EINTR",
        &[
            "openat", "read", "write", "poll", "recvmsg", "sendmsg", "recvfrom", "sendto", "wait4", "waitid",
            "accept4", "flock",
        ],
    ),
    ("EAGAIN", &["read", "write", "recvmsg", "sendmsg", "recvfrom", "sendto", "connect", "clone3", "vfork"]),
    (
        "ENOMEM",
        &[
            "openat",
            "mmap",
            "clone3",
            "vfork",
            "unshare",
            "setns",
            "mount",
            "fsmount",
            "move_mount",
            "pivot_root",
            "ioctl",
        ],
    ),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Delete,
}

#[test]
fn whichever_call_of_create_fails_nothing_is_left() {
    each(Verb::Create, false);
}

#[test]
fn whichever_call_of_a_machine_fails_nothing_is_left() {
    each(Verb::Create, true);
}

#[test]
fn whichever_call_of_start_fails_nothing_is_left() {
    each(Verb::Start, false);
}

#[test]
fn whichever_call_of_delete_fails_another_delete_leaves_nothing() {
    each(Verb::Delete, false);
}

/// Lets each call fail in turn, of the command, or with `all` of each thread that it starts too.
fn each(verb: Verb, all: bool) {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    let known: BTreeSet<&str> = FAULTS.iter().flat_map(|(_, calls)| *calls).copied().collect();
    let known: Vec<&str> = known.into_iter().collect();
    let made = once(verb, all, &format!("trace={}", known.join(",")), true);
    for (errno, calls) in FAULTS {
        let times = |call: &&&str| made.get(**call).copied().unwrap_or(0);
        let faults: Vec<(&str, usize)> =
            calls.iter().flat_map(|call| (1..=times(&call)).map(|number| (*call, number))).collect();
        assert!(!faults.is_empty(), "no call that can end with {errno} is made: {made:?}");
        // In the emulated machine a few of them, spread over all.
        let step = size(1, faults.len() * 2 / 3 + 1);
        for (call, number) in faults.iter().step_by(step) {
            eprintln!(
                "{verb:?}{}: {call} number {number} ends with {errno}",
                if all { ", all threads" } else { "" }
            );
            // A message that cannot be written is not read.
            once(verb, all, &format!("inject={call}:error={errno}:when={number}"), *call != "write");
        }
    }
}

/// Does it once, and takes all away again. How often one thread made each call, at most.
#[track_caller]
fn once(verb: Verb, all: bool, expression: &str, says: bool) -> BTreeMap<String, usize> {
    // Of a test that failed before.
    husk_integration::running::reap();
    let before = Census::take();
    let made = {
        let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
        let (id, path) = (fresh_id(), bundle.write().to_str().expect("it is text").to_owned());
        let create = ["create", "--bundle", &path, &id];
        let (verb, prepared): (&[&str], &[&[&str]]) = match verb {
            Verb::Create => (&create, &[]),
            Verb::Start => (&["start", &id], &[&create]),
            Verb::Delete => (&["delete", "--force", &id], &[&create, &["start", &id]]),
        };
        for words in prepared {
            assert_eq!(quiet(Runtime::Husk.command(*words), &bundle.path), 0, "{words:?}");
        }
        let calls = bundle.path.join("calls");
        let mut traced = Command::new("strace");
        // Our child is the command, and its tracer goes on with the machine.
        traced.args(["-qq", "-D", "-e", expression, "-o"]).arg(&calls);
        // One file a thread.
        traced.args(all.then_some("-ff")).arg(Runtime::Husk.program()).args(verb).stdin(Stdio::null());
        let status = quiet(traced, &bundle.path);
        let said = fs::read_to_string(bundle.path.join("said")).expect("the file is there");
        assert!(!said.contains("panicked") && !said.contains("overflow"), "{expression}: {said}");
        assert!(
            status == 0 || !says || !said.trim().is_empty(),
            "{expression}: status {status} without a word"
        );
        assert_eq!(quiet(Runtime::Husk.command(["delete", "--force", &id]), &bundle.path), 0, "{expression}");
        assert_eq!(Runtime::Husk.call(["state", &id]).code, 1, "{expression}: it is still known");
        husk_integration::running::reap();
        calls_in(&bundle.path)
    };
    before.assert_unchanged();
    made
}

/// Runs a command that shares no pipe with us, to its end; its status.
#[track_caller]
fn quiet(mut command: Command, beside: &Path) -> i32 {
    let said = fs::File::create(beside.join("said")).expect("a file");
    let mut child = command.stdout(Stdio::null()).stderr(said).spawn().expect("it can be run");
    let status = wait(&mut child, Duration::from_secs(120));
    code(status.unwrap_or_else(|| panic!("it does not end: {command:?}")))
}

/// How often each call stands in one of the files that strace wrote, at most.
fn calls_in(directory: &Path) -> BTreeMap<String, usize> {
    let mut most = BTreeMap::new();
    for file in fs::read_dir(directory).expect("it is there").flatten() {
        if file.file_name().to_string_lossy().starts_with("calls") {
            let mut here: BTreeMap<String, usize> = BTreeMap::new();
            for line in fs::read_to_string(file.path()).unwrap_or_default().lines() {
                if let Some((call, _)) = line.split_once('(') {
                    *here.entry(call.to_owned()).or_default() += 1;
                }
            }
            for (call, count) in here {
                let known = most.entry(call).or_insert(0);
                *known = count.max(*known);
            }
        }
    }
    most
}
