//! Entropy for the guest: virtio-entropy (virtio 1.2, 5.4), from the host's getrandom(2).
//!
//! The driver gives buffers, the device fills them. It keeps nothing, so there is nothing to save; after a restore the
//! agent makes the guest's kernel ask again.
//!
//! | The guest can | and then |
//! |---|---|
//! | give a buffer of any size | at most [`MAX_FILL`] bytes of it are filled |
//! | give buffers in a loop | at most a queue's worth is filled before the device looks at `stop` again |
//! | give buffers to be read, or outside memory | they are used with length 0; the device needs a reset if the ring itself makes no sense |

use crate::device::{ConfigSpace, Description, Device, DeviceError, Memory, Session, single};
use std::sync::Arc;
use virtio_queue::DescriptorChain;
use vm_memory::Bytes;

/// The entropy device.
pub struct Rng {
    config: Arc<ConfigSpace>,
}

impl Rng {
    /// A device with nothing to configure.
    pub fn new() -> Rng {
        Rng { config: ConfigSpace::new(Vec::new(), 0..0) }
    }
}

impl Default for Rng {
    fn default() -> Rng {
        Rng::new()
    }
}

impl Device for Rng {
    fn description(&self) -> Description {
        Description {
            name: "rng",
            id: DEVICE_ID,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
            config: self.config.clone(),
        }
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        single::run(session, 0, answer)
    }
}

/// Fills a chain's buffers; how many bytes of them.
fn answer(memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
    let mut filled = 0_u32;
    for buffer in chain.writable() {
        let length = buffer.len().min(MAX_FILL.saturating_sub(filled));
        if fill(memory, buffer.addr(), length).is_err() {
            break;
        }
        filled = filled.saturating_add(length);
    }
    filled
}

fn fill(memory: &Memory, at: vm_memory::GuestAddress, length: u32) -> Result<(), DeviceError> {
    let mut page = [0_u8; 4096];
    let mut done = 0_usize;
    let length = usize::try_from(length).unwrap_or(0);
    while done < length {
        let want = page.len().min(length.saturating_sub(done));
        let Some(part) = page.get_mut(..want) else { break };
        random(part).map_err(|source| DeviceError::Host { what: "getrandom", source })?;
        let to = vm_memory::Address::checked_add(&at, done as u64)
            .ok_or(DeviceError::Driver("a buffer wraps around the address space"))?;
        memory.write_slice(part, to)?;
        done = done.saturating_add(want);
    }
    Ok(())
}

/// Fills `bytes` from the host kernel's generator.
#[allow(unsafe_code)]
pub(super) fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of `rest`, which is ours to write.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => rest = rest.get_mut(got..).unwrap_or(&mut []),
            Err(_) => {
                let error = std::io::Error::last_os_error();
                if error.kind() != std::io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Most bytes that one chain of buffers gets.
pub const MAX_FILL: u32 = 64 * 1024;

const QUEUE_SIZE: u16 = 8;

// Virtio 1.2, 5.4.1.
const DEVICE_ID: u32 = 4;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! The queue layer: rings of any content, served by the simplest device.

    use super::*;
    use crate::device::{ActiveQueue, memory};
    use virtio_queue::{Queue, QueueState, QueueT};
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::EventFd;

    /// The queue's place and progress, then what guest memory begins with.
    pub fn rings(bytes: &[u8]) {
        let [size, table, available, used, next, event, content @ ..] = bytes else { return };
        let memory = memory::whole(&[(0, 0x8000)]);
        let _ = memory.write(content, GuestAddress(0));
        let state = QueueState {
            max_size: QUEUE_SIZE,
            next_avail: u16::from(*next),
            next_used: u16::from(*next),
            event_idx_enabled: event & 1 != 0,
            size: 1 << (size % 8),
            ready: true,
            desc_table: u64::from(*table) << 4,
            avail_ring: u64::from(*available) << 4,
            used_ring: u64::from(*used) << 4,
        };
        let Ok(queue) = Queue::try_from(state) else { return };
        let kick = EventFd::new(0).expect("a descriptor for the fuzzer");
        let mut active = ActiveQueue { queue, kick };
        let _ = single::serve(&mut active, &memory, answer);
        let _ = active.queue.needs_notification(&memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Chain, Driver};
    use vm_memory::GuestAddress;

    #[test]
    fn a_buffer_is_filled_whole_and_never_twice_the_same() {
        let mut driver = Driver::start(Rng::new());
        let mut ask = || {
            driver.offer(0, &Chain::new().writable(5000).writable(100)).unwrap();
            driver.wait(0).written
        };
        let (first, second) = (ask(), ask());
        assert_eq!(first.len(), 5100);
        assert_ne!(first, second);
        for part in first.chunks(100) {
            assert!(part.iter().any(|byte| *byte != 0), "every part of it was written");
        }
    }

    #[test]
    fn a_huge_buffer_is_filled_in_part() {
        let mut driver = Driver::start(Rng::new());
        driver.offer(0, &Chain::new().writable(1 << 20).writable(1 << 20)).unwrap();
        assert_eq!(driver.wait(0).length, MAX_FILL);
    }

    #[test]
    fn a_buffer_to_be_read_or_an_empty_one_is_returned_untouched() {
        let mut driver = Driver::start(Rng::new());
        driver.offer(0, &Chain::new().readable([1; 64])).unwrap();
        assert_eq!(driver.wait(0).length, 0);
        driver.offer(0, &Chain::new().writable(0).indirect()).unwrap();
        assert_eq!(driver.wait(0).length, 0);
    }

    #[test]
    fn a_buffer_outside_memory_is_returned_and_the_device_lives_on() {
        let mut driver = Driver::start(Rng::new());
        let head = driver.add(0, &Chain::new().writable(64)).unwrap();
        let (table, ..) = driver.rings(0);
        driver.memory().write_obj(u64::MAX - 8, GuestAddress(table + 16 * u64::from(head))).unwrap();
        driver.publish(0);
        assert_eq!(driver.wait(0).length, 0);
        driver.offer(0, &Chain::new().writable(64)).unwrap();
        assert_eq!(driver.wait(0).length, 64);
    }

    #[test]
    fn an_impossible_ring_needs_a_reset_and_a_reset_helps() {
        let mut driver = Driver::start(Rng::new());
        let (_, avail, _) = driver.rings(0);
        driver.memory().write_obj(1000_u16, GuestAddress(avail + 2)).unwrap();
        driver.kick(0);
        driver.wait_needs_reset();
        driver.initialise();
        driver.offer(0, &Chain::new().writable(64)).unwrap();
        assert_eq!(driver.wait(0).length, 64);
    }

    #[test]
    fn a_thousand_requests_each_find_their_interrupt() {
        let mut driver = Driver::start(Rng::new());
        for _ in 0..1000 {
            driver.offer(0, &Chain::new().writable(64)).unwrap();
            assert_eq!(driver.wait(0).length, 64);
        }
    }
}
