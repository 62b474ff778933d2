//! I/O ports: all of them, every width, single accesses and strings.

use crate::{Failure, port};
use husk_evil_guest::order::Order;
use husk_evil_guest::random::Random;

/// Each port once with each width, as far as the order goes; then at random.
pub fn perform(order: &Order) -> Result<u64, Failure> {
    let mut random = Random::new(order.seed);
    let mut bytes = [0; 2048];
    for number in 0..order.size {
        let port = match random.below(4) {
            0 => random.one_of(&KNOWN),
            1 => random.one_of(&KNOWN).wrapping_add(random.below(8) as u16),
            2 => number as u16,
            _ => random.below(1 << 16) as u16,
        };
        let value = if random.chance(20) { random.one_of(&[0, 1, 0x80, 0xff, 0xfe]) } else { random.word() };
        let width = random.one_of(&[1, 1, 2, 4]);
        let resets = port == port::RESET;
        match random.below(8) {
            0..=2 => drop(port::read(port, width)),
            // All but the one command that would be the end.
            3..=5 if !(resets && value as u8 == port::PULSE_RESET) => port::write(port, width, value),
            6 => port::read_string(port, bytes.get_mut(..random.below(2048) as usize).unwrap_or_default()),
            // KVM hands these over byte by byte.
            7 if !resets => {
                let string = bytes.get_mut(..random.below(32) as usize).unwrap_or_default();
                string.iter_mut().for_each(|byte| *byte = random.long() as u8);
                port::write_string(port, string);
            }
            _ => {}
        }
    }
    Ok(order.size)
}

/// Timers, clock, keyboard, marks, serial ports, configuration of PCI, what emulators have for tests.
const KNOWN: [u16; 20] = [
    0x40, 0x60, 0x61, 0x64, 0x70, 0x80, 0x92, 0xb2, 0xf4, 0x1f0, 0x2f8, 0x3f8, 0x3f9, 0x3fb, 0x3fd, 0x402,
    0x501, 0xcf8, 0xcfc, 0xffff,
];
