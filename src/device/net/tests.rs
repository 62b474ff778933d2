//! The device against the mock driver, with a socket for the network.

use super::*;
use crate::device::testing::{Chain, Driver};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use proptest::prelude::*;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// A network whose other end the test holds: one datagram is one frame.
struct Socket {
    /// How often it was turned on and off.
    turns: Arc<Mutex<Vec<bool>>>,
    ours: OwnedFd,
    cuts: bool,
    told: Arc<Mutex<Vec<Offloads>>>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

impl Port for Socket {
    fn cuts_datagrams(&self) -> bool {
        self.cuts
    }

    fn accept(&self, offloads: Offloads) -> io::Result<()> {
        self.told.lock().unwrap().push(offloads);
        Ok(())
    }

    fn turn(&self, on: bool) -> io::Result<()> {
        let mut turns = self.turns.lock().unwrap();
        if turns.last().copied().unwrap_or(false) != on {
            turns.push(on);
        }
        Ok(())
    }
}

struct Scene {
    driver: Driver,
    /// Of the first pair.
    world: OwnedFd,
    /// Of the others.
    worlds: Vec<OwnedFd>,
    turns: Vec<Arc<Mutex<Vec<bool>>>>,
    told: Arc<Mutex<Vec<Offloads>>>,
}

const RX: usize = 0;
const TX: usize = 1;
const SOON: Duration = Duration::from_millis(100);

fn scene() -> Scene {
    scene_with(true)
}

/// On a host that cuts datagrams, or does not.
fn scene_with(cuts: bool) -> Scene {
    scene_of(1, cuts)
}

/// With several pairs.
fn scene_of(pairs: usize, cuts: bool) -> Scene {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let told = Arc::default();
    let (mut ports, mut worlds, mut turns) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let (ours, world) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).unwrap();
        for end in [&ours, &world] {
            setsockopt(end, sockopt::SndBuf, &(4 << 20)).unwrap();
        }
        let turned = Arc::default();
        let port = Socket { ours, cuts, told: Arc::clone(&told), turns: Arc::clone(&turned) };
        ports.push(Box::new(port) as Box<dyn Port>);
        worlds.push(world);
        turns.push(turned);
    }
    let world = worlds.remove(0);
    let net = Net::new(Saved { mac: [2, 0, 0, 0, 0, 1] }, ports);
    Scene { driver: Driver::start(net), world, worlds, turns, told }
}

