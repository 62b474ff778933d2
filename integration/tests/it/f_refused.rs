//! Bad input: a clear error, the right status, and nothing left behind.

use husk_integration::{
    bundle::{Bundle, Image},
    census::Census,
    running::Running,
    runtime::{Output, Runtime},
    scenario::{fresh_id, run_configured},
};
use serde_json::json;
use std::process::Stdio;

/// Runs a changed bundle; the census must be equal and the status 1, unless the container was to run.
#[track_caller]
fn refused(change: impl Fn(&mut Bundle)) -> Output {
    let output = husk_integration::scenario::run(Runtime::Husk, Image::Busybox, &["true"], change);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(!output.stderr.trim().is_empty(), "nothing was said");
    output
}

#[track_caller]
fn says(output: &Output, words: &[&str]) {
    for word in words {
        assert!(output.stderr.contains(word), "{word:?} is not in {:?}", output.stderr);
    }
}

#[test]
fn a_bundle_that_is_not_one() {
    let before = Census::take();
    let missing = Runtime::Husk.call(["run", "-b", "/nonexistent", "some-id"]);
    assert_eq!(missing.code, 1);
    says(&missing, &["/nonexistent", "no such file or directory"]);
    {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        let run = || {
            Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), bundle.path.as_os_str(), "some-id".as_ref()])
        };
        says(&run(), &["config.json"]);
        for (content, words) in [
            ("", vec!["config.json"]),
            ("{", vec!["config.json"]),
            ("[]", vec!["config.json"]),
            ("{\"ociVersion\": 1}", vec!["config.json"]),
            ("{\"ociVersion\": \"99.0.0\"}", vec!["99.0.0"]),
        ] {
            std::fs::write(bundle.path.join("config.json"), content).expect("it can be written");
            let output = run();
            assert_eq!(output.code, 1, "{content}");
            says(&output, &words);
        }
    }
    before.assert_unchanged();
}

#[test]
fn a_root_that_is_not_a_directory() {
    says(&refused(|bundle| bundle.set("/root/path", json!("nowhere"))), &["nowhere"]);
    says(
        &refused(|bundle| {
            std::fs::write(bundle.path.join("file"), "").expect("it can be written");
            bundle.set("/root/path", json!("file"));
        }),
        &["file", "not a directory"],
    );
}

#[test]
fn a_working_directory_and_a_user_that_cannot_be() {
    // One that does not exist is made, as by runc; one that is a file cannot be.
    says(&refused(|bundle| bundle.set("/process/cwd", json!("/etc/passwd"))), &["/etc/passwd"]);
    says(&refused(|bundle| bundle.set("/process/cwd", json!("relative"))), &["cwd"]);
    says(&refused(|bundle| bundle.set("/process/user/uid", json!(-1))), &["config.json"]);
    says(&refused(|bundle| bundle.set("/process/args", json!([]))), &["args"]);
}

#[test]
fn memory_too_small_and_vcpus_too_many() {
    let output = refused(|bundle| bundle.set("/linux/resources", json!({"memory": {"limit": 4096}})));
    says(&output, &["memory"]);
}

#[test]
fn host_network_is_refused_with_a_way_out() {
    let output = refused(|bundle| {
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().expect("an array");
        namespaces.retain(|namespace| namespace["type"] != "network");
    });
    says(&output, &["network"]);
}

#[test]
fn ids_that_are_not_ids() {
    let bundle = Bundle::new(Image::Busybox, &["true"]);
    let path = bundle.write().to_owned();
    for id in ["", "../x", "a/b", "a b", &"x".repeat(2000)] {
        let output = Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), id.as_ref()]);
        assert_eq!(output.code, 1, "{id}");
    }
    let output = Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), "a/b".as_ref()]);
    says(&output, &["invalid container ID format"]);
}

