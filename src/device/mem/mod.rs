//! Memory that comes while the guest runs: virtio-mem (virtio 1.2, 5.15).
//!
//! ```text
//!   Plug::want --configuration changed--> driver --PLUG--> Blocks --done--> the guest's allocator has it
//!                                                --UNPLUG--> its pages are dropped --done-->
//! ```
//! A region of guest addresses is the device's; how much of it the driver may have plugged is said by the machine, and only
//! ever becomes more. All of that much, counted from the region's beginning, is memory to vcpus and devices from the moment
//! on at which the machine says so ([`crate::device::Region`]); the rest of the region is nothing to either. So a
//! guest that does not ask before it uses memory, or uses what it has unplugged, has no more than one that asks.
//!
//! | The guest can | and then |
//! |---|---|
//! | plug more than is wanted, or elsewhere | it is refused |
//! | name blocks that are not whole, not in the region, or not as it thinks | it is told that this is an error |
//! | unplug what it uses | it finds zeroes there: its own affair |
//! | give a request that is cut short, or no room for the answer | an error, as far as it can be told |
//! | ask in a loop | at most a queue's worth is answered before the device looks at `stop` again |

mod blocks;
pub mod request;

pub use blocks::{BLOCK, Blocks};

use super::release::release;
use crate::device::{ConfigSpace, Description, Device, DeviceError, Interrupt, Memory, Session, single};
use request::{REQUEST, Request, decode};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress};

/// The device.
pub struct Mem {
    plug: Plug,
}

/// The machine's hand on it.
#[derive(Clone)]
pub struct Plug {
    state: Arc<Mutex<State>>,
    config: Arc<ConfigSpace>,
}

struct State {
    blocks: Blocks,
    /// How to reach the driver, while it is served.
    driver: Option<Arc<dyn Interrupt>>,
}

impl Mem {
    /// For a region of guest addresses, both multiples of [`BLOCK`], of which nothing is wanted yet.
    pub fn new(region: Range<u64>) -> Mem {
        let config = ConfigSpace::new(vec![0; CONFIG], 0..0);
        let state = State { blocks: Blocks::new(region), driver: None };
        let plug = Plug { state: Arc::new(Mutex::new(state)), config };
        plug.show(&plug.lock().blocks);
        Mem { plug }
    }

    /// The machine's hand on it.
    pub fn plug(&self) -> Plug {
        self.plug.clone()
    }
}

impl Plug {
    /// Has the driver plug the first `bytes` of the region, whole blocks of them, if it has not plugged so much. They have
    /// to be memory by now.
    pub fn want(&self, bytes: u64) {
        let mut state = self.lock();
        state.blocks.want(bytes);
        self.show(&state.blocks);
        if let Some(driver) = &state.driver {
            driver.config_changed();
        }
    }

    /// How many bytes it has plugged.
    pub fn plugged(&self) -> u64 {
        self.lock().blocks.plugged()
    }

    /// Shows the driver how things stand.
    fn show(&self, blocks: &Blocks) {
        let Range { start, end } = *blocks.region();
        let size = end.saturating_sub(start);
        // Usable is the whole region: Linux plugs only where a whole memory block of its own (128 MiB) is usable.
        let fields =
            [(0, BLOCK), (16, start), (24, size), (32, size), (40, blocks.plugged()), (48, blocks.wanted())];
        self.config.update(|bytes| {
            for (at, value) in fields {
                let place = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
                if let Some(place) = place {
                    *place = value.to_le_bytes();
                }
            }
        });
    }

