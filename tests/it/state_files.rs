//! State files that are not whole, through the command.

use crate::support::Place;
use serde_json::{Value, json};

/// A state as husk writes it, of a container whose machine is long gone.
fn state(id: &str) -> Value {
    json!({
        "format": 1, "id": id, "pid": 1, "startTime": 1, "stage": "created", "bundle": "/b", "rootfs": "/b/rootfs",
        "created": "2026-01-02T03:04:05.6Z", "annotations": {"note": "x"},
        "hooks": {"prestart": [], "create_runtime": [], "create_container": [], "poststart": [], "poststop": []},
        "cgroup": null, "memoryMib": 512,
        "exec": {"capabilities": {"bounding": 0, "effective": 0, "inheritable": 0, "permitted": 0, "ambient": 0}, "oomScoreAdj": null},
    })
}

fn put(place: &Place, id: &str, text: &[u8]) {
    let directory = place.root().join(id);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("state.json"), text).unwrap();
}

#[test]
fn a_container_whose_machine_is_gone_has_stopped() {
    let place = Place::new();
    put(&place, "one", state("one").to_string().as_bytes());
    let ran = place.husk(&["state", "one"]);
    let shown: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&shown["status"], &shown["pid"], &shown["id"]),
        (&json!("stopped"), &json!(0), &json!("one"))
    );
    let keys: Vec<&str> =
        ran.out.lines().filter_map(|line| line.trim().strip_prefix('"')?.split('"').next()).collect();
    assert_eq!(
        keys,
        ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "note", "owner"]
    );

    for (words, message) in [
        (&["start", "one"][..], "cannot start a container that has stopped"),
        (&["kill", "one"], "container not running"),
        (&["kill", "one", "KILL"], "container not running"),
        (&["pause", "one"], "container not running"),
        (&["events", "one"], "container with id one is not running"),
        (&["update", "--pids-limit", "5", "one"], "container not running"),
    ] {
        let ran = place.husk(words);
        assert_eq!((ran.code, ran.message().as_str()), (1, message), "{words:?}");
    }
    let ran = place.husk(&["exec", "one", "true"]);
    assert_eq!((ran.code, ran.message().as_str()), (255, "exec failed: cannot exec in a stopped container"));
    assert_eq!(place.husk(&["kill", "--all", "one", "9"]).code, 0);
    assert_eq!(place.husk(&["ps", "--format", "json", "one"]).out, "[]\n");
    assert_eq!(place.husk(&["delete", "one"]).code, 0);
    assert!(place.left().is_empty());
}

#[test]
fn list_goes_on_past_a_damaged_state_and_shows_the_rest() {
    let place = Place::new();
    put(&place, "good", state("good").to_string().as_bytes());
    let whole = state("bad").to_string();
    for length in (0..whole.len()).step_by(7) {
        put(&place, "bad", &whole.as_bytes()[..length]);
        let ran = place.husk(&["list", "-q"]);
        assert_eq!((ran.code, ran.out.as_str()), (0, "good\n"), "{length}");
        assert!(
            ran.err.starts_with("load container bad: the state file ") && ran.err.contains("bad/state.json"),
            "{}",
            ran.err
        );
    }
    let table = place.husk(&["list"]).out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID          PID         STATUS      BUNDLE      CREATED"), "{table}");
    assert!(
        lines[1].starts_with("good        0           stopped     /b          2026-01-02T03:04:05.6Z   "),
        "{table}"
    );
    let listed: Value = serde_json::from_str(&place.husk(&["list", "-f", "json"]).out).unwrap();
    assert_eq!(listed[0]["id"], "good");
    assert!(listed[0]["owner"].as_str().is_some_and(|owner| !owner.is_empty()));
}

#[test]
fn a_damaged_state_is_named_and_delete_with_force_removes_it() {
    let place = Place::new();
    let whole = state("bad").to_string();
    put(&place, "bad", &whole.as_bytes()[..whole.len() / 2]);
    for verb in ["state", "start", "kill", "delete"] {
        let ran = place.husk(&[verb, "bad"]);
        assert_eq!(ran.code, 1, "{verb}");
        assert!(ran.message().contains("bad/state.json is damaged"), "{verb}: {}", ran.err);
    }
    assert_eq!(place.husk(&["delete", "--force", "bad"]).code, 0);
    assert!(place.left().is_empty());
}

#[test]
fn what_a_killed_create_left_without_a_state_does_not_exist_and_is_removed() {
    let place = Place::new();
    std::fs::create_dir(place.root().join("half")).unwrap();
    assert_eq!(place.husk(&["state", "half"]).message(), "container does not exist");
    assert_eq!(place.husk(&["delete", "half"]).message(), "container does not exist");
    assert!(place.left().is_empty());
    std::fs::create_dir(place.root().join("half")).unwrap();
    assert_eq!(place.husk(&["delete", "-f", "half"]).code, 0);
    assert!(place.left().is_empty());
}

#[test]
fn a_name_that_is_taken_is_not_touched() {
    let place = Place::new();
    place.write_config(crate::support::config().to_string());
    put(&place, "one", state("one").to_string().as_bytes());
    let ran = place.husk(&["create", "one"]);
    assert_eq!(
        (ran.code, ran.message().as_str()),
        (1, "husk create failed: container with given ID already exists")
    );
    assert_eq!(place.husk(&["state", "one"]).code, 0);
}

#[test]
fn poststop_hooks_run_when_a_container_is_deleted() {
    let place = Place::new();
    let told = place.path("told");
    let mut with_hooks = state("one");
    let hook = |script: String| json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": null});
    with_hooks["hooks"]["poststop"] =
        json!([hook(format!("cat > {}", told.display())), hook("exit 5".into())]);
    put(&place, "one", with_hooks.to_string().as_bytes());
    let ran = place.husk(&["delete", "one"]);
    // Told, and no failure of the delete.
    assert_eq!(ran.code, 0);
    assert!(ran.err.starts_with("WARNING: error running poststop hook #1: exit status 5"), "{}", ran.err);
    let state: Value = serde_json::from_slice(&std::fs::read(told).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["status"]), (&json!("one"), &json!("stopped")));
    assert!(place.left().is_empty(), "the container is gone all the same");
}
