//! The table: which system calls each thread of the machine process may make, and which capabilities it keeps.
//!
//! What needs no word stands without one. A test counts the lists against what is promised (`docs/threat-model.md`).

use super::super::jail::{FILE_SERVER, NETWORK};
use crate::host::seccomp::{Allowed, Only, Program};
use kvm_bindings::{KVMIO, kvm_ioeventfd, kvm_irqfd, kvm_userspace_memory_region};
use libc::*;
use rustix::thread::CapabilitySet;

/// A thread of the machine process, by what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Runs a vcpu, and does what it wants from ports and registers.
    Vcpu,
    /// The entropy device.
    Rng,
    /// The balloon.
    Balloon,
    /// The device for memory that is plugged.
    Memory,
    /// The vsock device: moves the bytes of all streams.
    Vsock,
    /// The server of root filesystems.
    RootFiles,
    /// The server of what is shared with others.
    ShareFiles,
    /// A network interface's device.
    Interface,
    /// One with several queue pairs, and the threads of these.
    QueuePairs,
    /// Looks after the network namespace.
    Network,
    /// Passes name look-ups on.
    Names,
    /// Connects sockets and FIFOs in what is shared.
    Relay,
    /// Leads connections to localhost outside to localhost inside.
    Localhost,
    /// Converses with the agent.
    Agent,
    /// Accepts commands, and the thread of each of them.
    Control,
    /// Brings the container up and down.
    Main,
}

impl Thread {
    /// The thread of a device, by the device's name.
    pub fn of_device(name: &str) -> Option<Thread> {
        match name {
            "rng" => Some(Thread::Rng),
            "balloon" => Some(Thread::Balloon),
            "mem" => Some(Thread::Memory),
            "vsock" => Some(Thread::Vsock),
            "fs-root" => Some(Thread::RootFiles),
            "fs-share" => Some(Thread::ShareFiles),
            "net" => Some(Thread::Interface),
            "nets" => Some(Thread::QueuePairs),
            _ => None,
        }
    }

    /// What it keeps.
    pub fn capabilities(self) -> CapabilitySet {
        match self {
            Thread::RootFiles | Thread::ShareFiles => FILE_SERVER,
            Thread::Network => NETWORK,
            // To connect whatever the modes say, and to be another user.
            Thread::Relay => CapabilitySet::DAC_OVERRIDE | CapabilitySet::SETUID | CapabilitySet::SETGID,
            _ => CapabilitySet::empty(),
        }
    }

    /// What it may call. No call is there twice.
    pub fn calls(self) -> impl Iterator<Item = &'static Allowed> {
        self.lists().iter().copied().flatten()
    }

    /// The same, for the kernel.
    pub fn program(self) -> &'static Program {
        macro_rules! program_of {
            ($($thread:ident)*) => {
                match self { $(Thread::$thread => const { &compiled(Thread::$thread) },)* }
            };
        }
        program_of! {
            Vcpu Rng Balloon Memory Vsock RootFiles ShareFiles Interface QueuePairs Network Names Relay Localhost Agent Control Main
        }
    }

    const fn lists(self) -> &'static [&'static [Allowed]] {
        match self {
            Thread::Vcpu => &[EVERY, VCPU],
            Thread::Rng | Thread::Balloon | Thread::Memory => &[EVERY, SIMPLE],
            Thread::Vsock => &[EVERY, VSOCK],
            Thread::RootFiles => &[EVERY, FILES],
            Thread::ShareFiles => &[EVERY, FILES, SOCKET_FILES],
            Thread::Interface => &[EVERY, INTERFACE],
            Thread::QueuePairs => &[EVERY, INTERFACE, MAKER],
            Thread::Network => &[EVERY, TALKER, NETWORK_CALLS, MAKER, WALL],
            Thread::Names => &[EVERY, TALKER, NAMES],
            Thread::Relay => &[EVERY, TALKER, RELAY],
            Thread::Localhost => &[EVERY, TALKER, CONDUCTOR, LOCALHOST],
            Thread::Agent => &[EVERY, TALKER, CONDUCTOR, AGENT],
            Thread::Control => &[EVERY, TALKER, CONDUCTOR, CONTROL, MAKER, WALL],
            Thread::Main => &[EVERY, TALKER, CONDUCTOR, MAIN, MAKER, WALL],
        }
    }
}

