//! From husk's hands to [`main`](crate::main), and the memory's map.
#![allow(unsafe_code, reason = "the processor's own registers, and what Rust expects of a C library")]

use crate::memory;
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

// By the 64-bit boot protocol: long mode, the first GiB mapped to itself, the zero page's address in rsi. Compiled code
// uses SSE, which is off.
global_asm!(
    ".section .text.entry, \"ax\"",
    ".globl _start",
    "_start:",
    "cli",
    "cld",
    "lea rsp, [rip + {stack} + {size}]",
    "mov rax, cr0",
    "and rax, ~4",
    "or rax, 2",
    "mov cr0, rax",
    "mov rax, cr4",
    "or rax, 0x600",
    "mov cr4, rax",
    "mov rdi, rsi",
    "call {begin}",
    "ud2",
    ".text",
    stack = sym STACK,
    size = const STACK_SIZE,
    begin = sym begin,
);

const STACK_SIZE: usize = 256 << 10;

/// A place that the processor writes to.
#[repr(C, align(4096))]
struct Raw<const SIZE: usize>(UnsafeCell<[u64; SIZE]>);

// SAFETY: there is one processor and one thread.
unsafe impl<const SIZE: usize> Sync for Raw<SIZE> {}

static STACK: Raw<{ STACK_SIZE / 8 }> = Raw(UnsafeCell::new([0; STACK_SIZE / 8]));
static TABLES: Raw<{ ENTRIES * (2 + REACH.len()) }> = Raw(UnsafeCell::new([0; ENTRIES * (2 + REACH.len())]));

extern "C" fn begin(zero_page: u64) -> ! {
    map();
    crate::main(&Machine::read(zero_page))
}

/// Maps [`REACH`], one GiB after the other, with large pages.
fn map() {
    let tables = TABLES.0.get().cast::<u64>();
    let at = tables as u64;
    let page = |number: usize| at + (number * 4096) as u64;
    // SAFETY: all indexes are below the table's length; the new map has this code where the old one had it.
    unsafe {
        tables.write_volatile(page(1) | POINTER);
        for (number, from) in REACH.iter().enumerate() {
            tables.add(ENTRIES + number).write_volatile(page(2 + number) | POINTER);
            for index in 0..ENTRIES {
                let entry = (from + ((index as u64) << 21)) | LARGE_PAGE;
                tables.add(ENTRIES * (2 + number) + index).write_volatile(entry);
            }
        }
        asm!("mov cr3, {}", in(reg) at, options(nostack));
    }
}

const ENTRIES: usize = 512;
const POINTER: u64 = 3;
const LARGE_PAGE: u64 = 0x83;
const GIB: u64 = 1 << 30;
/// Which physical addresses lie at the virtual ones from 0 on: four GiB as they are, then some where there is nothing.
const REACH: [u64; 7] = [0, GIB, 2 * GIB, 3 * GIB, 4 * GIB, 32 * GIB, 63 * GIB];
/// The end of what can be named.
pub const REACH_END: u64 = REACH.len() as u64 * GIB;

/// What the loader has told.
pub struct Machine {
    line: [u8; 2048],
    memory_end: u64,
}

impl Machine {
    /// From the zero page (Linux, Documentation/arch/x86/zero-page.rst).
    fn read(zero_page: u64) -> Machine {
        let long = |at| memory::read(zero_page + at, 4);
        let (line_at, entries) = (long(0x228), memory::read(zero_page + 0x1e8, 1));
        let mut line = [0; 2048];
        memory::get(line_at, &mut line);
        let mut memory_end = 0;
        for entry in 0..entries.min(128) {
            let at = zero_page + 0x2d0 + entry * 20;
            let end = memory::read(at, 8) + memory::read(at + 8, 8);
            if memory::read(at + 16, 4) == 1 && end <= 3 * GIB {
                memory_end = end.max(memory_end);
            }
        }
        Machine { line, memory_end }
    }

    /// The kernel's command line.
    pub fn command_line(&self) -> &str {
        let text = self.line.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }

    /// Where memory below 3 GiB ends.
    pub fn memory_end(&self) -> u64 {
        self.memory_end
    }
}

/// Loops for ever, deaf.
pub fn spin() -> ! {
    loop {
        // SAFETY: it only turns interrupts off, which are off.
        unsafe { asm!("cli", options(nomem, nostack)) };
    }
}

/// A fault of ours before there is anything to say it with: a triple fault.
pub fn fault() -> ! {
    // SAFETY: there is no handler of any fault, and this is one.
    unsafe { asm!("ud2", options(noreturn)) }
}

// What compiled code calls, usually from a C library.

/// C's.
///
/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is the instruction's condition.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    to
}

/// C's.
///
/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: going forward, nothing is overwritten before it was read.
        return unsafe { memcpy(to, from, count) };
    }
    let last = count.wrapping_sub(1);
    // SAFETY: going backward, neither.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(last) => _,
            inout("rsi") from.wrapping_add(last) => _,
            options(nostack),
        );
    }
    to
}

/// C's.
///
/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise is the instruction's condition.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") byte as u8, options(nostack));
    }
    to
}

/// C's.
///
/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: both are so long, says the caller.
        let (a, b) = unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// C's.
///
/// # Safety
/// As C has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
    // SAFETY: the same condition.
    unsafe { memcmp(one, other, count) }
}
