//! Pause and resume: the container's processes are frozen inside, then, when there is no other container, or all are
//! frozen, the vcpus stop, so that it costs no processor time at all.
//!
//! What is asked meanwhile still works (`ps`, `stats`, `update`, signals, which stay pending for a frozen process): the
//! vcpus run while the agent is asked ([`Awake`]), the container stays frozen.

use super::{Conductor, deadline, failed, refused};
use crate::error::ErrorKind;
use crate::machine::control::Phase;
use crate::machine::order::Failed;
use husk_protocol::{Call, ContainerKey};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whether the vcpus run.
#[derive(Default)]
pub(super) struct Vcpus {
    /// Nobody wants them to.
    paused: bool,
    /// How many want them to, although they are paused.
    needed: usize,
}

/// While this lives, the vcpus run.
pub(super) struct Awake {
    conductor: Arc<Conductor>,
}

impl Awake {
    pub(super) fn keep(conductor: &Arc<Conductor>) -> Awake {
        let mut vcpus = conductor.vcpus();
        if vcpus.paused && vcpus.needed == 0 {
            conductor.guest.resume();
        }
        vcpus.needed = vcpus.needed.saturating_add(1);
        Awake { conductor: Arc::clone(conductor) }
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let mut vcpus = self.conductor.vcpus();
        vcpus.needed = vcpus.needed.saturating_sub(1);
        if vcpus.paused && vcpus.needed == 0 {
            self.conductor.guest.pause();
        }
    }
}

/// Steps the guest's wall clock to ours.
pub(super) fn set_clock() -> Call {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Call::SetClock { nanoseconds: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) }
}

impl Conductor {
    pub(super) fn pause(self: &Arc<Self>, container: ContainerKey) -> Result<(), Failed> {
        let turn = self.turn(container)?;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = self.lock().member(container)?.phase;
        match phase {
            Phase::Running | Phase::Created => {}
            phase => {
                return Err(refused(
                    ErrorKind::InvalidState,
                    format!("cannot pause a container that is {phase}"),
                ));
            }
        }
        let freeze = Call::Freeze { container, frozen: true };
        self.call(freeze, deadline::CALL).map_err(|error| failed(&error))?;
        let mut state = self.lock();
        state.member_mut(container)?.phase = Phase::Paused;
        // With the state held: another container may be about to be resumed.
        if state.members.values().all(|member| member.phase == Phase::Paused) {
            let mut vcpus = self.vcpus();
            vcpus.paused = true;
            if vcpus.needed == 0 {
                self.guest.pause();
            }
        }
        Ok(())
    }

    pub(super) fn resume(self: &Arc<Self>, container: ContainerKey) -> Result<(), Failed> {
        let turn = self.turn(container)?;
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let phase = self.lock().member(container)?.phase;
        match phase {
            Phase::Paused => {}
            phase => {
                return Err(refused(
                    ErrorKind::InvalidState,
                    format!("cannot resume a container that is {phase}"),
                ));
            }
        }
        self.let_run();
        // Its clock first, so that nobody inside sees the time stand still and then jump.
        let clock = self.call(set_clock(), deadline::CALL);
        clock.map_err(|error| failed(&error))?;
        let thaw = Call::Freeze { container, frozen: false };
        self.call(thaw, deadline::CALL).map_err(|error| failed(&error))?;
        self.lock().member_mut(container)?.phase = Phase::Running;
        // Another may have been paused meanwhile, as the last that ran.
        self.let_run();
        Ok(())
    }

    /// The vcpus run, and go on.
    pub(super) fn let_run(&self) {
        let mut vcpus = self.vcpus();
        if vcpus.paused {
            vcpus.paused = false;
            if vcpus.needed == 0 {
                self.guest.resume();
            }
        }
    }

    pub(super) fn turn(&self, container: ContainerKey) -> Result<Arc<Mutex<()>>, Failed> {
        Ok(Arc::clone(&self.lock().member(container)?.turn))
    }

    fn vcpus(&self) -> MutexGuard<'_, Vcpus> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
