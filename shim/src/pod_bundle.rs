//! The bundle of a pod's sandbox, which containerd leaves empty when the sandbox is ours, and what the pod's containers have in
//! common through it.
//!
//! ```text
//!   BUNDLE/config.json   a container whose only program is this one (see `pause`), in a root that is empty but for where
//!                        it is bound: BUNDLE/root, for containerd insists on finding `rootfs` empty at the end
//!   BUNDLE/pod/          hosts, hostname, resolv.conf, and shm, a file system in memory
//!      ^-- bound into each container by its config.json, where containerd has bound nothing
//! ```

use crate::failure::Failure;
use crate::pod_config::PodConfig;
use crate::rootfs;
use husk::config::pod;
use husk::host::file;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What the containers share, in the sandbox's bundle.
const SHARED: &str = "pod";
const CONFIG: &str = "config.json";
/// The longest config.json, and the longest file of the host that is copied, in bytes.
const LONGEST: u64 = 16 << 20;
/// The size that containerd gives it.
const MEMORY: &str = "mode=1777,size=65536k";
/// What a container finds where: names in [`SHARED`].
const PLACES: [(&str, &str); 4] = [
    ("/etc/hostname", "hostname"),
    ("/etc/hosts", "hosts"),
    ("/etc/resolv.conf", "resolv.conf"),
    ("/dev/shm", "shm"),
];

/// A sandbox's bundle.
#[derive(Debug, Clone)]
pub struct PodBundle {
    path: PathBuf,
}

/// What containerd says with it.
pub struct Given<'a> {
    /// The sandbox's name.
    pub id: &'a str,
    /// Its network namespace.
    pub network: &'a str,
    /// Those that the operator of containerd lets through.
    pub annotations: &'a HashMap<String, String>,
    /// What kubelet wants.
    pub config: &'a PodConfig,
}

