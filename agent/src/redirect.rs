//! Leads what is meant for one port of an address to another, and makes answers look as if they came from the first.
//!
//! BPF programs of the cgroup hierarchy's root see each address as a process names it: on the way in (connect, sendto) they
//! change the port, on the way out (recvfrom, getpeername) they change it back. No packet is touched, no filter rule is
//! there for a container to flush, and nothing is tracked. A network namespace that a container makes for itself is left
//! alone: the address is another one there.

use crate::machine::CGROUPS;
use crate::sys::{self, bpf, file};
use nix::errno::Errno;
use std::ffi::CString;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

/// Begins to lead what is sent to `(address, port)` to port `to` of it, in the network namespace of `socket`. For good.
pub fn lead(socket: &OwnedFd, (address, port): (Ipv4Addr, u16), to: u16) -> sys::Result<()> {
    let cookie = bpf::network_cookie(socket)?;
    let path = CString::new(CGROUPS).map_err(|_| sys::Error(Errno::EINVAL))?;
    let cgroup = file::open_at(file::here(), &path, libc::O_RDONLY | libc::O_DIRECTORY, 0, 0)?;
    for (kind, from, to) in [
        (bpf::CONNECT4, port, to),
        (bpf::SENDMSG4, port, to),
        (bpf::RECVMSG4, to, port),
        (bpf::PEERNAME4, to, port),
    ] {
        let program = bpf::load(kind, &program(address, from, to, cookie))?;
        bpf::attach(kind, &cgroup, &program, None)?;
    }
    Ok(())
}

/// If the address and the port are these, and the namespace too, another port takes its place. The call goes on in any
/// case.
fn program(address: Ipv4Addr, from: u16, to: u16, cookie: u64) -> Vec<u64> {
    let in_memory = |port: u16| i32::from(u16::from_ne_bytes(port.to_be_bytes()));
    let address = i32::from_ne_bytes(address.octets());
    let (low, high) = (cookie & 0xffff_ffff, cookie >> 32);
    vec![
        instruction(MOVE, CONTEXT, ARGUMENT, 0, 0),
        instruction(LOAD_WORD, VALUE, CONTEXT, USER_IP4, 0),
        instruction(UNLESS_EQUAL, VALUE, 0, 9, address),
        instruction(LOAD_WORD, VALUE, CONTEXT, USER_PORT, 0),
        instruction(UNLESS_EQUAL, VALUE, 0, 7, in_memory(from)),
        instruction(MOVE, ARGUMENT, CONTEXT, 0, 0),
        instruction(CALL, 0, 0, 0, GET_NETNS_COOKIE),
        // A 64-bit constant takes two places.
        u64::from(LOAD_LONG) | u64::from(VALUE) << 8 | low << 32,
        high << 32,
        instruction(UNLESS_SAME, RESULT, VALUE, 2, 0),
        instruction(SET, VALUE, 0, 0, in_memory(to)),
        instruction(STORE_WORD, CONTEXT, VALUE, USER_PORT, 0),
        instruction(SET, RESULT, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
    ]
}

/// `struct bpf_insn`: opcode, registers, offset, constant.
fn instruction(opcode: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    u64::from(opcode)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(constant.cast_unsigned()) << 32
}

// linux/bpf.h: registers, opcodes, offsets in `struct bpf_sock_addr`.
const RESULT: u8 = 0;
const ARGUMENT: u8 = 1;
const VALUE: u8 = 2;
const CONTEXT: u8 = 6;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const LOAD_WORD: u8 = 0x61;
const LOAD_LONG: u8 = 0x18;
const STORE_WORD: u8 = 0x63;
const UNLESS_EQUAL: u8 = 0x55;
const UNLESS_SAME: u8 = 0x5d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const GET_NETNS_COOKIE: i32 = 122;
const USER_IP4: i16 = 4;
const USER_PORT: i16 = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_out_lands_where_the_call_is_let_go_on() {
        let program = program(Ipv4Addr::new(127, 0, 0, 11), 53, 40000, 0x1_0000_0007);
        let end = program.len() - 2;
        assert_eq!(program[end], instruction(SET, RESULT, 0, 0, 1));
        for (at, one) in program.iter().enumerate() {
            let opcode = (*one & 0xff) as u8;
            if matches!(opcode, UNLESS_EQUAL | UNLESS_SAME) {
                let offset = usize::from((*one >> 16) as u16);
                assert_eq!(at + 1 + offset, end, "from {at}");
            }
        }
        assert_eq!((program[7] >> 32, program[8] >> 32), (7, 1), "the cookie in halves");
        assert_eq!(program[4] >> 32, 0x3500, "network byte order");
    }
}
