//! A guest that is not Linux: a program of ours in the kernel's place, which does to registers, ports, rings, file servers and
//! vsock what no driver does. The machine ends as any guest's does, or is killed in time; nothing outside of what is shared
//! has changed, nothing is left, and the next container runs.

use husk_evil_guest::order::{Act, DONE, End, FAILED, Order, SPINS};
use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    outside::Outside,
    running::reap,
    runtime::{Runtime, code, wait},
    scenario::{fresh_id, sh, size, whole},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

#[test]
fn registers_at_random_and_out_of_order_leave_the_host_as_it_was() {
    at_random(Act::Registers, 1_000_000);
}

#[test]
fn ports_at_random_leave_the_host_as_it_was() {
    at_random(Act::Ports, 200_000);
}

#[test]
fn rings_that_make_no_sense_leave_devices_that_a_reset_helps() {
    attack(Act::Rings, 0, Way::Reset);
}

#[test]
fn hostile_names_are_refused_by_every_operation_and_nothing_outside_changes() {
    attack(Act::Names, 0, Way::Reset);
}

#[test]
fn requests_at_random_change_nothing_outside_of_the_shares() {
    at_random(Act::Requests, 500_000);
}

#[test]
fn packets_to_ports_that_nobody_offers_are_refused_however_many() {
    at_random(Act::Packets, 500_000);
}

#[test]
fn what_greets_like_no_agent_ends_its_machine() {
    attack(Act::Greeting, 100, Way::NoAgent);
}

#[test]
fn a_guest_that_loops_deaf_is_killed_and_deleted_in_time() {
    attack(Act::Rings, 0, Way::Killed);
    // Not only these are left alone.
    assert_eq!(sh("echo still here").ok().stdout, "still here\n");
}

/// Not in the emulated machine, if nobody asks for it: there, what is done at random stops the machine itself once in some
/// seven rounds (`docs/threat-model.md`).
fn at_random(act: Act, steps: u64) {
    if whole() {
        attack(act, steps, Way::Reset);
    }
}

/// How the guest is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It asks for a reset when it has done everything.
    Reset,
    /// The host has had enough of its agent.
    NoAgent,
    /// It loops, and is killed.
    Killed,
}

/// Lets a guest do its act, and checks everything that is to be as it was.
#[track_caller]
fn attack(act: Act, size: u64, way: Way) {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    let before = Census::take();
    {
        let end = if way == Way::Killed { End::Spin } else { End::Reset };
        let order = Order { act, seed: 7, size, end };
        let outside = Outside::new("evil");
        let mut bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
        let canaries = Canaries::put(&outside, &mut bundle, &order);
        let begun = Instant::now();
        let said = if way == Way::Killed { killed(&bundle) } else { ended(&bundle) };
        eprintln!("{order}: {:?}: {}", begun.elapsed(), said.trim_end());
        canaries.assert_unchanged();
        assert!(!said.contains(FAILED), "{said}");
        assert!(!said.trim_end().contains(char::is_control), "{said:?}");
        match way {
            Way::Reset => {
                assert!(said.contains(&format!("{DONE}{act} ")), "it was not done: {said}");
                assert!(said.contains("the guest asked for a reset"), "{said}");
            }
            Way::NoAgent => {
                assert!(said.contains(&format!("{DONE}{act} ")), "it was not done: {said}");
                assert!(!said.contains("asked for a reset"), "{said}");
            }
            Way::Killed => {}
        }
    }
    before.assert_unchanged();
}

/// Creates the container, which ends as its guest does; what was said about it.
#[track_caller]
fn ended(bundle: &Bundle) -> String {
    let (mut create, id) = create(bundle);
    let status = wait(&mut create, PATIENCE).map(code);
    Runtime::Husk.call(["delete", "--force", &id]).ok();
    reap();
    let said = said(bundle);
    assert_eq!(status, Some(1), "no end, or another one: {said}");
    said
}

