//! The device as its driver sees it: descriptors, rings, notifications.

use super::super::wire::*;
use super::super::{Exports, Fs, Policy};
use super::client::{init, path, request};
use crate::device::{ActiveQueue, Device, DeviceError, Interrupt, Memory, Session, memory};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::Queue;
use virtio_queue::desc::{RawDescriptor, split::Descriptor};
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use zerocopy::{FromBytes, IntoBytes};

const RING: u16 = 1024;
const REQUESTS: u64 = 32 << 20;
const REPLIES: u64 = 48 << 20;

#[derive(Default)]
struct Count(AtomicUsize);

impl Interrupt for Count {
    fn used(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn config_changed(&self) {}
}

/// A driver, and a device that runs on a thread of its own.
struct Driver {
    memory: Memory,
    kick: EventFd,
    stop: EventFd,
    interrupts: Arc<Count>,
    running: Option<JoinHandle<Result<(), DeviceError>>>,
    /// How many chains were added, and where in the descriptor table the next goes.
    added: u16,
    next: u16,
    avail: GuestAddress,
    used: GuestAddress,
    directory: TempDir,
}

impl Driver {
    fn new() -> Driver {
        Driver::with(Policy::Exclusive)
    }

    fn with(policy: Policy) -> Driver {
        let memory: Memory = memory::whole(&[
            // Two regions that touch: a buffer may lie across them.
            (0, 33 << 20),
            (33 << 20, 31 << 20),
        ]);
        let directory = tempfile::tempdir().unwrap();
        let exports = Exports::new();
        exports.add("0", path(directory.path()), false).unwrap();
        let mut device = Fs::new("rootfs", policy, exports);
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let (kick, stop, interrupts) = (event(), event(), Arc::new(Count::default()));
        // Makes the rings in memory; from then on they are written to directly.
        let ring = |start| MockSplitQueue::create(&memory, GuestAddress(start), RING);
        let (requests, hiprio) = (ring(0), ring(1 << 20));
        let active = |ring: &MockSplitQueue<'_, Memory>, kick: &EventFd| ActiveQueue {
            queue: ring.create_queue::<Queue>().unwrap(),
            kick: kick.try_clone().unwrap(),
        };
        let mut session = Session {
            memory: memory.clone(),
            queues: vec![active(&hiprio, &event()), active(&requests, &kick)],
            features: 0,
            resumed: false,
            interrupt: interrupts.clone(),
            stop: stop.try_clone().unwrap(),
        };
        let running = Some(std::thread::spawn(move || device.run(&mut session)));
        let (avail, used) = (requests.avail_addr(), requests.used_addr());
        Driver { memory, kick, stop, interrupts, running, added: 0, next: 0, avail, used, directory }
    }

    fn set_index(&self, index: u16) {
        self.memory.store(index.to_le(), self.avail.unchecked_add(2), Ordering::Release).unwrap();
    }

    /// Adds a chain of parts: address, length, whether the device writes.
    fn add(&mut self, parts: &[(u64, u32, bool)]) {
        let last = parts.len() - 1;
        for (i, (address, len, write)) in parts.iter().enumerate() {
            let next = if i < last { VRING_DESC_F_NEXT } else { 0 };
            let flags = next | if *write { VRING_DESC_F_WRITE } else { 0 };
            let at = self.next + i as u16;
            let descriptor: RawDescriptor = Descriptor::new(*address, *len, flags as u16, at + 1).into();
            self.memory.write_obj(descriptor, GuestAddress(u64::from(at) * 16)).unwrap();
        }
        let place = self.avail.unchecked_add(4 + u64::from(self.added) * 2);
        self.memory.write_obj(self.next.to_le(), place).unwrap();
        self.next += parts.len() as u16;
        self.added += 1;
        self.set_index(self.added);
    }

    /// Kicks, and waits until everything is used; the length of the last one.
    fn wait(&self) -> u32 {
        self.kick.write(1).unwrap();
        let began = Instant::now();
        let used = || self.memory.load::<u16>(self.used.unchecked_add(2), Ordering::Acquire).unwrap();
        while u16::from_le(used()) != self.added {
            assert!(began.elapsed() < Duration::from_secs(20), "the device does not answer");
            assert!(!self.running.as_ref().unwrap().is_finished(), "the device is gone");
            std::thread::sleep(Duration::from_micros(100));
        }
        self.memory.read_obj(self.used.unchecked_add(4 + (u64::from(self.added) - 1) * 8 + 4)).unwrap()
    }

    /// A request in one piece, its reply in another.
    fn call(&mut self, request: &[u8], room: u32) -> (OutHeader, Vec<u8>) {
        self.memory.write_slice(request, GuestAddress(REQUESTS)).unwrap();
        self.add(&[(REQUESTS, request.len() as u32, false), (REPLIES, room, true)]);
        let len = self.wait() as usize;
        let mut reply = vec![0; len];
        self.memory.read_slice(&mut reply, GuestAddress(REPLIES)).unwrap();
        let (head, body) = OutHeader::read_from_prefix(&reply).unwrap();
        assert_eq!(head.len as usize, len);
        (head, body.to_vec())
    }

