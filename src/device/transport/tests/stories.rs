//! Stories.

use super::super::{DeviceThread, Mmio, Registers, TransportError, device_thread};
use super::*;

#[test]
fn a_driver_finds_out_what_the_device_is() {
    let bench = Bench::new();
    assert_eq!(bench.read(0x00), u32::from_le_bytes(*b"virt"));
    assert_eq!(bench.read(0x04), 2);
    assert_eq!(bench.read(0x08), 42);
    assert_eq!(bench.read(0x10), (1 << 28) | (1 << 29) | 0b101);
    bench.write(0x14, 1);
    assert_eq!(bench.read(0x10), 1);
    bench.write(0x14, 2);
    assert_eq!(bench.read(0x10), 0);
    for (index, size) in [(0, 64), (1, 8), (2, 0), (u32::MAX, 0)] {
        bench.write(0x30, index);
        assert_eq!(bench.read(0x34), size);
    }
    assert_eq!(bench.read(0xb0) & bench.read(0xb4), u32::MAX, "no shared memory region");
}

#[test]
fn a_driver_that_follows_the_rules_gets_its_device() {
    let bench = Bench::new();
    bench.bring_up();
    assert_eq!(bench.read(0x70), 15);
    assert_eq!(bench.log.features.load(Ordering::SeqCst), (1 << 32) | (1 << 29) | 1);
    let queues = bench.log.queues.lock().unwrap().clone();
    assert_eq!((queues[0].size, queues[0].desc_table, queues[0].event_idx_enabled), (64, 0x1000, true));
    assert_eq!((queues[1].size, queues[1].avail_ring, queues[1].used_ring), (8, 0x20100, 0x20200));
}

#[test]
fn a_queue_that_was_not_set_up_is_not_ready() {
    let bench = Bench::new();
    bench.status(&[0, 1, 3]);
    bench.accept(1 << 32);
    bench.status(&[11]);
    bench.set_queue(1, 4, [0x1000, 0x2000, 0x3000]);
    bench.status(&[15]);
    bench.wait_running(true);
    let queues = bench.log.queues.lock().unwrap().clone();
    assert!(!queues[0].ready && queues[1].ready);
    assert!(!queues[1].event_idx_enabled);
}

#[test]
fn features_that_were_not_offered_or_lack_version_1_are_not_accepted() {
    for features in [0, 0b101, (1 << 32) | 0b10, (1 << 32) | (1 << 63), u64::MAX] {
        let bench = Bench::new();
        bench.status(&[0, 1, 3]);
        bench.accept(features);
        bench.status(&[11]);
        assert_eq!(bench.read(0x70), 3, "{features:#x}");
        bench.status(&[15]);
        assert_eq!(bench.read(0x70), 3);
        bench.accept(1 << 32);
        bench.status(&[11]);
        assert_eq!(bench.read(0x70), 11, "the driver may try again");
    }
}

#[test]
fn status_steps_out_of_order_are_ignored() {
    let bench = Bench::new();
    for (written, seen) in [
        (2, 0),
        (4, 0),
        (8, 0),
        (15, 0),
        (1, 1),
        (2, 1),
        (9, 1),
        (3, 3),
        (1, 3),
        (7, 3),
        (0x103, 3),
        (19, 3),
        (0x83, 0x83),
        (3, 0x83),
        (0, 0),
        (64, 0),
    ] {
        bench.write(0x70, written);
        assert_eq!(bench.read(0x70), seen, "after {written:#x} was written");
    }
}

#[test]
fn a_driver_that_gave_up_does_not_get_its_device() {
    let bench = Bench::new();
    bench.status(&[0, 1, 3]);
    bench.accept(1 << 32);
    bench.status(&[11, 0x8b, 0x8f]);
    assert_eq!(bench.log.sessions.load(Ordering::SeqCst), 0);
}

