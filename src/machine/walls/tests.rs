//! Each list, held against a kernel: in a process of its own, because there is no way back.

use super::*;
use crate::host::seccomp::{Allowed, Only};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;

const ALL: [Thread; 16] = [
    Thread::Vcpu,
    Thread::Rng,
    Thread::Balloon,
    Thread::Memory,
    Thread::Vsock,
    Thread::RootFiles,
    Thread::ShareFiles,
    Thread::Interface,
    Thread::QueuePairs,
    Thread::Network,
    Thread::Names,
    Thread::Relay,
    Thread::Localhost,
    Thread::Agent,
    Thread::Control,
    Thread::Main,
];

type Arguments = [u64; 6];

/// Arguments that are wrong for every call: no descriptor, no address that could be read.
const NONSENSE: Arguments = [u64::MAX, 1, 1, 0, 0, 0];

/// Behind the walls of `thread`, in a process of its own: how that ended which makes a system call and exits with 0.
#[allow(unsafe_code)]
fn attempt(
    thread: Thread,
    system_calls: SystemCalls,
    number: libc::c_long,
    arguments: Arguments,
) -> WaitStatus {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the child has one thread, and ends by _exit. What it does allocate, it may: the C library keeps its heap
    // usable across fork.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            // A core dump of each would take most of the time; exit_group is on few lists, exit on all.
            let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
            let stands = own_walls(thread, system_calls).is_ok();
            // SAFETY: the arguments are such that the kernel reads and writes nothing of ours.
            unsafe {
                if stands {
                    libc::syscall(number, a, b, c, d, e, f);
                }
                libc::syscall(libc::SYS_exit, i32::from(!stands));
            }
            unreachable!("it has exited");
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

/// As [`Walls::enter`], for who cannot have the capabilities that some threads keep.
fn own_walls(thread: Thread, system_calls: SystemCalls) -> io::Result<()> {
    let otherwise = if system_calls == SystemCalls::Log { Otherwise::Log } else { Otherwise::Kill };
    thread.program().enter(otherwise)
}

fn killed(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Signaled(_, Signal::SIGSYS, _))
}

fn survived(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(_, 0))
}

