//! Control groups made by systemd, as runc has it make them.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    runtime::{Output, Runtime},
    scenario::fresh_id,
    systemd,
};
use nix::{sys::wait::waitpid, unistd::Pid};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
};

const SCOPE: &str = "it-one.scope";

fn bundle(resources: Value) -> Bundle {
    let mut bundle = Bundle::new(Image::Busybox, &["sleep", "1000"]);
    bundle.set("/linux/cgroupsPath", json!("system.slice:it:one"));
    bundle.set("/linux/resources", resources);
    bundle.set(
        "/annotations",
        json!({
            "org.systemd.property.TimeoutStopSec": "7",
            "org.systemd.property.CollectMode": "'inactive-or-failed'",
            "org.systemd.property.KillSignal": "37",
        }),
    );
    bundle
}

/// What does not depend on how much room a machine needs, and where the process is.
fn seen(runtime: Runtime) -> BTreeMap<String, String> {
    let limits = json!({"memory": {"limit": 134_217_728, "reservation": 33_554_432, "swap": 268_435_456}, "cpu": {"cpus": "0"}});
    let container = Created::under_systemd(runtime, bundle(limits));
    let mut seen = systemd::properties(
        SCOPE,
        &[
            "Id",
            "Slice",
            "ControlGroup",
            "Delegate",
            "CPUAccounting",
            "IOAccounting",
            "MemoryAccounting",
            "TasksAccounting",
            "MemoryLow",
            "MemorySwapMax",
            "AllowedCPUs",
            "TimeoutStopUSec",
            "KillSignal",
            "CollectMode",
            "DefaultDependencies",
            "Transient",
            "ActiveState",
            "SubState",
        ],
    );
    let group =
        fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the process is there");
    seen.insert("/proc/PID/cgroup".into(), group.trim().into());
    container.call("delete", &["--force"]).ok();
    assert_eq!(systemd::units("it-"), Vec::<String>::new(), "{runtime:?} leaves a unit");
    seen
}

#[test]
fn a_unit_is_made_as_runc_has_it_made() {
    systemd::here("q_systemd::a_unit_is_made_as_runc_has_it_made", || {
        let before = Census::take();
        let expected = seen(Runtime::Runc);
        assert_eq!(expected["/proc/PID/cgroup"], "0::/system.slice/it-one.scope");
        assert_eq!(seen(Runtime::Husk), expected);
        before.assert_unchanged();
    });
}

fn group(file: &str) -> String {
    let path = format!("/sys/fs/cgroup/system.slice/{SCOPE}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}")).trim().into()
}

#[test]
fn all_verbs_work_on_a_container_in_a_unit() {
    systemd::here("q_systemd::all_verbs_work_on_a_container_in_a_unit", || {
        let before = Census::take();
        let limits = json!({"memory": {"limit": 134_217_728}, "cpu": {"quota": 33333, "period": 100_000}, "pids": {"limit": 50}});
        let container = Created::under_systemd(Runtime::Husk, bundle(limits));
        let told = || systemd::properties(SCOPE, &["MemoryMax", "CPUQuotaPerSecUSec", "TasksMax"]);
        let limit: u64 = group("memory.max").parse().expect("a number");
        assert!(limit > 134_217_728, "{limit} leaves no room for the machine");
        assert_eq!(told()["MemoryMax"], limit.to_string());
        assert_eq!(
            (told()["CPUQuotaPerSecUSec"].as_str(), group("cpu.max").as_str()),
            ("840ms", "83333 100000")
        );
        assert_eq!(told()["TasksMax"], group("pids.max"));

        container.call("start", &[]).ok();
        container.wait_for("running");
        container.call_with("update", &["--cpu-quota", "50000", "--pids-limit", "20"], &[]).ok();
        assert_eq!(
            (told()["CPUQuotaPerSecUSec"].as_str(), group("cpu.max").as_str()),
            ("1s", "100000 100000")
        );
        assert_eq!(told()["TasksMax"], group("pids.max"));
        assert_eq!(container.sh("cat /sys/fs/cgroup/pids.max").ok().stdout, "20\n");

        // Who stands for an exec'd process is in the unit as well.
        let pid_file = container.bundle.path.join("exec-pid");
        let words = [
            "exec",
            "--detach",
            "--pid-file",
            pid_file.to_str().expect("text"),
            &container.id,
            "sleep",
            "1000",
        ];
        // It keeps what it inherits: not our pipes.
        let status = Runtime::Husk.command(words).stdout(Stdio::null()).status().expect("husk can be run");
        assert!(status.success());
        let stand_in = fs::read_to_string(&pid_file).expect("a pid file");
        assert!(group("cgroup.procs").lines().any(|pid| pid == stand_in.trim()), "{}", group("cgroup.procs"));
        let listed: Vec<i32> =
            serde_json::from_str(&container.call_with("ps", &["--format", "json"], &[]).ok().stdout)
                .expect("pids");
        assert!(listed.contains(&container.pid()), "{listed:?}");
        container.call_with("events", &["--stats"], &[]).ok();
        container.call("pause", &[]).ok();
        assert_eq!(container.state()["status"], "paused");
        container.call("resume", &[]).ok();

        container.call("kill", &["KILL"]).ok();
        container.wait_for("stopped");
        container.call("delete", &[]).ok();
        assert_eq!(systemd::units("it-"), Vec::<String>::new());
        drop(container);
        // The test takes in who stood for the exec'd process, as a caller's shim does.
        let stand_in = Pid::from_raw(stand_in.trim().parse().expect("a number"));
        waitpid(stand_in, None).expect("it is ours to take in");
        before.assert_unchanged();
    });
}

