//! A vcpu's thread: in the guest nearly always, out of it for what the guest wants from a bus.

use super::arch::current::saved::SavedVcpu;
use super::arch::current::vcpu::VcpuError;
use super::bus::{Bus, Ports};
use super::end::{End, Ended};
use super::gate::{Gate, Go};
use super::kvm;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What all vcpus of a machine share.
pub struct Surroundings {
    /// The I/O ports.
    pub ports: Ports,
    /// The devices in the memory hole.
    pub bus: Bus,
    /// When they may run.
    pub gate: Gate,
    /// The guest's end.
    pub end: Arc<End>,
    /// How often vcpus left the guest for a bus.
    pub exits: AtomicU64,
    /// What is to be saved when they stop the next time, if anything.
    saving: Mutex<Option<Saving>>,
}

/// The vcpus' states, taken by their own threads.
struct Saving {
    /// Which model-specific registers this host has.
    msrs: Vec<u32>,
    states: BTreeMap<u8, Result<SavedVcpu, VcpuError>>,
}

/// A vcpu that does not run yet.
pub struct Vcpu {
    /// Its number.
    pub id: u8,
    /// In KVM.
    pub vcpu: VcpuFd,
    /// The features that it has.
    pub cpuid: Vec<kvm_cpuid_entry2>,
}

impl Surroundings {
    /// For vcpus that nobody has asked to be saved.
    pub fn new(ports: Ports, bus: Bus, gate: Gate, end: Arc<End>) -> Surroundings {
        Surroundings { ports, bus, gate, end, exits: AtomicU64::new(0), saving: Mutex::new(None) }
    }

    /// Stops all vcpus and takes their states, in the order of their numbers.
    pub fn save(&self, msrs: Vec<u32>) -> Result<Vec<SavedVcpu>, VcpuError> {
        *self.saving.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Saving { msrs, states: BTreeMap::new() });
        self.gate.pause();
        let saved = self.saving.lock().unwrap_or_else(PoisonError::into_inner).take();
        saved.map(|saved| saved.states.into_values().collect()).unwrap_or_else(|| Ok(Vec::new()))
    }

    /// A vcpu has stopped.
    fn parked(&self, id: u8, cpuid: &[kvm_cpuid_entry2], vcpu: &VcpuFd) {
        // The guest's watchdog must not take a pause for a lock-up. Fails only if the guest has no clock of KVM's yet.
        let _ = vcpu.kvmclock_ctrl();
        if let Some(saving) = &mut *self.saving.lock().unwrap_or_else(PoisonError::into_inner) {
            let state = SavedVcpu::of(vcpu, cpuid, &saving.msrs);
            saving.states.insert(id, state);
        }
    }
}

/// The body of a vcpu's thread, of this number, which hears nothing but kicks ([`gate::block_other_signals`]).
///
/// [`gate::block_other_signals`]: super::gate::block_other_signals
pub fn run(vcpu: Vcpu, thread: Pid, around: &Surroundings) {
    let Vcpu { id, mut vcpu, cpuid } = vcpu;
    around.gate.enter(thread, &mut vcpu);
    if let Some(ended) = serve(id, &mut vcpu, &cpuid, around) {
        around.end.report(ended);
        around.gate.stop();
    }
    around.gate.leave(thread);
}

/// Runs the guest until it ends here (then how), or elsewhere.
fn serve(id: u8, vcpu: &mut VcpuFd, cpuid: &[kvm_cpuid_entry2], around: &Surroundings) -> Option<Ended> {
    let parked = |vcpu: &VcpuFd| around.parked(id, cpuid, vcpu);
    if around.gate.pass(vcpu, parked) == Go::Home {
        return None;
    }
    loop {
        let failed = |reason: String| Some(Ended::VcpuFailed { vcpu: id, reason });
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                around.exits.fetch_add(1, Ordering::Relaxed);
                around.ports.write(port, data);
                // A reset takes effect at once, or the guest would go on into whatever comes behind it.
                if around.end.has_come() {
                    around.gate.stop();
                    return None;
                }
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                around.exits.fetch_add(1, Ordering::Relaxed);
                around.ports.read(port, data);
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                around.exits.fetch_add(1, Ordering::Relaxed);
                around.bus.read(address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                around.exits.fetch_add(1, Ordering::Relaxed);
                around.bus.write(address, data);
            }
            Ok(VcpuExit::Intr) => {}
            Ok(VcpuExit::Shutdown) => return Some(Ended::Shutdown),
            Ok(VcpuExit::InternalError) => return failed(kvm::internal_error(vcpu.get_kvm_run())),
            Ok(VcpuExit::FailEntry(reason, cpu)) => {
                return failed(format!(
                    "the processor refuses to enter the guest (reason {reason:#x}, host cpu {cpu})"
                ));
            }
            Ok(VcpuExit::MemoryFault { gpa, size, .. }) => {
                return failed(format!("no memory behind guest address {gpa:#x} (size {size:#x})"));
            }
            Ok(other) => {
                let reason = format!("unexpected exit {other:?}");
                return failed(reason);
            }
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => {
                    if around.gate.pass(vcpu, parked) == Go::Home {
                        return None;
                    }
                }
                _ => return failed(std::io::Error::from(error).to_string()),
            },
        }
    }
}
