//! What we decided, without I/O.
//!
//! Second step of the flow: [`decide`] turns a [`Bundle`] into everything that the machine and the agent need. Whatever
//! the spec asks for is either in the [`Decision`] or an error that names the field. One file per noun of the spec.

pub mod annotation;
pub mod capability;
pub mod device;
pub mod error;
pub mod hook;
pub mod machine;
pub mod mount;
pub mod mount_option;
pub mod namespace;
pub mod operator;
pub mod pod;
pub mod process;
pub mod resources;
pub mod rlimit;
pub mod scheduler;
pub mod seccomp;
pub mod sysctl;
pub mod unit;

pub use error::ConfigError;
pub use pod::Sandbox;

use crate::bundle::Bundle;
use crate::machine::order::{AccessTimes, Export, ExportDevice, MachineConfig, NetworkNamespace};
use error::{c_string, invalid, unsupported};
use husk_protocol::{Container, ContainerKey, Namespaces, ProcessKey, Resources, Root, TerminalSize};
use machine::Facts;
use oci_spec::runtime::{Linux, LinuxPersonalityDomain, Spec};
use operator::{Operator, SecurityLabels};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What became of a bundle.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The machine.
    pub machine: MachineConfig,
    /// The container in it.
    pub container: Container,
    /// What the machine shares with the guest.
    pub exports: Vec<Export>,
    /// Where the machine lives.
    pub network: NetworkNamespace,
    /// The first size of the container's terminal, if it has one.
    pub terminal: Option<TerminalSize>,
    /// Programs to run on the host.
    pub hooks: hook::Hooks,
    /// The machine's group on the host.
    pub cgroup: HostCgroup,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
}

/// What the machine's group on the host is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostCgroup {
    /// `linux.cgroupsPath`, if it was given.
    pub path: Option<PathBuf>,
    /// Limits: file, value.
    pub files: resources::Files,
    /// The first field that cannot be honoured without a group on the host, if there is one.
    pub needed_for: Option<&'static str>,
}

/// Decides everything about the container `id`, which has a machine to itself, or makes one for its pod.
pub fn decide(id: &str, bundle: &Bundle, operator: &Operator, facts: Facts) -> Result<Decision, ConfigError> {
    decide_in(id, bundle, operator, facts, None)
}

/// The same for one that joins a sandbox. Its machine is the sandbox's: what is decided of one means nothing.
pub fn decide_joining(
    id: &str,
    bundle: &Bundle,
    operator: &Operator,
    facts: Facts,
    sandbox: Sandbox,
) -> Result<Decision, ConfigError> {
    decide_in(id, bundle, operator, facts, Some(sandbox))
}

fn decide_in(
    id: &str,
    bundle: &Bundle,
    operator: &Operator,
    facts: Facts,
    sandbox: Option<Sandbox>,
) -> Result<Decision, ConfigError> {
    let spec = &bundle.spec;
    refuse_other_platforms(spec)?;
    let none = Linux::default_without_anything();
    let linux = spec.linux().as_ref().unwrap_or(&none);
    refuse_in_linux(linux, operator.container.security_labels)?;

    let given = linux.namespaces().as_deref().unwrap_or(&[]);
    let namespace::Decided { own: namespaces, shared, network } = namespace::decide(given, sandbox)?;
    let inside = namespaces.and(shared);
    let (wishes, annotations) = annotation::decide(spec.annotations().as_ref(), operator)?;
    let limits = match linux.resources() {
        Some(given) => resources::decide(given, &operator.host)?,
        None => resources::Limits::default(),
    };
    if let (Some(_), Some(field)) = (sandbox, limits.only_outside) {
        let reason = "the containers of a pod are one machine to the host: give this with the pod's sandbox";
        return Err(unsupported(field, reason));
    }
    let role = pod::role(&annotations)?;
    let announced = match role {
        pod::Role::Sandbox => pod::announced(&annotations)?,
        _ => pod::Announced::default(),
    };
    let mut machine = machine::decide(&limits, wishes, announced, operator, facts);
    if role == pod::Role::Sandbox && (limits.memory.is_some() || wishes.memory_mib.is_some()) {
        // That is the pod's limit.
        machine.most_memory_mib = machine.memory_mib;
    }
    let rules = linux.resources().as_ref().and_then(|given| given.devices().as_deref()).unwrap_or(&[]);
    let rules = device::rules(rules)?;
    let (uid_map, gid_map) = namespace::id_maps(linux, namespaces)?;
    let (mounts, shares) = mount::decide(spec.mounts().as_deref().unwrap_or(&[]), &bundle.sources)?;
    let around = process::Surroundings {
        seccomp: linux.seccomp().as_ref().map(seccomp::compile).transpose()?.unwrap_or_default(),
        security_labels: operator.container.security_labels,
    };
    let given =
        spec.process().as_ref().ok_or_else(|| invalid("process", "process property must not be empty"))?;

    // How many are online is the sandbox's to say.
    let vcpus = sandbox.is_none().then(|| u32::from(machine.vcpus));
    let hooks = spec.hooks().as_ref().map(hook::decide).transpose()?.unwrap_or_default();
    let mut files = limits.outside.clone();
    files.extend(limits.outside_memory(machine.memory_mib, &operator.host));
    if sandbox.is_some() {
        // The machine is not in the group that this container gets: its limits hold inside.
        files.clear();
    }
    let container = Container {
        key: FIRST_CONTAINER,
        id: id.to_owned(),
        root: root(spec, linux)?,
        mounts,
        devices: device::nodes(linux.devices().as_deref().unwrap_or(&[]), &rules)?,
        namespaces,
        shared,
        uid_map,
        gid_map,
        time_offsets: namespace::time_offsets(linux, namespaces)?,
        hostname: uts_name("hostname", spec.hostname(), inside)?,
        domainname: uts_name("domainname", spec.domainname(), inside)?,
        sysctl: linux
            .sysctl()
            .as_ref()
            .map(|given| sysctl::decide(given, inside))
            .transpose()?
            .unwrap_or_default(),
        masked_paths: paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
        readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
        resources: Resources { files: limits.inside, devices: rules, vcpus },
        personality: personality(linux)?,
        process_key: FIRST_PROCESS,
        process: husk_protocol::Process {
            // As its name says it is for execs; a container's first process runs wherever it may.
            cpu_affinity: None,
            ..process::decide("process", given, &around)?
        },
        start_hooks: husk_protocol::StartHooks {
            hooks: hooks.start_container.iter().map(hook::Hook::inside).collect(),
            // The state is not known yet.
            ..husk_protocol::StartHooks::default()
        },
    };
    Ok(Decision {
        exports: exports(bundle, shares),
        container,
        network,
        terminal: process::terminal("process", given)?,
        hooks,
        cgroup: HostCgroup {
            path: linux.cgroups_path().clone().filter(|path| !path.as_os_str().is_empty()),
            files,
            needed_for: limits.only_outside,
        },
        annotations,
        machine,
    })
}

