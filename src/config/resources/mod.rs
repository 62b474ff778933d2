//! Limits: the spec's `linux.resources`, which speak of cgroup v1, to files of cgroup v2, twice.
//!
//! Inside, the container's own group gets what the spec says. Outside, the group of the machine process gets the same
//! with room for the machine's own needs, so that the bound holds whatever the guest does. What concerns the host's
//! disks, processors and memory nodes can only be limited outside.
//!
//! Conversions are those of runc, so that both give the same limit for the same bundle.

mod block_io;
mod cpu;
mod memory;

use super::error::{ConfigError, invalid, unsupported};
use super::operator::Host;
use oci_spec::runtime::LinuxResources;

/// Limits as files of cgroup v2: name, value.
pub type Files = Vec<(String, String)>;

/// What the limits come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// For the container's group in the guest.
    pub inside: Files,
    /// For the machine's group on the host, but for memory ([`Limits::outside_memory`] knows the machine's size).
    pub outside: Files,
    /// The first field that only the host can honour, if there is one.
    pub only_outside: Option<&'static str>,
    /// memory.limit in bytes, if there is one.
    pub memory: Option<u64>,
    /// How many processors the cpu limits amount to, if they do.
    pub processors: Option<u32>,
}

/// Decides.
pub fn decide(given: &LinuxResources, room: &Host) -> Result<Limits, ConfigError> {
    refuse_others(given)?;
    let mut limits = Limits::default();
    if let Some(memory) = given.memory() {
        memory::decide(memory, &mut limits)?;
    }
    if let Some(cpu) = given.cpu() {
        cpu::decide(cpu, room, &mut limits)?;
    }
    if let Some(pids) = given.pids() {
        decide_pids(pids.limit(), &mut limits);
    }
    if let Some(block_io) = given.block_io() {
        block_io::decide(block_io, &mut limits)?;
    }
    for (index, limit) in given.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let size = limit.page_size();
        let units = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB"));
        if !units.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(invalid(format!("{field}.pageSize"), format!("{size:?} is not of the form 2MB")));
        }
        let value = u64::try_from(limit.limit())
            .map_err(|_| invalid(format!("{field}.limit"), format!("{} is negative", limit.limit())))?;
        limits.inside.push((format!("hugetlb.{size}.max"), value.to_string()));
    }
    decide_unified(given, &mut limits)?;
    Ok(limits)
}

impl Limits {
    /// The memory limit of the machine's group: all of the guest's memory and room for the machine process. None when
    /// the container has no limit.
    pub fn outside_memory(&self, machine_mib: u32, room: &Host) -> Option<(String, String)> {
        self.memory?;
        let mib = u64::from(machine_mib).saturating_add(u64::from(room.memory_room_mib));
        Some(("memory.max".into(), (mib << 20).to_string()))
    }
}

fn refuse_others(given: &LinuxResources) -> Result<(), ConfigError> {
    let network = given.network().as_ref();
    if network.is_some_and(|network| network.class_id().is_some_and(|id| id != 0)) {
        return Err(unsupported(
            "linux.resources.network.classID",
            "is of cgroup v1; a machine has cgroup v2",
        ));
    }
    if network.is_some_and(|network| network.priorities().as_ref().is_some_and(|list| !list.is_empty())) {
        return Err(unsupported(
            "linux.resources.network.priorities",
            "is of cgroup v1; a machine has cgroup v2",
        ));
    }
    if given.rdma().as_ref().is_some_and(|map| !map.is_empty()) {
        return Err(unsupported("linux.resources.rdma", "a machine has no RDMA device"));
    }
    Ok(())
}

/// The machine's own threads and its stand-ins (one for each exec'd process) count outside, so twice the container's
/// limit and a fixed number more are allowed there.
fn decide_pids(limit: i64, limits: &mut Limits) {
    match limit {
        0 => {}
        ..0 => limits.inside.push(("pids.max".into(), "max".into())),
        limit => {
            limits.inside.push(("pids.max".into(), limit.to_string()));
            limits.outside.push(("pids.max".into(), limit.saturating_mul(2).saturating_add(128).to_string()));
        }
    }
}

