//! Registers: every width, every offset, any value, in any order; and addresses around them, where nothing is.

use crate::mmio::{self, Window};
use crate::{Failure, boot, memory};
use husk_evil_guest::order::Order;
use husk_evil_guest::random::Random;

/// First out of order on purpose, then at random.
pub fn perform(order: &Order, memory_end: u64) -> Result<u64, Failure> {
    let mut steps = 0;
    for slot in 0..WITH_SPARE {
        steps += out_of_order(Window::of_slot(slot))?;
    }
    let mut random = Random::new(order.seed);
    for _ in 0..order.size {
        let (at, value) = pick(&mut random, memory_end);
        let width = random.one_of(&[4, 4, 4, 4, 1, 2, 8, 4]);
        if random.chance(40) {
            memory::read(at, width);
        } else {
            memory::write(at, width, value);
        }
    }
    Ok(steps + order.size)
}

/// No order of status writes but the right one makes a device live.
fn out_of_order(window: Window) -> Result<u64, Failure> {
    let orders: &[&[u32]] = &[
        &[4],
        &[15],
        &[1, 4],
        &[1, 7],
        &[1, 3, 7],
        &[1, 3, 15],
        // Without the one feature that has to be agreed on.
        &[1, 3, 11, 15],
        &[2, 8, 4],
        &[8, 12],
        &[u32::MAX, 15],
        &[1, 3, 11 | 128, 15],
        &[1, 3 | 128, 11, 15],
        &[1, 3 | 64, 15 | 64],
    ];
    for (number, order) in (0..).zip(orders) {
        window.write(mmio::STATUS, 0);
        for status in *order {
            window.write(mmio::STATUS, *status);
        }
        let now = window.read(mmio::STATUS);
        // A window without a device has no status at all.
        if now & mmio::DRIVER_OK != 0 && now != u32::MAX {
            return Err(Failure("status steps out of order make a device live", [number, now.into(), 0]));
        }
        // Whatever it is now, it is no place for queues.
        for index in [0, 1, 77, u32::MAX] {
            window.queue(index);
            window.set_up(16, memory::ARENA, memory::ARENA + 0x4000, memory::ARENA + 0x8000);
        }
        window.write(mmio::STATUS, 0);
    }
    Ok(orders.len() as u64)
}

/// Where to, and what to write there.
fn pick(random: &mut Random, memory_end: u64) -> (u64, u64) {
    let value = match random.below(4) {
        0 => random.one_of(&[0, 1, 2, 3, 4, 7, 8, 11, 15, 16, 64, 128, 512, 1 << 15, 1 << 16]),
        1 => random.one_of(&[u64::MAX, 1 << 63, 1 << 31, 0x7fff_ffff, 0xffff_fffe, 0xaaaa_aaaa]),
        _ => random.long(),
    };
    match random.below(20) {
        0..=12 => register(random, value),
        // Any place of any window, also across its end.
        13..=16 => (mmio::DEVICES + random.below(mmio::SLOTS * mmio::SIZE), value),
        17 => (mmio::DEVICES + mmio::SLOTS * mmio::SIZE + random.below(1 << 28), value),
        18 => (memory_end + random.below(mmio::DEVICES - memory_end - 8), value),
        _ => ((5 << 30) + random.below(boot::REACH_END - (5 << 30) - 8), value),
    }
}

/// A register that there is, and something that a driver might write there.
fn register(random: &mut Random, value: u64) -> (u64, u64) {
    let window = mmio::DEVICES + random.below(WITH_SPARE) * mmio::SIZE;
    let offset = random.one_of(&REGISTERS);
    let value = match offset {
        // Should the device come to live with it, it may write there what it likes.
        0x80 | 0x90 | 0xa0 => memory::ARENA + random.below(memory::ARENA_SIZE),
        0x84 | 0x94 | 0xa4 => u64::from(random.chance(10)) * value,
        mmio::QUEUE_SELECT if random.chance(80) => random.below(4),
        mmio::QUEUE_READY if random.chance(80) => 1,
        mmio::STATUS if random.chance(70) => random.one_of(&[1, 3, 11, 15, 11, 15]),
        // Rarely: everything else is for nothing after it.
        mmio::STATUS => 0,
        _ => value,
    };
    (window + offset, value)
}

/// The devices that every machine has, and two places for others.
const WITH_SPARE: u64 = 6;

const REGISTERS: [u64; 32] = [
    0x0, 0x4, 0x8, 0xc, 0x10, 0x14, 0x20, 0x24, 0x24, 0x20, 0x30, 0x34, 0x38, 0x44, 0x44, 0x50, 0x60, 0x64,
    0x70, 0x70, 0x70, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac, 0xb0, 0xc0, 0xfc, 0x100,
];
