//! bpf(2): loading a device program and attaching it to a cgroup.

use super::{Result, descriptor, returned};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI`: programs of nested cgroups all have a say.
const ALLOW_MULTI: u32 = 1 << 1;
/// `BPF_F_REPLACE`.
const REPLACE: u32 = 1 << 2;

/// Loads a program of type BPF_PROG_TYPE_CGROUP_DEVICE: one `struct bpf_insn` a number.
pub fn load_device_program(instructions: &[u64]) -> Result<OwnedFd> {
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
    }
    let attributes = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(instructions.len()).unwrap_or(u32::MAX),
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"husk_devices\0\0\0\0",
    };
    // SAFETY: the pointers outlive the call, the count is the slice's.
    descriptor(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) })
}

/// Attaches a device program to a cgroup, in place of `old` if there is one.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd, old: Option<&OwnedFd>) -> Result<()> {
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
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if old.is_some() { REPLACE } else { 0 },
        replaced: old.map_or(0, |old| number(old.as_raw_fd())),
    };
    // SAFETY: the struct lives across the call and its size is told.
    returned(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>())
    })?;
    Ok(())
}
