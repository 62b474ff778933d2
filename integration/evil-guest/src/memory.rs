//! Memory and devices by address, which are no object of Rust's: everything but the image of this program. An access to
//! that is a mistake of ours, and ends the guest.
#![allow(unsafe_code, reason = "accesses by address are what this program is for")]

use crate::boot;
use core::arch::asm;

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
}

/// Memory for rings and buffers, behind the program and its initrd.
pub const ARENA: u64 = 96 << 20;
/// Where buffers begin in it; rings lie before.
pub const BUFFERS: u64 = ARENA + (1 << 20);
/// How much of it there is.
pub const ARENA_SIZE: u64 = 32 << 20;

/// Reads a number of 1, 2, 4 or 8 bytes, with one access.
pub fn read(at: u64, width: usize) -> u64 {
    check(at, width);
    let value: u64;
    // SAFETY: mapped, and not ours. By these instructions, because KVM executes one that reaches a device by itself, and
    // does not know all.
    unsafe {
        match width {
            1 => asm!("movzx {:e}, byte ptr [{}]", out(reg) value, in(reg) at, options(nostack)),
            2 => asm!("movzx {:e}, word ptr [{}]", out(reg) value, in(reg) at, options(nostack)),
            4 => asm!("mov {:e}, dword ptr [{}]", out(reg) value, in(reg) at, options(nostack)),
            _ => asm!("mov {}, qword ptr [{}]", out(reg) value, in(reg) at, options(nostack)),
        }
    }
    value
}

/// Writes one.
pub fn write(at: u64, width: usize, value: u64) {
    check(at, width);
    // SAFETY: as above.
    unsafe {
        match width {
            1 => asm!("mov byte ptr [{}], {}", in(reg) at, in(reg_byte) value as u8, options(nostack)),
            2 => asm!("mov word ptr [{}], {:x}", in(reg) at, in(reg) value, options(nostack)),
            4 => asm!("mov dword ptr [{}], {:e}", in(reg) at, in(reg) value, options(nostack)),
            _ => asm!("mov qword ptr [{}], {}", in(reg) at, in(reg) value, options(nostack)),
        }
    }
}

/// Puts bytes there.
pub fn put(at: u64, bytes: &[u8]) {
    check(at, bytes.len());
    for (offset, byte) in (0..).zip(bytes) {
        // SAFETY: checked above.
        unsafe { ((at + offset) as *mut u8).write_volatile(*byte) };
    }
}

/// Gets bytes from there.
pub fn get(at: u64, bytes: &mut [u8]) {
    check(at, bytes.len());
    for (offset, byte) in (0..).zip(bytes) {
        // SAFETY: checked above.
        *byte = unsafe { ((at + offset) as *const u8).read_volatile() };
    }
}

/// Fills bytes there with zeroes.
pub fn clear(at: u64, count: u64) {
    check(at, count as usize);
    for offset in (0..count).step_by(8) {
        // SAFETY: checked above; the places that are cleared are multiples of 8 long.
        unsafe { ((at + offset) as *mut u64).write_volatile(0) };
    }
}

fn check(at: u64, count: usize) {
    let (start, end) = (&raw const image_start as u64, &raw const image_end as u64);
    let behind = at.checked_add(count as u64).filter(|behind| *behind <= boot::REACH_END);
    if !behind.is_some_and(|behind| at >= end || behind <= start) {
        boot::fault();
    }
}
