//! The command line as runc's callers use it: words in, exit codes and words out.

use crate::support::{Place, config, config_with};
use serde_json::{Value, json};

#[test]
fn command_lines_that_cannot_be_understood() {
    let place = Place::new();
    // words, exit code, message
    let table: &[(&[&str], i32, &str)] = &[
        (&["frobnicate"], 3, "No help topic for 'frobnicate'"),
        (&["--no-such-option", "list"], 1, "flag provided but not defined: -no-such-option"),
        (&["state", "--no-such-option", "c"], 1, "flag provided but not defined: -no-such-option"),
        (&["create", "--bundle"], 1, "flag needs an argument: -bundle"),
        (&["delete", "--force=perhaps", "c"], 1, "invalid boolean value \"perhaps\" for -force: parse error"),
        (&["--log-format", "xml", "list"], 1, "invalid log-format: xml"),
        (
            &["--rootless", "maybe", "list"],
            1,
            "invalid value for --rootless: \"maybe\" is none of true, false and auto",
        ),
        (&["kill", "c", "9", "9"], 1, "\"kill\" requires a maximum of 2 argument(s)"),
        (&["state"], 1, "\"state\" requires exactly 1 argument(s)"),
        (&["state", "a", "b"], 1, "\"state\" requires exactly 1 argument(s)"),
        (&["list", "c"], 1, "\"list\" requires exactly 0 argument(s)"),
        (&["exec"], 1, "\"exec\" requires a minimum of 1 argument(s)"),
        (&["ps"], 1, "\"ps\" requires a minimum of 1 argument(s)"),
        (&["list", "--format", "yaml"], 1, "invalid format option"),
    ];
    for (words, code, message) in table {
        let ran = place.husk(words);
        assert_eq!(ran.code, *code, "{words:?}: {}", ran.err);
        assert!(ran.message().ends_with(message), "{words:?}: {}", ran.message());
    }
    let ran = place.husk_alone(&["--root", "/", "list"]);
    assert_eq!((ran.code, ran.message().as_str()), (1, "Option --root argument should not be set to /"));
}

#[test]
fn usage_errors_come_with_help_on_standard_output() {
    let place = Place::new();
    let ran = place.husk(&["state", "--wrong"]);
    assert!(
        ran.out.starts_with(
            "Incorrect Usage: flag provided but not defined: -wrong\n\nPrint a container's state"
        ),
        "{}",
        ran.out
    );
    for words in [&["--help"][..], &["help"], &["state", "--help"], &["help", "state"], &["state", "-h"], &[]]
    {
        let ran = place.husk_alone(words);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{words:?}");
        assert!(ran.out.contains("Usage: husk"), "{words:?}: {}", ran.out);
    }
}

#[test]
fn containers_that_are_not_there() {
    let place = Place::new();
    for words in [
        &["state", "c"][..],
        &["start", "c"],
        &["kill", "c"],
        &["kill", "--all", "c", "KILL"],
        &["kill", "c", "NONSENSE"],
        &["delete", "c"],
        &["pause", "c"],
        &["resume", "c"],
        &["ps", "c"],
        &["ps", "--format", "json", "c"],
        &["events", "--stats", "c"],
        &["update", "--pids-limit", "5", "c"],
    ] {
        let ran = place.husk(words);
        assert_eq!((ran.code, ran.message().as_str()), (1, "container does not exist"), "{words:?}");
    }
    let ran = place.husk(&["exec", "c", "true"]);
    assert_eq!((ran.code, ran.message().as_str()), (255, "exec failed: container does not exist"));
    assert_eq!(place.husk(&["delete", "--force", "c"]).code, 0);
    assert_eq!(place.husk(&["delete", "-force=true", "c"]).code, 0);
}

#[test]
fn options_that_a_machine_has_no_use_for_are_accepted() {
    let place = Place::new();
    for words in [
        &["--systemd-cgroup", "--rootless=true", "--rootless", "auto", "--criu", "/usr/bin/criu", "list"][..],
        &["-root", "/tmp/husk-test-no-such-root-but-two", "-root", ".", "-debug=false", "list", "-q"],
    ] {
        let ran = place.husk_alone(words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.err);
    }
    let ran = place.husk(&["create", "--no-pivot", "-no-new-keyring", "--preserve-fds=0", "c"]);
    assert!(ran.message().contains("config.json not found"), "{}", ran.err);
    let ran = place.husk(&["run", "-no-subreaper", "-keep", "-d", "c"]);
    assert!(ran.message().contains("config.json not found"), "{}", ran.err);
}

#[test]
fn what_husk_cannot_do_is_refused_in_words() {
    let place = Place::new();
    let mut config = config();
    config["linux"]["cgroupsPath"] = json!("/not/of/systemd");
    place.write_config(config.to_string());
    let table: &[(&[&str], &str)] = &[
        (
            &["checkpoint", "--image-path", "/x", "c"],
            "checkpoint: husk does not save and restore containers yet",
        ),
        (&["restore", "-no-subreaper", "c"], "restore: husk does not save and restore containers yet"),
        (
            &["create", "--preserve-fds", "1", "c"],
            "--preserve-fds: open descriptors of the host cannot be passed into a machine",
        ),
        (&["--systemd-cgroup", "create", "c"], "expected cgroupsPath to be of format \"slice:prefix:name\""),
    ];
    for (words, message) in table {
        let ran = place.husk(words);
        assert_eq!(ran.code, 1, "{words:?}");
        assert!(ran.message().contains(message), "{words:?}: {}", ran.message());
    }
    assert!(place.left().is_empty());
}

