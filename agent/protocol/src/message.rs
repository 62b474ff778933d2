//! What is asked, answered and told on the control connection.

use crate::{Container, ContainerKey, Process, ProcessKey, Resources, TerminalSize};
use serde::{Deserialize, Serialize};

/// Host to agent. Every request is answered once, by a [`FromAgent::Reply`] with the same id; answers may come in
/// another order than the requests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the host, unique among the requests under way.
    pub id: u32,
    /// What to do.
    pub call: Call,
}

/// What the host can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Call {
    /// Makes a container up to the point where its program would be executed (runc's `create`): namespaces, mounts,
    /// cgroup, the program looked up in it. Its first process exists and waits. Answered with [`Answer::Created`].
    Create(Box<Container>),
    /// Lets a created container's first process execute its program. Answered when the execve has succeeded or failed.
    Start {
        /// The container.
        container: ContainerKey,
    },
    /// Runs one more process in a container. Answered with [`Answer::Created`] when its execve has succeeded.
    Exec(Box<Exec>),
    /// Sends a signal.
    Signal {
        /// To whom.
        target: Target,
        /// The signal's number in the guest (x86-64 and arm64 agree with the host).
        signal: i32,
    },
    /// Sets the size of a process's terminal.
    Resize {
        /// Whose.
        process: ProcessKey,
        /// The new size.
        size: TerminalSize,
    },
    /// Lists the processes of a container. Answered with [`Answer::Processes`].
    Processes {
        /// The container.
        container: ContainerKey,
    },
    /// Reads a container's counters. Answered with [`Answer::Stats`].
    Stats {
        /// The container.
        container: ContainerKey,
    },
    /// Freezes (`true`) or thaws a container's processes.
    Freeze {
        /// The container.
        container: ContainerKey,
        /// Whether to freeze.
        frozen: bool,
    },
    /// Applies new limits to a running container.
    Update {
        /// The container.
        container: ContainerKey,
        /// Those fields that are `Some` change.
        resources: Box<Resources>,
    },
    /// Removes what is left of a container whose processes have all ended, so that its root can be let go.
    Delete {
        /// The container.
        container: ContainerKey,
    },
    /// Binds a driver to a device that the host has put into this slot (the number of a virtio-mmio device, as the kernel
    /// counts them).
    AttachDevice {
        /// Which.
        slot: u32,
    },
    /// Binds a driver to the memory device in this slot, if it has none yet, and waits until so much memory more is there
    /// than at the first such call.
    TakeMemory {
        /// Which.
        slot: u32,
        /// In all, not since the last call.
        bytes: u64,
    },
    /// Binds drivers to network devices that the host has put into these slots. Answered with [`Answer::Interfaces`], in the same order.
    AttachInterfaces {
        /// Which.
        slots: Vec<u32>,
    },
    /// Unbinds the driver of a slot's network device, which the host is about to take away.
    DetachInterface {
        /// Which.
        slot: u32,
    },
    /// Hands requests to the kernel's network (rtnetlink), in order, up to the first that fails and may not.
    ConfigureNetwork(Vec<NetworkRequest>),
    /// Takes name look-ups at 127.0.0.11 and passes them to this port of the host's ([`crate::names`]).
    ServeNames {
        /// The vsock port.
        port: u32,
    },
    /// Relays sockets and FIFOs that are shared; what about is said on a stream from this port of the host's
    /// ([`crate::relay`]).
    Relay {
        /// The vsock port.
        port: u32,
    },
    /// Gives the kernel's random number generator a secret of its own: the first word to a guest that is a copy of another.
    Renew {
        /// The secret.
        seed: [u8; 32],
    },
    /// Connects to whoever listens at this port of localhost inside, and carries bytes between it and a port of the host's.
    Forward {
        /// The vsock port.
        port: u32,
        /// The TCP port.
        to: u16,
    },
    /// Sets the wall clock to the host's: before a container begins, after a pause or a restore, and when the host's own
    /// was set.
    SetClock {
        /// Nanoseconds since the epoch when this was sent, for an agent that cannot read the host's clock.
        nanoseconds: u64,
    },
}

/// A request to the kernel's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRequest {
    /// A whole netlink message that asks for an acknowledgement. Interfaces' numbers in it are the guest's.
    pub message: Vec<u8>,
    /// Whether it is no failure if the kernel refuses.
    pub may_fail: bool,
}

/// One more process in a container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// In which container.
    pub container: ContainerKey,
    /// The new process's number.
    pub key: ProcessKey,
    /// What to run.
    pub process: Process,
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// One process that the host asked for.
    Process(ProcessKey),
    /// Every process of a container.
    Container(ContainerKey),
}

