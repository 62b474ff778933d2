//! The manifests in docs/kubernetes: each is what the API's own types say it is, and they fit together. The installer's script
//! does what it says to a node.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/kubernetes")
}

/// All documents of all files.
fn manifests() -> Vec<Value> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            found.push(Value::deserialize(document).unwrap_or_else(|error| panic!("{file:?}: {error}")));
        }
    }
    found
}

/// What the API takes this for. A field that its type does not have, or not in this form, is an error.
fn typed<T: Resource + DeserializeOwned + serde::Serialize>(given: &Value) -> Result<T, String> {
    let name = format!("{} {}", T::KIND, given["metadata"]["name"]);
    let read: T = serde_json::from_value(given.clone()).map_err(|error| format!("{name}: {error}"))?;
    let kept = serde_json::to_value(&read).unwrap();
    match lost(given, &kept) {
        None => Ok(read),
        Some(path) => Err(format!("{name}: there is no {path} in {}", T::API_VERSION)),
    }
}

/// The path of something that is in `given` and not in `kept`.
fn lost(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given.iter().find_map(|(name, value)| {
            lost(value, kept.get(name).unwrap_or(&Value::Null)).map(|path| format!("{name}.{path}"))
        }),
        (Value::Array(given), Value::Array(kept)) => given.iter().enumerate().find_map(|(index, value)| {
            lost(value, kept.get(index).unwrap_or(&Value::Null)).map(|path| format!("{index}.{path}"))
        }),
        (given, kept) if given == kept => None,
        (given, _) => Some(format!("{given}")),
    }
}

fn check(given: &Value) -> Result<(), String> {
    match given["kind"].as_str() {
        Some("RuntimeClass") => {
            let class: RuntimeClass = typed(given)?;
            filled("handler", &class.handler)?;
            filled("metadata.name", class.metadata.name.as_deref().unwrap_or(""))?;
            let overhead = class.overhead.and_then(|overhead| overhead.pod_fixed).unwrap_or_default();
            filled("overhead.podFixed.memory", overhead.get("memory").map_or("", |quantity| &quantity.0))
        }
        Some("Namespace") => typed::<Namespace>(given).map(drop),
        Some("Pod") => pod(&typed::<Pod>(given)?.spec.ok_or("a pod without a spec")?),
        Some("DaemonSet") => {
            let spec = typed::<DaemonSet>(given)?.spec.ok_or("a daemon set without a spec")?;
            let wanted = spec.selector.match_labels.unwrap_or_default();
            let labels = spec.template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
            if wanted.is_empty() || wanted.iter().any(|(name, value)| labels.get(name) != Some(value)) {
                return Err("its selector does not match its own pods".into());
            }
            pod(&spec.template.spec.ok_or("a template without a spec")?)
        }
        other => Err(format!("{other:?} is not a kind that is looked at here")),
    }
}

/// What the API asks of a pod beyond the form of its fields.
fn pod(spec: &PodSpec) -> Result<(), String> {
    let volumes: Vec<&str> = spec.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
    let all: Vec<_> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
    if spec.containers.is_empty() {
        return Err("a pod without containers".into());
    }
    for container in &all {
        filled("container.name", &container.name)?;
        filled("container.image", container.image.as_deref().unwrap_or(""))?;
        for mount in container.volume_mounts.iter().flatten() {
            if !volumes.contains(&mount.name.as_str()) {
                return Err(format!("{} mounts the volume {}, which is none", container.name, mount.name));
            }
        }
    }
    Ok(())
}

fn filled(field: &str, value: &str) -> Result<(), String> {
    if value.is_empty() { Err(format!("{field} is missing")) } else { Ok(()) }
}