const fn compiled(thread: Thread) -> Program {
    let lists = thread.lists();
    let mut all: [&[Allowed]; MOST_LISTS] = [&[]; MOST_LISTS];
    let (mine, others) = all.split_at_mut(lists.len());
    mine.copy_from_slice(lists);
    assert!(others.len() >= 2, "too many lists");
    if let [checks, points, ..] = others {
        (*checks, *points) = (CHECKS, FAULT_POINTS);
    }
    Program::of(&all)
}

/// Of a thread, and two for tests.
const MOST_LISTS: usize = 8;

/// In builds for tests: the standard library's own checks (that a descriptor which is closed is open), and what the C
/// library's allocator wants to know, because a test does not have the process to itself
/// ([`use_one_heap`](super::use_one_heap)).
#[cfg(debug_assertions)]
const CHECKS: &[Allowed] = &[
    among(SYS_fcntl, 1, &[F_GETFD as u64]),
    among(SYS_openat, 2, &[(O_RDONLY | O_CLOEXEC) as u64]),
    any(SYS_read),
    without(SYS_mprotect, 2, PROT_EXEC as u64),
];
#[cfg(not(debug_assertions))]
const CHECKS: &[Allowed] = &[];

/// In builds that stop at named points ([`crate::host::fault`]): the process sends itself a signal.
#[cfg(feature = "fault-points")]
const FAULT_POINTS: &[Allowed] = &[any(SYS_getpid), any(SYS_gettid)];
#[cfg(not(feature = "fault-points"))]
const FAULT_POINTS: &[Allowed] = &[];

/// What any thread does without being asked: it waits for others, allocates, logs, closes, and ends.
const EVERY: &[Allowed] = &[
    any(SYS_futex),
    // Memory, none of which can be executed.
    without(SYS_mmap, 2, PROT_EXEC as u64),
    any(SYS_munmap),
    any(SYS_madvise),
    any(SYS_brk),
    // Events are raised by it, and lines of the log.
    any(SYS_write),
    any(SYS_close),
    // The standard library's channels, when two threads meet in them.
    any(SYS_sched_yield),
    // On hosts whose clock cannot be read without a call.
    any(SYS_clock_gettime),
    // The end of a thread. (Not that of a process which panics: when it has logged why, it may as well end at a wall.)
    any(SYS_rt_sigprocmask),
    any(SYS_sigaltstack),
    any(SYS_exit),
];

const VCPU: &[Allowed] = &[
    // Of KVM no more than to run, and to tell the guest's watchdog of a pause.
    among(SYS_ioctl, 1, &[KVM_RUN, KVM_KVMCLOCK_CTRL]),
    // The handler of the signal that gets it out of the guest.
    any(SYS_rt_sigreturn),
    // It sends that signal to the other vcpus when the guest ends, and to nobody else.
    own(SYS_tgkill, 0),
    // A device's registers: the event that stopped it is cleared.
    any(SYS_read),
    // It waits while the guest is paused, and is stopped and continued meanwhile.
    any(SYS_restart_syscall),
];

const SIMPLE: &[Allowed] = &[any(SYS_ppoll), any(SYS_read), any(SYS_getrandom), any(SYS_mremap)];

const VSOCK: &[Allowed] = &[
    any(SYS_epoll_ctl),
    any(SYS_epoll_wait),
    // Streams end in whatever the caller gave: pipes, sockets, files, terminals.
    any(SYS_preadv2),
    any(SYS_pwritev2),
    any(SYS_recvmsg),
    any(SYS_sendmsg),
    any(SYS_shutdown),
    any(SYS_ppoll),
    any(SYS_splice),
    any(SYS_pipe2),
    any(SYS_read),
    any(SYS_mremap),
];