fn run(runtime: Runtime, change: impl Fn(&mut Bundle)) -> Output {
    let mut bundle = bundle(json!({}));
    bundle.args(&["cat", "/proc/self/cgroup"]);
    change(&mut bundle);
    let path = bundle.write().to_str().expect("text").to_owned();
    let id = fresh_id();
    let output = systemd::call(runtime, &["run", "--bundle", &path, &id]);
    let _ = runtime.call(["delete", "--force", &id]);
    output
}

#[test]
fn what_ends_or_fails_leaves_no_unit_and_errors_are_those_of_runc() {
    systemd::here("q_systemd::what_ends_or_fails_leaves_no_unit_and_errors_are_those_of_runc", || {
        let before = Census::take();
        assert_eq!(run(Runtime::Husk, |_| {}).ok().stdout, "0::/\n");
        assert_eq!(systemd::units("it-"), Vec::<String>::new());
        // One that failed and was not forgotten is in nobody's way.
        let mut failing = Command::new("systemd-run");
        failing.args([
            "--quiet",
            "--scope",
            "--slice=system.slice",
            "--unit=it-one",
            "-p",
            "RuntimeMaxSec=1",
            "sleep",
            "60",
        ]);
        assert_ne!(husk_integration::runtime::run(failing).code, 0);
        assert_eq!(systemd::properties(SCOPE, &["ActiveState"])["ActiveState"], "failed");
        run(Runtime::Husk, |_| {}).ok();

        run(Runtime::Husk, |bundle| bundle.args(&["/no/such/program"]));
        let unknown =
            |bundle: &mut Bundle| bundle.set("/annotations/org.systemd.property.Documentation", json!("5"));
        for (runtime, change) in
            [(Runtime::Husk, &unknown as &dyn Fn(&mut Bundle)), (Runtime::Runc, &unknown)]
        {
            let refused = run(runtime, change);
            assert!(
                refused.code == 1 && refused.stderr.contains("unable to start unit \\\"it-one.scope\\\""),
                "{refused:?}"
            );
        }
        let paths = ["/a/b", "a:b", "x:p:n", "a--b.slice:p:n"];
        for path in paths {
            let last = |runtime| {
                let refused = run(runtime, |bundle| bundle.set("/linux/cgroupsPath", json!(path)));
                assert_eq!(refused.code, 1, "{path}: {refused:?}");
                refused.stderr.replace("\\\"", "\"")
            };
            let expected = last(Runtime::Runc);
            let expected = expected
                .trim()
                .trim_end_matches('"')
                .rsplit_once("failed: ")
                .expect("runc's form")
                .1
                .to_owned();
            assert!(last(Runtime::Husk).contains(&expected), "{path}: {expected}");
        }
        let refused = run(Runtime::Husk, |bundle| {
            bundle.set("/annotations/org.systemd.property.MemoryMax", json!("uint64 1"));
        });
        assert!(refused.stderr.contains("not allowed by the operator"), "{refused:?}");
        assert_eq!(systemd::units("it-"), Vec::<String>::new());
        before.assert_unchanged();
    });
}

#[test]
fn without_systemd_it_is_refused_in_the_words_of_runc() {
    if systemd::is_running() {
        eprintln!("skipped: this host's init is systemd");
        return;
    }
    for runtime in [Runtime::Runc, Runtime::Husk] {
        let refused = run(runtime, |_| {});
        let expected = "systemd not running on this host, cannot use systemd cgroups manager";
        assert!(refused.code == 1 && refused.stderr.contains(expected), "{refused:?}");
    }
}