#[test]
fn every_manifest_is_what_the_api_takes() {
    let manifests = manifests();
    let mut kinds: Vec<&str> = manifests.iter().map(|given| given["kind"].as_str().unwrap()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["DaemonSet", "Namespace", "Pod", "RuntimeClass"]);
    let wrong: Vec<String> = manifests.iter().filter_map(|given| check(given).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_classs_handler_is_containerds_and_its_nodes_are_the_installers() {
    let manifests = manifests();
    let of = |kind: &str| manifests.iter().find(|given| given["kind"] == kind).unwrap();
    let drop_in: toml::Value =
        toml::from_str(&std::fs::read_to_string(folder().join("containerd.toml")).unwrap()).unwrap();
    let class = of("RuntimeClass");
    let handler = class["handler"].as_str().unwrap();
    let runtimes = &drop_in["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"];
    assert_eq!(runtimes[handler]["runtime_type"].as_str(), Some("io.containerd.husk.v2"));
    assert_eq!(of("Pod")["spec"]["runtimeClassName"], class["metadata"]["name"]);
    assert_eq!(
        class["scheduling"]["nodeSelector"],
        of("DaemonSet")["spec"]["template"]["spec"]["nodeSelector"]
    );
}

#[test]
fn a_manifest_with_a_mistake_is_noticed() {
    let manifests = manifests();
    let mistaken = |kind: &str, change: &dyn Fn(&mut Value)| {
        let mut given = manifests.iter().find(|given| given["kind"] == kind).unwrap().clone();
        change(&mut given);
        check(&given).unwrap_err()
    };
    let said = mistaken("RuntimeClass", &|given| given["overhead"] = serde_json::json!({"podfixed": {}}));
    assert!(said.contains("podfixed"), "{said}");
    let said = mistaken("RuntimeClass", &|given| given["handler"] = Value::Null);
    assert!(said.contains("handler"), "{said}");
    let said = mistaken("RuntimeClass", &|given| given["apiVersion"] = "node.k8s.io/v1beta1".into());
    assert!(said.contains("v1beta1"), "{said}");
    let said = mistaken("DaemonSet", &|given| given["spec"]["selector"]["matchLabels"]["a"] = "b".into());
    assert!(said.contains("selector"), "{said}");
    let said = mistaken("DaemonSet", &|given| {
        given["spec"]["template"]["spec"]["volumes"][0]["name"] = "other".into();
    });
    assert!(said.contains("mounts the volume"), "{said}");
}

/// Runs the installer on a node below `place`; whether containerd was restarted.
fn install(place: &Path) -> Result<bool, String> {
    let image = place.join("image");
    std::fs::create_dir_all(&image).unwrap();
    std::fs::copy(folder().join("installer/install.sh"), image.join("install.sh")).unwrap();
    for name in ["husk", "containerd-shim-husk-v2"] {
        std::fs::write(image.join(name), "program").unwrap();
    }
    let restarted = place.join("restarted");
    let _ = std::fs::remove_file(&restarted);
    let words = [image.join("install.sh"), place.join("node"), "touch".into(), restarted.clone()];
    let ran = Command::new("sh").args(words).output().unwrap();
    match ran.status.success() {
        true => Ok(restarted.exists()),
        false => Err(String::from_utf8(ran.stderr).unwrap()),
    }
}

/// A node whose containerd has this configuration, and where that is.
fn node(config: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let etc = place.path().join("node/etc/containerd");
    std::fs::create_dir_all(&etc).unwrap();
    std::fs::write(etc.join("config.toml"), config).unwrap();
    (place, etc.join("config.toml"))
}

fn read(file: &Path) -> toml::Value {
    toml::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn the_installer_is_heard_by_containerd_once_and_keeps_what_is_there() {
    use std::os::unix::fs::PermissionsExt;
    let cri = "io.containerd.grpc.v1.cri";
    let (place, file) = node(&format!("version = 2\n[plugins.\"{cri}\"]\nsandbox_image = \"x\"\n"));
    assert_eq!(install(place.path()), Ok(true));
    let plugin = read(&file)["plugins"][cri].clone();
    let runtimes = &plugin["containerd"]["runtimes"];
    assert_eq!(plugin["sandbox_image"].as_str(), Some("x"));
    assert_eq!(runtimes["husk"]["runtime_type"].as_str(), Some("io.containerd.husk.v2"));
    // The one that would be lost.
    assert_eq!(runtimes["runc"]["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
    let shim = place.path().join("node/usr/local/bin/containerd-shim-husk-v2");
    assert_eq!(std::fs::metadata(shim).unwrap().permissions().mode() & 0o777, 0o755);
    // Nothing has changed.
    assert_eq!(install(place.path()), Ok(false));
}

#[test]
fn the_installer_knows_the_newer_form_and_a_runtime_that_is_named_already() {
    let cri = "io.containerd.cri.v1.runtime";
    let runc = format!("[plugins.'{cri}'.containerd.runtimes.runc]\nruntime_type = 'mine'\n");
    let (place, file) = node(&format!("version = 3\n{runc}"));
    assert_eq!(install(place.path()), Ok(true));
    let runtimes = read(&file)["plugins"][cri]["containerd"]["runtimes"].clone();
    assert_eq!(runtimes["runc"]["runtime_type"].as_str(), Some("mine"));
    assert_eq!(runtimes["husk"]["runtime_type"].as_str(), Some("io.containerd.husk.v2"));
}

#[test]
fn the_installer_leaves_a_file_that_it_does_not_understand() {
    let (place, file) = node("[plugins.cri]\n");
    let said = install(place.path()).unwrap_err();
    assert!(said.contains("neither version 2 nor 3"), "{said}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "[plugins.cri]\n");
}
