//! Pods: what the annotations of Kubernetes' container runtime interface say about a container's place in one.
//!
//! A pod is a sandbox container, which makes a machine, and containers that join it later. Who writes these annotations
//! is the caller (containerd sets them itself, whatever a pod says), and all that one can name with them is a sandbox of
//! the same caller's.

use super::error::{ConfigError, invalid};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Whether a container is a pod's sandbox, or one of its containers.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The sandbox of a pod's container.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// What the pod's containers are going to need, as the sandbox is told beforehand: bytes.
pub const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";
/// Microseconds of processor time ...
pub const CPU_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
/// ... in so many.
pub const CPU_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";

/// A container's part in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// None: it has a machine to itself.
    Alone,
    /// It makes the pod's machine.
    Sandbox,
    /// It joins the sandbox of this name.
    Joins(String),
}

/// Reads it.
pub fn role(annotations: &BTreeMap<String, String>) -> Result<Role, ConfigError> {
    let field = |name: &str| format!("annotations.{name}");
    match annotations.get(CONTAINER_TYPE).map(String::as_str) {
        None => Ok(Role::Alone),
        Some("sandbox") => Ok(Role::Sandbox),
        Some("container") => match annotations.get(SANDBOX_ID).filter(|id| !id.is_empty()) {
            Some(id) => Ok(Role::Joins(id.clone())),
            None => Err(invalid(field(SANDBOX_ID), "a container of a pod has to name its sandbox")),
        },
        Some(other) => {
            Err(invalid(field(CONTAINER_TYPE), format!("{other:?} is neither sandbox nor container")))
        }
    }
}

/// The same of a specification's.
pub fn role_of(annotations: Option<&HashMap<String, String>>) -> Result<Role, ConfigError> {
    let said = [CONTAINER_TYPE, SANDBOX_ID].into_iter().filter_map(|name| {
        let value = annotations?.get(name)?;
        Some((name.to_owned(), value.clone()))
    });
    role(&said.collect())
}

/// The sandbox that a container joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sandbox {
    /// The process that stands for it: its machine's.
    pub pid: i32,
}

impl Sandbox {
    /// Whether `path` names one of its namespaces, as callers name them.
    pub fn has(self, path: &Path, namespace: &str) -> bool {
        path == Path::new("/proc").join(self.pid.to_string()).join("ns").join(namespace)
    }
}

/// What a pod's containers are going to need beside the sandbox's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Announced {
    /// Bytes.
    pub memory: u64,
    /// Processors, rounded up.
    pub processors: u32,
}

/// Reads it, for a sandbox. What is 0, negative or not said is not known; a machine then has what it would have anyway.
pub fn announced(annotations: &BTreeMap<String, String>) -> Result<Announced, ConfigError> {
    let number = |name: &str| match annotations.get(name).map(|text| text.trim()) {
        None | Some("") => Ok(0),
        Some(text) => {
            let wrong = |_| invalid(format!("annotations.{name}"), format!("{text:?} is not a number"));
            text.parse::<i64>().map(|number| u64::try_from(number).unwrap_or(0)).map_err(wrong)
        }
    };
    let (quota, period) = (number(CPU_QUOTA)?, number(CPU_PERIOD)?);
    let processors = if period == 0 { 0 } else { quota.div_ceil(period) };
    Ok(Announced { memory: number(MEMORY)?, processors: u32::try_from(processors).unwrap_or(u32::MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_container_is_alone_unless_it_is_said_what_it_is() {
        let of = |pairs: &[(&str, &str)]| role(&annotations(pairs));
        assert_eq!(of(&[]).unwrap(), Role::Alone);
        assert_eq!(of(&[(SANDBOX_ID, "s")]).unwrap(), Role::Alone);
        assert_eq!(of(&[(CONTAINER_TYPE, "sandbox"), (SANDBOX_ID, "s")]).unwrap(), Role::Sandbox);
        assert_eq!(
            of(&[(CONTAINER_TYPE, "container"), (SANDBOX_ID, "s")]).unwrap(),
            Role::Joins("s".to_owned())
        );
        for wrong in [vec![(CONTAINER_TYPE, "container")], vec![(CONTAINER_TYPE, "pod"), (SANDBOX_ID, "s")]] {
            assert!(
                of(&wrong).unwrap_err().to_string().starts_with("annotations.io.kubernetes"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn what_is_announced_is_rounded_up_and_nonsense_is_refused() {
        let of = |memory: &str, quota: &str, period: &str| {
            announced(&annotations(&[(MEMORY, memory), (CPU_QUOTA, quota), (CPU_PERIOD, period)]))
        };
        assert_eq!(of("1000", "150000", "100000").unwrap(), Announced { memory: 1000, processors: 2 });
        assert_eq!(of("0", "-1", "100000").unwrap(), Announced::default());
        assert_eq!(of("", "5", "0").unwrap(), Announced::default());
        assert_eq!(announced(&BTreeMap::new()).unwrap(), Announced::default());
        assert!(of("1Gi", "", "").is_err());
    }

    #[test]
    fn a_sandboxs_namespace_is_known_by_its_pid() {
        let sandbox = Sandbox { pid: 42 };
        assert!(sandbox.has(Path::new("/proc/42/ns/ipc"), "ipc"));
        for other in ["/proc/4/ns/ipc", "/proc/42/ns/pid", "/proc/42/../1/ns/ipc", "/var/run/ipc"] {
            assert!(!sandbox.has(Path::new(other), "ipc"), "{other}");
        }
    }
}
