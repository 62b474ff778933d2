//! Pods by hand: bundles with the annotations and namespaces that a container runtime interface would give them.

use crate::{
    bundle::{Bundle, Image},
    created::Created,
    runtime::Runtime,
};
use serde_json::{Value, json};

/// A sandbox that runs, alone until somebody joins it.
#[track_caller]
pub fn sandbox(change: impl Fn(&mut Bundle)) -> Created {
    let mut bundle = Bundle::new(Image::Busybox, &["sleep", "100000"]);
    bundle.set("/annotations", json!({"io.kubernetes.cri.container-type": "sandbox"}));
    bundle.set("/hostname", json!("the-pod"));
    change(&mut bundle);
    Created::started(Runtime::Husk, bundle)
}

/// A bundle of a container that joins it, and has its network, ipc and host name.
pub fn member(sandbox: &Created, args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(Image::Busybox, args);
    bundle.set(
        "/annotations",
        json!({"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.sandbox-id": sandbox.id}),
    );
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        share_namespace(&mut bundle, kind, Some(format!("/proc/{}/ns/{file}", sandbox.pid())));
    }
    bundle.config.as_object_mut().expect("an object").remove("hostname");
    bundle
}

/// Has it share a namespace by path, or have one of its own.
pub fn share_namespace(bundle: &mut Bundle, kind: &str, path: Option<String>) {
    let all = bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    all.retain(|namespace| namespace["type"] != kind);
    all.push(match path {
        Some(path) => json!({"type": kind, "path": path}),
        None => json!({"type": kind}),
    });
}

/// A bind mount for it.
pub fn bind(source: &std::path::Path, destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind"].iter().chain(options).copied().collect();
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}