#[test]
fn queues_that_do_not_fit_memory_never_become_ready() {
    let good = [0x1000, 0x2000, 0x3000];
    let bad: [(u32, [u64; 3]); 14] = [
        (0, good),
        (3, good),
        (128, good),
        (65, good),
        (u32::MAX, good),
        (0x10040, good),
        (64, [0x1008, 0x2000, 0x3000]),
        (64, [0x1000, 0x2001, 0x3000]),
        (64, [0x1000, 0x2000, 0x3002]),
        (64, [0, 0x2000, 0x3000]),
        // The last entry would be in the hole, the first entry is, beyond memory, around the end of all addresses.
        (64, [0xfc10, 0x2000, 0x3000]),
        (64, [0x1000, 0x10000, 0x3000]),
        (64, [0x1000, 0x2000, 0x2fffc]),
        (64, [0xffff_ffff_ffff_fff0, 0x2000, 0x3000]),
    ];
    let bench = Bench::new();
    bench.status(&[0, 1, 3]);
    bench.accept(1 << 32);
    bench.status(&[11]);
    for (size, addresses) in bad {
        bench.set_queue(0, size, addresses);
        assert!(!bench.is_ready(0), "{size} entries at {addresses:#x?}");
    }
    // To the very end of memory is not beyond it.
    bench.set_queue(0, 64, [0x2fc00, 0x2000, 0x3000]);
    assert!(bench.is_ready(0));
    bench.set_queue(7, 8, good);
    assert!(!bench.is_ready(7));
}

#[test]
fn queues_cannot_be_set_up_before_features_are_agreed() {
    let bench = Bench::new();
    bench.status(&[0, 1, 3]);
    bench.accept(1 << 32);
    bench.set_queue(0, 64, [0x1000, 0x2000, 0x3000]);
    assert!(!bench.is_ready(0));
    bench.status(&[11]);
    bench.write(0x44, 1);
    assert!(!bench.is_ready(0), "nothing of it was kept");
}

/// A guest that makes a queue larger after its bounds were checked has written beyond the rings of other machines.
#[test]
fn a_live_queue_cannot_be_changed_and_the_attempt_shows() {
    for offset in [0x38, 0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0x20] {
        let bench = Bench::new();
        bench.bring_up();
        let before = bench.mmio.suspend();
        bench.mmio.resume();
        bench.wait_running(true);
        bench.write(0x30, 0);
        bench.write(offset, 8);
        assert_eq!(bench.read(0x70), 15 | 64, "{offset:#x}");
        assert_eq!(bench.read(0x60) & 2, 2, "the driver is told");
        assert_eq!(bench.irq.read().unwrap(), 1);
        let after = bench.mmio.suspend();
        assert_eq!(before.queues, after.queues);
        assert_eq!(before.features(), after.features());
        bench.bring_up();
        assert_eq!(bench.read(0x70), 15, "a reset helps");
    }
}

#[test]
fn a_reset_waits_until_the_device_has_stopped() {
    let bench = Bench::new();
    for round in 1..200 {
        bench.bring_up();
        bench.status(&[0]);
        assert!(!bench.log.running.load(Ordering::SeqCst));
        assert_eq!(bench.log.sessions.load(Ordering::SeqCst), round);
        assert!(!bench.is_ready(0) && !bench.is_ready(1));
        assert_eq!(bench.read(0x70), 0);
    }
}

