//! Memory that a guest gets while it runs.
//!
//! ```text
//!   room: address space, nobody's --grow--> memory to KVM and to devices --the device wants it plugged--> the guest's driver
//! ```
//! The device ([`crate::device::mem`]) comes into a spare slot with the first growth: a machine that never grows pays
//! nothing but the address space. Each growth is a slot of memory more in KVM; nothing is ever taken back, because a guest
//! gives back by itself what it does not use ([`crate::device::balloon`]).
//!
//! Any thread may call; threads take turns. What the guest makes of its memory is its agent's to say.
#![allow(unsafe_code)] // KVM is shown our memory

use super::kvm::{self, KvmError};
use super::memory::{self, MemoryError};
use super::slots::SlotError;
use super::spare::Spares;
use crate::device::Memory;
use crate::device::mem::{BLOCK, Mem, Plug};
use crate::error::{ErrorKind, Kind};
use kvm_ioctls::VmFd;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// How a machine gets more memory.
pub struct Growth {
    vm: Arc<VmFd>,
    memory: Memory,
    spares: Arc<Spares>,
    /// Guest addresses.
    room: Range<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many bytes of the room are memory.
    opened: u64,
    /// How many slots of KVM's they are in.
    slots: u32,
    /// The device, and where the guest finds it.
    device: Option<(Plug, u32)>,
}

impl Growth {
    /// For a machine whose `memory` was mapped with this room.
    pub(super) fn new(vm: Arc<VmFd>, memory: Memory, spares: Arc<Spares>, room: Range<u64>) -> Growth {
        Growth { vm, memory, spares, room, state: Mutex::default() }
    }

    /// Gives the guest `bytes` more than it began with (not than it has), if it was not given so much before; rounded
    /// up to whole blocks. Returns the slot of the device by which its driver takes them.
    pub fn grow(&self, bytes: u64) -> Result<u32, GrowthError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.room.end.saturating_sub(self.room.start);
        let wanted = bytes.checked_next_multiple_of(BLOCK).filter(|wanted| *wanted <= room);
        let wanted = wanted.ok_or(GrowthError::NoRoom { mib: bytes >> 20, room: room >> 20 })?;
        if wanted > state.opened {
            let end = |bytes| self.room.start.saturating_add(bytes);
            let part = end(state.opened)..end(wanted);
            let slot = FIRST_SLOT.saturating_add(state.slots);
            memory::open(&self.memory, &part, |ours| {
                // SAFETY: `ours` is where the part is mapped, which is guest memory and nothing else; we hold a clone of
                // `memory` beside the machine's descriptor.
                unsafe {
                    kvm::add_slot(&self.vm, slot, part.start, ours, wanted.saturating_sub(state.opened))
                }
                .map_err(GrowthError::from)
            })?;
            state.opened = wanted;
            state.slots = state.slots.saturating_add(1);
        }
        if let Some((plug, slot)) = &state.device {
            plug.want(wanted);
            return Ok(*slot);
        }
        let device = Mem::new(self.room.clone());
        let plug = device.plug();
        plug.want(wanted);
        let slot = self.spares.plug(Box::new(device))?;
        state.device = Some((plug, slot));
        Ok(slot)
    }
}

/// Above that of the devices' registers.
const FIRST_SLOT: u32 = 32;

/// Why a machine gets no more memory.
#[derive(Debug, thiserror::Error)]
pub enum GrowthError {
    /// It was not laid out for so much.
    #[error("{mib} MiB more memory were asked for, and the machine has room for {room}")]
    NoRoom {
        /// How much.
        mib: u64,
        /// How much it may become.
        room: u64,
    },
    /// No memory.
    #[error("cannot make more guest memory")]
    Memory(#[from] MemoryError),
    /// KVM.
    #[error("KVM takes no more guest memory")]
    Kvm(#[from] KvmError),
    /// No device.
    #[error("cannot give the guest a device for more memory")]
    Device(#[from] SlotError),
}

impl Kind for GrowthError {
    fn kind(&self) -> ErrorKind {
        match self {
            GrowthError::NoRoom { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::Host,
        }
    }
}
