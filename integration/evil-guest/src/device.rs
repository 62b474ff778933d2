//! The devices that every machine has, and whether they do what they are for.

use crate::files::Server;
use crate::mmio::{SLOTS, STATUS, VERSION_1, Window};
use crate::queue::{Descriptor, Queue};
use crate::streams::Streams;
use crate::{Failure, memory, time};

/// Checks that each device serves a driver that means well, whatever it was left in.
pub fn check() -> Result<(), Failure> {
    for slot in 0..SLOTS {
        Window::of_slot(slot).write(STATUS, 0);
    }
    for number in 0..2 {
        Server::mount(number)?.export()?;
    }
    entropy()?;
    Streams::open()?.check()
}

fn entropy() -> Result<(), Failure> {
    let window = Window::find(ENTROPY, 0)?;
    window.begin(VERSION_1)?;
    let mut queue = Queue::open(window, 0)?;
    window.go()?;
    memory::clear(memory::BUFFERS, 64);
    queue.offer(0, Descriptor::writes(memory::BUFFERS, 64), None);
    queue.kick();
    match queue.take(time::LONG) {
        Some((0, 64)) => window.reset(),
        other => Err(Failure("no entropy", [other.map_or(u64::MAX, |(_, length)| length.into()), 0, 0])),
    }
}

/// Device numbers (virtio 1.2, 5).
pub const ENTROPY: u32 = 4;
pub const VSOCK: u32 = 19;
pub const FILES: u32 = 26;