#[test]
fn a_device_that_fails_shows_it_and_starts_again_after_a_reset() {
    let bench = Bench::new();
    for _ in 0..3 {
        bench.bring_up();
        bench.write(0x50, 0);
        bench.wait_running(false);
        let deadline = Instant::now() + crate::device::testing::PATIENCE;
        while bench.read(0x70) & 64 == 0 {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(bench.read(0x60), 2);
        bench.write(0x50, 0);
    }
    bench.bring_up();
}

#[test]
fn kicks_to_queues_that_do_not_exist_do_nothing() {
    let bench = Bench::new();
    bench.bring_up();
    for queue in [2, 3, 64, u32::MAX] {
        bench.write(0x50, queue);
    }
    assert_eq!(bench.mmio.kicks().len(), 2);
    assert_eq!(bench.read(0x70), 15);
}

#[test]
fn interrupts_are_shown_until_they_are_acknowledged() {
    let bench = Bench::new();
    bench.bring_up();
    let interrupt = bench.log.interrupt.lock().unwrap().clone().unwrap();
    interrupt.used();
    interrupt.used();
    assert_eq!(bench.read(0x60), 1);
    interrupt.config_changed();
    assert_eq!(bench.read(0x60), 3);
    assert_eq!(bench.irq.read().unwrap(), 3);
    bench.write(0x64, 1);
    assert_eq!(bench.read(0x60), 2);
    bench.write(0x64, u32::MAX);
    assert_eq!(bench.read(0x60), 0);
}

#[test]
fn the_configuration_space_is_read_in_any_way_and_written_where_allowed() {
    let bench = Bench::new();
    let mut all = [0xaa; 8];
    bench.mmio.read(0x100, &mut all);
    assert_eq!(all, [1, 2, 3, 4, 5, 6, 0, 0]);
    let mut odd = [0xaa; 3];
    bench.mmio.read(0x103, &mut odd);
    assert_eq!(odd, [4, 5, 6]);
    bench.mmio.read(u64::MAX, &mut odd);
    assert_eq!(odd, [0; 3]);
    bench.mmio.write(0x100, &[9; 8]);
    bench.mmio.read(0x100, &mut all);
    assert_eq!(all, [1, 2, 3, 4, 9, 6, 0, 0]);
    let generation = bench.read(0xfc);
    bench.config.update(|bytes| bytes[0] = 7);
    assert_ne!(bench.read(0xfc), generation);
    assert_eq!(bench.read(0x100) & 0xff, 7);
}

#[test]
fn registers_answer_to_their_own_width_alone() {
    let bench = Bench::new();
    for (offset, width) in [(0, 1), (0, 2), (0, 8), (1, 4), (2, 2), (0xfe, 4), (0, 0), (0xfc, 8)] {
        let mut data = vec![0xaa; width];
        bench.mmio.read(offset, &mut data);
        assert!(data.iter().all(|byte| *byte == 0), "{width} bytes at {offset:#x}");
        bench.mmio.write(offset + 0x70, &vec![1; width]);
        assert_eq!(bench.read(0x70), 0);
    }
}

#[test]
fn what_was_saved_goes_on_elsewhere() {
    let (first, second) = (Bench::new(), Bench::new());
    first.bring_up();
    first.log.interrupt.lock().unwrap().clone().unwrap().used();
    let saved = first.mmio.suspend();
    assert!(!first.log.running.load(Ordering::SeqCst));
    let text = serde_json::to_string(&saved).unwrap();
    let restored: Registers = serde_json::from_str(&text).unwrap();
    assert_eq!(restored, saved);
    second.mmio.restore(restored).unwrap();
    assert_eq!(second.read(0x70), 15);
    assert_eq!(second.read(0x60), 1);
    assert_eq!(second.irq.read().unwrap(), 1, "an interrupt that was not seen is sent again");
    assert!(!second.log.running.load(Ordering::SeqCst));
    second.mmio.resume();
    second.wait_running(true);
    let queues = second.log.queues.lock().unwrap().clone();
    assert_eq!((queues[1].next_avail, queues[1].next_used), (2, 1));
    assert!(matches!(second.mmio.restore(saved), Err(TransportError::InUse { .. })));
    first.mmio.resume();
    first.wait_running(true);
}

#[test]
fn saved_registers_that_cannot_be_are_refused() {
    let bench = Bench::new();
    bench.bring_up();
    let saved = serde_json::to_value(bench.mmio.suspend()).unwrap();
    let changes: [(&str, serde_json::Value); 7] = [
        ("/status", 5.into()),
        ("/status", 0x10f.into()),
        ("/status", 3.into()),
        ("/driver_features", 2.into()),
        ("/queues/0/size", 128.into()),
        ("/queues/1/device", 0x2fff0.into()),
        ("/queues", serde_json::json!([])),
    ];
    for (place, value) in changes {
        let mut changed = saved.clone();
        *changed.pointer_mut(place).unwrap() = value;
        let registers: Registers = serde_json::from_value(changed).unwrap();
        let fresh = Bench::new();
        assert!(matches!(fresh.mmio.restore(registers), Err(TransportError::Saved { .. })), "{place}");
    }
}

#[test]
fn a_transport_whose_thread_is_gone_needs_a_reset_and_does_not_hang() {
    let (thread, seat): (DeviceThread, _) = device_thread();
    drop(seat);
    let memory = memory::whole(&[(0, 0x10000)]);
    let description = Description {
        name: "orphan",
        id: 1,
        features: 0,
        queue_sizes: vec![8],
        config: ConfigSpace::new(Vec::new(), 0..0),
    };
    let mmio = Mmio::open(description, memory, EventFd::new(0).unwrap(), None, thread).unwrap();
    let write = |offset: u64, value: u32| mmio.write(offset, &value.to_le_bytes());
    for status in [1, 3] {
        write(0x70, status);
    }
    write(0x24, 1);
    write(0x20, 1);
    for status in [11, 15] {
        write(0x70, status);
    }
    let mut status = [0; 4];
    mmio.read(0x70, &mut status);
    assert_eq!(u32::from_le_bytes(status), 15 | 64);
    write(0x70, 0);
    mmio.close();
}
