//! The registers under any sequence of accesses.

use super::registers::{Effect, Offer, Registers};
use crate::device::memory;

/// Each six bytes: whether to read, a register, and what to write to it.
pub fn registers(bytes: &[u8]) {
    let memory = memory::whole(&[(0, 0x10000), (0x20000, 0x10000)]);
    let offer = Offer { device_id: 42, features: 1 << 32 | 1 << 29 | 0b101, queue_sizes: vec![64, 8] };
    let mut registers = Registers::new(&offer);
    for access in bytes.chunks_exact(6) {
        let [read, register, value @ ..] = access else { continue };
        let offset = u64::from(register & 0x3f) << 2;
        let value = u32::from_le_bytes(value.try_into().unwrap_or_default());
        if read & 1 == 0 {
            registers.read(offset, &offer);
            continue;
        }
        match registers.write(offset, value, &offer, &memory) {
            Effect::Reset => registers = Registers::new(&offer),
            Effect::Start => assert!(registers.is_live(), "it is started and not live"),
            Effect::Nothing | Effect::NeedsReset => {}
        }
        assert_eq!(registers.fits(&offer, &memory), Ok(()), "what came about could not be restored");
        assert!(registers.activate(&offer).is_some(), "a queue that was accepted cannot be used");
    }
}
