//! Starts from a template: a copy is a container like any other, and whatever is wrong with a template makes a cold start.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    network::Bridge,
    runtime::{Output, Runtime},
    template::{Templates, is_copy},
};
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[test]
fn copies_are_containers_like_any_other_and_each_has_its_own_randomness_and_the_time() {
    let before = Census::take();
    {
        let templates = Templates::new("copies");
        let look = "id; hostname; ls /; cat /proc/1/status | grep -E '^(Cap|Seccomp|NoNew)'; nproc; grep MemTotal /proc/meminfo; exit 7";
        let (cold, log) = templates.run(look);
        assert!(!is_copy(&log) && cold.code == 7, "{cold:?} {log}");
        assert_eq!(templates.call("status").code, 1);
        assert!(templates.call("create").ok().stdout.contains("1 vcpus, 256 MiB"));
        assert_eq!(templates.call("status").ok().stdout, "starts are made from a template\n");

        let (copy, log) = templates.run(look);
        assert!(is_copy(&log), "{log}");
        assert_eq!(copy, cold, "a copy (left) and a guest that was booted (right)");

        let draw = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; date +%s; mktemp -u";
        let mut drawn = Vec::new();
        for _ in 0..3 {
            let (output, log) = templates.run(draw);
            assert!(is_copy(&log), "{log}");
            let mut lines: Vec<String> = output.ok().stdout.lines().map(str::to_owned).collect();
            let inside: u64 = lines.remove(3).parse().expect("a time");
            let outside = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            assert!((outside - 20..=outside).contains(&inside), "{inside} inside, {outside} outside");
            drawn.extend(lines);
        }
        let mut different = drawn.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), drawn.len(), "two copies drew the same: {drawn:#?}");
        assert_eq!(templates.call("remove").ok().stdout, "1 removed\n");
        assert!(templates.files().is_empty(), "{:?}", templates.files());
    }
    before.assert_unchanged();
}

#[test]
fn a_copy_has_a_network_and_takes_every_verb() {
    let mut network = Bridge::new();
    let namespace = network.namespace();
    network.plug(&namespace, "eth0", 2);
    let before = Census::take();
    {
        let templates = Templates::new("verbs");
        templates.call("create").ok();
        let mut bundle = Bundle::new(
            Image::Busybox,
            &["sh", "-c", "trap 'echo told; exit 3' USR1; echo up; while :; do sleep 0.1; done"],
        );
        bundle.join(&namespace);
        bundle.allow_network();
        let container = Created::configured(bundle, &templates.config());
        container.call("start", &[]).ok();
        container.wait_for_text("up");
        let gateway = network.ipv4(1);
        let gateway = gateway.split('/').next().expect("an address");
        assert!(
            container.sh(&format!("ping -c 1 -w 20 {gateway}")).ok().stdout.contains("1 packets received")
        );
        assert_eq!(container.sh("echo one; exit 5").code, 5);
        container.call("pause", &[]).ok();
        assert_eq!(container.state()["status"], "paused");
        container.call("resume", &[]).ok();
        assert!(container.call("ps", &[]).ok().stdout.contains("sleep 0.1"));
        container.call("events", &["--stats"]).ok();
        container.call("update", &["--pids-limit", "50"]).ok();
        assert_eq!(container.sh("cat /sys/fs/cgroup/pids.max").ok().stdout, "50\n");
        container.call("kill", &["USR1"]).ok();
        container.wait_for_text("told");
        container.wait_for("stopped");
    }
    before.assert_unchanged();
}

#[test]
fn a_template_that_does_not_fit_makes_a_cold_start_and_the_log_says_why() {
    let before = Census::take();
    {
        let templates = Templates::new("unfit");
        templates.call("create").ok();
        let (memory, state) = (templates.file(".memory"), templates.file(".template"));
        let (bytes, whole) =
            (fs::read(&state).expect("a state"), fs::metadata(&memory).expect("it is there").len());
        let cold = |why: &str| {
            let (output, log) = templates.run("echo fine");
            assert_eq!(output.ok().stdout, "fine\n");
            assert!(!is_copy(&log) && log.contains(why), "{why}: {log}");
        };
        // Another size has no template, and nobody needs to hear of it.
        templates.configure(192);
        cold("there is no template");
        templates.configure(256);

        let open = || fs::OpenOptions::new().write(true).open(&memory).expect("it is there");
        open().set_len(whole - 4096).expect("it can be cut");
        cold("its memory was cut short or altered");
        open().set_len(whole).expect("it can be extended");
        cold("its memory was cut short or altered");
        for (spoilt, why) in [
            (bytes[..bytes.len() / 2].to_vec(), "its state was cut short or altered"),
            (Vec::new(), "its state was cut short or altered"),
        ] {
            fs::write(&state, spoilt).expect("it can be written");
            cold(why);
        }
        fs::write(&state, &bytes).expect("it can be written");
        let everyone = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666);
        fs::set_permissions(&state, everyone).expect("they can be set");
        cold("others than root may write to it");

        // Made anew, all is well.
        templates.call("create").ok();
        assert_eq!(templates.files().len(), 2, "{:?}", templates.files());
        let (output, log) = templates.run("echo fine");
        assert!(output.ok().stdout == "fine\n" && is_copy(&log), "{log}");
    }
    before.assert_unchanged();
}

