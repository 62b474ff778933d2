//! The device with a driver.

use super::request::{Plugged, Response, Span, testing::encode};
use super::*;
use crate::device::testing::{Chain, Driver};
use vm_memory::GuestAddress;

/// In the memory of the driver that tests have: 32 MiB, of which the second half is the device's.
const REGION: Range<u64> = 16 << 20..32 << 20;

fn scene() -> (Driver, Plug) {
    let device = Mem::new(REGION);
    let plug = device.plug();
    (Driver::start(device), plug)
}

fn ask(driver: &mut Driver, request: Request) -> Vec<u8> {
    driver.offer(0, &Chain::new().readable(encode(request)).writable(10)).unwrap();
    driver.wait(0).written
}

fn span(first: u64, blocks: u16) -> Span {
    Span { at: REGION.start + first * BLOCK, blocks }
}

/// A field of the configuration space.
fn field(driver: &Driver, at: u64) -> u64 {
    let mut bytes = [0; 8];
    driver.mmio().read(0x100 + at, &mut bytes);
    u64::from_le_bytes(bytes)
}

#[test]
fn the_driver_hears_what_is_wanted_and_sees_what_it_has_plugged() {
    let (mut driver, plug) = scene();
    let shown = |driver: &Driver| [0, 8, 16, 24, 32, 40, 48].map(|at| field(driver, at));
    assert_eq!(shown(&driver), [BLOCK, 0, 16 << 20, 16 << 20, 16 << 20, 0, 0]);
    // The driver is told, though it asks for nothing.
    let pending = |driver: &Driver| {
        let mut bytes = [0; 4];
        driver.mmio().read(0x60, &mut bytes);
        driver.mmio().write(0x64, &bytes);
        u32::from_le_bytes(bytes)
    };
    assert_eq!(ask(&mut driver, Request::State(span(0, 1))), Response::State(Plugged::None).bytes());
    pending(&driver);
    plug.want(3 * BLOCK);
    assert_eq!(pending(&driver) & 2, 2, "the configuration has changed");
    assert_eq!(field(&driver, 48), 3 * BLOCK);
    assert_eq!(ask(&mut driver, Request::Plug(span(0, 2))), Response::Done.bytes());
    assert_eq!((field(&driver, 40), plug.plugged()), (2 * BLOCK, 2 * BLOCK));
    assert_eq!(ask(&mut driver, Request::Plug(span(2, 2))), Response::Denied.bytes());
    assert_eq!(ask(&mut driver, Request::State(span(0, 3))), Response::State(Plugged::Some).bytes());
}

#[test]
fn a_block_that_is_unplugged_is_dropped_and_its_neighbours_are_not() {
    let (mut driver, plug) = scene();
    plug.want(4 * BLOCK);
    ask(&mut driver, Request::Plug(span(0, 4)));
    driver.memory().write_slice(&vec![1; 4 * BLOCK as usize], GuestAddress(REGION.start)).unwrap();
    let kept = |driver: &Driver| {
        let filled = |block: u64| {
            let byte: u8 = driver.memory().read_obj(GuestAddress(span(block + 1, 0).at - 1)).unwrap();
            let first: u8 = driver.memory().read_obj(GuestAddress(span(block, 0).at)).unwrap();
            assert_eq!(byte, first);
            byte == 1
        };
        [0, 1, 2, 3].map(filled)
    };
    assert_eq!(ask(&mut driver, Request::Unplug(span(1, 2))), Response::Done.bytes());
    assert_eq!(kept(&driver), [true, false, false, true]);
    assert_eq!(ask(&mut driver, Request::Unplug(span(1, 2))), Response::Wrong.bytes());
    assert_eq!(ask(&mut driver, Request::UnplugAll), Response::Done.bytes());
    assert_eq!(kept(&driver), [false; 4]);
    assert_eq!(plug.plugged(), 0);
}

#[test]
fn a_request_that_is_cut_short_or_unknown_is_an_error_and_one_without_room_for_an_answer_is_used() {
    let (mut driver, plug) = scene();
    plug.want(4 * BLOCK);
    let whole = encode(Request::Plug(span(0, 1)));
    let mut unknown = whole;
    unknown[0] = 4;
    for bytes in [&whole[..23], &whole[..1], &unknown] {
        driver.offer(0, &Chain::new().readable(bytes.to_vec()).writable(10)).unwrap();
        assert_eq!(driver.wait(0).written, Response::Wrong.bytes());
    }
    driver.offer(0, &Chain::new().writable(10)).unwrap();
    assert_eq!(driver.wait(0).written, Response::Wrong.bytes());
    assert_eq!(plug.plugged(), 0);
    driver.offer(0, &Chain::new().readable(whole)).unwrap();
    assert_eq!(driver.wait(0).length, 0);
    assert_eq!(plug.plugged(), BLOCK, "it asked for it");
    // In pieces, with more behind it.
    let next = encode(Request::Plug(span(1, 1)));
    let chain = Chain::new().readable(next[..7].to_vec()).readable(next[7..].to_vec()).readable([0; 9]);
    driver.offer(0, &chain.writable(3).writable(20)).unwrap();
    assert_eq!(driver.wait(0).length, 10);
    assert_eq!(plug.plugged(), 2 * BLOCK);
}

#[test]
fn a_reset_keeps_what_is_plugged_and_so_does_another_process() {
    let (mut driver, plug) = scene();
    plug.want(4 * BLOCK);
    ask(&mut driver, Request::Plug(span(1, 2)));
    driver.initialise();
    assert_eq!(ask(&mut driver, Request::State(span(1, 2))), Response::State(Plugged::All).bytes());

    driver.mmio().suspend();
    let saved = driver.mmio().save_device().unwrap();
    let mut other = Mem::new(REGION);
    other.restore(&saved).unwrap();
    assert_eq!((other.plug.plugged(), other.plug.lock().blocks.wanted()), (2 * BLOCK, 4 * BLOCK));
    for cut in 0..saved.len() {
        assert!(Mem::new(REGION).restore(&saved[..cut]).is_err(), "cut to {cut}");
    }
    assert!(Mem::new(16 << 20..20 << 20).restore(&saved).is_err(), "another region");
    // A state that claims more blocks than the region has.
    let mut beyond = Blocks::new(REGION);
    beyond.want(16 << 20);
    let mut forged = postcard::to_stdvec(&(STATE_VERSION, &beyond)).unwrap();
    let count = forged.iter().position(|byte| *byte == 8).unwrap();
    forged[count] = 9;
    forged.push(1);
    assert!(Mem::new(REGION).restore(&forged).is_err());
}

#[test]
fn an_impossible_ring_needs_a_reset_and_a_reset_helps() {
    let (mut driver, plug) = scene();
    plug.want(4 * BLOCK);
    let (_, avail, _) = driver.rings(0);
    driver.memory().write_obj(1000_u16, GuestAddress(avail + 2)).unwrap();
    driver.kick(0);
    driver.wait_needs_reset();
    driver.initialise();
    assert_eq!(ask(&mut driver, Request::Plug(span(0, 4))), Response::Done.bytes());
}
