//! Memory plugged into machines that run: copies of smaller templates, limits that are raised, pods that containers join.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    pod::{member, sandbox},
    runtime::{Output, Runtime},
    scenario::fresh_id,
    template::{Templates, is_copy},
};
use serde_json::json;
use std::{fs, io::Write, process::Command};

const MIB: u64 = 1 << 20;
const TOTAL: &str = "grep MemTotal /proc/meminfo";

fn limited(args: &[&str], mib: u64) -> Bundle {
    let mut bundle = Bundle::new(Image::Busybox, args);
    bundle.set("/linux/resources", json!({"memory": {"limit": mib * MIB}}));
    bundle.set(
        "/mounts/-",
        json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["size=1g"]}),
    );
    bundle
}

/// A script that uses so much memory for a moment, and says "fits" if it may.
fn fill(mib: u64) -> String {
    format!("dd if=/dev/zero of=/m/x bs=1M count={mib} 2>/dev/null && echo fits; rm -f /m/x")
}

/// The first number in a text; in MiB, if it was in KiB.
fn mib(text: &str) -> u64 {
    let number = text.split_whitespace().find_map(|word| word.parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("a number: {text:?}")) >> 10
}

/// A file of bytes that nobody can guess, and their sum.
fn unguessable(path: &std::path::Path, mib: u64) -> String {
    let mut file = fs::File::create(path).expect("a file");
    let mut chunk = vec![0; MIB as usize];
    let mut source = fs::File::open("/dev/urandom").expect("there is one");
    std::io::Read::read_exact(&mut source, &mut chunk).expect("it is endless");
    for number in 0..mib {
        chunk[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&chunk).expect("there is room");
    }
    let output = Command::new("md5sum").arg(path).output().expect("coreutils are there");
    String::from_utf8(output.stdout).expect("text").split_whitespace().next().expect("a sum").to_owned()
}

#[test]
fn a_copy_of_a_smaller_template_has_its_limits_memory_and_uses_all_of_it() {
    let before = Census::take();
    {
        let templates = Templates::new("plugged");
        let look = format!(
            "{TOTAL}; cat /sys/fs/cgroup/memory.max /sys/kernel/mm/transparent_hugepage/enabled; \
             ulimit -u; cat /proc/sys/kernel/threads-max"
        );
        let run = |script: &str, mib| {
            let (output, log) = templates.run_bundle(limited(&["sh", "-c", script], mib));
            (output.ok().stdout, log)
        };
        let (cold, log) = run(&look, 600);
        assert!(!is_copy(&log), "{log}");
        templates.call_with("create", &["--memory", "128"]).ok();
        let (copy, log) = run(&look, 600);
        assert!(is_copy(&log) && log.contains("the guest has more memory"), "{log}");
        let [cold, copy] = [&cold, &copy].map(|text| text.lines().collect::<Vec<_>>());
        assert_eq!(cold[1..3], copy[1..3], "limit and large pages, cold (left) and plugged (right)");
        for (line, percent) in [(0, 4), (3, 10), (4, 10)] {
            let [cold, copy] = [cold[line], copy[line]].map(|text| {
                text.split_whitespace().find_map(|word| word.parse::<u64>().ok()).expect("a number")
            });
            assert!(copy.abs_diff(cold) * 100 <= cold * percent, "line {line}: cold {cold}, plugged {copy}");
        }
        // Devices fill what was plugged, and programs do: 200 MiB are more than the template's guest had.
        let mut bundle = limited(&["sh", "-c", &format!("md5sum /file; {}; md5sum /file", fill(190))], 256);
        let sum = unguessable(&bundle.rootfs().join("file"), 40);
        bundle.set("/root/readonly", json!(true));
        let (output, log) = templates.run_bundle(bundle);
        assert!(is_copy(&log), "{log}");
        assert_eq!(output.ok().stdout, format!("{sum}  /file\nfits\n{sum}  /file\n"));
        // One that is smaller than the template is none of its copies; one of its size has nothing plugged.
        let (_, log) = run("true", 64);
        assert!(!is_copy(&log), "{log}");
        let (_, log) = run("true", 80);
        assert!(is_copy(&log) && !log.contains("the guest has more memory"), "{log}");
    }
    before.assert_unchanged();
}

