//! A host whose init is systemd, for tests that want to ask it for control groups.

use crate::runtime::{Runtime, run};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

/// Starts systemd in namespaces of its own (`emulated/systemd` says how).
const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/emulated/systemd");

/// Whether this host's init is systemd.
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Runs the body of the test called `name` where systemd is the init: here, if it is the init of this host; else in this
/// program started again, with that test alone, in namespaces in which it is.
#[track_caller]
pub fn here(name: &str, body: impl FnOnce()) {
    if is_running() {
        return body();
    }
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(STARTER);
    command.arg("run").arg(this).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let output = run({
        command.stdin(Stdio::null());
        command
    });
    assert!(
        output.code == 0 && output.stdout.contains("1 passed"),
        "{name} where systemd is the init: {}\n{}",
        output.stdout,
        output.stderr
    );
}

/// Properties of a unit, as `systemctl show` has them.
#[track_caller]
pub fn properties(unit: &str, names: &[&str]) -> BTreeMap<String, String> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--no-pager", &format!("--property={}", names.join(",")), unit]);
    let shown = run(command).ok().stdout;
    shown.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

/// The loaded units whose names begin with `prefix`.
#[track_caller]
pub fn units(prefix: &str) -> Vec<String> {
    let mut command = Command::new("systemctl");
    command.args(["list-units", "--all", "--output=json", "--no-pager", &format!("{prefix}*")]);
    let shown: Value = serde_json::from_str(&run(command).ok().stdout).expect("a list");
    let units = shown.as_array().expect("a list").iter();
    units.map(|unit| unit["unit"].as_str().expect("a name").to_owned()).collect()
}

/// The same call of `runtime`, with systemd making control groups.
#[track_caller]
pub fn call(runtime: Runtime, args: &[&str]) -> crate::runtime::Output {
    runtime.call([&["--systemd-cgroup"], args].concat())
}
