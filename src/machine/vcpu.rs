//! A vcpu's thread: in the guest nearly always, out of it for what the guest wants from a bus.

use super::bus::{Bus, Ports};
use super::end::{End, Ended};
use super::gate::{self, Gate, Go};
use super::kvm;
use kvm_ioctls::{VcpuExit, VcpuFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

/// The body of the thread of vcpu `id`.
pub fn run(id: u8, mut vcpu: VcpuFd, around: &Surroundings) {
    gate::block_other_signals();
    around.gate.enter(&mut vcpu);
    if let Some(ended) = serve(id, &mut vcpu, around) {
        around.end.report(ended);
        around.gate.stop();
    }
    around.gate.leave();
}

/// Runs the guest until it ends here (then how), or elsewhere.
fn serve(id: u8, vcpu: &mut VcpuFd, around: &Surroundings) -> Option<Ended> {
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

/// The guest's watchdog must not take a pause for a lock-up. Fails only if the guest has no clock of KVM's yet.
fn parked(vcpu: &VcpuFd) {
    let _ = vcpu.kvmclock_ctrl();
}