#[test]
fn a_raised_limit_plugs_memory_and_a_lowered_one_takes_effect_as_ever() {
    let before = Census::take();
    {
        let container = Created::started(Runtime::Husk, limited(&["sleep", "100000"], 100));
        let total = || mib(&container.sh(TOTAL).ok().stdout);
        let group = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("it lives");
        let group = group.trim().strip_prefix("0::").expect("cgroup v2").to_owned();
        let outside = || {
            let limit = fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.max")).expect("a limit");
            limit.trim().parse::<u64>().expect("a number") / MIB
        };
        let update = |memory: &str| container.call_with("update", &["--memory", memory], &[]);
        let inside = || container.sh("cat /sys/fs/cgroup/memory.max").ok().stdout;
        assert!(total() < 148 && outside() == 100 + 48 + 64, "{} {}", total(), outside());
        // It is killed for what it then may have.
        let fits = || container.sh(&fill(130)).stdout.contains("fits");
        assert!(!fits());
        update("300m").ok();
        assert!((320..348).contains(&total()), "{}", total());
        assert_eq!((inside(), outside()), ("314572800\n".to_owned(), 300 + 48 + 64));
        assert!(fits());
        update("400m").ok();
        assert!((420..448).contains(&total()), "{}", total());
        update("64m").ok();
        assert_eq!((inside(), outside()), ("67108864\n".to_owned(), 400 + 48 + 64));
        assert!(!fits());
        let refused = update("9000g");
        assert!(
            refused.code == 1 && refused.stderr.contains("bytes that the machine can have"),
            "{refused:?}"
        );
        assert_eq!((inside(), outside()), ("67108864\n".to_owned(), 400 + 48 + 64));
    }
    before.assert_unchanged();
}

#[test]
fn a_pods_machine_grows_with_the_containers_that_join_it() {
    let before = Census::take();
    {
        let pod = sandbox(|_| {});
        let total = || mib(&pod.sh(TOTAL).ok().stdout);
        let limited = |args: &[&str], limit: u64| {
            let mut bundle = member(&pod, args);
            bundle.set("/linux/resources", json!({"memory": {"limit": limit * MIB}}));
            bundle
        };
        let run = |bundle: Bundle| -> Output {
            let path = bundle.write().to_owned();
            Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), fresh_id().as_ref()])
        };
        let begun = total();
        let first = Created::started(Runtime::Husk, limited(&["sleep", "100000"], 300));
        assert_eq!(total(), begun, "there was enough");
        let second = Created::started(Runtime::Husk, limited(&["sleep", "100000"], 400));
        assert_eq!(total(), begun + 300 + 400 + 48 - 512);
        first.call_with("update", &["--memory", "500m"], &[]).ok();
        assert_eq!(total(), begun + 500 + 400 + 48 - 512);
        let output = run(limited(&["true"], 1 << 20));
        assert!(
            output.code == 1 && output.stderr.contains("943718400 for the others of its pod are more than"),
            "{output:?}"
        );
        // What has gone makes room.
        drop((first, second));
        assert_eq!(run(limited(&["true"], 800)).code, 0);
        assert_eq!(total(), begun + 500 + 400 + 48 - 512);

        // A pod with a limit of its own stays within it.
        let bound = sandbox(|bundle| {
            bundle.set("/linux/resources", json!({"memory": {"limit": 200 * MIB}}));
        });
        let mut beyond = member(&bound, &["true"]);
        beyond.set("/linux/resources", json!({"memory": {"limit": 250 * MIB}}));
        let output = run(beyond);
        assert!(output.stderr.contains("262144000 is more than the 260046848 bytes"), "{output:?}");
    }
    before.assert_unchanged();
}
