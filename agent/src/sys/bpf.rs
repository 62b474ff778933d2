//! bpf(2): loading a program and attaching it to a cgroup.

use super::{Result, descriptor, returned};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
/// Decides on the use of device nodes.
pub const DEVICE: Kind = Kind { program: 15, attachment: 6, name: *b"husk_devices\0\0\0\0" };
/// Sees an address that is connected to.
pub const CONNECT4: Kind = Kind { program: SOCK_ADDR, attachment: 10, name: *b"husk_connect4\0\0\0" };
/// Sees an address that a datagram is sent to.
pub const SENDMSG4: Kind = Kind { program: SOCK_ADDR, attachment: 14, name: *b"husk_sendmsg4\0\0\0" };
/// Sees the address that a datagram came from.
pub const RECVMSG4: Kind = Kind { program: SOCK_ADDR, attachment: 19, name: *b"husk_recvmsg4\0\0\0" };
/// Sees the address that a socket is connected to, as it is told.
pub const PEERNAME4: Kind = Kind { program: SOCK_ADDR, attachment: 29, name: *b"husk_peername4\0\0" };
const SOCK_ADDR: u32 = 18;
/// `BPF_F_ALLOW_MULTI`: programs of nested cgroups all have a say.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_REPLACE`.
const REPLACE: u32 = 1 << 2;

/// What a program is for: `BPF_PROG_TYPE_*`, `BPF_CGROUP_*`, and what people see it called.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    program: u32,
    attachment: u32,
    name: [u8; 16],
}

/// Loads a program: one `struct bpf_insn` a number.
pub fn load(kind: Kind, instructions: &[u64]) -> Result<OwnedFd> {
    // The head of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attachment: u32,
    }
    let attributes = Load {
        kind: kind.program,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: kind.name,
        interface: 0,
        attachment: kind.attachment,
    };
    // SAFETY: the pointers outlive the call, the count is the slice's.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) })
}

/// Attaches a program to a cgroup, in place of `old` if there is one.
pub fn attach(kind: Kind, cgroup: impl AsFd, program: impl AsFd, old: Option<&OwnedFd>) -> Result<()> {
    // The head of `union bpf_attr` for BPF_PROG_ATTACH.
    #[repr(C)]
    struct Attach {
        cgroup: u32,
        program: u32,
        kind: u32,
        flags: u32,
        replaced: u32,
    }
    let number = |fd: i32| u32::try_from(fd).unwrap_or(0);
    let attributes = Attach {
        cgroup: number(cgroup.as_fd().as_raw_fd()),
        program: number(program.as_fd().as_raw_fd()),
        kind: kind.attachment,
        flags: ALLOW_MULTI | if old.is_some() { REPLACE } else { 0 },
        replaced: old.map_or(0, |old| number(old.as_raw_fd())),
    };
    // SAFETY: the struct lives across the call and its size is told.
    returned(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>())
    })?;
    Ok(())
}

/// The number by which programs know a socket's network namespace.
pub fn network_cookie(socket: impl AsFd) -> Result<u64> {
    let mut cookie = 0u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the kernel writes at most `length` bytes, which `cookie` has.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    returned(result.into())?;
    Ok(cookie)
}
