//! Random accesses, against a model that fits on a page.

use super::super::{Mmio, registers};
use super::*;
use proptest::prelude::*;

/// What the specification and the module's documentation promise, said once more and plainly.
#[derive(Default)]
struct Model {
    status: u32,
    selects: [u32; 3],
    features: u64,
    queues: [Queue; 2],
}

#[derive(Default, Clone, Copy)]
struct Queue {
    size: u32,
    ready: bool,
    addresses: [u64; 3],
}

impl Model {
    fn write(&mut self, offset: u64, value: u32) {
        let live = self.status & 4 != 0;
        let queue = self.queues.get(self.selects[2] as usize).map(|queue| queue.ready);
        match (offset, queue) {
            (0x70, _) => self.write_status(value),
            (0x14, _) => self.selects[0] = value,
            (0x24, _) => self.selects[1] = value,
            (0x30, _) => self.selects[2] = value,
            (0x20 | 0x38 | 0x44 | 0x80 | 0x84 | 0x90 | 0x94 | 0xa0 | 0xa4, _) if live => self.status |= 64,
            (0x20, _) if self.status & 10 == 2 && self.selects[1] < 2 => {
                let shift = 32 * self.selects[1];
                self.features = self.features & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            (_, Some(ready)) if self.status & 8 != 0 => {
                let at = self.selects[2] as usize;
                let queue = &mut self.queues[at];
                match offset {
                    0x44 if value & 1 == 0 => queue.ready = false,
                    0x44 => queue.ready = queue.is_good(SIZES[at].into()),
                    0x38 if !ready => {
                        let allowed = [1, 2, 4, 8, 16, 32, 64].contains(&value) && value <= SIZES[at].into();
                        queue.size = if allowed { value } else { 0 };
                    }
                    0x80 | 0x84 | 0x90 | 0x94 | 0xa0 | 0xa4 if !ready => {
                        let address = &mut queue.addresses[(offset as usize - 0x80) / 16];
                        let shift = 8 * (offset & 4);
                        *address = *address & !(0xffff_ffff << shift) | u64::from(value) << shift;
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return *self = Model::default();
        }
        let agreed = self.features & !offer().features == 0 && self.features >> 32 & 1 == 1;
        let (now, wanted) = (self.status & 15, value & 15);
        let step = now == wanted
            || [(0, 1), (1, 3), (11, 15)].contains(&(now, wanted))
            || (now, wanted) == (3, 11) && agreed;
        let kept = value & self.status & !64 == self.status & !64;
        if step && kept && value & !0xcf == 0 {
            self.status |= value & !64;
        }
    }

    fn read(&self, offset: u64) -> Option<u32> {
        let queue = self.selects[2] as usize;
        Some(match offset {
            0x70 => self.status,
            0x10 if self.selects[0] < 2 => (offer().features >> (32 * self.selects[0])) as u32,
            0x34 => SIZES.get(queue).copied().unwrap_or(0).into(),
            0x44 => self.queues.get(queue).is_some_and(|queue| queue.ready).into(),
            0x00 | 0x04 | 0x08 | 0x0c | 0x60 | 0xb0 | 0xb4 | 0xb8 | 0xbc | 0xfc | 0x100.. => return None,
            _ => 0,
        })
    }

    fn is_live(&self) -> bool {
        self.status & 4 != 0
    }
}

impl Queue {
    fn is_good(&self, max: u32) -> bool {
        let size = u64::from(self.size);
        let parts = [(16 * size, 16), (6 + 2 * size, 2), (6 + 8 * size, 4)];
        size > 0
            && size <= max.into()
            && self.addresses.iter().zip(parts).all(|(at, (length, align))| {
                let inside = |(start, held): &(u64, usize)| {
                    at >= start && at.checked_add(length).is_some_and(|end| end <= start + *held as u64)
                };
                *at != 0 && at % align == 0 && MEMORY.iter().any(inside)
            })
    }
}

/// Cheap random numbers: the sequences are long, and a shorter one is a prefix of a longer one.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize]
    }

    /// A register and a value, more often than not one that leads somewhere.
    fn write(&mut self, model: &Model) -> (u64, u32) {
        let offset = self.pick(&[
            0x70, 0x70, 0x70, 0x20, 0x24, 0x14, 0x30, 0x38, 0x44, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4,
            0x60, 0x64, 0x00, 0x34, 0xac, 0xb0, 0xc0, 0xfc,
        ]);
        let next = [1, 3, 11, 15].into_iter().find(|next| next & !model.status != 0).unwrap_or(15);
        let value = match offset {
            0x70 => self.pick(&[next, next, next, next, 0, 1, 3, 11, 15, 64 | next, 128 | next, 0x10f, 7]),
            0x20 => self.pick(&[1, 1, 1, 5, 0, u32::MAX, 1 << 29]),
            0x14 | 0x24 | 0x30 => self.pick(&[0, 0, 1, 1, 2, u32::MAX]),
            0x38 => self.pick(&[8, 8, 1, 2, 64, 128, 3, 0, 0x10008]),
            0x84 | 0x94 | 0xa4 => self.pick(&[0, 0, 0, 0, 1, u32::MAX]),
            0x44 => self.pick(&[1, 1, 1, 0, 3, 2]),
            _ => self.pick(&[
                0x1000,
                0x2000,
                0x20000,
                0x2ffc0,
                0x1008,
                0x1001,
                0x1002,
                0x1004,
                0xfff0,
                0x10000,
                0,
                u32::MAX,
            ]),
        };
        (offset, value)
    }
}

fn check(bench: &Bench, model: &Model) {
    for offset in [0x10, 0x34, 0x44, 0x70] {
        if let Some(expected) = model.read(offset) {
            assert_eq!(bench.read(offset), expected, "register {offset:#x}");
        }
    }
    if !model.is_live() {
        assert!(!bench.log.running.load(Ordering::SeqCst), "only a live device runs");
    }
}

/// One sequence. `steps` counts what it reached, so that the test can tell whether it tests anything.
fn run(bench: &Bench, seed: u64, length: u64, lives: &mut u64, broken: &mut u64) {
    let (mut model, mut dice) = (Model::default(), Dice(seed));
    bench.status(&[0]);
    for _ in 0..length {
        let was_live = model.is_live();
        match dice.roll(16) {
            // Odd accesses change nothing.
            0 => {
                let (offset, width) = (dice.roll(0x100), dice.pick(&[0, 1, 2, 3, 8]));
                bench.mmio.write(offset, &vec![0xff; width]);
                bench.mmio.write((offset | 1) & 0xff, &[0xff; 4]);
            }
            1 => {
                let offset = dice.roll(0x120);
                let mut data = vec![0xaa; dice.pick(&[0, 1, 2, 3, 4, 8])];
                bench.mmio.read(offset, &mut data);
                if offset < 0x100 && (offset % 4 != 0 || data.len() != 4) {
                    assert!(data.iter().all(|byte| *byte == 0));
                } else if data.len() == 4
                    && offset < 0x100
                    && let Some(expected) = model.read(offset)
                {
                    assert_eq!(data, expected.to_le_bytes());
                }
            }
            // Kicks to the second queue, which the device ignores, and to none.
            2 => bench.write(0x50, dice.pick(&[1, 2, u32::MAX])),
            // A driver that agrees on features as it should.
            3 => {
                for (offset, value) in [(0x24, 0), (0x20, 1), (0x24, 1), (0x20, 1), (0x70, 11)] {
                    bench.write(offset, value);
                    model.write(offset, value);
                }
            }
            _ => {
                let (offset, value) = dice.write(&model);
                bench.write(offset, value);
                model.write(offset, value);
            }
        }
        check(bench, &model);
        if model.is_live() && !was_live && model.status & 128 == 0 {
            *lives += 1;
        }
        *broken += u64::from(model.status & 64 != 0);
    }
}

#[test]
fn random_accesses_do_what_the_model_says() {
    let bench = Bench::new();
    let (mut lives, mut broken) = (0, 0);
    let config = ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&(any::<u64>(), 1..120_u64), |(seed, length)| {
            run(&bench, seed, length, &mut 0, &mut 0);
            Ok(())
        })
        .unwrap();
    // The same again with fixed seeds, to know that the interesting states are reached.
    for seed in 0..500 {
        run(&bench, seed, 200, &mut lives, &mut broken);
    }
    assert!(
        lives > 200 && broken > 200,
        "{lives} starts and {broken} broken devices: the sequences are too tame"
    );
}

#[test]
fn registers_alone_never_panic_on_any_write() {
    let memory = memory::whole(&MEMORY);
    let offer = offer();
    let mut dice = Dice(7);
    let mut state = registers::Registers::new(&offer);
    for _ in 0..300_000 {
        let (offset, value) = (dice.roll(0x140), dice.roll(1 << 31) as u32);
        state.write(offset, value, &offer, &memory);
        state.read(dice.roll(0x140), &offer);
        assert!(state.fits(&offer, &memory).is_ok());
    }
    assert_eq!(Mmio::kicks(&Bench::new().mmio).len(), 2);
}