impl Scene {
    /// What reaches the world next.
    fn hear(&self) -> Option<Vec<u8>> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut frame = vec![0; 70_000];
        loop {
            match nix::unistd::read(&self.world, &mut frame) {
                Ok(length) => {
                    frame.truncate(length);
                    return Some(frame);
                }
                Err(_) if Instant::now() > deadline => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn say(&self, frame: &[u8]) {
        assert_eq!(nix::unistd::write(&self.world, frame).unwrap(), frame.len());
    }
}

fn frame(length: usize, seed: u8) -> Vec<u8> {
    let body = (0..length).map(|at| (at % 251) as u8 ^ seed);
    [0; HEADER].into_iter().chain(body).collect()
}

#[test]
fn frames_reach_the_world_with_a_header_made_anew() {
    let mut scene = scene();
    let mut sent = frame(60, 1);
    // A flag that is no business of the kernel's.
    sent[0] = 2;
    scene.driver.offer(TX, &Chain::new().readable(&sent[..HEADER]).readable(&sent[HEADER..])).unwrap();
    assert_eq!(scene.hear().unwrap(), frame(60, 1));
    assert_eq!(scene.driver.wait(TX).length, 0);
    // However it is cut, directly or not.
    let sent = frame(LONGEST, 2);
    let chain = sent.chunks(4099).fold(Chain::new(), |chain, part| chain.readable(part));
    scene.driver.offer(TX, &chain.clone().indirect()).unwrap();
    assert!(scene.hear().unwrap() == sent);
    let odd = Chain::new().readable(&sent[..5]).readable(&sent[5..100]).readable(&sent[100..200]);
    scene.driver.offer(TX, &odd).unwrap();
    assert_eq!(scene.hear().unwrap(), &sent[..200]);
}

#[test]
fn datagrams_are_left_whole_only_where_the_host_cuts_them() {
    for cuts in [true, false] {
        let mut scene = scene_with(cuts);
        let mut sent = frame(6042, 1);
        sent[..10].copy_from_slice(&[1, 5, 42, 0, 200, 0, 34, 0, 6, 0]);
        scene.driver.offer(TX, &Chain::new().readable(&sent[..])).unwrap();
        assert_eq!(scene.driver.wait(TX).length, 0);
        scene.driver.offer(TX, &Chain::new().readable(frame(60, 9))).unwrap();
        let heard = scene.hear().unwrap();
        assert!(if cuts { heard == sent } else { heard == frame(60, 9) }, "{cuts} {}", heard.len());
        assert_eq!(scene.told.lock().unwrap()[0].udp, cuts);
    }
}

#[test]
fn what_makes_no_sense_is_dropped_and_the_next_frame_is_not() {
    let mut scene = scene();
    let mut lie = frame(60, 0);
    (lie[0], lie[6]) = (1, 200);
    for chain in [
        Chain::new().readable(lie),
        Chain::new().readable(frame(13, 0)),
        Chain::new().readable([0; 5]),
        Chain::new().readable([]),
        Chain::new().writable(100),
        Chain::new().readable(vec![0; HEADER + LONGEST + 1]),
    ] {
        scene.driver.offer(TX, &chain).unwrap();
        assert_eq!(scene.driver.wait(TX).length, 0, "{chain:?}");
    }
    scene.driver.offer(TX, &Chain::new().readable(frame(60, 9))).unwrap();
    assert_eq!(scene.hear().unwrap(), frame(60, 9));
}

#[test]
fn a_buffer_outside_memory_is_dropped_when_sent_and_ends_the_session_when_given() {
    let mut scene = scene();
    let head = scene.driver.add(TX, &Chain::new().readable(frame(60, 0))).unwrap();
    let (table, ..) = scene.driver.rings(TX);
    scene.driver.memory().write_obj(u64::MAX - 8, GuestAddress(table + 16 * u64::from(head))).unwrap();
    scene.driver.publish(TX);
    assert_eq!(scene.driver.wait(TX).length, 0);

    let head = scene.driver.add(RX, &Chain::new().writable(1526)).unwrap();
    let (table, ..) = scene.driver.rings(RX);
    scene.driver.memory().write_obj(u64::MAX - 8, GuestAddress(table + 16 * u64::from(head))).unwrap();
    scene.driver.publish(RX);
    scene.driver.wait_needs_reset();
    scene.driver.initialise();
    scene.driver.offer(TX, &Chain::new().readable(frame(60, 3))).unwrap();
    assert_eq!(scene.hear().unwrap(), frame(60, 3));
}

#[test]
fn a_frame_goes_into_as_many_buffers_as_it_needs() {
    let mut scene = scene();
    for _ in 0..128 {
        scene.driver.offer(RX, &Chain::new().writable(1526)).unwrap();
    }
    for length in [60, 1514, 1515, 40_000, LONGEST] {
        let sent = frame(length, length as u8);
        scene.say(&sent);
        let first = scene.driver.wait(RX);
        let count = usize::from(u16::from_le_bytes([first.written[10], first.written[11]]));
        assert_eq!(count, sent.len().div_ceil(1526), "{length}");
        let mut got = first.written;
        got[10..12].fill(0);
        for _ in 1..count {
            // They are all there at once.
            got.extend(scene.driver.take(RX).expect("the rest of the frame").written);
        }
        assert!(got == sent, "{length}");
        for _ in 0..count {
            scene.driver.offer(RX, &Chain::new().writable(1526)).unwrap();
        }
    }
}

#[test]
fn what_arrives_waits_until_there_is_room_for_the_longest_frame() {
    let mut scene = scene();
    scene.say(&frame(60, 1));
    scene.driver.offer(RX, &Chain::new().writable(1526)).unwrap();
    assert!(scene.driver.wait_until(RX, Instant::now() + SOON).is_none());
    for _ in 0..50 {
        scene.driver.offer(RX, &Chain::new().writable(1526)).unwrap();
    }
    assert_eq!(scene.driver.wait(RX).length as usize, HEADER + 60);
}

#[test]
fn buffers_that_were_not_used_are_there_again_after_a_pause() {
    let mut scene = scene();
    for _ in 0..60 {
        scene.driver.offer(RX, &Chain::new().writable(1526)).unwrap();
    }
    scene.say(&frame(60, 1));
    scene.driver.wait(RX);
    let saved = scene.driver.mmio().suspend();
    scene.driver.mmio().resume();
    for seed in 0..8 {
        scene.say(&frame(1514, seed));
        let mut got = scene.driver.wait(RX).written;
        got[10..12].fill(0);
        assert!(got == frame(1514, seed));
    }
    // What is saved counts the buffers that nothing was read into as not taken.
    assert!(serde_json::to_string(&saved).unwrap().contains("\"next_avail\":1,\"next_used\":1"), "{saved:?}");
    assert_eq!(scene.told.lock().unwrap().len(), 2, "offloads are told at each start");
    assert!(scene.told.lock().unwrap()[0].tcp6);
}

#[test]
fn a_network_that_takes_nothing_holds_frames_in_their_queue() {
    let mut scene = scene();
    let mut sent = 0_usize;
    while scene.driver.outstanding(TX) < 256 {
        scene.driver.offer(TX, &Chain::new().readable(frame(1000, sent as u8)).indirect()).unwrap();
        sent += 1;
        if let Some(_used) = scene.driver.wait_until(TX, Instant::now() + Duration::from_millis(2)) {}
        assert!(sent < 100_000);
        if sent > 8000 {
            break;
        }
    }
    for seed in 0..sent {
        assert!(scene.hear().unwrap() == frame(1000, seed as u8), "{seed} of {sent}");
    }
}

#[test]
fn both_ways_at_once_in_order() {
    let mut scene = scene();
    for _ in 0..100 {
        scene.driver.offer(RX, &Chain::new().writable(4096)).unwrap();
    }
    for seed in 0..2000_u32 {
        scene.say(&frame(100, seed as u8));
        scene.driver.offer(TX, &Chain::new().readable(frame(200, seed as u8))).unwrap();
        let mut got = scene.driver.wait(RX).written;
        got[10..12].fill(0);
        assert_eq!(got, frame(100, seed as u8));
        scene.driver.offer(RX, &Chain::new().writable(4096)).unwrap();
        assert_eq!(scene.hear().unwrap(), frame(200, seed as u8));
        scene.driver.wait(TX);
    }
}

/// Asks for a number of pairs; what the device answers.
fn ask(scene: &mut Scene, control: usize, command: &[u8]) -> u8 {
    let (head, data) = command.split_at(command.len().min(2));
    let chain = Chain::new().readable(head).readable(data).writable(1);
    scene.driver.offer(control, &chain).unwrap();
    scene.driver.wait(control).written[0]
}

fn hear_at(world: &OwnedFd) -> Option<Vec<u8>> {
    let deadline = Instant::now() + SOON;
    let mut frame = vec![0; 70_000];
    loop {
        match nix::unistd::read(world, &mut frame) {
            Ok(length) => return Some(frame[..length].to_vec()),
            Err(_) if Instant::now() > deadline => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[test]
fn as_many_pairs_are_served_as_the_driver_uses() {
    let mut scene = scene_of(3, true);
    let control = 6;
    let send = |scene: &mut Scene, pair: usize| {
        scene.driver.offer(2 * pair + 1, &Chain::new().readable(frame(60, pair as u8))).unwrap();
        let world = if pair == 0 { &scene.world } else { &scene.worlds[pair - 1] };
        hear_at(world).is_some_and(|heard| heard == frame(60, pair as u8))
    };
    assert!(send(&mut scene, 0) && !send(&mut scene, 1), "one at the beginning");
    assert_eq!(ask(&mut scene, control, &[4, 0, 3, 0]), 0);
    // What was put there before is sent now.
    assert_eq!(hear_at(&scene.worlds[0]).unwrap(), frame(60, 1));
    assert!((0..3).all(|pair| send(&mut scene, pair)));
    // And the other way.
    for pair in 0..3 {
        for _ in 0..50 {
            scene.driver.offer(2 * pair, &Chain::new().writable(1526)).unwrap();
        }
    }
    for (pair, world) in [(1, 0), (2, 1)] {
        nix::unistd::write(&scene.worlds[world], &frame(100, pair as u8)).unwrap();
        let mut got = scene.driver.wait(2 * pair).written;
        got[10..12].fill(0);
        assert_eq!(got, frame(100, pair as u8));
    }
    for lie in [&[4, 0, 0, 0][..], &[4, 0, 4, 0], &[4, 0], &[1, 0, 1, 0], &[]] {
        assert_eq!(ask(&mut scene, control, lie), 1, "{lie:?}");
    }
    // They stay as they are over a pause, and what the device remembers says so.
    scene.driver.mmio().suspend();
    scene.driver.mmio().resume();
    assert!((0..3).all(|pair| send(&mut scene, pair)));
    assert_eq!(ask(&mut scene, control, &[4, 0, 2, 0]), 0);
    assert!(send(&mut scene, 1) && !send(&mut scene, 2));
    assert_eq!(*scene.turns[1].lock().unwrap(), [true], "it was never off");
    assert_eq!(*scene.turns[2].lock().unwrap(), [true, false]);
    // A new driver begins with one.
    scene.driver.initialise();
    assert!(send(&mut scene, 0) && !send(&mut scene, 1));
}

#[test]
fn a_pair_that_breaks_the_protocol_ends_the_session_of_all() {
    let mut scene = scene_of(2, true);
    assert_eq!(ask(&mut scene, 4, &[4, 0, 2, 0]), 0);
    scene.driver.offer(2, &Chain::new().writable(3)).unwrap();
    scene.driver.wait_needs_reset();
    scene.driver.initialise();
    assert_eq!(ask(&mut scene, 4, &[4, 0, 2, 0]), 0);
    scene.driver.offer(3, &Chain::new().readable(frame(60, 3))).unwrap();
    assert_eq!(hear_at(&scene.worlds[0]).unwrap(), frame(60, 3));
}

#[test]
fn a_command_without_room_for_an_answer_is_used_all_the_same() {
    let mut scene = scene_of(2, true);
    for chain in [Chain::new().readable([4, 0, 2, 0]), Chain::new().writable(0), Chain::new()] {
        scene.driver.offer(4, &chain).unwrap();
        assert_eq!(scene.driver.wait(4).length, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_the_driver_offers_the_device_lives_on(
        chains in prop::collection::vec((0usize..5, prop::collection::vec((any::<bool>(), 0u32..5000), 0..6), any::<bool>()), 1..40)
    ) {
        let mut scene = scene_of(2, true);
        ask(&mut scene, 4, &[4, 0, 2, 0]);
        for (queue, parts, indirect) in chains {
            let mut chain = parts.iter().fold(Chain::new(), |chain, (readable, length)| match readable {
                true => chain.readable(vec![*length as u8; *length as usize]),
                false => chain.writable(*length),
            });
            if indirect && !parts.is_empty() {
                chain = chain.indirect();
            }
            let _ = scene.driver.offer(queue, &chain);
            let _ = nix::unistd::write(&scene.world, &frame(64, 0));
        }
        // It may have asked for a reset (a receive buffer without room); after one, it works.
        scene.driver.initialise();
        let mut drained = vec![0; 70_000];
        while nix::unistd::read(&scene.world, &mut drained).is_ok() {}
        scene.driver.offer(TX, &Chain::new().readable(frame(60, 7))).unwrap();
        while scene.hear().unwrap() != frame(60, 7) {}
    }
}
