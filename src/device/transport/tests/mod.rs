//! What a driver sees in the registers, told as stories, and a model that random accesses are compared with.

mod model;
mod stories;

use super::registers::Offer;
use super::{Mmio, device_thread, serve};
use crate::device::event::borrow;
use crate::device::{ConfigSpace, Description, Device, DeviceError, Session, memory};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use virtio_queue::{QueueState, QueueT};
use vm_memory::{GuestAddress, GuestMemory};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Guest memory: two regions with a hole between them.
const MEMORY: [(u64, usize); 2] = [(0, 0x10000), (0x20000, 0x10000)];
const SIZES: [u16; 2] = [64, 8];
const FEATURES: u64 = 0b101;
const CONFIG: [u8; 6] = [1, 2, 3, 4, 5, 6];

/// What happens to the device under test.
#[derive(Default)]
struct Log {
    running: AtomicBool,
    sessions: AtomicU64,
    queues: Mutex<Vec<QueueState>>,
    features: AtomicU64,
    interrupt: Mutex<Option<Arc<dyn crate::device::Interrupt>>>,
}

/// A device that notes with what it was started, and fails at the first kick of its first queue.
struct Recorder {
    log: Arc<Log>,
    config: Arc<ConfigSpace>,
}

impl Device for Recorder {
    fn description(&self) -> Description {
        Description {
            name: "recorder",
            id: 42,
            features: FEATURES,
            queue_sizes: SIZES.to_vec(),
            config: self.config.clone(),
        }
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        for active in &session.queues {
            let state = active.queue.state();
            if state.ready {
                let size = usize::from(state.size);
                assert!(size.is_power_of_two() && state.size <= state.max_size);
                for (at, length) in [
                    (state.desc_table, 16 * size),
                    (state.avail_ring, 6 + 2 * size),
                    (state.used_ring, 6 + 8 * size),
                ] {
                    assert!(session.memory.check_range(GuestAddress(at), length), "{state:?} is in memory");
                }
            }
        }
        *self.log.queues.lock().unwrap() = session.queues.iter().map(|active| active.queue.state()).collect();
        *self.log.interrupt.lock().unwrap() = Some(session.interrupt.clone());
        self.log.features.store(session.features, Ordering::SeqCst);
        self.log.sessions.fetch_add(1, Ordering::SeqCst);
        self.log.running.store(true, Ordering::SeqCst);
        let (stop, kick) = (borrow(&session.stop), borrow(&session.queues[0].kick));
        let mut fds = [PollFd::new(stop, PollFlags::POLLIN), PollFd::new(kick, PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).unwrap();
        let stopped = fds[0].any().unwrap();
        // As a device would that has taken two chains and used one.
        session.queues[1].queue.set_next_avail(2);
        session.queues[1].queue.set_next_used(1);
        self.log.running.store(false, Ordering::SeqCst);
        if stopped {
            return Ok(());
        }
        session.queues[0].kick.read().unwrap();
        Err(DeviceError::Driver("it kicked"))
    }
}

/// The device, its window, and its interrupt line.
struct Bench {
    mmio: Mmio,
    log: Arc<Log>,
    irq: EventFd,
    config: Arc<ConfigSpace>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bench {
    fn new() -> Bench {
        let memory = memory::whole(&MEMORY);
        let log = Arc::new(Log::default());
        let config = ConfigSpace::new(CONFIG.to_vec(), 4..5);
        let device = Recorder { log: log.clone(), config: config.clone() };
        let (transport, seat) = device_thread();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let mmio =
            Mmio::open(device.description(), memory, irq.try_clone().unwrap(), None, transport).unwrap();
        let thread = std::thread::spawn(move || serve(Box::new(device), seat));
        Bench { mmio, log, irq, config, thread: Some(thread) }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.mmio.write(offset, &value.to_le_bytes());
    }

    fn status(&self, steps: &[u32]) {
        for status in steps {
            self.write(0x70, *status);
        }
    }

    fn accept(&self, features: u64) {
        for half in 0..2 {
            self.write(0x24, half);
            self.write(0x20, (features >> (32 * half)) as u32);
        }
    }

    fn set_queue(&self, index: u32, size: u32, [descriptors, driver, device]: [u64; 3]) {
        self.write(0x30, index);
        self.write(0x38, size);
        for (offset, at) in [(0x80, descriptors), (0x90, driver), (0xa0, device)] {
            self.write(offset, at as u32);
            self.write(offset + 4, (at >> 32) as u32);
        }
        self.write(0x44, 1);
    }

    fn is_ready(&self, index: u32) -> bool {
        self.write(0x30, index);
        self.read(0x44) == 1
    }

    /// As far as DRIVER_OK, with both queues.
    fn bring_up(&self) {
        self.status(&[0, 1, 3]);
        self.accept((1 << 32) | (1 << 29) | 1);
        self.status(&[11]);
        self.set_queue(0, 64, [0x1000, 0x2000, 0x3000]);
        self.set_queue(1, 8, [0x20000, 0x20100, 0x20200]);
        self.status(&[15]);
        self.wait_running(true);
    }

    fn wait_running(&self, running: bool) {
        let deadline = Instant::now() + crate::device::testing::PATIENCE;
        while self.log.running.load(Ordering::SeqCst) != running {
            assert!(
                Instant::now() < deadline,
                "the device is {}",
                if running { "started" } else { "stopped" }
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.mmio.close();
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.expect("the device's thread ended well");
        }
    }
}

fn offer() -> Offer {
    Offer { device_id: 42, features: FEATURES | 1 << 28 | 1 << 29 | 1 << 32, queue_sizes: SIZES.to_vec() }
}
