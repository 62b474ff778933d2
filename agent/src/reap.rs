//! PID 1's duty: every process that ends without a parent ends here.

use crate::agent::Agent;
use crate::sys::process::reap;
use crate::{job, settle};

/// Reaped in one turn; a storm of orphans must not keep the host waiting.
const MOST: usize = 1024;

/// Reaps what has ended.
pub fn children(agent: &mut Agent) {
    agent.more_to_reap = false;
    for _ in 0..MOST {
        let Ok(Some((pid, status))) = reap() else { return };
        match agent.processes.key_of(pid) {
            Some(key) => settle::ended(agent, key, status),
            None => job::ended(agent, pid),
        }
    }
    agent.more_to_reap = true;
}
