//! Namespaces and id maps.
//!
//! A namespace that the spec does not name is the runtime's own, and for a container in a machine that is the guest's.
//! Only for the network does that not work: nothing of the host's own network is inside. A namespace given by its path
//! is one of the host; a machine can live in a network namespace, and has no use for any other. Only in a pod: a path that
//! callers use for one of the sandbox's means the one that the sandbox's processes have inside.

use super::error::{ConfigError, invalid, unsupported};
use super::pod::Sandbox;
use crate::machine::order::NetworkNamespace;
use husk_protocol::{ContainerKey, IdMap, Namespaces, SharedNamespaces, TimeOffset};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType as Type};

/// What is decided of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// Those that are the container's own.
    pub own: Namespaces,
    /// Those that are its sandbox's, if it has one.
    pub shared: Option<SharedNamespaces>,
    /// The network namespace that the machine is in.
    pub network: NetworkNamespace,
}

/// Decides the namespaces inside, and the network namespace of the machine outside.
pub fn decide(given: &[LinuxNamespace], sandbox: Option<Sandbox>) -> Result<Decided, ConfigError> {
    let mut inside = Namespaces::default();
    let mut shared = sandbox.map(|_| SharedNamespaces {
        with: ContainerKey::default(),
        pid: false,
        ipc: false,
        uts: false,
    });
    let mut network = None;
    for (index, namespace) in given.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let twice = shared.as_mut().and_then(|all| part(all, namespace.typ())).is_some_and(|shared| *shared);
        if std::mem::replace(flag(&mut inside, namespace.typ()), true) || twice {
            return Err(invalid(
                field,
                format!("malformed spec file: duplicated ns {:?}", name(namespace.typ())),
            ));
        }
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        match (namespace.typ(), path) {
            (Type::Network, None) => network = Some(NetworkNamespace::New),
            (Type::Network, Some(path)) if path.is_absolute() => {
                network = Some(NetworkNamespace::Path(path.clone()))
            }
            (Type::Network, Some(_)) => {
                return Err(invalid(format!("{field}.path"), "must be an absolute path"));
            }
            (Type::User, _) if sandbox.is_some() => {
                let reason = "a container of a pod cannot have a user namespace of its own in husk";
                return Err(unsupported(field, reason));
            }
            (_, None) => {}
            (kind, Some(path)) => {
                let of_sandbox = sandbox.is_some_and(|sandbox| sandbox.has(path, file_name(kind)));
                if let Some(shared) = shared.as_mut().filter(|_| of_sandbox).and_then(|all| part(all, kind)) {
                    *shared = true;
                    *flag(&mut inside, kind) = false;
                    continue;
                }
                let reason = format!(
                    "a {} namespace of the host ({}) cannot be joined from inside a machine; leave the path out for a new one",
                    name(kind),
                    path.display()
                );
                return Err(unsupported(format!("{field}.path"), reason));
            }
        }
    }
    if !inside.mount {
        return Err(unsupported(
            "linux.namespaces",
            "a container of husk needs a mount namespace of its own (\"mount\")",
        ));
    }
    let network = network.ok_or_else(|| unsupported("linux.namespaces", NO_HOST_NETWORK))?;
    if sandbox.is_some() && network == NetworkNamespace::New {
        let reason = "a container of a pod has its sandbox's network: name that namespace by its path";
        return Err(unsupported("linux.namespaces", reason));
    }
    Ok(Decided { own: inside, shared, network })
}

/// Where it is noted that a namespace is the sandbox's, for those that can be.
fn part(shared: &mut SharedNamespaces, kind: Type) -> Option<&mut bool> {
    match kind {
        Type::Pid => Some(&mut shared.pid),
        Type::Ipc => Some(&mut shared.ipc),
        Type::Uts => Some(&mut shared.uts),
        _ => None,
    }
}

/// What to say to a container that wants the host's network.
pub const NO_HOST_NETWORK: &str = "the host's network namespace cannot be used in a machine: name a \"network\" \
    namespace, new or by path (docker run --network bridge or none; hostNetwork: false in a pod)";

/// The names of all types that husk honours, sorted, for `features`.
pub const NAMES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

