//! I/O ports.
#![allow(unsafe_code, reason = "instructions for ports")]

use core::arch::asm;

/// Reads from a port with a width of 1, 2 or 4 bytes.
pub fn read(port: u16, width: usize) -> u32 {
    let value: u32;
    // SAFETY: no port of this machine reaches into memory.
    unsafe {
        match width {
            1 => asm!("xor eax, eax", "in al, dx", in("dx") port, out("eax") value, options(nostack)),
            2 => asm!("xor eax, eax", "in ax, dx", in("dx") port, out("eax") value, options(nostack)),
            _ => asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack)),
        }
    }
    value
}

/// Writes to one.
pub fn write(port: u16, width: usize, value: u32) {
    // SAFETY: as above.
    unsafe {
        match width {
            1 => asm!("out dx, al", in("dx") port, in("eax") value, options(nostack)),
            2 => asm!("out dx, ax", in("dx") port, in("eax") value, options(nostack)),
            _ => asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)),
        }
    }
}

/// Writes all bytes to one, as one string.
pub fn write_string(port: u16, bytes: &[u8]) {
    // SAFETY: it reads `bytes`.
    unsafe {
        asm!("rep outsb", in("dx") port, inout("rsi") bytes.as_ptr() => _, inout("rcx") bytes.len() => _, options(nostack));
    }
}

/// Fills all bytes from one, as one string.
pub fn read_string(port: u16, bytes: &mut [u8]) {
    // SAFETY: it writes `bytes`.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") bytes.as_mut_ptr() => _, inout("rcx") bytes.len() => _, options(nostack));
    }
}

/// Makes the serial port take text, whatever was done to it.
pub fn text_again() {
    write(SERIAL + 3, 1, 3);
}

/// Pulls the reset line, which ends the guest.
pub fn reset() -> ! {
    write(RESET, 1, PULSE_RESET.into());
    crate::boot::fault()
}

/// The serial port's first.
pub const SERIAL: u16 = 0x3f8;
/// The keyboard controller's commands.
pub const RESET: u16 = 0x64;
/// The one that resets.
pub const PULSE_RESET: u8 = 0xfe;