/// Agent to host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromAgent {
    /// The first message on the connection: the agent serves.
    Ready(Ready),
    /// The answer to a request.
    Reply {
        /// The request's id.
        id: u32,
        /// What came of it.
        outcome: Result<Answer, Failure>,
    },
    /// A process that the host asked for has ended.
    Exited(Exited),
    /// The kernel killed a process of this container because its memory limit was reached.
    OutOfMemory {
        /// The container.
        container: ContainerKey,
    },
}

/// The agent's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// [`crate::VERSION`] of the agent.
    pub version: u32,
    /// Nanoseconds of the guest's boot-time clock at this moment.
    pub uptime: u64,
}

/// A request that succeeded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// A process exists.
    Created {
        /// Its pid in the guest, for messages to people only.
        guest_pid: i32,
    },
    /// The processes of a container.
    Processes(Vec<GuestProcess>),
    /// A container's counters.
    Stats(Box<Stats>),
    /// Interfaces that were attached.
    Interfaces(Vec<Interface>),
}

/// A network interface in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name at the moment.
    pub name: String,
}

/// A process as `ps` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestProcess {
    /// Pid in the container's pid namespace.
    pub pid: i32,
    /// Parent's pid there (0 if outside).
    pub parent: i32,
    /// Real user id.
    pub uid: u32,
    /// The number the host gave it, if the host asked for it.
    pub key: Option<ProcessKey>,
    /// Processor time in clock ticks (1/100 s).
    pub ticks: u64,
    /// Start, in nanoseconds since the epoch.
    pub started: u64,
    /// Terminal, as in /proc/PID/stat (0 for none).
    pub terminal: u32,
    /// State, a letter as in /proc/PID/stat.
    pub state: char,
    /// Nice value.
    pub nice: i32,
    /// Threads.
    pub threads: u32,
    /// Address space, in bytes.
    pub virtual_memory: u64,
    /// Memory held, in bytes.
    pub resident_memory: u64,
    /// Its name, as in /proc/PID/comm.
    pub name: String,
    /// Command line, arguments separated by spaces; the name in square brackets if there is none.
    pub command: String,
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind, for exit codes and callers.
    pub kind: FailureKind,
    /// What was attempted and why it failed, in runc's words where callers match them
    /// (`exec: "NAME": executable file not found in $PATH`).
    pub message: String,
}

/// Kinds of failure that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// There is no such container or process (any more).
    NotFound,
    /// It is not in the state that the request needs.
    InvalidState,
    /// The request itself is wrong.
    InvalidArgument,
    /// The guest cannot do this.
    Unsupported,
    /// The program could not be executed, or anything else that went wrong in the guest.
    Guest,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessStatus {
    /// It called exit with this status.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl ProcessStatus {
    /// The status as a shell or runc reports it: signal N counts as 128 + N.
    pub fn code(self) -> u8 {
        match self {
            ProcessStatus::Code(code) => code,
            ProcessStatus::Signal(signal) => 128u8.saturating_add(signal),
        }
    }
}

/// The end of a process, told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exited {
    /// Which.
    pub process: ProcessKey,
    /// How.
    pub status: ProcessStatus,
    /// Bytes that the agent has read from its stdout (or terminal) by its end and has sent or will send on that
    /// stream. The exit is reported to the caller when that many have been delivered. (A process that it left
    /// behind may write more.)
    pub stdout: u64,
    /// The same for stderr.
    pub stderr: u64,
}

/// Counters of a container's cgroup. Times in nanoseconds, memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// cpu.stat usage, total.
    pub cpu_total: u64,
    /// In user mode.
    pub cpu_user: u64,
    /// In the kernel.
    pub cpu_system: u64,
    /// cpu.stat nr_periods.
    pub cpu_periods: u64,
    /// cpu.stat nr_throttled.
    pub cpu_throttled_periods: u64,
    /// cpu.stat throttled time.
    pub cpu_throttled: u64,
    /// memory.current.
    pub memory_usage: u64,
    /// memory.peak.
    pub memory_peak: u64,
    /// memory.max; `u64::MAX` for none.
    pub memory_limit: u64,
    /// memory.swap.current.
    pub swap_usage: u64,
    /// memory.swap.max; `u64::MAX` for none.
    pub swap_limit: u64,
    /// memory.stat, name and value, at most 64 lines.
    pub memory_detail: Vec<(String, u64)>,
    /// memory.events oom_kill.
    pub oom_kills: u64,
    /// pids.current.
    pub pids: u64,
    /// pids.max; `u64::MAX` for none.
    pub pids_limit: u64,
}
