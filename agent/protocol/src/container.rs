//! A container to make: what the OCI spec's `root`, `mounts` and `linux` say, decided and checked by the host.
//!
//! Paths are paths inside the container unless a field says otherwise; they are the image's to trick with (symbolic
//! links), so the agent resolves them inside the container's root.

use crate::{ContainerKey, Process, ProcessKey};
use serde::{Deserialize, Serialize};

/// Everything the agent needs to make a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Its number.
    pub key: ContainerKey,
    /// Its id, for the cgroup's name and messages.
    pub id: String,
    /// Its root filesystem.
    pub root: Root,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Device nodes to make, beside the default ones.
    pub devices: Vec<Device>,
    /// Which namespaces are new.
    pub namespaces: Namespaces,
    /// Which are another container's.
    pub shared: Option<SharedNamespaces>,
    /// User namespace's uid map.
    pub uid_map: Vec<IdMap>,
    /// User namespace's gid map.
    pub gid_map: Vec<IdMap>,
    /// Time namespace's offsets.
    pub time_offsets: Vec<TimeOffset>,
    /// Host name to set, in the UTS namespace.
    pub hostname: Option<String>,
    /// NIS domain name to set, in the UTS namespace.
    pub domainname: Option<String>,
    /// Kernel parameters: name with dots, value.
    pub sysctl: Vec<(String, String)>,
    /// Paths hidden from the container.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
    /// Limits and device rules.
    pub resources: Resources,
    /// personality(2) value to set, if any.
    pub personality: Option<u64>,
    /// The first process's number.
    pub process_key: ProcessKey,
    /// The first process.
    pub process: Process,
    /// What runs in the container before its program does.
    pub start_hooks: StartHooks,
}

/// `startContainer` hooks: programs of the container's, run by its first process after [`crate::Call::Start`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartHooks {
    /// In order.
    pub hooks: Vec<Hook>,
    /// The container's state as each gets it on its stdin (JSON), up to the number of its process ...
    pub state_head: String,
    /// ... and from there on: only the process itself knows its number.
    pub state_tail: String,
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Where it is, absolute, in the container.
    pub path: String,
    /// Its arguments, the first of which is the name it sees; empty means its path alone.
    pub args: Vec<String>,
    /// Its whole environment.
    pub env: Vec<String>,
    /// How long it may take, in milliseconds.
    pub timeout: Option<u64>,
}

/// The root filesystem: the directory named by the container's number under [`crate::ROOT_TAG`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Mounted read-only.
    pub read_only: bool,
    /// `rootfsPropagation` as MS_* flags (MS_PRIVATE, MS_SLAVE, MS_SHARED, MS_UNBINDABLE, with MS_REC), 0 for default.
    pub propagation: u64,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where, absolute in the container.
    pub destination: String,
    /// What.
    pub source: MountSource,
    /// Attributes.
    pub attributes: MountAttributes,
    /// MS_PRIVATE, MS_SLAVE, MS_SHARED or MS_UNBINDABLE, with MS_REC, each applied in turn.
    pub propagation: Vec<u64>,
    /// The file system's own options, comma-separated.
    pub data: String,
    /// tmpfs: copy what the image has at the destination into it (`tmpcopyup`).
    pub copy_up: bool,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A bind mount of an entry under [`crate::SHARE_TAG`].
    Share {
        /// The entry's name: decimal digits.
        name: String,
        /// Whether it is a directory (else the destination is made as a file).
        directory: bool,
        /// `rbind` rather than `bind`.
        recursive: bool,
    },
    /// A file system of the guest kernel.
    Filesystem {
        /// Its type (`proc`, `tmpfs`, ...).
        kind: String,
        /// The source string shown in /proc/mounts.
        source: String,
    },
    /// The container's cgroup hierarchy (type `cgroup` or `cgroup2`).
    Cgroup,
}

/// Attributes of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAttributes {
    /// `MS_*` flags to set (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_RELATIME, ...).
    pub set: u64,
    /// `MS_*` flags to clear.
    pub clear: u64,
    /// `MOUNT_ATTR_*` to set on the whole tree (the `r`-forms: rro, rnosuid, ...).
    pub recursive_set: u64,
    /// `MOUNT_ATTR_*` to clear on the whole tree.
    pub recursive_clear: u64,
}

/// A device node to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where.
    pub path: String,
    /// What.
    pub kind: DeviceKind,
    /// Major number in the guest.
    pub major: u32,
    /// Minor number in the guest.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Kinds of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// `c` and `u`.
    Character,
    /// `b`.
    Block,
    /// `p`.
    Fifo,
}

/// Which namespaces are new for the container (those not named are the guest's own). Joined namespaces by path cannot
/// be, except another container's of the same machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// A new mount namespace.
    pub mount: bool,
    /// A new pid namespace.
    pub pid: bool,
    /// A new network namespace on the host means the guest's only one inside: interfaces are the machine's.
    pub network: bool,
    /// A new ipc namespace.
    pub ipc: bool,
    /// A new UTS namespace.
    pub uts: bool,
    /// A new user namespace.
    pub user: bool,
    /// A new cgroup namespace.
    pub cgroup: bool,
    /// A new time namespace.
    pub time: bool,
}

/// Namespaces that are those of another container of the same machine: a pod's sandbox. What is named here is not in
/// [`Namespaces`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNamespaces {
    /// Whose. Its first process must be there.
    pub with: ContainerKey,
    /// The pid namespace.
    pub pid: bool,
    /// The ipc namespace.
    pub ipc: bool,
    /// The UTS namespace.
    pub uts: bool,
}

impl Namespaces {
    /// With what is shared: all that are not the guest's own.
    pub fn and(self, shared: Option<SharedNamespaces>) -> Namespaces {
        let Some(shared) = shared else { return self };
        Namespaces {
            pid: self.pid || shared.pid,
            ipc: self.ipc || shared.ipc,
            uts: self.uts || shared.uts,
            ..self
        }
    }
}

/// A range of a user namespace's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside (in the guest).
    pub outside: u32,
    /// How many.
    pub size: u32,
}

/// An offset of a time namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    pub clock: String,
    /// Whole seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// Limits as cgroup v2 knows them. `None`: leave as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// cgroup v2 files to write in the container's cgroup, in order: name (`memory.max`), value. Already converted from
    /// the spec's v1-like fields and checked by the host.
    pub files: Vec<(String, String)>,
    /// Device rules, in order; none means what runc allows by default.
    pub devices: Vec<DeviceRule>,
    /// Vcpus that are to be online in the guest.
    pub vcpus: Option<u32>,
}

/// One rule of the device controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Allow or deny.
    pub allow: bool,
    /// `None`: all kinds (`a`).
    pub kind: Option<DeviceKind>,
    /// `None`: all.
    pub major: Option<u32>,
    /// `None`: all.
    pub minor: Option<u32>,
    /// Bit 0 read, bit 1 write, bit 2 mknod.
    pub access: u8,
}