    fn begin(&mut self) -> u64 {
        assert_eq!(self.call(&init(), 4096).0.error, 0);
        let (head, body) = self.call(&request(opcode::LOOKUP, ROOT, (0, 0), 2, &[b"0\0"]), 4096);
        assert_eq!((head.error, head.unique), (0, 2));
        EntryOut::read_from_prefix(&body).unwrap().0.nodeid
    }

    fn end(mut self) -> Result<(), DeviceError> {
        self.stop.write(1).unwrap();
        self.running.take().unwrap().join().unwrap()
    }
}

#[test]
fn a_mebibyte_goes_to_a_file_and_back_in_pages() {
    let mut driver = Driver::new();
    let top = driver.begin();
    let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    let how = MknodIn { mode: 0o100644, ..MknodIn::default() };
    let (head, body) = driver.call(&request(opcode::MKNOD, top, owner, 3, &[how.as_bytes(), b"f\0"]), 4096);
    assert_eq!(head.error, 0);
    let entry = EntryOut::read_from_bytes(&body).unwrap();

    let data: Vec<u8> = (0..1u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let how = WriteIn { offset: 5, size: 1 << 20, ..WriteIn::default() };
    let mut message = request(opcode::WRITE, entry.nodeid, owner, 4, &[how.as_bytes()]);
    message[..4].copy_from_slice(&((80 + (1 << 20)) as u32).to_le_bytes());
    driver.memory.write_slice(&message, GuestAddress(REQUESTS)).unwrap();
    // The data lies in pages backwards, across the border between the regions of memory.
    let pages: Vec<u64> = (0..256u64).rev().map(|page| (33 << 20) - (512 << 10) + page * 4096).collect();
    for (page, part) in pages.iter().zip(data.chunks(4096)) {
        driver.memory.write_slice(part, GuestAddress(*page)).unwrap();
    }
    let mut parts = vec![(REQUESTS, 80, false)];
    parts.extend(pages.iter().map(|page| (*page, 4096, false)));
    parts.push((REPLIES, 24, true));
    driver.add(&parts);
    assert_eq!(driver.wait(), 24);
    let size: u32 = driver.memory.read_obj(GuestAddress(REPLIES + 16)).unwrap();
    assert_eq!(size, 1 << 20);
    assert_eq!(std::fs::read(driver.directory.path().join("f")).unwrap()[5..], data);

    for page in &pages {
        driver.memory.write_slice(&[0; 4096], GuestAddress(*page)).unwrap();
    }
    let how = ReadIn { offset: 5, size: 1 << 20, ..ReadIn::default() };
    let message = request(opcode::READ, entry.nodeid, owner, 5, &[how.as_bytes()]);
    driver.memory.write_slice(&message, GuestAddress(REQUESTS)).unwrap();
    let mut parts = vec![(REQUESTS, message.len() as u32, false), (REPLIES, 16, true)];
    parts.extend(pages.iter().map(|page| (*page, 4096, true)));
    driver.add(&parts);
    assert_eq!(driver.wait(), 16 + (1 << 20));
    for (page, part) in pages.iter().zip(data.chunks(4096)) {
        let mut read = [0; 4096];
        driver.memory.read_slice(&mut read, GuestAddress(*page)).unwrap();
        assert_eq!(read, part);
    }
    driver.end().unwrap();
}

#[test]
fn many_requests_are_served_with_few_interrupts() {
    let mut driver = Driver::new();
    let top = driver.begin();
    let before = driver.interrupts.0.load(Ordering::SeqCst);
    let message = request(opcode::GETATTR, top, (0, 0), 9, &[GetattrIn::default().as_bytes()]);
    driver.memory.write_slice(&message, GuestAddress(REQUESTS)).unwrap();
    for i in 0..200 {
        driver.add(&[(REQUESTS, message.len() as u32, false), (REPLIES + i * 4096, 256, true)]);
    }
    driver.wait();
    for i in 0..200 {
        let head: [u8; 16] = driver.memory.read_obj(GuestAddress(REPLIES).unchecked_add(i * 4096)).unwrap();
        let head = OutHeader::read_from_bytes(&head).unwrap();
        assert_eq!((head.error, head.unique, head.len), (0, 9, 16 + size_of::<AttrOut>() as u32));
    }
    let interrupts = driver.interrupts.0.load(Ordering::SeqCst) - before;
    assert!((1..=60).contains(&interrupts), "{interrupts} interrupts");
    driver.end().unwrap();
}

#[test]
fn who_has_given_up_is_not_kept_waiting_even_if_that_is_heard_first() {
    let mut driver = Driver::with(Policy::Shared);
    std::fs::write(driver.directory.path().join("f"), "").unwrap();
    let top = driver.begin();
    let (_, body) = driver.call(&request(opcode::LOOKUP, top, (0, 0), 3, &[b"f\0"]), 4096);
    let node = EntryOut::read_from_prefix(&body).unwrap().0.nodeid;
    let how = OpenIn { flags: libc::O_RDWR as u32, ..OpenIn::default() };
    let (_, body) = driver.call(&request(opcode::OPEN, node, (0, 0), 4, &[how.as_bytes()]), 4096);
    let fh = OpenOut::read_from_prefix(&body).unwrap().0.fh;
    let lock = |owner, unique, code| {
        let how =
            LkIn { fh, owner, start: 0, end: 9, kind: libc::F_WRLCK as u32, pid: 7, lk_flags: 0, padding: 0 };
        request(code, node, (0, 0), unique, &[how.as_bytes()])
    };
    assert_eq!(driver.call(&lock(1, 5, opcode::SETLK), 4096).0.error, 0);

    let waits = lock(2, 778, opcode::SETLKW);
    let gives_up = request(opcode::INTERRUPT, 0, (0, 0), 780, &[InterruptIn { unique: 778 }.as_bytes()]);
    let between = request(opcode::GETATTR, top, (0, 0), 9, &[GetattrIn::default().as_bytes()]);
    for (at, message) in [(0, &waits), (4096, &gives_up), (8192, &between)] {
        driver.memory.write_slice(message, GuestAddress(REQUESTS + at)).unwrap();
    }
    // More than is served at a time lies between the two. The device is not told before all is there.
    driver.add(&[(REQUESTS + 4096, gives_up.len() as u32, false)]);
    for _ in 0..100 {
        driver.add(&[(REQUESTS + 8192, between.len() as u32, false), (REPLIES, 256, true)]);
    }
    driver.add(&[(REQUESTS, waits.len() as u32, false), (REPLIES + 4096, 256, true)]);
    driver.wait();
    let head: [u8; 16] = driver.memory.read_obj(GuestAddress(REPLIES + 4096)).unwrap();
    let head = OutHeader::read_from_bytes(&head).unwrap();
    assert_eq!((head.error, head.unique), (-libc::EINTR, 778));
    driver.end().unwrap();
}

#[test]
fn chains_that_no_driver_makes_are_handed_back_empty_and_harm_nothing() {
    let mut driver = Driver::new();
    driver.begin();
    let far = 1 << 40;
    let bad: &[&[(u64, u32, bool)]] = &[
        &[(REQUESTS, 0, false)],
        &[(REQUESTS, 39, false), (REPLIES, 4096, true)],
        &[(REPLIES, 4096, true)],
        &[(REPLIES, 4096, true), (REQUESTS, 40, false)],
        &[(far, 40, false), (REPLIES, 4096, true)],
        &[(REQUESTS, 40, false), (far, 4096, true)],
        &[((64 << 20) - 8, 40, false), (REPLIES, 4096, true)],
        &[(REQUESTS, u32::MAX, false), (REPLIES, 4096, true)],
        &[(REQUESTS, 40, false), (REPLIES, 16 << 20, true)],
        &[(u64::MAX - 3, 40, false), (REPLIES, 4096, true)],
    ];
    for parts in bad {
        driver.add(parts);
        assert_eq!(driver.wait(), 0, "{parts:x?}");
    }
    // No room for the reply's header.
    let message = request(opcode::GETATTR, ROOT, (0, 0), 9, &[GetattrIn::default().as_bytes()]);
    driver.memory.write_slice(&message, GuestAddress(REQUESTS)).unwrap();
    driver.add(&[(REQUESTS, message.len() as u32, false), (REPLIES, 15, true)]);
    assert_eq!(driver.wait(), 0);
    assert_eq!(driver.call(&message, 4096).0.error, 0);
    driver.end().unwrap();
}

#[test]
fn a_ring_whose_index_lies_ends_the_session_and_not_the_machine() {
    let mut driver = Driver::new();
    driver.begin();
    driver.set_index(40_000);
    driver.kick.write(1).unwrap();
    let outcome = driver.running.take().unwrap().join().unwrap();
    assert!(matches!(outcome, Err(DeviceError::Queue(_))), "{outcome:?}");
}

#[test]
fn the_configuration_space_holds_the_tag_and_one_queue() {
    let description = Fs::new("rootfs", Policy::Exclusive, Exports::new()).description();
    let mut config = [0xff; 44];
    description.config.read(0, &mut config);
    assert_eq!(config[..8], *b"rootfs\0\0");
    assert_eq!(config[36..], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((description.id, description.queue_sizes.len()), (26, 2));
}