#[test]
fn the_version_is_told_in_runcs_form() {
    let place = Place::new();
    for words in [["--version"], ["-v"]] {
        let ran = place.husk_alone(&words);
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!(ran.code, 0);
        assert_eq!(lines[0], format!("husk version {}", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].starts_with("commit: ") && lines[2].starts_with("spec: 1."), "{lines:?}");
    }
}

#[test]
fn the_log_file_gets_one_json_object_for_a_failure_and_nothing_for_a_success() {
    let place = Place::new();
    let log = place.path("log.json");
    let with_log = |words: &[&str]| {
        let mut all = vec!["--log", log.to_str().unwrap(), "--log-format", "json"];
        all.extend(words);
        place.husk(&all)
    };
    assert_eq!(with_log(&["list"]).code, 0);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "");
    let ran = with_log(&["state", "c"]);
    assert_eq!((ran.code, ran.err.as_str()), (1, "container does not exist\n"));
    let text = std::fs::read_to_string(&log).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["level"], &line["msg"]), (&json!("error"), &json!("container does not exist")));
    assert!(humantime::parse_rfc3339(line["time"].as_str().unwrap()).is_ok());
    // Appended, one line each.
    with_log(&["exec", "c", "true"]);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 2);
    // Usage errors are failures like others only once the log is known; they are told on standard error.
    assert_eq!(
        place.husk(&["--log", "/no/such/directory/log", "list"]).message(),
        "open /no/such/directory/log: no such file or directory"
    );
}

#[test]
fn the_reason_reaches_the_log_as_the_caller_will_show_it() {
    let place = Place::new();
    place.write_config(config_with("/process/args", json!([])).to_string());
    let log = place.path("log.json");
    let ran =
        place.husk(&["--log", log.to_str().unwrap(), "--log-format=json", "create", "--bundle", ".", "c"]);
    let line: Value = serde_json::from_str(&std::fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(line["msg"], "husk create failed: process.args: args must not be empty");
    assert_eq!(ran.err.trim_end(), line["msg"].as_str().unwrap());
}

#[test]
fn a_root_that_was_named_must_be_there_to_be_listed() {
    let place = Place::new();
    let missing = place.path("missing");
    let ran = place.husk_alone(&["--root", missing.to_str().unwrap(), "list"]);
    assert_eq!(ran.message(), format!("open {}: no such file or directory", missing.display()));
    assert_eq!(place.husk(&["list", "-f", "json"]).out, "null\n");
    assert_eq!(place.husk(&["list", "--quiet"]).out, "");
}

#[test]
fn features_name_only_what_works() {
    let place = Place::new();
    let ran = place.husk_alone(&["features"]);
    let features: Value = serde_json::from_str(&ran.out).unwrap();
    serde_json::from_value::<oci_spec::runtime::Features>(features.clone()).unwrap();
    assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], false);
    let groups = &features["linux"]["cgroup"];
    assert_eq!(
        (&groups["v1"], &groups["systemd"], &groups["systemdUser"]),
        (&json!(false), &json!(true), &json!(false))
    );
    let list = |value: &Value| {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let options = list(&features["mountOptions"]);
    assert!(options.contains(&"rro".to_owned()) && !options.contains(&"idmap".to_owned()));
    assert!(!list(&features["linux"]["seccomp"]["actions"]).contains(&"SCMP_ACT_NOTIFY".to_owned()));
    assert_eq!(list(&features["hooks"]).len(), 6);
}

#[test]
fn spec_writes_a_bundle_that_is_a_specification_and_does_not_overwrite() {
    let place = Place::new();
    let ran = place.husk_alone(&["spec"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    let text = std::fs::read(place.bundle().join("config.json")).unwrap();
    let spec = husk::bundle::spec::parse(&text).unwrap();
    assert!(spec.root().as_ref().unwrap().readonly().unwrap());
    assert_eq!(place.husk_alone(&["spec"]).message(), "File config.json exists. Remove it first");
    let other = place.path("other");
    std::fs::create_dir(&other).unwrap();
    assert_eq!(place.husk_alone(&["spec", "--rootless", "-b", other.to_str().unwrap()]).code, 0);
    assert!(other.join("config.json").is_file());
}

#[test]
fn hidden_verbs_are_not_for_people() {
    let place = Place::new();
    for verb in ["machine", "stand-in"] {
        let ran = place.husk_alone(&[verb]);
        assert_eq!(ran.code, 1, "{verb}");
        assert!(ran.err.contains("is started by husk itself"), "{}", ran.err);
    }
}

#[test]
fn check_tells_a_line_for_each_thing_and_fails_without_a_guest() {
    let place = Place::new();
    std::fs::write(place.path("operator.toml"), "[machine]\nkernel = '/no/such/kernel'\n").unwrap();
    let ran = place.husk(&["check"]);
    assert_eq!(ran.code, 1);
    for what in ["/dev/kvm ", "guest ", "kvm ", "/dev/net/tun ", "cgroup ", "seccomp ", "landlock "] {
        assert!(ran.out.lines().any(|line| line.starts_with(what)), "{what}: {}", ran.out);
    }
    assert!(ran.out.contains("/no/such/kernel"), "{}", ran.out);
}

#[test]
fn completion_scripts_know_the_verbs() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let ran = place.husk_alone(&["completion", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains("features"), "{shell}");
    }
}