/// The container that a machine is started for, and its first process.
const FIRST_CONTAINER: ContainerKey = ContainerKey(0);
const FIRST_PROCESS: ProcessKey = ProcessKey(0);

/// `Linux::default()` of the spec's types is a useful container, not an empty one.
trait WithoutAnything {
    fn default_without_anything() -> Self;
}

impl WithoutAnything for Linux {
    fn default_without_anything() -> Linux {
        let mut linux = Linux::default();
        linux
            .set_namespaces(None)
            .set_resources(None)
            .set_masked_paths(None)
            .set_readonly_paths(None)
            .set_rootfs_propagation(None)
            .set_devices(None);
        linux
    }
}

/// The root filesystem is writable for the machine even if the container may not write to it: where a mount's
/// destination is not there, the agent has to make it first.
fn exports(bundle: &Bundle, shares: Vec<Export>) -> Vec<Export> {
    let root = Export {
        device: ExportDevice::Root,
        name: FIRST_CONTAINER.0.to_string(),
        source: bundle.rootfs.clone(),
        read_only: false,
        recursive: true,
        access_times: AccessTimes::default(),
        all_access_times: AccessTimes::default(),
    };
    std::iter::once(root).chain(shares).collect()
}

fn root(spec: &Spec, linux: &Linux) -> Result<Root, ConfigError> {
    let propagation = match linux.rootfs_propagation().as_deref().unwrap_or("") {
        "" => 0,
        word => mount_option::propagation(word).ok_or_else(|| {
            invalid("linux.rootfsPropagation", format!("rootfsPropagation={word} is not supported"))
        })?,
    };
    Ok(Root {
        read_only: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
        propagation,
    })
}

fn uts_name(field: &str, given: &Option<String>, inside: Namespaces) -> Result<Option<String>, ConfigError> {
    let Some(name) = given.as_ref().filter(|name| !name.is_empty()) else { return Ok(None) };
    if !inside.uts {
        return Err(invalid(field, format!("unable to set {field} without a private UTS namespace")));
    }
    if name.len() > 64 {
        return Err(invalid(field, "is longer than 64 bytes"));
    }
    c_string(field, name).map(Some)
}

fn paths(field: &str, given: Option<&[String]>) -> Result<Vec<String>, ConfigError> {
    given
        .unwrap_or(&[])
        .iter()
        .enumerate()
        .map(|(index, path)| {
            let field = format!("{field}[{index}]");
            if !path.starts_with('/') {
                return Err(invalid(field, format!("{path:?} is not an absolute path")));
            }
            c_string(&field, path)
        })
        .collect()
}

fn personality(linux: &Linux) -> Result<Option<u64>, ConfigError> {
    let Some(given) = linux.personality() else { return Ok(None) };
    if given.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(unsupported("linux.personality.flags", "no flag is supported, as the spec has it"));
    }
    Ok(Some(match given.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    }))
}

fn refuse_other_platforms(spec: &Spec) -> Result<(), ConfigError> {
    let others = [
        ("solaris", spec.solaris().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ];
    if let Some((name, _)) = others.iter().find(|(_, given)| *given) {
        return Err(unsupported(*name, "is for another platform"));
    }
    if spec.vm().is_some() {
        return Err(unsupported(
            "vm",
            "a bundle may not choose the machine's parts; see husk's configuration file",
        ));
    }
    Ok(())
}

fn refuse_in_linux(linux: &Linux, labels: SecurityLabels) -> Result<(), ConfigError> {
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(unsupported("linux.netDevices", "no network device of the host can move into a machine"));
    }
    if linux.intel_rdt().is_some() {
        return Err(unsupported("linux.intelRdt", "husk does not assign cache or memory bandwidth"));
    }
    if linux.memory_policy().is_some() {
        return Err(unsupported("linux.memoryPolicy", "a machine has one memory node"));
    }
    let labelled = linux.mount_label().as_ref().is_some_and(|label| !label.is_empty());
    if labelled && labels == SecurityLabels::Refuse {
        let instead = "the guest kernel has no such module; see security_labels in husk's configuration file";
        return Err(unsupported("linux.mountLabel", instead));
    }
    Ok(())
}
