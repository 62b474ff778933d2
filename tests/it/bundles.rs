//! Bundles that are none: a clear error, exit code 1, nothing left.

use crate::support::{Place, config, config_with};
use serde_json::json;
use std::os::unix::fs::symlink;

/// Runs `create` and gives the message, having checked the rest.
fn refused(place: &Place, bundle: &str) -> String {
    let ran = place.husk(&["create", "--bundle", bundle, "c"]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(place.left().is_empty(), "{:?}", place.left());
    let message = ran.message();
    message.strip_prefix("husk create failed: ").unwrap_or_else(|| panic!("{message}")).to_owned()
}

#[test]
fn no_bundle_or_a_file_in_its_place() {
    let place = Place::new();
    assert_eq!(refused(&place, "/no/such/bundle"), "chdir /no/such/bundle: no such file or directory");
    let file = place.path("operator.toml");
    assert_eq!(refused(&place, file.to_str().unwrap()), format!("chdir {}: not a directory", file.display()));
}

#[test]
fn no_config_or_one_that_cannot_be_read() {
    let place = Place::new();
    assert_eq!(refused(&place, "."), "JSON specification file config.json not found");
    std::fs::create_dir(place.bundle().join("config.json")).unwrap();
    assert!(refused(&place, ".").ends_with("config.json: is a directory"));
    std::fs::remove_dir(place.bundle().join("config.json")).unwrap();
    nix::unistd::mkfifo(&place.bundle().join("config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refused(&place, ".").ends_with("config.json: not a regular file"), "and it does not hang");
    std::fs::remove_file(place.bundle().join("config.json")).unwrap();
    symlink("/dev/zero", place.bundle().join("config.json")).unwrap();
    assert!(refused(&place, ".").ends_with("config.json: not a regular file"));
}

#[test]
fn a_config_longer_than_any_is_not_read_to_its_end() {
    let place = Place::new();
    let file = std::fs::File::create(place.bundle().join("config.json")).unwrap();
    file.set_len(10 << 30).unwrap();
    assert!(refused(&place, ".").contains("longer than 8388608 bytes"));
}

#[test]
fn a_config_that_is_not_json_or_not_a_specification() {
    let place = Place::new();
    let table: [(&str, &str); 9] = [
        ("", "config.json: not valid JSON: EOF"),
        ("{", "config.json: not valid JSON: EOF"),
        ("hello", "config.json: not valid JSON: expected value"),
        ("{} {}", "config.json: not valid JSON: trailing characters"),
        ("[]", "config.json: (top level): invalid type: list"),
        ("null", "config.json: (top level): invalid type: null"),
        ("7", "config.json: (top level): invalid type: integer"),
        ("{}", "config.json: ociVersion: \"\" is not a version"),
        (r#"{"ociVersion": "2.0.0"}"#, "config.json: ociVersion: \"2.0.0\" is not a version"),
    ];
    for (text, message) in table {
        place.write_config(text);
        let told = refused(&place, ".");
        assert!(told.starts_with(message), "{text:?}: {told}");
    }
}

#[test]
fn no_root_filesystem_or_something_else_in_its_place() {
    let place = Place::new();
    let rootfs = place.bundle().join("rootfs");
    let mut no_root = config();
    no_root.as_object_mut().unwrap().remove("root");
    place.write_config(no_root.to_string());
    assert_eq!(refused(&place, "."), "invalid rootfs: root must be specified");
    place.write_config(config_with("/root/path", json!("")).to_string());
    assert_eq!(refused(&place, "."), "invalid rootfs: root.path must not be empty");
    place.write_config(config_with("/root/path", json!("/no/such/root")).to_string());
    assert_eq!(refused(&place, "."), "invalid rootfs: stat /no/such/root: no such file or directory");

    place.write_config(config().to_string());
    std::fs::remove_dir(&rootfs).unwrap();
    std::fs::write(&rootfs, "").unwrap();
    assert_eq!(refused(&place, "."), format!("invalid rootfs: stat {}: not a directory", rootfs.display()));
    std::fs::remove_file(&rootfs).unwrap();
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    symlink(place.path("elsewhere"), &rootfs).unwrap();
    assert_eq!(refused(&place, "."), "invalid rootfs: not an absolute path, or a symlink");
}

#[test]
fn a_bind_mount_whose_source_is_not_there() {
    let place = Place::new();
    let mounts = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/data", "type": "bind", "source": "/no/such/data", "options": ["rbind"]},
    ]);
    place.write_config(config_with("/mounts", mounts).to_string());
    assert_eq!(refused(&place, "."), "mounts[1].source: stat /no/such/data: no such file or directory");
}

#[test]
fn a_terminal_needs_a_console_socket_when_nobody_stays() {
    let place = Place::new();
    place.write_config(config_with("/process/terminal", json!(true)).to_string());
    let told = refused(&place, ".");
    assert_eq!(told, "cannot allocate tty if runc will detach without setting console socket");
    place.write_config(config().to_string());
    let ran = place.husk(&["create", "--console-socket", "/tmp/none", "c"]);
    assert!(ran.message().ends_with("cannot use console socket if runc will not detach or allocate tty"));
    assert!(place.left().is_empty());
}

#[test]
fn a_network_namespace_that_is_the_hosts_or_is_not_there() {
    let place = Place::new();
    let with =
        |path: &str| config_with("/linux/namespaces/1", json!({"type": "network", "path": path})).to_string();
    place.write_config(with("/proc/self/ns/net"));
    assert!(refused(&place, ".").contains("the host's network namespace cannot be used"));
    place.write_config(with("/no/such/namespace"));
    assert!(refused(&place, ".").ends_with("/no/such/namespace: no such file or directory"));
}