impl PodBundle {
    /// The one at `path`, whatever is in it.
    pub fn at(path: &Path) -> PodBundle {
        PodBundle { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it. On failure nothing is mounted.
    pub fn make(&self, given: &Given<'_>) -> Result<(), Failure> {
        let own = std::env::current_exe().map_err(|error| Failure::host("find this program", &error))?;
        // Where things are to be mounted: the root is not written to.
        for directory in ["root/proc", "root/dev", "pod/shm"] {
            let path = self.path.join(directory);
            std::fs::create_dir_all(&path)
                .map_err(|error| Failure::host(&format!("create {}", path.display()), &error))?;
        }
        self.write(&self.path.join("root"), "pause", b"")?;
        self.write(&self.path, CONFIG, specification(given, &own).to_string().as_bytes())?;
        let shared = self.path.join(SHARED);
        self.write(&shared, "hostname", format!("{}\n", given.config.hostname).as_bytes())?;
        let of_host = |path: &str| file::read_bounded(Path::new(path), LONGEST).unwrap_or_default();
        self.write(&shared, "hosts", &of_host("/etc/hosts"))?;
        let resolver = match given.config.resolver.as_slice() {
            [] => of_host("/etc/resolv.conf"),
            lines => format!("{}\n", lines.join("\n")).into_bytes(),
        };
        self.write(&shared, "resolv.conf", &resolver)
    }

    /// Makes the memory that the containers share. It lives until [`PodBundle::undo`].
    pub fn share_memory(&self) -> Result<(), Failure> {
        let path = self.shared_memory();
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let mounted = mount(Some("shm"), &path, Some("tmpfs"), flags, Some(MEMORY));
        mounted.map_err(|errno| Failure::host(&format!("mount {}", path.display()), &errno.into()))
    }

    /// Nothing is mounted in it any more.
    pub fn undo(&self) {
        rootfs::undo_at(&self.shared_memory());
    }

    /// Adds what the containers share to the bundle of one of them.
    pub fn complete(&self, container: &Path) -> Result<(), Failure> {
        let path = container.join(CONFIG);
        let failed = |error: std::io::Error| Failure::host(&format!("complete {}", path.display()), &error);
        let bytes = file::read_bounded(&path, LONGEST).map_err(failed)?;
        let mut config: Value =
            serde_json::from_slice(&bytes).map_err(|error| failed(std::io::Error::from(error)))?;
        self.add(&mut config);
        self.write(container, CONFIG, config.to_string().as_bytes())
    }

    fn add(&self, config: &mut Value) {
        let Some(config) = config.as_object_mut() else { return };
        let mounts = config.entry("mounts").or_insert_with(|| json!([]));
        let Some(mounts) = mounts.as_array_mut() else { return };
        for (place, name) in PLACES {
            // What a container has from nobody in particular, of its own, is in the way of the pod's.
            mounts.retain(|mount| !is_at(mount, place) || mount["type"] != "tmpfs");
            if !mounts.iter().any(|mount| is_at(mount, place)) {
                let source = self.path.join(SHARED).join(name);
                mounts.push(json!({
                    "destination": place, "type": "bind", "source": source, "options": ["rbind", "rprivate", "rw"],
                }));
            }
        }
    }

    fn shared_memory(&self) -> PathBuf {
        self.path.join(SHARED).join("shm")
    }

    fn write(&self, directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        file::replace(directory, name, bytes)
            .map_err(|error| Failure::host(&format!("write {}", directory.join(name).display()), &error))
    }
}

fn is_at(mount: &Value, place: &str) -> bool {
    mount["destination"].as_str().is_some_and(|path| path.trim_end_matches('/') == place)
}

fn specification(given: &Given<'_>, own: &Path) -> Value {
    let config = given.config;
    let mut annotations = given.annotations.clone();
    let said = [
        (pod::CONTAINER_TYPE, "sandbox".to_owned()),
        (pod::SANDBOX_ID, given.id.to_owned()),
        (pod::MEMORY, config.needs.memory.to_string()),
        (pod::CPU_QUOTA, config.needs.cpu_quota.to_string()),
        (pod::CPU_PERIOD, config.needs.cpu_period.to_string()),
    ];
    annotations.extend(said.map(|(name, value)| (name.to_owned(), value)));
    let mut namespaces = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
    namespaces.push(match given.network {
        "" => json!({"type": "network"}),
        path => json!({"type": "network", "path": path}),
    });
    json!({
        "ociVersion": "1.2.0",
        "hostname": config.hostname,
        "annotations": annotations,
        "root": {"path": "root", "readonly": true},
        "process": {
            "user": {"uid": 65535, "gid": 65535},
            "args": ["/pause", "pause"],
            "cwd": "/",
            "noNewPrivileges": true,
            "oomScoreAdj": -998,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/pause", "type": "bind", "source": own, "options": ["bind", "ro"]},
        ],
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": group(&config.cgroup_parent, given.id),
            "sysctl": config.sysctls,
        },
    })
}

/// As containerd names the groups of sandboxes that are containers to it: a slice of systemd's has another form.
fn group(parent: &str, id: &str) -> String {
    match parent.rsplit('/').next() {
        _ if parent.is_empty() => String::new(),
        Some(slice) if slice.ends_with(".slice") => format!("{slice}:cri-containerd:{id}"),
        _ => format!("{}/{id}", parent.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_config::Needs;
    use husk::bundle::Bundle;
    use husk::config::machine::Facts;
    use husk::config::operator::Operator;

    fn made() -> (tempfile::TempDir, PodBundle) {
        let directory = tempfile::tempdir().unwrap();
        let bundle = PodBundle::at(directory.path());
        let config = PodConfig {
            hostname: "a-pod".into(),
            resolver: vec!["nameserver 10.0.0.2".into()],
            cgroup_parent: "/pods/x".into(),
            needs: Needs { cpu_period: 100_000, cpu_quota: 150_000, memory: 100 << 20 },
            ..PodConfig::default()
        };
        let annotations = HashMap::new();
        let given =
            Given { id: "s", network: "/proc/self/ns/net", annotations: &annotations, config: &config };
        bundle.make(&given).unwrap();
        (directory, bundle)
    }

    #[test]
    fn a_sandboxs_bundle_is_one_that_husk_takes_with_the_size_of_its_pod() {
        let (_directory, bundle) = made();
        let opened = Bundle::open(bundle.path()).unwrap();
        let facts = Facts { processors: 4, memory_mib: 8192 };
        let decision = husk::config::decide("s", &opened, &Operator::default(), facts).unwrap();
        assert_eq!((decision.machine.memory_mib, decision.machine.vcpus), (612, 2));
        assert_eq!(decision.cgroup.path, Some("/pods/x/s".into()));
        assert_eq!(decision.container.hostname.as_deref(), Some("a-pod"));
    }

    #[test]
    fn a_container_gets_what_it_lacks_and_keeps_what_it_was_given() {
        let (directory, bundle) = made();
        let container = directory.path().join("container");
        std::fs::create_dir(&container).unwrap();
        let given = json!({"unknown": 1, "mounts": [
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"},
            {"destination": "/etc/hosts", "type": "bind", "source": "/kubelet/hosts"},
        ]});
        std::fs::write(container.join(CONFIG), given.to_string()).unwrap();
        bundle.complete(&container).unwrap();
        let bytes = std::fs::read(container.join(CONFIG)).unwrap();
        let config: Value = serde_json::from_slice(&bytes).unwrap();
        let source = |place: &str| {
            let mounts = config["mounts"].as_array().unwrap();
            let found: Vec<&Value> = mounts.iter().filter(|mount| mount["destination"] == place).collect();
            assert_eq!(found.len(), 1, "{place}");
            found[0]["source"].as_str().unwrap().to_owned()
        };
        assert_eq!(config["unknown"], 1);
        assert_eq!(source("/etc/hosts"), "/kubelet/hosts");
        let shared = directory.path().join(SHARED);
        assert_eq!(Path::new(&source("/dev/shm")), shared.join("shm"));
        assert_eq!(std::fs::read_to_string(source("/etc/hostname")).unwrap(), "a-pod\n");
        assert_eq!(std::fs::read_to_string(source("/etc/resolv.conf")).unwrap(), "nameserver 10.0.0.2\n");
    }

    #[test]
    fn groups_are_named_as_containerd_names_them() {
        assert_eq!(group("", "s"), "");
        assert_eq!(group("/pods/x/", "s"), "/pods/x/s");
        assert_eq!(group("/kubepods.slice/kubepods-a.slice", "s"), "kubepods-a.slice:cri-containerd:s");
    }
}
