//! A kill needs nobody: it is done in time when the agent inside does not answer, and when nobody reads what the container
//! prints. Whoever waits for the container hears of its end.

use husk_evil_agent::WAYS;
use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    init::with_init_and_null,
    running::{Running, reap},
    runtime::Runtime,
    scenario::size,
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    fs,
    os::fd::AsFd,
    process::{ChildStdout, Stdio},
    time::{Duration, Instant},
};

#[test]
fn a_kill_needs_neither_the_agent_nor_a_reader() {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    let before = Census::take();
    let rounds = size(50, 2);
    for (what, begin) in [("a reader that has stopped", unread as fn() -> _), ("an agent that is mute", mute)]
    {
        for words in [&["kill"][..], &["delete", "--force"]] {
            let mut longest = Duration::ZERO;
            for _ in 0..rounds {
                let (mut container, _unread): (Running, Option<ChildStdout>) = begin();
                let begun = Instant::now();
                let id = [container.id.as_str()];
                let signal = if words == ["kill"] { &["KILL"][..] } else { &[] };
                Runtime::Husk.call([words, &id, signal].concat()).ok();
                assert_eq!(container.end(), 137, "{words:?}, {what}");
                longest = longest.max(begun.elapsed());
                let state = Runtime::Husk.call(["state", &container.id]);
                assert!(state.stderr.contains("does not exist"), "{words:?}, {what}: {state:?}");
            }
            eprintln!("{words:?}, {what}: {longest:?} at most in {rounds} rounds");
            assert!(longest < in_time(), "{words:?}, {what}: {longest:?}");
        }
    }
    reap();
    before.assert_unchanged();
}

/// A container that has a gibibyte to say, to somebody who holds the pipe and does not read.
fn unread() -> (Running, Option<ChildStdout>) {
    let bundle = Bundle::new(Image::Busybox, &["dd", "if=/dev/zero", "bs=64k", "count=16384"]);
    let mut container = Running::new(bundle, Stdio::piped(), Stdio::null());
    let stdout = container.child.stdout.take().expect("piped");
    let mut pipe = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut pipe, PollTimeout::from(30_000u16)), Ok(1), "nothing comes");
    // The first has come; soon there is as much as a pipe holds.
    std::thread::sleep(Duration::from_millis(500));
    (container, Some(stdout))
}

/// A container whose agent has made and started it, and does not answer a kill.
fn mute() -> (Running, Option<ChildStdout>) {
    let number = WAYS.iter().position(|way| way.what == "does not answer a kill").expect("it is one of them");
    let program = std::env::var("HUSK_EVIL_AGENT").expect("HUSK_EVIL_AGENT is not set: run `make test`");
    let agent = fs::read(program).expect("the program is there");
    let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    let config =
        with_init_and_null(&bundle, &agent, 60_000) + &format!("kernel_command_line = \"evil={number}\"\n");
    let path = bundle.path.join("husk.toml");
    fs::write(&path, config).expect("a file");
    (Running::configured(bundle, &path), None)
}

/// How long a kill may take. The emulated machine is some 25 times slower than a real one.
fn in_time() -> Duration {
    Duration::from_secs(if std::env::var_os("HUSK_EMULATED").is_some() { 4 } else { 2 })
}
