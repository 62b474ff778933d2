//! Pause and resume: the container's processes are frozen inside, then the vcpus stop, so that a paused container costs
//! no processor time at all.
//!
//! What is asked meanwhile still works (`ps`, `stats`, `update`, signals, which stay pending for a frozen process): the
//! vcpus run while the agent is asked ([`Awake`]), the container stays frozen.

use super::{Conductor, deadline, failed, refused};
use crate::error::ErrorKind;
use crate::machine::control::Phase;
use crate::machine::order::Failed;
use husk_protocol::Call;
use std::sync::{Arc, MutexGuard, PoisonError};
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
    pub(super) fn pause(self: &Arc<Self>) -> Result<(), Failed> {
        let _turn = self.turn();
        match self.lock().phase {
            Phase::Running | Phase::Created => {}
            phase => {
                return Err(refused(
                    ErrorKind::InvalidState,
                    format!("cannot pause a container that is {phase}"),
                ));
            }
        }
        let freeze = Call::Freeze { container: self.container, frozen: true };
        self.call(freeze, deadline::CALL).map_err(|error| failed(&error))?;
        let mut vcpus = self.vcpus();
        vcpus.paused = true;
        if vcpus.needed == 0 {
            self.guest.pause();
        }
        drop(vcpus);
        self.lock().phase = Phase::Paused;
        Ok(())
    }

    pub(super) fn resume(self: &Arc<Self>) -> Result<(), Failed> {
        let _turn = self.turn();
        match self.lock().phase {
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
        let thaw = Call::Freeze { container: self.container, frozen: false };
        self.call(thaw, deadline::CALL).map_err(|error| failed(&error))?;
        self.lock().phase = Phase::Running;
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

    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vcpus(&self) -> MutexGuard<'_, Vcpus> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
