//! The treaty between the two sides of a machine: every message that the host and the agent exchange.
//!
//! One control connection (vsock, opened by the agent to [`CONTROL_PORT`]) carries frames ([`frame`]) both ways: the host
//! sends [`Request`]s, the agent sends [`FromAgent`]. Bytes of stdin, stdout, stderr and terminals never travel here:
//! each has a vsock connection of its own, which the agent opens to the port named in [`Process`]; the host lets each
//! such port be used once.
//!
//! The host does not trust what it decodes: lengths are bounded before anything is allocated, and a message that does
//! not fit is an error, never a panic. The two sides are built and shipped together, so there is one version and no
//! negotiation; [`Ready::version`] only catches a mismatched override.

pub mod container;
pub mod frame;
pub mod message;
pub mod names;
pub mod process;
pub mod relay;

pub use container::{
    Container, Device, DeviceKind, DeviceRule, Hook, IdMap, Mount, MountAttributes, MountSource, Namespaces,
    Resources, Root, SharedNamespaces, StartHooks, TimeOffset,
};
pub use message::{
    Answer, Call, Exec, Exited, Failure, FailureKind, FromAgent, GuestProcess, Interface, NetworkRequest,
    ProcessStatus, Ready, Request, Stats, Target,
};
pub use process::{Capabilities, IoPriority, Process, ResourceLimit, Scheduler, Stdio, TerminalSize, User};

use serde::{Deserialize, Serialize};

/// Bumped whenever a message changes.
pub const VERSION: u32 = 6;

/// The vsock port on the host (CID 2) that the agent connects to when it is up.
pub const CONTROL_PORT: u32 = 1;

/// The virtio-fs tag under which containers' root filesystems are found, one directory per [`ContainerKey`]
/// (its decimal number). The host touches nothing below it while the machine runs, so the guest may cache.
pub const ROOT_TAG: &str = "husk-root";

/// The virtio-fs tag under which bind mounts' sources are found, one entry per [`MountSource::Share`] name.
/// Others may change them at any time.
pub const SHARE_TAG: &str = "husk-share";

/// A container of this machine, numbered by the host from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ContainerKey(pub u32);

/// A process that the host asked for (a container's first process, or an exec), numbered by the host, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessKey(pub u32);
