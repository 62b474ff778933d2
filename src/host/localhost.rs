//! The localhost of a network namespace, with all its ports, as one listener: for a namespace whose processes are elsewhere.
//!
//! A program of the kernel's (`sk_lookup`) says which socket a new connection is for, before the kernel looks for one that
//! listens to its port. Connections keep the address and the port that they were made to. Nothing is left when the
//! descriptors are closed: the program lives as long as its link.
#![allow(unsafe_code)] // bpf(2) has no safe wrapper

use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// What is connected to 127.0.0.1 in a namespace, whatever the port.
#[derive(Debug)]
pub struct Localhost {
    listener: TcpListener,
    _link: OwnedFd,
}

impl Localhost {
    /// Takes it over in the calling thread's network namespace. Takes CAP_NET_ADMIN and CAP_BPF there, and Linux 5.9.
    pub fn take_over() -> io::Result<Localhost> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let namespace = File::open("/proc/thread-self/ns/net")?;
        let map = new_map()?;
        put(&map, listener.as_fd())?;
        let program = load(&program(map.as_raw_fd()))?;
        let link = link(&program, namespace.as_fd())?;
        Ok(Localhost { listener, _link: link })
    }

    /// The next connection, and the port that it was made to.
    pub fn accept(&self) -> io::Result<(OwnedFd, u16)> {
        let (stream, _) = self.listener.accept()?;
        let port = stream.local_addr()?.port();
        stream.set_nonblocking(true)?;
        Ok((stream.into(), port))
    }
}

/// A place for one socket.
fn new_map() -> io::Result<OwnedFd> {
    #[repr(C)]
    struct MapCreate {
        kind: u32,
        key_size: u32,
        value_size: u32,
        entries: u32,
    }
    descriptor(bpf(MAP_CREATE, &MapCreate { kind: SOCKMAP, key_size: 4, value_size: 8, entries: 1 })?)
}

fn put(map: &OwnedFd, socket: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct MapUpdate {
        map: u64,
        key: u64,
        value: u64,
        flags: u64,
    }
    let (key, value) = (0_u32, u64::from(number(socket.as_raw_fd())));
    let update = MapUpdate {
        map: u64::from(number(map.as_raw_fd())),
        key: address(&key),
        value: address(&value),
        flags: 0,
    };
    bpf(MAP_UPDATE, &update).map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ProgramLoad {
        kind: u32,
        instructions: u32,
        first: u64,
        licence: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_and_flags: [u32; 2],
        name: [u8; 16],
        interface: u32,
        attached: u32,
    }
    let load = ProgramLoad {
        kind: PROGRAM_SK_LOOKUP,
        instructions: u32::try_from(program.len()).map_err(io::Error::other)?,
        first: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_and_flags: [0; 2],
        name: *b"husk_localhost\0\0",
        interface: 0,
        attached: ATTACH_SK_LOOKUP,
    };
    descriptor(bpf(PROGRAM_LOAD, &load)?)
}

fn link(program: &OwnedFd, namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attached: u32,
        flags: u32,
    }
    let link = LinkCreate {
        program: number(program.as_raw_fd()),
        target: number(namespace.as_raw_fd()),
        attached: ATTACH_SK_LOOKUP,
        flags: 0,
    };
    descriptor(bpf(LINK_CREATE, &link)?)
}

/// What the program does with a TCP connection to 127.0.0.1: it is for the socket in the map, if one is there. All
/// others go their ways.
fn program(map: i32) -> [Instruction; 23] {
    let localhost = i32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets());
    // How many instructions are between here and the last but one.
    let to_end =
        |code, register, immediate, offset| Instruction { code, registers: register, offset, immediate };
    [
        copy(6, 1),
        context_word(8), // family
        to_end(JUMP_UNLESS_EQUAL, 2, libc::AF_INET, 18),
        context_word(12), // protocol
        to_end(JUMP_UNLESS_EQUAL, 2, libc::IPPROTO_TCP, 16),
        context_word(40), // local_ip4, as on the wire
        to_end(JUMP_UNLESS_EQUAL, 2, localhost, 14),
        // The socket at 0.
        Instruction { code: 0x62, registers: 10, offset: -4, immediate: 0 },
        Instruction { code: 0x18, registers: 1 | OF_A_MAP << 4, offset: 0, immediate: map },
        Instruction { code: 0, registers: 0, offset: 0, immediate: 0 },
        copy(2, 10),
        Instruction { code: 0x07, registers: 2, offset: 0, immediate: -4 },
        call(1), // bpf_map_lookup_elem
        to_end(JUMP_IF_EQUAL, 0, 0, 7),
        copy(7, 0),
        copy(1, 6),
        copy(2, 7),
        Instruction { code: 0xb7, registers: 3, offset: 0, immediate: 0 },
        call(124), // bpf_sk_assign
        copy(1, 7),
        call(86), // bpf_sk_release
        // The end.
        Instruction { code: 0xb7, registers: 0, offset: 0, immediate: PASS },
        Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
    ]
}

/// `struct bpf_insn`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination in the lower half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

fn copy(to: u8, from: u8) -> Instruction {
    Instruction { code: 0xbf, registers: from << 4 | to, offset: 0, immediate: 0 }
}

/// A word of `struct bpf_sk_lookup`, which is in register 6, into register 2.
fn context_word(offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: 6 << 4 | 2, offset, immediate: 0 }
}

fn call(helper: i32) -> Instruction {
    Instruction { code: 0x85, registers: 0, offset: 0, immediate: helper }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads as many bytes of the attributes as it is told, which are there; what they point to lives
    // as long as the caller's borrow of it, and it writes to none of it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), std::mem::size_of::<T>())
    };
    Errno::result(result).map_err(io::Error::from)
}

fn descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us; nobody else owns it. All of bpf(2)'s are closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn number(descriptor: i32) -> u32 {
    descriptor.cast_unsigned()
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of) as u64
}

// bpf(2), include/uapi/linux/bpf.h
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE: libc::c_int = 2;
const PROGRAM_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const SOCKMAP: u32 = 15;
const PROGRAM_SK_LOOKUP: u32 = 30;
const ATTACH_SK_LOOKUP: u32 = 36;
const OF_A_MAP: u8 = 1;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
/// `SK_PASS`.
const PASS: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::Netlink;
    use crate::host::tap;
    use nix::sched::{CloneFlags, unshare};
    use std::io::{Read, Write};
    use std::net::TcpStream;

    #[test]
    fn every_port_of_localhost_is_heard_and_other_addresses_are_not() {
        // A namespace belongs to a thread.
        let told = std::thread::spawn(|| {
            if unshare(CloneFlags::CLONE_NEWNET).is_err() {
                return "skipped: network namespaces take root";
            }
            tap::set_up(&mut Netlink::open().unwrap(), 1).unwrap();
            let localhost = match Localhost::take_over() {
                Ok(localhost) => localhost,
                Err(error) => {
                    eprintln!("{error}");
                    return "skipped: this kernel takes no such program from us";
                }
            };
            for port in [1, 80, 8080, 65535] {
                let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                let (server, heard) = localhost.accept().unwrap();
                assert_eq!(heard, port);
                let mut server = TcpStream::from(server);
                server.set_nonblocking(false).unwrap();
                client.write_all(b"x").unwrap();
                server.read_exact(&mut [0]).unwrap();
            }
            // Docker's resolver, and whoever else has one of the loopback's other addresses.
            assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 11), 53)).is_err());
            drop(localhost);
            assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 80)).is_err());
            "done"
        });
        eprintln!("{}", told.join().unwrap());
    }
}