/// `unified` names files of cgroup v2 itself. Whatever the guest's kernel keeps goes inside, the rest outside.
fn decide_unified(given: &LinuxResources, limits: &mut Limits) -> Result<(), ConfigError> {
    let mut entries: Vec<_> = given.unified().iter().flatten().collect();
    entries.sort();
    for (name, value) in entries {
        let field = format!("linux.resources.unified.{name}");
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let Some((controller, _)) = name.split_once('.').filter(|_| letters) else {
            return Err(invalid(field, "must be in the form CONTROLLER.PARAMETER"));
        };
        if value.contains(['\0', '\n']) {
            return Err(invalid(field, "must be one line"));
        }
        let file = (name.clone(), value.clone());
        match controller {
            "memory" | "pids" | "cpu" | "hugetlb" => limits.inside.push(file),
            "io" | "cpuset" => {
                limits.only_outside.get_or_insert("linux.resources.unified");
                limits.outside.push(file);
            }
            _ => {
                return Err(unsupported(
                    field,
                    format!("controller {controller:?} is not supported by husk"),
                ));
            }
        }
        if name == "memory.max" {
            limits.memory = value.trim().parse().ok().filter(|limit| *limit > 0).or(limits.memory);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn decide_json(json: &str) -> Result<Limits, ConfigError> {
        decide(&serde_json::from_str(json).unwrap(), &Host::default())
    }

    pub(super) fn pairs(files: &Files) -> Vec<(&str, &str)> {
        files.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn pids_have_room_for_the_machine_outside() {
        let limits = decide_json(r#"{"pids": {"limit": 100}}"#).unwrap();
        assert_eq!(pairs(&limits.inside), [("pids.max", "100")]);
        assert_eq!(pairs(&limits.outside), [("pids.max", "328")]);
        assert_eq!(pairs(&decide_json(r#"{"pids": {"limit": -1}}"#).unwrap().inside), [("pids.max", "max")]);
        assert_eq!(decide_json(r#"{"pids": {"limit": 0}}"#).unwrap(), Limits::default());
    }

    #[test]
    fn unified_files_go_where_they_can_be_honoured() {
        let limits = decide_json(
            r#"{"unified": {"memory.high": "1000", "io.max": "8:0 rbps=1", "memory.max": "67108864"}}"#,
        )
        .unwrap();
        assert_eq!(pairs(&limits.inside), [("memory.high", "1000"), ("memory.max", "67108864")]);
        assert_eq!(pairs(&limits.outside), [("io.max", "8:0 rbps=1")]);
        assert_eq!(limits.only_outside, Some("linux.resources.unified"));
        assert_eq!(limits.memory, Some(64 << 20));
        for bad in ["../x", "memory", "memory/max", "rdma.max"] {
            assert!(decide_json(&format!(r#"{{"unified": {{"{bad}": "1"}}}}"#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn huge_pages_are_limited_inside() {
        let limits = decide_json(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#).unwrap();
        assert_eq!(pairs(&limits.inside), [("hugetlb.2MB.max", "4194304")]);
        assert!(decide_json(r#"{"hugepageLimits": [{"pageSize": "2 MB", "limit": 1}]}"#).is_err());
        assert!(decide_json(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}"#).is_err());
    }

    #[test]
    fn what_only_cgroup_v1_had_and_what_no_machine_has_is_refused() {
        for json in [
            r#"{"network": {"classID": 1}}"#,
            r#"{"network": {"priorities": [{"name": "eth0", "priority": 1}]}}"#,
            r#"{"rdma": {"mlx5_1": {"hcaHandles": 1}}}"#,
        ] {
            assert!(matches!(decide_json(json), Err(ConfigError::Unsupported { .. })), "{json}");
        }
    }

    #[test]
    fn the_machines_memory_limit_is_all_of_the_guest_and_room() {
        let limits = decide_json(r#"{"memory": {"limit": 67108864}}"#).unwrap();
        let room = Host { memory_room_mib: 10, ..Host::default() };
        assert_eq!(
            limits.outside_memory(112, &room),
            Some(("memory.max".into(), (122u64 << 20).to_string()))
        );
        assert_eq!(Limits::default().outside_memory(112, &room), None);
    }
}