    fn answer(&self, memory: &Memory, chain: DescriptorChain<&Memory>) -> u32 {
        let request = read(memory, chain.clone());
        let mut state = self.lock();
        let outcome = state.blocks.serve(request);
        self.show(&state.blocks);
        drop(state);
        for Range { start, end } in outcome.released {
            release(memory, GuestAddress(start), end.saturating_sub(start));
        }
        write(memory, chain, &outcome.response.bytes())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Mem {
    fn description(&self) -> Description {
        Description {
            name: "mem",
            id: DEVICE_ID,
            features: UNPLUGGED_INACCESSIBLE,
            queue_sizes: vec![QUEUE_SIZE],
            config: self.plug.config.clone(),
        }
    }

    fn run(&mut self, session: &mut Session) -> Result<(), DeviceError> {
        let plug = &self.plug;
        let driver = session.interrupt.clone();
        plug.lock().driver = Some(driver.clone());
        // What was wanted before somebody could be told.
        driver.config_changed();
        let ended = single::run(session, REQUESTS, |memory, chain| plug.answer(memory, chain));
        plug.lock().driver = None;
        ended
    }

    /// What is plugged stays plugged when a driver resets the device (virtio 1.2, 5.15.5), so there is nothing to forget.
    fn reset(&mut self) {}

    fn save(&mut self) -> Result<Vec<u8>, DeviceError> {
        let saved = postcard::to_stdvec(&(STATE_VERSION, &self.plug.lock().blocks));
        saved.map_err(|error| DeviceError::State(error.into()))
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), DeviceError> {
        let (version, blocks): (u32, Blocks) =
            postcard::from_bytes(saved).map_err(|error| DeviceError::State(error.into()))?;
        let mut state = self.plug.lock();
        let size = state.blocks.region().end.saturating_sub(state.blocks.region().start);
        if version != STATE_VERSION || blocks.region() != state.blocks.region() || blocks.wanted() > size {
            return Err(DeviceError::State("it is of another region".into()));
        }
        self.plug.show(&blocks);
        state.blocks = blocks;
        Ok(())
    }
}

/// The request in a chain, if there is a whole one that is known.
fn read(memory: &Memory, chain: DescriptorChain<&Memory>) -> Option<Request> {
    let mut bytes = [0; REQUEST];
    let mut done = 0_usize;
    for buffer in chain.readable() {
        let rest = bytes.get_mut(done..)?;
        let length = rest.len().min(usize::try_from(buffer.len()).ok()?);
        memory.read_slice(rest.get_mut(..length)?, buffer.addr()).ok()?;
        done = done.saturating_add(length);
    }
    if done == REQUEST { decode(&bytes) } else { None }
}

/// Writes as much of an answer as there is room for; how many bytes.
fn write(memory: &Memory, chain: DescriptorChain<&Memory>, answer: &[u8]) -> u32 {
    let mut rest = answer;
    for buffer in chain.writable() {
        let length = rest.len().min(usize::try_from(buffer.len()).unwrap_or(usize::MAX));
        let Some((now, later)) = rest.split_at_checked(length) else { break };
        if memory.write_slice(now, buffer.addr()).is_err() {
            break;
        }
        rest = later;
    }
    u32::try_from(answer.len().saturating_sub(rest.len())).unwrap_or(0)
}

// Virtio 1.2, 5.15.
const DEVICE_ID: u32 = 24;
/// The driver has to leave memory that is not plugged alone.
const UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;
const REQUESTS: usize = 0;
/// A driver has one request under way.
const QUEUE_SIZE: u16 = 8;
const CONFIG: usize = 56;
const STATE_VERSION: u32 = 1;

#[cfg(fuzzing)]
pub mod fuzzing {
    //! Requests of any content, and a host that wants more now and then.

    use super::*;

    const REGION: Range<u64> = 4 << 30..6 << 30;

    /// Each 25 bytes: how much the host wants, or a request.
    pub fn requests(bytes: &[u8]) {
        let mut blocks = Blocks::new(REGION);
        for step in bytes.chunks_exact(REQUEST + 1) {
            let [host, request @ ..] = step else { return };
            let request: &[u8; REQUEST] = request.try_into().expect("so long");
            if host & 0x80 != 0 {
                blocks.want(u64::from(host & 0x7f) << 24);
            }
            let before = blocks.plugged();
            let outcome = blocks.serve(decode(request));
            let released: u64 = outcome.released.iter().map(|range| range.end - range.start).sum();
            assert!(blocks.plugged() <= blocks.wanted() && blocks.wanted() <= REGION.end - REGION.start);
            assert!(released == 0 || before - blocks.plugged() == released);
            let inside = |range: &Range<u64>| {
                range.start >= REGION.start && range.end <= REGION.start + blocks.wanted()
            };
            assert!(outcome.released.iter().all(inside));
        }
    }
}

#[cfg(test)]
mod tests;
