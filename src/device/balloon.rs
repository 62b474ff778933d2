//! Memory that the guest has freed goes back to the host: virtio-balloon (virtio 1.2, 5.5) with free page reporting.
//!
//! ```text
//!   guest's allocator: a large block has been free for a while --chain--> its pages are dropped --used--> the block may
//!   be allocated again: a page that is touched then is a new one of zeroes
//! ```
//! Nothing is ever asked of the guest: the balloon stays empty (`num_pages` is 0), its two queues for inflation and
//! deflation are there because every driver has them, and are not looked at.
//!
//! It keeps nothing between two requests, so there is nothing to save.
//!
//! | The guest can | and then |
//! |---|---|
//! | report pages that it still uses | it finds zeroes in them: its own affair |
//! | report less than whole pages | the whole ones in it are dropped |
//! | report what is not memory, or buffers to be read | nothing happens to it |
//! | report in a loop | at most a queue's worth is dropped before the device looks at `stop` again |
//! | put buffers into the other queues | they stay there |

use crate::device::release::release;
use crate::device::{ConfigSpace, Description, Device, DeviceError, Memory, Session, single};
use std::sync::Arc;
use virtio_queue::DescriptorChain;

/// The balloon.
pub struct Balloon {
    config: Arc<ConfigSpace>,
}

impl Balloon {
    /// An empty one.
    pub fn new() -> Balloon {
        // struct virtio_balloon_config: num_pages, and `actual`, which is the driver's to write.
        Balloon { config: ConfigSpace::new(vec![0; 8], 4..8) }
    }
}

impl Default for Balloon {
    fn default() -> Balloon {
        Balloon::new()
    }
}

impl Device for Balloon {
    fn description(&self) -> Description {
        Description {
            name: "balloon",
            id: DEVICE_ID,
            features: REPORTING,
            queue_sizes: vec![QUEUE_SIZE; 3],
            config: self.config.clone(),
        }
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        single::run(session, REPORTS, answer)
    }
}

/// Drops what a report names.
fn answer(memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
    chain.writable().for_each(|block| release(memory, block.addr(), block.len().into()));
    0
}

// Virtio 1.2, 5.5.
const DEVICE_ID: u32 = 5;
const REPORTING: u64 = 1 << 5;
/// Behind inflation and deflation, as neither statistics nor hints are offered.
const REPORTS: usize = 2;
/// Linux reports 32 blocks at a time.
const QUEUE_SIZE: u16 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Chain, Driver};
    use vm_memory::{Bytes, GuestAddress};

    /// A driver, and a stretch of its memory that is full of ones.
    fn scene() -> (Driver, u64) {
        let driver = Driver::start(Balloon::new());
        let at = 16 << 20;
        driver.memory().write_slice(&[1; LENGTH], GuestAddress(at)).unwrap();
        (driver, at)
    }

    const LENGTH: usize = 16 * 4096;

    /// Reports a block at an address of the test's choice.
    fn report(driver: &mut Driver, at: u64, length: u32) {
        let head = driver.add(REPORTS, &Chain::new().writable(8)).unwrap();
        let (table, ..) = driver.rings(REPORTS);
        let descriptor = GuestAddress(table + 16 * u64::from(head));
        driver.memory().write_obj(at, descriptor).unwrap();
        driver.memory().write_obj(length, GuestAddress(descriptor.0 + 8)).unwrap();
        driver.publish(REPORTS);
        assert_eq!(driver.wait(REPORTS).length, 0);
    }

    /// Which pages of the stretch still hold ones.
    fn kept(driver: &Driver, at: u64) -> Vec<usize> {
        let mut bytes = vec![0; LENGTH];
        driver.memory().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        let pages = bytes.chunks(4096).enumerate();
        pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0)).map(|(number, _)| number).collect()
    }

    #[test]
    fn a_reported_block_is_dropped_and_its_neighbours_are_not() {
        let (mut driver, at) = scene();
        report(&mut driver, at + 4096, 3 * 4096);
        assert_eq!(kept(&driver, at), [0].into_iter().chain(4..16).collect::<Vec<_>>());
        // It is memory as before.
        driver.memory().write_obj(7_u8, GuestAddress(at + 4096)).unwrap();
        assert_eq!(kept(&driver, at), [0, 1].into_iter().chain(4..16).collect::<Vec<_>>());
    }

    #[test]
    fn only_whole_pages_are_dropped() {
        let (mut driver, at) = scene();
        report(&mut driver, at + 1, 4096);
        report(&mut driver, at + 4095, 2);
        report(&mut driver, at, 0);
        assert_eq!(kept(&driver, at).len(), 16);
        report(&mut driver, at + 1, 3 * 4096);
        assert_eq!(kept(&driver, at), [0].into_iter().chain(3..16).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_memory_is_passed_over() {
        let (mut driver, at) = scene();
        for (address, length) in
            [(32 << 20, 4096), ((32 << 20) - 4096, 8192), (u64::MAX - 4096, 8192), (1 << 63, u32::MAX)]
        {
            report(&mut driver, address, length);
        }
        assert_eq!(kept(&driver, at).len(), 16);
        report(&mut driver, at, LENGTH as u32);
        assert_eq!(kept(&driver, at).len(), 0);
    }

    #[test]
    fn buffers_to_be_read_and_other_queues_change_nothing() {
        let (mut driver, at) = scene();
        driver.offer(REPORTS, &Chain::new().readable(vec![1; 8192])).unwrap();
        assert_eq!(driver.wait(REPORTS).length, 0);
        for queue in [0, 1] {
            driver.offer(queue, &Chain::new().readable([0; 4])).unwrap();
        }
        report(&mut driver, at, 4096);
        assert_eq!(kept(&driver, at).len(), 15);
    }

    #[test]
    fn an_impossible_ring_needs_a_reset_and_a_reset_helps() {
        let (mut driver, at) = scene();
        let (_, avail, _) = driver.rings(REPORTS);
        driver.memory().write_obj(1000_u16, GuestAddress(avail + 2)).unwrap();
        driver.kick(REPORTS);
        driver.wait_needs_reset();
        driver.initialise();
        report(&mut driver, at, 4096);
        assert_eq!(kept(&driver, at).len(), 15);
    }
}