/// The user namespace's maps.
pub fn id_maps(linux: &Linux, inside: Namespaces) -> Result<(Vec<IdMap>, Vec<IdMap>), ConfigError> {
    let (uid, gid) = (linux.uid_mappings(), linux.gid_mappings());
    if !inside.user && (uid.is_some() || gid.is_some()) {
        let field = if uid.is_some() { "linux.uidMappings" } else { "linux.gidMappings" };
        return Err(invalid(
            field,
            "user namespace mappings specified, but user namespace isn't enabled in the config",
        ));
    }
    let uid = id_map("linux.uidMappings", uid.as_deref().unwrap_or(&[]))?;
    let gid = id_map("linux.gidMappings", gid.as_deref().unwrap_or(&[]))?;
    if inside.user && (uid.is_empty() || gid.is_empty()) {
        let field = if uid.is_empty() { "linux.uidMappings" } else { "linux.gidMappings" };
        return Err(invalid(field, "user namespaces enabled, but no mappings found"));
    }
    Ok((uid, gid))
}

fn id_map(field: &str, given: &[LinuxIdMapping]) -> Result<Vec<IdMap>, ConfigError> {
    let mut maps: Vec<IdMap> = Vec::with_capacity(given.len());
    for (index, mapping) in given.iter().enumerate() {
        let (inside, outside, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
        let field = format!("{field}[{index}]");
        let is_range = |from: u32| size.checked_sub(1).and_then(|last| from.checked_add(last)).is_some();
        if !is_range(inside) || !is_range(outside) {
            return Err(invalid(
                format!("{field}.size"),
                format!("{size} ids from {inside} and {outside} are not a range"),
            ));
        }
        let overlap =
            |a: u32, b: u32, b_size: u32| a < b.saturating_add(b_size) && b < a.saturating_add(size);
        if maps
            .iter()
            .any(|map| overlap(inside, map.inside, map.size) || overlap(outside, map.outside, map.size))
        {
            return Err(invalid(field, "overlaps an earlier range"));
        }
        maps.push(IdMap { inside, outside, size });
    }
    Ok(maps)
}

/// The time namespace's offsets.
pub fn time_offsets(linux: &Linux, inside: Namespaces) -> Result<Vec<TimeOffset>, ConfigError> {
    let Some(given) = linux.time_offsets().as_ref() else { return Ok(Vec::new()) };
    if !inside.time {
        let reason = "time namespace offsets specified, but time namespace isn't enabled in the config";
        return Err(invalid("linux.timeOffsets", reason));
    }
    let mut clocks: Vec<&String> = given.keys().collect();
    clocks.sort();
    let mut offsets = Vec::with_capacity(clocks.len());
    for clock in clocks {
        let field = format!("linux.timeOffsets.{clock}");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(invalid(field, "is neither monotonic nor boottime"));
        }
        let Some(offset) = given.get(clock) else { continue };
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return Err(invalid(format!("{field}.nanosecs"), format!("{nanoseconds} is a second or more")));
        }
        offsets.push(TimeOffset { clock: clock.clone(), seconds: offset.secs().unwrap_or(0), nanoseconds });
    }
    Ok(offsets)
}

fn flag(inside: &mut Namespaces, kind: Type) -> &mut bool {
    match kind {
        Type::Mount => &mut inside.mount,
        Type::Cgroup => &mut inside.cgroup,
        Type::Uts => &mut inside.uts,
        Type::Ipc => &mut inside.ipc,
        Type::User => &mut inside.user,
        Type::Pid => &mut inside.pid,
        Type::Network => &mut inside.network,
        Type::Time => &mut inside.time,
    }
}

/// The name of its file in /proc/PID/ns.
fn file_name(kind: Type) -> &'static str {
    match kind {
        Type::Mount => "mnt",
        Type::Network => "net",
        other => name(other),
    }
}

fn name(kind: Type) -> &'static str {
    match kind {
        Type::Mount => "mount",
        Type::Cgroup => "cgroup",
        Type::Uts => "uts",
        Type::Ipc => "ipc",
        Type::User => "user",
        Type::Pid => "pid",
        Type::Network => "network",
        Type::Time => "time",
    }
}