#[test]
fn no_thread_does_what_only_an_intruder_would() {
    use libc::*;
    // Calls that lead to files by path, other processes, the kernel, the network. Those that some thread has a use for
    // stand with those threads.
    let acts: &[(&str, c_long, Arguments, &[Thread])] = &[
        ("run a program", SYS_execve, NONSENSE, &[]),
        ("run a program by descriptor", SYS_execveat, NONSENSE, &[]),
        ("fork", SYS_fork, [0; 6], &[]),
        ("fork by vfork", SYS_vfork, [0; 6], &[]),
        ("fork by clone", SYS_clone, [SIGCHLD as u64, 0, 0, 0, 0, 0], &[]),
        ("trace", SYS_ptrace, NONSENSE, &[]),
        ("read another's memory", SYS_process_vm_readv, NONSENSE, &[]),
        ("write another's memory", SYS_process_vm_writev, NONSENSE, &[]),
        ("take another's descriptor", SYS_pidfd_getfd, NONSENSE, &[]),
        ("kill a process", SYS_kill, [1, 0, 0, 0, 0, 0], &[]),
        ("signal another's thread", SYS_tgkill, [1, 1, 0, 0, 0, 0], &[]),
        ("mount", SYS_mount, NONSENSE, &[]),
        ("unmount", SYS_umount2, NONSENSE, &[]),
        ("copy a mount", SYS_open_tree, NONSENSE, &[]),
        ("move a mount", SYS_move_mount, NONSENSE, &[]),
        ("change root", SYS_chroot, NONSENSE, &[]),
        ("change the working directory", SYS_chdir, NONSENSE, &[]),
        ("leave a namespace", SYS_unshare, NONSENSE, &[]),
        ("enter a namespace", SYS_setns, NONSENSE, &[]),
        ("load BPF", SYS_bpf, NONSENSE, &[]),
        ("read performance counters", SYS_perf_event_open, NONSENSE, &[]),
        ("handle faults of its own", SYS_userfaultfd, NONSENSE, &[]),
        ("submit by io_uring", SYS_io_uring_setup, NONSENSE, &[]),
        ("load a module", SYS_finit_module, NONSENSE, &[]),
        ("load a kernel", SYS_kexec_load, NONSENSE, &[]),
        ("use keys", SYS_keyctl, NONSENSE, &[]),
        ("open by path", SYS_open, NONSENSE, &[]),
        ("open by handle", SYS_open_by_handle_at, NONSENSE, &[]),
        ("become another", SYS_setuid, NONSENSE, &[]),
        ("raise a limit", SYS_prlimit64, NONSENSE, &[]),
        ("map memory to execute", SYS_mmap, [0, 4096, PROT_EXEC as u64, 0, 0, 0], &[]),
        ("make memory executable", SYS_mprotect, [0, 4096, PROT_EXEC as u64, 0, 0, 0], &[]),
        ("reach the network", SYS_socket, [AF_INET6 as u64, 1, 0, 0, 0, 0], &[]),
        ("reach the network's wire", SYS_socket, [AF_PACKET as u64, 1, 0, 0, 0, 0], &[]),
        ("speak to the network's kernel", SYS_socket, [AF_NETLINK as u64, 1, 0, 0, 0, 0], &[]),
        ("type on a terminal", SYS_ioctl, [u64::MAX, TIOCSTI, 0, 0, 0, 0], &[]),
        ("make a machine", SYS_ioctl, [u64::MAX, 0xae01, 0, 0, 0, 0], &[]),
        ("open", SYS_openat, NONSENSE, &[Thread::RootFiles, Thread::ShareFiles, Thread::Relay]),
        ("connect", SYS_connect, NONSENSE, &[Thread::Network, Thread::Names, Thread::Relay]),
        ("bind", SYS_bind, NONSENSE, &[Thread::ShareFiles]),
    ];
    let mut wrong = Vec::new();
    for thread in ALL {
        for (what, number, arguments, except) in acts {
            let status = attempt(thread, SystemCalls::Enforce, *number, *arguments);
            if killed(status) == except.contains(&thread) {
                wrong.push(format!("{thread:?}: {what}: {status:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_on_a_list_can_be_called() {
    // These end or block the thread, or are refused to be what they seem: a return from a signal that never came.
    let untried = [libc::SYS_exit, libc::SYS_exit_group, libc::SYS_rt_sigreturn, libc::SYS_clone];
    let mut wrong = Vec::new();
    for thread in ALL {
        for Allowed { number, only } in thread.calls() {
            if untried.contains(number) {
                continue;
            }
            let mut arguments = NONSENSE;
            let place = |argument: u8| usize::from(argument);
            let cases: Vec<u64> = match only {
                Only::Any | Only::Unknown => vec![],
                Only::Among(_, values) => values.to_vec(),
                Only::Without(..) => vec![0],
                Only::With(_, bits) => vec![*bits],
                Only::OwnProcess(_) => continue,
            };
            // No timeout that is none, no wait for what nobody says.
            match *number {
                // Without a time it waits; without an array it gives up.
                libc::SYS_ppoll => arguments = [0, 1, 0, 0, 0, 0],
                libc::SYS_futex => arguments = [0, 1, 0, 0, 0, 0],
                libc::SYS_prctl => arguments = [0, 0, u64::MAX, 0, 0, 0],
                _ => {}
            }
            let tries = if cases.is_empty() { 1 } else { cases.len() };
            for number_of in 0..tries {
                if let (Some(value), Only::Among(at, _) | Only::Without(at, _) | Only::With(at, _)) =
                    (cases.get(number_of), only)
                {
                    arguments[place(*at)] = *value;
                }
                let status = attempt(thread, SystemCalls::Enforce, *number, arguments);
                if !survived(status) {
                    wrong.push(format!("{thread:?}: call {number} with {arguments:?}: {status:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn who_makes_a_thread_may_do_all_that_it_may() {
    use Thread::{Balloon, Control, Interface, Main, Memory, Names, Network, QueuePairs};
    let covers = |maker: Only, made: Only| match (maker, made) {
        (Only::Any, made) => !matches!(made, Only::Unknown),
        (Only::Unknown, Only::Unknown) => true,
        (Only::Among(at, all), Only::Among(there, some)) => {
            at == there && some.iter().all(|value| all.contains(value))
        }
        (Only::Without(at, bits), Only::Without(there, same)) => (at, bits) == (there, same),
        (Only::With(at, bits), Only::With(there, same)) => (at, bits) == (there, same),
        (Only::OwnProcess(at), Only::OwnProcess(there)) => at == there,
        _ => false,
    };
    for (maker, made) in [
        (Main, Balloon),
        (Main, Memory),
        (Control, Memory),
        (Network, Interface),
        (Network, QueuePairs),
        (Network, Names),
    ] {
        let lacking: Vec<_> = made
            .calls()
            .filter(|call| {
                let mut same = maker.calls().filter(|other| other.number == call.number);
                !same.any(|other| covers(other.only, call.only))
            })
            .collect();
        assert!(lacking.is_empty(), "{made:?} begins with the list of {maker:?}, which lacks {lacking:?}");
    }
}

/// An operator stops it, a cgroup is frozen, the host is suspended: threads go on by calls that they never made.
#[test]
#[allow(unsafe_code)]
fn a_thread_that_is_stopped_while_it_waits_goes_on() {
    use nix::sys::signal::kill;
    let waits = [libc::SYS_ppoll, libc::SYS_read, libc::SYS_clock_nanosleep];
    for thread in ALL {
        let may = |number| thread.calls().any(|call| call.number == number);
        for number in waits.into_iter().filter(|number| may(*number)) {
            let (read, write) = nix::unistd::pipe().unwrap();
            // SAFETY: as in `attempt`.
            let child = match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let stands = own_walls(thread, SystemCalls::Enforce).is_ok();
                    let (fd, mut byte) = (read.as_raw_fd(), [0_u8]);
                    let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
                    let time = libc::timespec { tv_sec: 0, tv_nsec: 300_000_000 };
                    let (byte, one, none) = (byte.as_mut_ptr() as u64, &raw mut one as u64, 0_u64);
                    let ([a, b, c, d], expected) = match number {
                        libc::SYS_ppoll => ([one, 1, none, none], 1),
                        libc::SYS_read => ([fd as u64, byte, 1, 0], 1),
                        _ => ([libc::CLOCK_MONOTONIC as u64, 0, &raw const time as u64, none], 0),
                    };
                    // SAFETY: what is read and written is above.
                    unsafe {
                        let came = libc::syscall(number, a, b, c, d, 8);
                        libc::syscall(libc::SYS_exit, i32::from(!stands || came != expected));
                    }
                    unreachable!("it has exited");
                }
                ForkResult::Parent { child } => child,
            };
            let stat = || std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
            // It is behind its walls, and waits.
            while !stat().contains(") S ") {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            kill(child, Signal::SIGSTOP).unwrap();
            let stopped = waitpid(child, Some(WaitPidFlag::WUNTRACED)).unwrap();
            assert_eq!(stopped, WaitStatus::Stopped(child, Signal::SIGSTOP), "{thread:?}: {number}");
            kill(child, Signal::SIGCONT).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            nix::unistd::write(&write, b"x").unwrap();
            let status = waitpid(child, None).unwrap();
            assert!(survived(status), "{thread:?}: call {number}: {status:?}");
        }
    }
}

#[test]
fn what_is_only_logged_is_done() {
    let status = attempt(Thread::Vcpu, SystemCalls::Log, libc::SYS_getppid, [0; 6]);
    assert!(survived(status), "{status:?}");
    let status = attempt(Thread::Vcpu, SystemCalls::Enforce, libc::SYS_getppid, [0; 6]);
    assert!(killed(status), "{status:?}");
}

#[test]
fn lists_are_as_short_as_is_promised_and_name_nothing_twice() {
    for thread in ALL {
        let numbers: Vec<_> = thread.calls().map(|allowed| allowed.number).collect();
        let distinct: BTreeSet<_> = numbers.iter().collect();
        assert_eq!(numbers.len(), distinct.len(), "{thread:?} names a call twice");
        // What is only ever answered by an error is no call that can be made.
        let count = thread.calls().filter(|allowed| !matches!(allowed.only, Only::Unknown)).count();
        let most = match thread {
            Thread::Vcpu => 18,
            Thread::Rng
            | Thread::Balloon
            | Thread::Memory
            | Thread::Interface
            | Thread::QueuePairs
            | Thread::Vsock => 24,
            Thread::RootFiles | Thread::ShareFiles => 55,
            _ => 40,
        };
        eprintln!("{thread:?}: {count}");
        assert!(count <= most, "{thread:?} may make {count} calls");
    }
}

#[test]
fn numbers_of_kvms_requests_are_those_of_its_header() {
    let all = |thread: Thread| {
        let of_ioctl = thread.calls().find(|allowed| allowed.number == libc::SYS_ioctl).unwrap();
        match of_ioctl.only {
            Only::Among(1, values) => values.to_vec(),
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(all(Thread::Vcpu), [0xae80, 0xaead]);
    assert!(all(Thread::Main).ends_with(&[0x4020_ae76, 0x4040_ae79]));
}

/// Not a test: what putting up the walls of a thread takes here, on a quiet machine. Half a thousand times for each.
#[test]
#[ignore = "measures"]
fn what_walls_take() {
    for thread in ALL {
        let mut took: Vec<_> = (0..500)
            .map(|_| {
                let walls_up = move || {
                    let since = std::time::Instant::now();
                    own_walls(thread, SystemCalls::Enforce).unwrap();
                    since.elapsed()
                };
                std::thread::spawn(walls_up).join().unwrap()
            })
            .collect();
        took.sort();
        let [least, median, most] = [0, took.len() / 2, took.len() - 1].map(|at| took[at].as_micros());
        eprintln!("{thread:?}: {median} us ({least} - {most})");
    }
}

/// Threads are made behind walls as the standard library makes them, and these put up narrower ones.
#[test]
fn a_thread_behind_walls_makes_threads_with_walls_of_their_own() {
    let outside = std::thread::spawn(|| {
        own_walls(Thread::Network, SystemCalls::Enforce).unwrap();
        let inside = std::thread::Builder::new().name("inside".into()).spawn(|| {
            own_walls(Thread::QueuePairs, SystemCalls::Enforce).unwrap();
            std::thread::Builder::new().name("pair".into()).spawn(|| 5).unwrap().join().unwrap()
        });
        inside.unwrap().join().unwrap()
    });
    assert_eq!(outside.join().unwrap(), 5);
}
