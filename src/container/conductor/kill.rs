//! SIGKILL, which must work when nothing else does: the guest spinning, its agent dead or hostile, every reader of the
//! container's output stopped.
//!
//! ```text
//!   asked --1 s--> agent has answered --(1.8 s)--> process has ended --(0.5 s)--> output read --(2 s)--> end
//!             \ no                         \ no                            \ no
//!              end with 137                 end with 137                    go on
//! ```
//! Times in parentheses count from the request. The main thread keeps them (see [`super::life`]); what is here asks. For a
//! container that has joined see [`super::join`].

use super::{Conductor, deadline, failed, raise};
use crate::agent::CallError;
use crate::machine::control::Phase;
use crate::machine::order::Failed;
use husk_protocol::{Call, ContainerKey, FailureKind, Target};
use std::sync::Arc;
use std::time::Instant;

impl Conductor {
    /// Sends a signal to the container's first process, or to all.
    pub(super) fn signal(
        self: &Arc<Self>,
        container: ContainerKey,
        signal: i32,
        all: bool,
    ) -> Result<(), Failed> {
        let first = self.lock().member(container)?.first;
        let target = if all { Target::Container(container) } else { Target::Process(first) };
        let call = Call::Signal { target, signal };
        if signal == libc::SIGKILL {
            return self.kill(container, call);
        }
        match self.call(call, deadline::CALL) {
            Ok(_) => Ok(()),
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound => Err(not_running()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// The same for one that was sent to this process: nobody waits for an answer.
    pub(super) fn forward(self: &Arc<Self>, signal: i32) {
        self.tell(Call::Signal { target: Target::Process(self.first), signal });
    }

    fn kill(self: &Arc<Self>, container: ContainerKey, call: Call) -> Result<(), Failed> {
        let mut state = self.lock();
        let member = state.member_mut(container)?;
        member.killed.get_or_insert_with(Instant::now);
        let (first, phase) = (member.first, member.phase);
        let ended = state.processes.get(&first).is_some_and(|first| first.ended.is_some());
        let own = container == self.container;
        if own && phase == Phase::Creating {
            state.unanswered = true;
        }
        if let Some(first) = state.processes.get(&first).filter(|_| !own) {
            // It keeps its times itself.
            raise(&first.wake);
        }
        let ask = !ended && !state.unanswered && state.ending.is_none();
        drop(state);
        self.attend();
        if !ask {
            // Its process is gone, or need not be asked: from now on the output is not waited for any longer.
            return Ok(());
        }
        self.let_run();
        match self.call(call, deadline::KILL_ANSWER) {
            Ok(_) => Ok(()),
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound => Err(not_running()),
            Err(_) if !own => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the machine ends without its agent");
                self.lock().unanswered = true;
                self.attend();
                Ok(())
            }
        }
    }
}

/// What runc says, and callers look for.
fn not_running() -> Failed {
    super::refused(crate::error::ErrorKind::NotFound, "container not running")
}
