//! A process to run: what the OCI spec's `process` says, decided and checked by the host.

use serde::{Deserialize, Serialize};

/// A process to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// The whole environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute, in the container.
    pub cwd: String,
    /// Who runs it.
    pub user: User,
    /// Where its stdin, stdout and stderr go.
    pub stdio: Stdio,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Resource limits.
    pub rlimits: Vec<ResourceLimit>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// /proc/self/oom_score_adj, if it is to be set.
    pub oom_score_adj: Option<i32>,
    /// Scheduling policy, if it is to be set.
    pub scheduler: Option<Scheduler>,
    /// I/O priority, if it is to be set.
    pub io_priority: Option<IoPriority>,
    /// CPUs (a list as in cpuset) for an exec: before it joins the cgroup, and at last.
    pub cpu_affinity: Option<(Option<String>, Option<String>)>,
    /// The seccomp filter: `struct sock_filter`s as bytes (8 each), compiled by the host. Empty for none.
    pub seccomp: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` for it.
    pub seccomp_flags: u32,
    /// Sub-cgroup (relative to the container's) for an exec (`--cgroup`).
    pub cgroup: Option<String>,
    /// A terminal of its own passes a newline on as it is (no ONLCR): the caller's terminal adds the carriage return.
    pub plain_newlines: bool,
}

/// Ids of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
    /// umask, if it is to be set.
    pub umask: Option<u32>,
}

/// Where a process's streams go. A port is the host's vsock port that the agent connects to, good for one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// /dev/null for all three.
    #[default]
    Null,
    /// A pipe per stream; `None` is /dev/null.
    Pipes {
        /// Host to guest; the host's half-close is end of file.
        stdin: Option<u32>,
        /// Guest to host.
        stdout: Option<u32>,
        /// Guest to host.
        stderr: Option<u32>,
    },
    /// A pseudo-terminal made in the container.
    Terminal {
        /// Both directions.
        port: u32,
        /// Its first size.
        size: TerminalSize,
    },
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Capability sets; bit N is capability number N (`linux/capability.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: u64,
    /// Effective set.
    pub effective: u64,
    /// Inheritable set.
    pub inheritable: u64,
    /// Permitted set.
    pub permitted: u64,
    /// Ambient set.
    pub ambient: u64,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// `RLIMIT_*` number.
    pub resource: u32,
    /// Soft limit; `u64::MAX` is infinity.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

/// Arguments of sched_setattr(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Nice value.
    pub nice: i32,
    /// Static priority.
    pub priority: u32,
    /// Runtime of SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// Its deadline.
    pub deadline: u64,
    /// Its period.
    pub period: u64,
}

/// Arguments of ioprio_set(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`.
    pub class: u8,
    /// Level within the class, 0 to 7.
    pub level: u8,
}
