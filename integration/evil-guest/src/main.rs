//! A guest that attacks its host: it boots on husk in the place of Linux, does to devices, ports and rings what it is told on the
//! kernel's command line ([`husk_evil_guest::order`]), says on the serial port what came of it, and ends.
//!
//! ```text
//!   boot: stack, page tables --> the order --> act --> do the devices still serve? --> "evil: done: ..." --> reset, or spin
//!                                                        | no, or something was taken that has to be refused
//!                                                        +--> "evil: failed: ..."
//! ```
//! One processor, no interrupts, no allocator. A fault of its own is a triple fault, which husk reports as such.
#![no_std]
#![no_main]

mod act;
mod boot;
mod console;
mod device;
mod files;
mod memory;
mod mmio;
mod port;
mod queue;
mod streams;
mod time;

use core::fmt;
use husk_evil_guest::order::{Act, DONE, End, FAILED, Order, SPINS};

/// Something that must not be, with the numbers that belong to it.
#[derive(Debug, Clone, Copy)]
pub struct Failure(pub &'static str, pub [u64; 3]);

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {:x?}", self.0, self.1)
    }
}

/// What the guest does with its life. `machine` is what the loader has told.
fn live(machine: &boot::Machine) -> Result<(), Failure> {
    let order = Order::find(machine.command_line()).ok_or(Failure("there is no order", [0; 3]))?;
    device::check()?;
    let done = match order.act {
        Act::Registers => act::registers::perform(&order, machine.memory_end()),
        Act::Ports => act::ports::perform(&order),
        Act::Rings => act::rings::perform(machine.memory_end()),
        Act::Names => act::names::perform(),
        Act::Requests => act::requests::perform(&order),
        Act::Packets => act::packets::perform(&order),
        Act::Greeting => act::greeting::perform(&order),
    }?;
    device::check()?;
    if order.end == End::Spin {
        files::Server::mount(0)?.make(SPINS.as_bytes())?;
    }
    port::text_again();
    console::say(format_args!("{DONE}{} {done}", order.act));
    if order.end == End::Spin {
        boot::spin();
    }
    Ok(())
}

/// From [`boot`], with a stack and all addresses mapped.
fn main(machine: &boot::Machine) -> ! {
    if let Err(failure) = live(machine) {
        port::text_again();
        console::say(format_args!("{FAILED}{failure}"));
    }
    port::reset()
}

#[panic_handler]
fn panicked(why: &core::panic::PanicInfo<'_>) -> ! {
    port::text_again();
    console::say(format_args!("{FAILED}{why}"));
    port::reset()
}
