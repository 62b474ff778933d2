//! Where a container's machine is put on the host: its control group and its network namespace.

use super::error::ContainerError;
use crate::config::{Decision, HostCgroup, namespace};
use crate::host::cgroup::{self, Cgroup, Mode};
use crate::host::proc;
use crate::machine::order::NetworkNamespace;
use std::path::Path;

/// Finds the group, without making it. `None`: the machine stays in ours.
///
/// On a host without the unified hierarchy a container runs without a group of its own, as long as it asks for nothing
/// that needs one: its limits then hold inside the machine alone.
pub fn group(id: &str, wanted: &HostCgroup, systemd: bool) -> Result<Option<Cgroup>, ContainerError> {
    if systemd {
        check_systemd_form(wanted.path.as_deref())?;
        return Err(ContainerError::Unsupported(
            no_systemd(Path::new("/run/systemd/system").is_dir()).into(),
        ));
    }
    if cgroup::mode() != Mode::Unified {
        let needed = wanted.path.as_ref().map(|_| "linux.cgroupsPath").or(wanted.needed_for);
        return match needed {
            None => Ok(None),
            Some(field) => Err(ContainerError::Unsupported(format!(
                "{field}: this host has no cgroup v2 at {}, and husk knows no other; boot it with \
                 systemd.unified_cgroup_hierarchy=1, or leave the field out",
                cgroup::MOUNT_POINT
            ))),
        };
    }
    let path = wanted.path.as_deref().unwrap_or(Path::new(id));
    Ok(Some(Cgroup::at(path)?))
}

/// `slice:prefix:name`, as runc and its callers have it for systemd.
fn check_systemd_form(path: Option<&Path>) -> Result<(), ContainerError> {
    let Some(path) = path else { return Ok(()) };
    if path.to_str().is_some_and(|text| text.split(':').count() == 3) {
        return Ok(());
    }
    Err(ContainerError::BadRequest(format!(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
    )))
}

fn no_systemd(running: bool) -> &'static str {
    if running {
        "--systemd-cgroup: husk does not ask systemd for control groups yet; use the cgroupfs driver"
    } else {
        "--systemd-cgroup: systemd cgroup flag passed, but systemd support for managing cgroups is not available"
    }
}

/// Refuses a network namespace that is our own, and one that is not there.
pub fn check_network(decision: &Decision) -> Result<(), ContainerError> {
    let NetworkNamespace::Path(path) = &decision.network else { return Ok(()) };
    match proc::same_file(path, Path::new("/proc/self/ns/net")) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(ContainerError::Unsupported(format!("linux.namespaces: {}", namespace::NO_HOST_NETWORK)))
        }
        Err(source) => Err(super::error::host("linux.namespaces: network namespace", path)(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_for_systemd_has_three_parts() {
        for path in [None, Some("system.slice:docker:abc"), Some(":husk:x")] {
            assert!(check_systemd_form(path.map(Path::new)).is_ok(), "{path:?}");
        }
        for path in ["/docker/abc", "a:b", "a:b:c:d"] {
            let error = check_systemd_form(Some(Path::new(path))).unwrap_err().to_string();
            assert!(error.contains("slice:prefix:name") && error.contains(path), "{error}");
        }
    }
}