/// All by descriptors that it has, and names of one component.
const FILES: &[Allowed] = &[
    any(SYS_epoll_create1),
    any(SYS_epoll_ctl),
    any(SYS_epoll_wait),
    any(SYS_statx),
    any(SYS_fstatfs),
    any(SYS_openat),
    any(SYS_openat2),
    any(SYS_readlinkat),
    any(SYS_linkat),
    any(SYS_symlinkat),
    any(SYS_renameat2),
    any(SYS_unlinkat),
    any(SYS_mkdirat),
    any(SYS_mknodat),
    any(SYS_getdents64),
    any(SYS_fchmodat),
    any(SYS_fchownat),
    any(SYS_utimensat),
    any(SYS_ftruncate),
    any(SYS_fallocate),
    any(SYS_fsync),
    any(SYS_fdatasync),
    any(SYS_syncfs),
    any(SYS_lseek),
    any(SYS_preadv),
    any(SYS_pwritev2),
    any(SYS_copy_file_range),
    any(SYS_flock),
    // Locks of open files, and copies of descriptors.
    among(SYS_fcntl, 1, &[F_OFD_GETLK as u64, F_OFD_SETLK as u64, F_DUPFD_CLOEXEC as u64]),
    any(SYS_getxattr),
    any(SYS_setxattr),
    any(SYS_listxattr),
    any(SYS_removexattr),
    // What is made belongs to who makes it inside; some changes are made without the right to keep set-user-id bits.
    any(SYS_umask),
    any(SYS_setfsuid),
    any(SYS_setfsgid),
    any(SYS_capset),
    // The keys of its tables.
    any(SYS_getrandom),
    any(SYS_mremap),
];

/// A socket that a process inside binds to a name is bound outside, too, for the relay to listen at.
const SOCKET_FILES: &[Allowed] = &[among(SYS_socket, 0, &[AF_UNIX as u64]), any(SYS_bind), any(SYS_fchmod)];

const INTERFACE: &[Allowed] = &[
    any(SYS_ppoll),
    // Events, and frames.
    any(SYS_read),
    any(SYS_readv),
    any(SYS_writev),
    // A queue pair is turned on or off, and what the guest takes is told.
    among(SYS_ioctl, 1, &[TUNSETQUEUE, TUNSETOFFLOAD]),
];

/// What it takes to make a thread, as far as not on its list already. The new thread begins
/// with this list.
const MAKER: &[Allowed] = &[
    Allowed { number: SYS_clone3, only: Only::Unknown },
    with(SYS_clone, 0, (CLONE_THREAD | CLONE_VM) as u64),
    any(SYS_rseq),
    any(SYS_set_robust_list),
    any(SYS_sched_getaffinity),
    any(SYS_gettid),
    // The guard page of its stack.
    without(SYS_mprotect, 2, PROT_EXEC as u64),
    // Its name; and the first half of putting up its own walls.
    among(SYS_prctl, 0, &[PR_SET_NAME as u64, PR_SET_NO_NEW_PRIVS as u64]),
];

/// The other half: threads of this one have shorter lists than it has.
const WALL: &[Allowed] = &[among(SYS_seccomp, 0, &[SECCOMP_SET_MODE_FILTER as u64]), any(SYS_capset)];

/// Those that listen and answer.
const TALKER: &[Allowed] = &[
    any(SYS_ppoll),
    any(SYS_read),
    any(SYS_recvfrom),
    any(SYS_sendto),
    any(SYS_shutdown),
    any(SYS_getrandom),
    any(SYS_mremap),
    // They sleep, and wait for a while; a process that was stopped meanwhile goes on by it.
    any(SYS_restart_syscall),
];

const NETWORK_CALLS: &[Allowed] = &[
    // It may have to get the vcpus out of a paused guest again.
    own(SYS_tgkill, 0),
    // For an interface's device: its TAP, its place on the machine's bus, its queues.
    among(
        SYS_ioctl,
        1,
        &[
            TUNSETIFF,
            TUNSETVNETHDRSZ,
            TUNSETOFFLOAD,
            TUNSETQUEUE,
            SIOCGIFINDEX,
            FIONBIO,
            KVM_IRQFD,
            KVM_IOEVENTFD,
        ],
    ),
    any(SYS_eventfd2),
    any(SYS_readv),
    any(SYS_writev),
    // To the namespace's resolver; and how the C library asks for an interface's number.
    among(SYS_socket, 0, &[AF_INET as u64, AF_UNIX as u64]),
    any(SYS_connect),
    any(SYS_getsockopt),
    // A stream for the guest; its ends are looked at.
    any(SYS_socketpair),
    any(SYS_fstat),
    among(SYS_fcntl, 1, &[F_DUPFD_CLOEXEC as u64, F_SETFL as u64, F_GETFL as u64]),
];

const NAMES: &[Allowed] = &[among(SYS_socket, 0, &[AF_INET as u64]), any(SYS_connect), any(SYS_getsockopt)];

