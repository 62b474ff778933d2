//! Hooks: all six, in their place, order and namespaces, with the state on stdin, within their time.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    created::Created,
    runtime::Runtime,
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};

/// The kinds, in the order in which they run.
const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A hook that writes what it sees to DIRECTORY/KIND.INDEX and notes its name in DIRECTORY/order.
fn script(directory: &str) -> String {
    format!(
        "#!/bin/sh\nd={directory}\ncat > $d/$1\necho $1 >> $d/order\nreadlink /proc/self/ns/net > $d/$1.net\n\
         echo \"$GIVEN $#\" > $d/$1.env\nhostname > $d/$1.host\n"
    )
}

fn with_hooks(args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(Image::Busybox, args);
    let outside = bundle.path.join("seen");
    fs::create_dir(&outside).expect("a directory");
    fs::create_dir(bundle.rootfs().join("seen")).expect("a directory");
    let write = |path: std::path::PathBuf, text: String| {
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode can be set");
    };
    write(bundle.path.join("hook"), script(outside.to_str().expect("text")));
    write(bundle.rootfs().join("hook"), script("/seen"));
    let hooks: serde_json::Map<String, Value> = KINDS
        .iter()
        .map(|kind| {
            let path = if *kind == "startContainer" { "/hook".into() } else { bundle.path.join("hook") };
            let one = |index: u8| {
                json!({"path": path, "args": ["hook", format!("{kind}.{index}"), "more"],
                       "env": ["GIVEN=yes", "PATH=/usr/bin:/bin:/usr/sbin"], "timeout": 60})
            };
            ((*kind).to_owned(), json!([one(0), one(1)]))
        })
        .collect();
    bundle.config["hooks"] = hooks.into();
    bundle.set("/hostname", json!("inside"));
    bundle
}

#[test]
fn all_six_run_in_their_place_with_the_state_on_stdin() {
    let before = Census::take();
    {
        let container =
            Created::new(Runtime::Husk, with_hooks(&["sh", "-c", "cat /seen/order; exec sleep 1000"]));
        let outside = container.bundle.path.join("seen");
        let read = |name: &str| fs::read_to_string(outside.join(name)).unwrap_or_default();
        let inside = |name: &str| {
            fs::read_to_string(container.bundle.rootfs().join("seen").join(name)).unwrap_or_default()
        };
        let twice =
            |kinds: &[&str]| -> String { kinds.iter().map(|kind| format!("{kind}.0\n{kind}.1\n")).collect() };
        assert_eq!(read("order"), twice(&KINDS[..3]));
        assert_eq!(inside("order"), "", "startContainer hooks do not run before start");
        container.call("start", &[]).ok();
        container.wait_for_text("startContainer.1");
        assert_eq!(container.stdout(), twice(&["startContainer"]), "they ran before the program");
        assert_eq!(read("order"), twice(&["prestart", "createRuntime", "createContainer", "poststart"]));

        for (kind, status) in [
            ("prestart", "creating"),
            ("createRuntime", "creating"),
            ("createContainer", "creating"),
            ("poststart", "running"),
        ] {
            let state: Value = serde_json::from_str(&read(&format!("{kind}.1"))).expect("the state is JSON");
            assert_eq!(
                (state["id"].as_str(), state["status"].as_str()),
                (Some(&*container.id), Some(status)),
                "{kind}"
            );
            assert_eq!(state["pid"], container.pid(), "{kind}");
            assert_eq!(state["bundle"], container.bundle.path.to_str().expect("text"), "{kind}");
            assert_eq!(read(&format!("{kind}.0.env")), "yes 2\n", "{kind}");
        }
        let state: Value = serde_json::from_str(&inside("startContainer.0")).expect("the state is JSON");
        assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("created"), Some(1)));
        assert_eq!(
            (inside("startContainer.0.host"), inside("startContainer.0.env")),
            ("inside\n".into(), "yes 2\n".into())
        );

        let own = fs::read_link("/proc/self/ns/net").expect("a link").to_string_lossy().into_owned();
        assert_eq!(read("createRuntime.0.net").trim(), own);
        let machines = fs::read_link(format!("/proc/{}/ns/net", container.pid())).expect("a link");
        assert_eq!(read("createContainer.0.net").trim(), machines.to_string_lossy());
        assert_ne!(read("createContainer.0.net").trim(), own);

        Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
        container.wait_for("stopped");
        container.call("delete", &[]).ok();
        let state: Value = serde_json::from_str(&read("poststop.1")).expect("the state is JSON");
        assert_eq!(state["status"], "stopped");
        assert!(read("order").ends_with(&twice(&["poststop"])));
    }
    before.assert_unchanged();
}

