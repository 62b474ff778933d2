//! A guest that runs.

use super::arch::current::saved::SavedVcpu;
use super::end::{End, Ended};
use super::gate;
use super::timeline::Timeline;
use super::vcpu::{self, Surroundings};
use super::walls::{Thread, entered};
use super::{Growth, Held, Machine, MachineError};
use crate::device::console::KernelLog;
use crate::device::transport::{Mmio, Seat, hold, serve};
use crate::device::{Device, Memory, vsock};
use kvm_ioctls::VmFd;
use nix::unistd::gettid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Builder;

/// A machine whose vcpus run. There is no orderly way back: a guest ends by itself, or with the process.
pub struct Running {
    around: Arc<Surroundings>,
    timeline: Arc<Timeline>,
    held: Held,
    kernel_log: Arc<KernelLog>,
    growth: Growth,
}

impl Machine {
    /// Makes the devices' threads, then the vcpus', and lets the guest run. To be called in the jail: from here on the
    /// guest's bytes are read.
    pub fn run(self) -> Result<Running, MachineError> {
        self.begin(|device, seat, _| serve(device, seat))
    }

    /// The same, but what the guest's agent says to the host stays unheard, for as long as that is.
    pub fn run_unanswered(self) -> Result<Running, MachineError> {
        self.begin(|device, seat, name| if name == vsock::NAME { hold(seat) } else { serve(device, seat) })
    }

    fn begin(
        self,
        body_of: impl Fn(Box<dyn Device>, Seat, &str) + Send + Copy + 'static,
    ) -> Result<Running, MachineError> {
        let Machine { vcpus, around, seats, timeline, held, copied, kernel_log, growth, walls, .. } = self;
        for (mut device, seat) in seats {
            let name = device.description().name;
            let thread = Thread::of_device(name).ok_or_else(|| MachineError::Thread(unknown(name)))?;
            let body = move || {
                if entered(walls, thread, || device.settle()) {
                    body_of(device, seat, name);
                }
            };
            Builder::new().name(name.to_owned()).spawn(body).map_err(MachineError::Thread)?;
        }
        if copied {
            held.windows.iter().for_each(|window| window.begin());
        }
        for vcpu in vcpus {
            let around = around.clone();
            let id = vcpu.id;
            let body = move || {
                // Signals first: how a thread is to hear them is on nobody's list.
                gate::block_other_signals();
                let thread = gettid();
                if entered(walls, Thread::Vcpu, || Ok(())) {
                    vcpu::run(vcpu, thread, &around);
                } else {
                    let reason = "the walls of its thread do not stand".to_owned();
                    around.end.report(Ended::VcpuFailed { vcpu: id, reason });
                }
            };
            Builder::new().name(format!("vcpu {id}")).spawn(body).map_err(MachineError::Thread)?;
        }
        timeline.step("running");
        Ok(Running { around, timeline, held, kernel_log, growth })
    }
}

impl Running {
    /// Gets all vcpus out of the guest; when this returns, none runs. Devices go on with what they have.
    pub fn pause(&self) {
        self.around.gate.pause();
    }

    /// Gets all vcpus out of the guest, as [`Running::pause`] does, and takes their states. `msrs`: the model-specific
    /// registers that this host's KVM has.
    pub fn save_vcpus(&self, msrs: Vec<u32>) -> Result<Vec<SavedVcpu>, MachineError> {
        Ok(self.around.save(msrs)?)
    }

    /// The machine in KVM.
    pub(super) fn vm(&self) -> &VmFd {
        &self.held.vm
    }

    /// The guest's memory.
    pub(super) fn memory(&self) -> &Memory {
        &self.held.memory
    }

    /// The windows of its devices, by slot.
    pub(super) fn windows(&self) -> &[Arc<Mmio>] {
        &self.held.windows
    }

    /// How it gets more memory.
    pub fn growth(&self) -> &Growth {
        &self.growth
    }

    /// What the guest's kernel says.
    pub fn kernel_log(&self) -> &KernelLog {
        &self.kernel_log
    }

    /// Lets them in again.
    pub fn resume(&self) {
        self.around.gate.resume();
    }

    /// A descriptor that is readable from the guest's end on.
    pub fn end_event(&self) -> BorrowedFd<'_> {
        self.around.end.as_fd()
    }

    /// How the guest ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        self.around.end.how()
    }

    /// Waits until the guest ends.
    pub fn wait(&self) -> Ended {
        self.around.end.wait()
    }

    /// The end alone, for another thread to wait for.
    pub fn end(&self) -> Arc<End> {
        self.around.end.clone()
    }

    /// When each step happened.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// How often vcpus left the guest for an access to a port or to a device's registers.
    pub fn exits(&self) -> u64 {
        self.around.exits.load(Ordering::Relaxed)
    }
}

/// A device without walls is a mistake of ours.
pub(super) fn unknown(device: &str) -> io::Error {
    io::Error::other(format!("no list of system calls for the {device} device"))
}
