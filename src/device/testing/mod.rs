//! A driver to test devices with, without KVM.
//!
//! [`Driver`] does what the guest's kernel would: it owns a guest memory, walks the transport's registers to DRIVER_OK,
//! puts chains of buffers into queues, kicks only when the event index asks for it, sleeps until it is interrupted,
//! and takes back what the device has used. The device runs on a thread of its own through the real transport, so that
//! a lost kick or interrupt makes a test hang (and fail at its time limit) as it would hang a guest.
//!
//! Hostile tests write into [`Driver::memory`] or [`Driver::mmio`] directly.

mod arena;
mod queue;

pub use queue::{Chain, Used};

use crate::device::transport::{Mmio, device_thread, serve};
use crate::device::{Device, Memory, memory};
use arena::Arena;
use queue::DriverQueue;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How long anything may take before a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The guest's side of one device.
pub struct Driver {
    mmio: Mmio,
    memory: Memory,
    arena: Arena,
    queues: Vec<DriverQueue>,
    irq: EventFd,
    interrupts: u64,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Driver {
    /// Starts `device` with all its features and queues, in a guest memory of 32 MiB.
    pub fn start(device: impl Device + 'static) -> Driver {
        let mut driver = Driver::attach(device);
        driver.initialise();
        driver
    }

    /// As [`Driver::start`], but the driver has not said anything yet.
    pub fn attach(mut device: impl Device + 'static) -> Driver {
        let memory = memory::whole(&[(0, MEMORY)]);
        let description = device.description();
        let (thread, seat) = device_thread();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let mmio = Mmio::open(description, memory.clone(), irq.try_clone().unwrap(), None, thread).unwrap();
        let thread = std::thread::spawn(move || {
            device.settle().unwrap();
            serve(Box::new(device), seat);
        });
        let arena = Arena::new(0x1000..MEMORY as u64);
        Driver { mmio, memory, arena, queues: Vec::new(), irq, interrupts: 0, thread: Some(thread) }
    }

    /// Resets the device and sets it up, as a driver does when it is loaded (virtio 1.2, 3.1.1).
    pub fn initialise(&mut self) {
        self.set_status(0);
        while let Some(queue) = self.queues.pop() {
            queue.release(&mut self.arena);
        }
        self.set_status(1);
        self.set_status(1 | 2);
        for half in 0..2 {
            self.write(0x14, half);
            let offered = self.read(0x10);
            self.write(0x24, half);
            self.write(0x20, offered);
        }
        self.set_status(1 | 2 | 8);
        assert_eq!(self.status(), 1 | 2 | 8, "the device accepts the features that it offers");
        for index in 0.. {
            self.write(0x30, index);
            let size = self.read(0x34);
            if size == 0 {
                break;
            }
            let queue = DriverQueue::new(&self.memory, &mut self.arena, size as u16);
            self.write(0x38, size);
            for (offset, address) in
                [(0x80, queue.descriptors()), (0x90, queue.avail()), (0xa0, queue.used())]
            {
                self.write(offset, address as u32);
                self.write(offset + 4, (address >> 32) as u32);
            }
            self.write(0x44, 1);
            assert_eq!(self.read(0x44), 1, "queue {index} is ready");
            self.queues.push(queue);
        }
        self.set_status(1 | 2 | 8 | 4);
    }

    /// Puts a chain into a queue and kicks if the device wants to know. The chain's head names it afterwards.
    /// `None` if the queue is full.
    pub fn offer(&mut self, queue: usize, chain: &Chain) -> Option<u16> {
        let head = self.add(queue, chain)?;
        self.publish(queue);
        Some(head)
    }

    /// Puts a chain into a queue without telling the device; [`Driver::publish`] does.
    pub fn add(&mut self, queue: usize, chain: &Chain) -> Option<u16> {
        self.queues[queue].add(&self.memory, &mut self.arena, chain)
    }

    /// Shows the device all chains that were added, and kicks if it asked for it.
    pub fn publish(&mut self, queue: usize) {
        if self.queues[queue].publish(&self.memory) {
            self.kick(queue);
        }
    }

    /// Kicks, wanted or not.
    pub fn kick(&self, queue: usize) {
        self.mmio.write(0x50, &(queue as u32).to_le_bytes());
    }

    /// What the device has used next in a queue, if anything.
    pub fn take(&mut self, queue: usize) -> Option<Used> {
        self.queues[queue].take(&self.memory, &mut self.arena)
    }

    /// Waits for what the device uses next in a queue. Sleeps until interrupted, so a lost interrupt is a failure.
    pub fn wait(&mut self, queue: usize) -> Used {
        self.wait_until(queue, Instant::now() + PATIENCE).expect("the device used a buffer in time")
    }

    /// As [`Driver::wait`], but there may be nothing until the deadline.
    pub fn wait_until(&mut self, queue: usize, deadline: Instant) -> Option<Used> {
        loop {
            if let Some(used) = self.take(queue) {
                return Some(used);
            }
            if self.queues[queue].want_interrupt(&self.memory) {
                continue;
            }
            if !self.sleep(deadline) {
                return None;
            }
        }
    }

    /// Waits until something is used in any of these queues; false at the deadline.
    pub fn wait_any(&mut self, queues: &[usize], deadline: Instant) -> bool {
        loop {
            let mut ready = false;
            for queue in queues {
                ready |= self.queues[*queue].want_interrupt(&self.memory);
            }
            if ready {
                return true;
            }
            if !self.sleep(deadline) {
                return false;
            }
        }
    }

    /// How many chains a queue holds that were not taken back.
    pub fn outstanding(&self, queue: usize) -> usize {
        self.queues[queue].outstanding()
    }

    /// How often the device interrupted so far, as seen by waiting.
    pub fn interrupts(&self) -> u64 {
        self.interrupts
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The device's registers.
    pub fn mmio(&self) -> &Mmio {
        &self.mmio
    }

    /// Where a queue's descriptor table, available ring and used ring are.
    pub fn rings(&self, queue: usize) -> (u64, u64, u64) {
        let queue = &self.queues[queue];
        (queue.descriptors(), queue.avail(), queue.used())
    }

    /// The device's status register.
    pub fn status(&self) -> u32 {
        self.read(0x70)
    }

    /// Writes the device's status register.
    pub fn set_status(&self, status: u32) {
        self.write(0x70, status);
    }

    /// Waits until the device shows that it needs a reset.
    pub fn wait_needs_reset(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.status() & 64 == 0 {
            assert!(self.sleep(deadline), "the device shows DEVICE_NEEDS_RESET in time");
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.mmio.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.mmio.write(offset, &value.to_le_bytes());
    }

    /// Sleeps until the device interrupts; false at the deadline.
    fn sleep(&mut self, deadline: Instant) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        #[allow(unsafe_code)]
        // SAFETY: the descriptor lives as long as `self`.
        let fd = unsafe { BorrowedFd::borrow_raw(self.irq.as_raw_fd()) };
        let milliseconds = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], milliseconds);
        if let Ok(count) = self.irq.read() {
            self.interrupts += count;
            let pending = self.read(0x60);
            self.write(0x64, pending);
        }
        true
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.mmio.close();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.expect("the device's thread ended well");
            }
        }
    }
}

const MEMORY: usize = 32 << 20;