/// A bundle with one hook of this kind, a shell script of the host or (startContainer) of the container.
fn with_hook(kind: &str, script: &str, timeout: Option<u32>) -> Bundle {
    let mut bundle = Bundle::new(Image::Busybox, &["sh", "-c", "echo program; sleep 1000"]);
    let mut hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]});
    if let Some(timeout) = timeout {
        hook["timeout"] = json!(timeout);
    }
    bundle.config["hooks"] = json!({kind: [{"path": "/bin/true"}, hook]});
    bundle
}

#[test]
fn a_hook_that_fails_is_named_as_by_runc_and_nothing_is_left() {
    let before = Census::take();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let (container, output) =
            Created::attempt(Runtime::Husk, with_hook(kind, "echo o; echo e >&2; exit 3", None));
        assert_eq!(output.code, 1, "{kind}");
        let words = format!("error running {kind} hook #1: exit status 3, stdout: o, stderr: e");
        assert!(output.stderr.contains(&words), "{output:?}");
        assert!(container.call("state", &[]).stderr.contains("does not exist"), "{kind}");
    }
    for kind in ["startContainer", "poststart"] {
        let container = Created::new(Runtime::Husk, with_hook(kind, "echo o; echo e >&2; exit 3", None));
        let output = container.call("start", &[]);
        assert_eq!(output.code, 1, "{kind}");
        let words = format!("error running {kind} hook #1: exit status 3, stdout: o, stderr: e");
        assert!(output.stderr.contains(&words), "{output:?}");
        container.wait_for("stopped");
        if kind == "startContainer" {
            assert_eq!(container.stdout(), "", "the program ran");
        }
        container.call("delete", &[]).ok();
    }
    before.assert_unchanged();
}

#[test]
fn a_hook_that_hangs_is_ended_when_its_time_is_over() {
    let before = Census::take();
    let (_container, output) =
        Created::attempt(Runtime::Husk, with_hook("createRuntime", "sleep 1000 & sleep 1000", Some(1)));
    assert!(
        output
            .stderr
            .contains("error running createRuntime hook #1: hook ran past specified timeout of 1.0s"),
        "{output:?}"
    );
    drop(_container);
    {
        let container =
            Created::new(Runtime::Husk, with_hook("startContainer", "sleep 1000 & sleep 1000", Some(1)));
        let output = container.call("start", &[]);
        assert!(
            output
                .stderr
                .contains("error running startContainer hook #1: hook ran past specified timeout of 1.0s"),
            "{output:?}"
        );
    }
    {
        // One without a limit may take as long as it likes, and the container can be killed meanwhile.
        let container = Created::new(Runtime::Husk, with_hook("startContainer", "sleep 1000", None));
        let starting = std::thread::spawn({
            let id = container.id.clone();
            move || Runtime::Husk.call(["start", &id])
        });
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(!starting.is_finished());
        Runtime::Husk.call(["kill", &container.id, "KILL"]).ok();
        assert_eq!(starting.join().expect("it ends").code, 1);
    }
    // What a hook left behind is ours to reap now.
    let any = Some(nix::sys::wait::WaitPidFlag::WNOHANG);
    while nix::sys::wait::waitpid(None, any)
        .is_ok_and(|status| status != nix::sys::wait::WaitStatus::StillAlive)
    {}
    before.assert_unchanged();
}

#[test]
fn a_start_hook_is_what_the_program_will_be() {
    let mut bundle = with_hook(
        "startContainer",
        "id -u > /tmp/who; pwd >> /tmp/who; grep NoNewPrivs /proc/self/status >> /tmp/who",
        None,
    );
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("/process/cwd", json!("/tmp"));
    let container = Created::started(Runtime::Husk, bundle);
    container.wait_for_text("program");
    let who = fs::read_to_string(container.bundle.rootfs().join("tmp/who")).expect("it was written");
    assert_eq!(who, "1000\n/tmp\nNoNewPrivs:\t1\n");
}
