//! Flush: what containers wrote reaches the host. In a helper: it may take long.

use super::{Outcome, refused};
use crate::agent::Agent;
use crate::job;
use crate::sys::process::sync_file_system;
use husk_protocol::Answer;

/// Writes back.
pub fn call(agent: &mut Agent, request: u32) -> Outcome {
    let mounted = agent.shared.mounted();
    if mounted.is_empty() {
        return Ok(Some(Answer::Done));
    }
    job::start(agent, Some(request), move || {
        for path in mounted {
            let directory = std::fs::File::open(path).map_err(|error| refused(path, error))?;
            sync_file_system(directory).map_err(|error| refused("write back", error))?;
        }
        Ok(Answer::Done)
    });
    Ok(None)
}
