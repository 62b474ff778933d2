//! What the machine process is told by the command that starts it, and what it reports back.
//!
//! ```text
//!   husk create                      husk machine (descriptor 3: a stream socket to the parent)
//!      |   (puts it in its cgroup)       |
//!      | -- Order + descriptors ------> |   opens the sources, builds the machine, boots the guest ...
//!      | <- Report::Prepared ---------- |   (its namespaces are what hooks may look at)
//!      | -- Proceed ------------------> |   hooks have run; the container may be made
//!      | <- Report::Created ----------- |   or Report::Failed, and the machine process ends
//! ```
//! If the parent goes away before `Created`, the machine ends too: a half-made container has no owner.
//! Frames are as on the control socket ([`super::control`]).

use super::control::wire::{self, WireError};
use crate::error::ErrorKind;
use crate::log::Form;
use husk_protocol::{Container, ContainerKey, TerminalSize};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// The order. Descriptors 0, 1 and 2 of the machine process are the container's, unless there is a terminal or its
/// streams are sent. Further descriptors come with the order, by SCM_RIGHTS, in the order of [`Order::descriptors`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// The container's id, for the process title and the log.
    pub id: String,
    /// What the sent descriptors are.
    pub descriptors: Vec<Descriptor>,
    /// The machine to build.
    pub machine: MachineConfig,
    /// The container to make in it. Stream ports in it are filled in by the machine.
    pub container: Container,
    /// Where the container's process is to be connected.
    pub terminal: Option<TerminalSize>,
    /// What it shares with the guest.
    pub exports: Vec<Export>,
    /// The network namespace that the machine process is to live in.
    pub network: NetworkNamespace,
    /// Whether that namespace's localhost is to be the guest's.
    pub localhost: bool,
    /// The form of lines in the log.
    pub log_form: Form,
    /// Minimum log level in the log: `error`, or `debug` with `--debug`.
    pub debug: bool,
}

/// A descriptor that comes with an [`Order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Descriptor {
    /// The listening control socket.
    Control,
    /// The terminal (the slave of a pty pair, or the user's own terminal) for the container's process.
    Terminal,
    /// One of the streams of the container's process: stdin, stdout and stderr, or a terminal's input and output.
    Stream,
    /// The log (`--log`), opened for append, or the standard error of the command that stays.
    Log,
}

/// The machine itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Vcpus, 1 to 32.
    pub vcpus: u8,
    /// Memory in MiB, 64 or more.
    pub memory_mib: u32,
    /// How much it may become while the guest runs, in MiB. No more than `memory_mib`: it stays as it is.
    pub most_memory_mib: u32,
    /// What of its memory its containers' limits are to leave to the guest's kernel and agent, in MiB.
    pub headroom_mib: u32,
    /// A kernel file (ELF vmlinux) instead of the embedded one.
    pub kernel: Option<PathBuf>,
    /// An initial RAM file system (newc cpio with the agent as /init) instead of the embedded one.
    pub initrd: Option<PathBuf>,
    /// The operator's additions to the kernel command line.
    pub command_line: String,
    /// How long the guest may take to its agent's first message, in milliseconds.
    pub boot_timeout_ms: u64,
    /// Where templates are, if a start may be made from one.
    pub templates: Option<PathBuf>,
    /// What comes of a system call that is not on its thread's list.
    pub system_calls: SystemCalls,
}

/// What comes of a system call that no thread of its kind makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemCalls {
    /// The machine process is killed.
    #[default]
    Enforce,
    /// The kernel logs it, and does it.
    Log,
    /// It is done.
    Allow,
}

/// What is made in a machine that runs ([`super::control::Command::Join`]). Numbers in it, and names of exports, mean
/// something in it alone: the machine gives others.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Joining {
    /// The container to make. Stream ports in it are filled in by the machine.
    pub container: Container,
    /// Where its process is to be connected.
    pub terminal: Option<TerminalSize>,
    /// What it shares with the guest: a descriptor comes for each, of a tree that has its attributes.
    pub exports: Vec<Export>,
}

/// A host path that the guest may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// On which virtio-fs device.
    pub device: ExportDevice,
    /// The entry's name there: decimal digits.
    pub name: String,
    /// The directory, file, socket or FIFO on the host.
    pub source: PathBuf,
    /// Whether the guest may not change it (also true on the host's side).
    pub read_only: bool,
    /// Whether mounts below the source are shared too.
    pub recursive: bool,
    /// How its access times are kept: they are the host's to write.
    pub access_times: AccessTimes,
    /// And those of everything below it.
    pub all_access_times: AccessTimes,
}

/// A change of how access times are kept: `MOUNT_ATTR_*` of mount_setattr(2). Nothing to do keeps the source's way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccessTimes {
    /// To set.
    pub set: u64,
    /// To clear first.
    pub clear: u64,
}

/// The two file servers of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportDevice {
    /// Root filesystems: used by the guest alone, which may cache them.
    Root,
    /// Bind mounts: anyone may change them at any time.
    Share,
}

/// The machine process's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkNamespace {
    /// A new one.
    New,
    /// Somebody else's, by path.
    Path(PathBuf),
}

/// From the parent, after its hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proceed;

/// From the machine process to its parent, or from a process that stands for a container in another's machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Namespaces are set up; hooks may run. The guest is booting meanwhile.
    Prepared,
    /// The container exists and waits for `start`.
    Created {
        /// Its guest has booted, and is no copy of a template.
        cold: bool,
    },
    /// The same of a container in another's machine, where it has this number.
    Joined(ContainerKey),
    /// It could not be made; the machine process ends after this.
    Failed(Failed),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The kind.
    pub kind: ErrorKind,
    /// One line, for the user.
    pub message: String,
}

/// The machine process hears its order.
pub fn receive_order(parent: &UnixStream) -> Result<(Order, Vec<OwnedFd>), WireError> {
    wire::receive_frame(parent, None)
}

/// The machine process reports.
pub fn send_report(parent: &UnixStream, report: &Report) -> Result<(), WireError> {
    wire::send_frame(parent, report, &[])
}

/// The parent hears a report. [`WireError::Closed`]: the machine process ended without a word.
pub fn receive_report(machine: &UnixStream, within: Option<Duration>) -> Result<Report, WireError> {
    wire::receive_frame(machine, within).map(|(report, _)| report)
}

/// The parent's hooks have run.
pub fn send_proceed(machine: &UnixStream) -> Result<(), WireError> {
    wire::send_frame(machine, &Proceed, &[])
}

/// The machine process hears that; it has seen that there is something to hear.
pub fn receive_proceed(parent: &UnixStream) -> Result<Proceed, WireError> {
    wire::receive_frame(parent, None).map(|(proceed, _)| proceed)
}