#[test]
fn an_id_that_exists_is_refused_and_the_first_goes_on() {
    let before = Census::take();
    {
        let mut first =
            Running::new(Bundle::new(Image::Busybox, &["sleep", "1000"]), Stdio::inherit(), Stdio::inherit());
        let (path, id) = (first.bundle.path.clone(), first.id.clone());
        let second = Runtime::Husk.call(["run".as_ref(), "-b".as_ref(), path.as_os_str(), id.as_ref()]);
        assert_eq!(second.code, 1);
        says(&second, &["container with given ID already exists"]);
        assert!(Runtime::Husk.call(["state", &id]).ok().stdout.contains("running"));
        Runtime::Husk.call(["kill", &id, "KILL"]).ok();
        assert_eq!(first.end(), 137);
    }
    before.assert_unchanged();
}

#[test]
fn an_unknown_id_does_not_exist() {
    for verb in ["state", "start", "kill", "delete", "pause", "resume"] {
        let output = Runtime::Husk.call([verb, "no-such-container"]);
        assert_eq!(output.code, 1, "{verb}");
        says(&output, &["container does not exist"]);
    }
    Runtime::Husk.call(["delete", "--force", "no-such-container"]).ok();
}

#[test]
fn the_json_log_tells_the_caller_why() {
    let bundle = Bundle::new(Image::Busybox, &["nonexistent-program"]);
    let log = bundle.path.join("log.json");
    let path = bundle.write().to_owned();
    let output = Runtime::Husk.call([
        "--log".as_ref(),
        log.as_os_str(),
        "--log-format".as_ref(),
        "json".as_ref(),
        "run".as_ref(),
        "-b".as_ref(),
        path.as_os_str(),
        fresh_id().as_ref(),
    ]);
    assert_eq!(output.code, 1);
    let text = std::fs::read_to_string(&log).expect("the log is there");
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    let line: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().expect("text").contains("executable file not found in $PATH"), "{line}");
    assert!(line["time"].is_string());
}

#[test]
fn a_kernel_that_is_not_one() {
    let before = Census::take();
    {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        for (content, word) in [("not a kernel at all", "kernel"), ("\x7fELF", "kernel")] {
            let kernel = bundle.path.join("kernel");
            std::fs::write(&kernel, content).expect("it can be written");
            let output = run_configured(&bundle, &format!("[machine]\nkernel = {kernel:?}\n"));
            assert_eq!(output.code, 1);
            says(&output, &[word]);
        }
    }
    before.assert_unchanged();
}

#[test]
fn no_room_for_the_state() {
    let before = Census::take();
    {
        let bundle = Bundle::new(Image::Busybox, &["true"]);
        let root = bundle.path.join("full");
        std::fs::create_dir(&root).expect("a directory");
        nix::mount::mount(
            Some("tmpfs"),
            &root,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=4k,nr_inodes=8"),
        )
        .expect("a small tmpfs");
        std::fs::write(root.join("filler"), vec![0; 4096]).expect("it fits");
        let output = Runtime::Husk.call([
            "--root".as_ref(),
            root.as_os_str(),
            "run".as_ref(),
            "-b".as_ref(),
            bundle.write().as_os_str(),
            "some-id".as_ref(),
        ]);
        let left: Vec<_> =
            std::fs::read_dir(&root).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
        nix::mount::umount(&root).expect("nobody uses it");
        assert_eq!(output.code, 1, "{output:?}");
        says(&output, &["state.json", "no space left on device"]);
        assert_eq!(left, ["filler"], "something was left in the full state directory");
    }
    before.assert_unchanged();
}

#[test]
fn a_state_file_cut_short_is_named_and_can_be_deleted() {
    let root = "/run/husk-it-cut";
    let id = "cut-short";
    std::fs::create_dir_all(format!("{root}/{id}")).expect("a directory");
    std::fs::write(format!("{root}/{id}/state.json"), "{\"id\": \"cut").expect("a file");
    let state = Runtime::Husk.call(["--root", root, "state", id]);
    assert_eq!(state.code, 1);
    says(&state, &["state.json"]);
    Runtime::Husk.call(["--root", root, "list"]).ok();
    Runtime::Husk.call(["--root", root, "delete", "--force", id]).ok();
    assert!(!std::path::Path::new(root).join(id).exists());
    let _ = std::fs::remove_dir_all(root);
}