#[test]
fn a_maker_that_fails_or_is_killed_leaves_nothing_that_is_used() {
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    // Those of other tests, which would be missed in the end.
    await_orphans();
    let before = Census::take();
    {
        let templates = Templates::new("maker");
        // No room for the memory.
        let directory = templates.directory();
        fs::create_dir(&directory).expect("a directory");
        mount(&directory, "size=4m");
        let full = templates.call("create");
        assert!(
            full.code == 1 && full.stderr.contains("cannot write its memory: no space left on device"),
            "{full:?}"
        );
        assert_eq!(templates.files(), [""; 0]);
        unmount(&directory);

        // Killed at any moment: no process stays, the next start is a container, and the next maker clears up.
        for milliseconds in [100, 700, 2000, 3500] {
            let config = templates.config();
            let words = ["--config".as_ref(), config.as_os_str(), "template".as_ref(), "create".as_ref()];
            let mut maker =
                Runtime::Husk.command(words).stdout(std::process::Stdio::null()).spawn().expect("it runs");
            std::thread::sleep(Duration::from_millis(milliseconds));
            maker.kill().expect("it is ours");
            maker.wait().expect("it is ours");
            await_orphans();
            assert_eq!(templates.run("echo fine").0.ok().stdout, "fine\n");
        }
        // Two at once: one may be told that the other is at it.
        let both: Vec<Output> = std::thread::scope(|scope| {
            let makers: Vec<_> = (0..2).map(|_| scope.spawn(|| templates.call("create"))).collect();
            makers.into_iter().map(|maker| maker.join().expect("it ends")).collect()
        });
        let made = both.iter().filter(|output| output.code == 0).count();
        let busy =
            both.iter().filter(|output| output.stderr.contains("another template is being made")).count();
        assert!(made >= 1 && made + busy == 2, "{both:?}");
        assert_eq!(templates.files().len(), 2, "{:?}", templates.files());
        let (output, log) = templates.run("echo fine");
        assert!(output.ok().stdout == "fine\n" && is_copy(&log), "{log}");
    }
    before.assert_unchanged();
}

#[test]
fn where_the_operator_wants_it_a_cold_start_makes_one_for_those_after_it() {
    // Makers outlive the commands that start them, and become ours.
    nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
    await_orphans();
    let before = Census::take();
    {
        let templates = Templates::new("make");
        templates.configure_with(256, "templates = \"make\"");
        let starts_as = |copy: bool| {
            let (output, log) = templates.run("echo fine");
            assert_eq!(output.ok().stdout, "fine\n");
            assert_eq!(is_copy(&log), copy, "{log}");
            await_makers();
            await_orphans();
        };
        // No room for it: that is tried once.
        let directory = templates.directory();
        fs::create_dir(&directory).expect("a directory");
        mount(&directory, "size=4m");
        starts_as(false);
        let told = templates.call("status").stdout;
        assert_eq!(
            told,
            "starts are cold: there is no template for a machine of that size; one could not be made: cannot write its memory: no space left on device\n"
        );
        let noted =
            || fs::metadata(templates.file(".attempt")).expect("it is there").modified().expect("a time");
        let first = noted();
        starts_as(false);
        assert_eq!(noted(), first);
        unmount(&directory);

        starts_as(false);
        assert_eq!(templates.call("status").ok().stdout, "starts are made from a template\n");
        starts_as(true);
        // What is more is plugged.
        templates.configure_with(320, "templates = \"make\"");
        starts_as(true);
        assert_eq!(templates.files().len(), 3, "{:?}", templates.files());
        assert_eq!(templates.call("remove").ok().stdout, "1 removed\n");
        assert_eq!(templates.files(), [""; 0]);
    }
    before.assert_unchanged();
}

/// Waits until what makes templates beside starts has ended.
fn await_makers() {
    let begun = std::time::Instant::now();
    let is_maker = |entry: fs::DirEntry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(b"template-maker")
    };
    while fs::read_dir("/proc").expect("procfs").flatten().any(is_maker) {
        assert!(begun.elapsed() < Duration::from_secs(60), "a maker does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until what a child has left behind has ended by itself.
fn await_orphans() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    let begun = std::time::Instant::now();
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "a maker's container does not end");
        if status == WaitStatus::StillAlive {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn mount(at: &Path, options: &str) {
    let done = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status();
    assert!(done.expect("util-linux is there").success());
}

fn unmount(at: &Path) {
    assert!(Command::new("umount").arg(at).status().expect("util-linux is there").success());
}
