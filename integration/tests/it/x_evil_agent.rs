//! A guest whose kernel is ours and whose agent is not: it lies to the host in all the ways of `husk-evil-agent`. Its container
//! fails to be made, or is made; either way it is deleted in time, with all who waited for it, and nothing is left.

use husk_evil_agent::{Point, WAYS, Way};
use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    init::with_init_and_null,
    running::reap,
    runtime::{Runtime, code, wait},
    scenario::{fresh_id, whole},
};
use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

#[test]
fn whatever_an_agent_says_its_container_is_deleted_in_time_and_nothing_is_left() {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    let before = Census::take();
    let (all, mut points) = (whole(), Vec::new());
    for (number, way) in WAYS.iter().enumerate() {
        // A boot for each: in the emulated machine one for each point, if not all are asked for.
        if all || !points.contains(&way.at) {
            points.push(way.at);
            meet(number, *way);
        }
    }
    before.assert_unchanged();
}

fn meet(number: usize, way: Way) {
    let bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    let program = std::env::var("HUSK_EVIL_AGENT").expect("HUSK_EVIL_AGENT is not set: run `make test`");
    let agent = fs::read(program).expect("the program is there");
    let config =
        with_init_and_null(&bundle, &agent, 60_000) + &format!("kernel_command_line = \"evil={number}\"\n");
    fs::write(bundle.path.join("husk.toml"), config).expect("a file");
    let id = fresh_id();
    let words = ["--bundle".as_ref(), bundle.write().as_os_str(), id.as_ref()];
    let mut create = called(&bundle.path, "create", &words);
    let made = wait(&mut create, PATIENCE).map(code);
    let mut waiting = vec![create];
    if made == Some(0) {
        let mut start = called(&bundle.path, "start", &[id.as_ref()]);
        wait(&mut start, SHORT_PATIENCE);
        let mut list = called(&bundle.path, "ps", &[id.as_ref()]);
        wait(&mut list, SHORT_PATIENCE);
        waiting.extend([start, list]);
    }
    let begun = Instant::now();
    Runtime::Husk.call(["delete", "--force", &id]).ok();
    let took = begun.elapsed();
    for mut command in waiting {
        assert!(wait(&mut command, IN_TIME).is_some(), "{}: a command goes on", way.what);
    }
    reap();
    let said = fs::read(bundle.path.join("create")).expect("a file");
    let said = String::from_utf8(said).expect("text");
    eprintln!("{}: {made:?}, deleted in {took:?}: {}", way.what, said.trim_end());
    assert!(took < IN_TIME, "{}: {took:?}", way.what);
    match way.at {
        // That it came to this shows that the agent was there, and good so far.
        Point::Start | Point::Running | Point::Processes | Point::Kill => {
            assert_eq!(made, Some(0), "{}", way.what);
        }
        Point::Greeting => assert_ne!(made, Some(0), "{}", way.what),
        // One lies only after a true answer.
        Point::Create => {}
    }
    assert!(!said.contains("Kernel panic"), "{}: there was no agent: {said}", way.what);
    assert!(said.chars().count() < 12_000, "{}: {} bytes", way.what, said.len());
    assert!(!said.trim_end().contains(char::is_control), "{}: {said:?}", way.what);
}

/// Begins `husk VERB WORDS`; what it says goes to a file of the verb's name.
fn called(directory: &Path, verb: &str, words: &[&std::ffi::OsStr]) -> Child {
    let config = directory.join("husk.toml");
    let begin = ["--config".as_ref(), config.as_os_str(), verb.as_ref()];
    let said = File::create(directory.join(verb)).expect("a file");
    let mut command = Runtime::Husk.command(begin.iter().chain(words));
    command.stdout(Stdio::null()).stderr(said).spawn().expect("husk can be run")
}

/// What a boot may take; some agents keep their host waiting for longer.
const PATIENCE: Duration = Duration::from_secs(15);
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// What a kill may take, and time for a busy emulator.
const IN_TIME: Duration = Duration::from_secs(8);