/// Creates it, and kills it when its guest has gone deaf.
#[track_caller]
fn killed(bundle: &Bundle) -> String {
    let (mut create, id) = create(bundle);
    let deadline = Instant::now() + PATIENCE;
    while !bundle.rootfs().join(SPINS).exists() {
        if let Some(status) = create.try_wait().expect("it is our child") {
            panic!("it ended with {status} instead: {}", said(bundle));
        }
        assert!(Instant::now() < deadline, "it does not come to the end of its act");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The file is there a moment before the guest has read that it is.
    std::thread::sleep(Duration::from_millis(200));
    assert!(create.try_wait().expect("it is our child").is_none(), "it ended instead: {}", said(bundle));
    let begun = Instant::now();
    Runtime::Husk.call(["kill", &id, "KILL"]).ok();
    let status = wait(&mut create, IN_TIME).map(code);
    Runtime::Husk.call(["delete", "--force", &id]).ok();
    let took = begun.elapsed();
    reap();
    eprintln!("killed and deleted in {took:?}");
    assert_eq!(status, Some(1), "{}", said(bundle));
    assert!(took < size(IN_TIME, 4 * IN_TIME), "{took:?}");
    said(bundle)
}

fn create(bundle: &Bundle) -> (Child, String) {
    let (config, id) = (bundle.path.join("husk.toml"), fresh_id());
    let words = ["--config".as_ref(), config.as_os_str(), "create".as_ref(), "--bundle".as_ref()];
    let mut command = Runtime::Husk.command(words);
    command.args([bundle.path.as_os_str(), id.as_ref()]);
    let said = File::create(bundle.path.join("said")).expect("a file");
    (command.stdout(Stdio::null()).stderr(said).spawn().expect("husk can be run"), id)
}

fn said(bundle: &Bundle) -> String {
    String::from_utf8(fs::read(bundle.path.join("said")).expect("a file")).expect("text")
}

/// Files around what is shared, as they were.
struct Canaries {
    around: [PathBuf; 2],
    before: BTreeMap<PathBuf, Seen>,
}

/// What is known of a file: its content, when that and everything else about it were changed, its mode.
type Seen = (Vec<u8>, (i64, i64), (i64, i64), u32);

impl Canaries {
    /// Puts them where hostile names lead, and writes what the container is made from.
    fn put(outside: &Outside, bundle: &mut Bundle, order: &Order) -> Canaries {
        for directory in ["shared", "outside"] {
            fs::create_dir(outside.0.join(directory)).expect("a directory");
        }
        for canary in ["canary", "outside/canary", "shared/file"] {
            fs::write(outside.0.join(canary), canary).expect("a file");
        }
        fs::write(bundle.path.join("canary"), "canary").expect("a file");
        Outside::mount(bundle, &outside.0.join("shared"), "/shared", &["rbind", "rw"]);
        let program = std::env::var("HUSK_EVIL_GUEST").expect("HUSK_EVIL_GUEST is not set: run `make test`");
        let config = format!(
            "[machine]\nkernel = {program:?}\nkernel_command_line = \"{order}\"\nboot_timeout_ms = {}\n",
            PATIENCE.as_millis()
        );
        fs::write(bundle.path.join("husk.toml"), config).expect("a file");
        fs::write(bundle.path.join("said"), "").expect("a file");
        bundle.write();
        let around = [outside.0.clone(), bundle.path.clone()];
        let before = seen(&around);
        assert!(before.len() >= 7, "{before:?}");
        Canaries { around, before }
    }

    #[track_caller]
    fn assert_unchanged(&self) {
        let now = seen(&self.around);
        let paths: Vec<_> = self.before.keys().chain(now.keys()).collect();
        for path in paths {
            assert_eq!(now.get(path), self.before.get(path), "{} is not what it was", path.display());
        }
    }
}

/// All files in and below these directories that are not shared, and the host's own that hostile names lead to.
fn seen(directories: &[PathBuf]) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut open = directories.to_vec();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).expect("a directory").flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if ["shared", "rootfs", "layer", "said"].iter().any(|shared| name == *shared) {
                continue;
            }
            if entry.file_type().expect("a kind").is_dir() {
                open.push(path.clone());
            }
            found.insert(path.clone(), look(&path));
        }
    }
    for path in ["/etc/passwd", "/etc/shadow", "/etc"] {
        found.insert(path.into(), look(Path::new(path)));
    }
    found
}

fn look(path: &Path) -> Seen {
    let about = fs::symlink_metadata(path).expect("it is there");
    let content = if about.is_file() { fs::read(path).expect("it can be read") } else { Vec::new() };
    (content, (about.mtime(), about.mtime_nsec()), (about.ctime(), about.ctime_nsec()), about.mode())
}

/// What an act may take. The longest ones take minutes where every exit of a guest is emulated.
const PATIENCE: Duration = Duration::from_secs(1800);
/// What a kill and a delete may take.
const IN_TIME: Duration = Duration::from_secs(2);