const RELAY: &[Allowed] = &[
    own(SYS_tgkill, 0),
    among(SYS_socket, 0, &[AF_UNIX as u64]),
    any(SYS_connect),
    any(SYS_listen),
    any(SYS_accept4),
    any(SYS_sendmsg),
    any(SYS_socketpair),
    any(SYS_fstat),
    among(SYS_fcntl, 1, &[F_DUPFD_CLOEXEC as u64, F_GETFL as u64]),
    // A FIFO, by the number of its descriptor.
    any(SYS_openat),
    // As whom it connects and listens.
    any(SYS_setresuid),
    any(SYS_setresgid),
    any(SYS_capset),
    any(SYS_getpid),
];

/// A connection is taken, looked at, and given to the vsock device or reset.
const LOCALHOST: &[Allowed] = &[
    any(SYS_accept4),
    any(SYS_getsockname),
    any(SYS_getsockopt),
    any(SYS_setsockopt),
    any(SYS_fstat),
    among(SYS_ioctl, 1, &[FIONBIO]),
    among(SYS_fcntl, 1, &[F_DUPFD_CLOEXEC as u64, F_GETFL as u64, F_SETFL as u64]),
];

/// Those that pause the guest, keep time, and hand descriptors on.
const CONDUCTOR: &[Allowed] = &[own(SYS_tgkill, 0), any(SYS_clock_nanosleep), any(SYS_eventfd2)];

const AGENT: &[Allowed] = &[];

const CONTROL: &[Allowed] = &[
    any(SYS_accept4),
    any(SYS_getsockopt),
    any(SYS_recvmsg),
    any(SYS_sendmsg),
    // What a joining container shares, and what an exec'd process is connected to, is looked at.
    any(SYS_statx),
    any(SYS_fstat),
    among(SYS_fcntl, 1, &[F_DUPFD_CLOEXEC as u64, F_GETFL as u64]),
    // Memory for a container that joins, or whose limit is raised; its device's place on the bus.
    among(SYS_ioctl, 1, &[KVM_SET_USER_MEMORY_REGION, KVM_IRQFD, KVM_IOEVENTFD]),
];

const MAIN: &[Allowed] = &[
    any(SYS_recvmsg),
    any(SYS_sendmsg),
    // The size of the user's terminal; memory for a copy of a smaller guest; places on the bus for its device and the balloon.
    among(SYS_ioctl, 1, &[TIOCGWINSZ, KVM_SET_USER_MEMORY_REGION, KVM_IRQFD, KVM_IOEVENTFD]),
    among(SYS_fcntl, 1, &[F_DUPFD_CLOEXEC as u64]),
    // The end of it all.
    any(SYS_exit_group),
];

const fn any(number: c_long) -> Allowed {
    Allowed { number, only: Only::Any }
}

const fn among(number: c_long, argument: u8, values: &'static [u64]) -> Allowed {
    Allowed { number, only: Only::Among(argument, values) }
}

const fn without(number: c_long, argument: u8, bits: u64) -> Allowed {
    Allowed { number, only: Only::Without(argument, bits) }
}

const fn with(number: c_long, argument: u8, bits: u64) -> Allowed {
    Allowed { number, only: Only::With(argument, bits) }
}

const fn own(number: c_long, argument: u8) -> Allowed {
    Allowed { number, only: Only::OwnProcess(argument) }
}

// `linux/kvm.h`; the crate that makes the calls keeps their numbers to itself.
const KVM_RUN: u64 = io(0x80);
const KVM_KVMCLOCK_CTRL: u64 = io(0xad);
const KVM_SET_USER_MEMORY_REGION: u64 = write_of::<kvm_userspace_memory_region>(0x46);
const KVM_IRQFD: u64 = write_of::<kvm_irqfd>(0x76);
const KVM_IOEVENTFD: u64 = write_of::<kvm_ioeventfd>(0x79);

/// `_IO(KVMIO, number)`, `asm-generic/ioctl.h`.
const fn io(number: u64) -> u64 {
    ((KVMIO as u64) << 8) | number
}

/// `_IOW(KVMIO, number, T)`.
const fn write_of<T>(number: u64) -> u64 {
    (1 << 30) | ((size_of::<T>() as u64) << 16) | io(number)
}
