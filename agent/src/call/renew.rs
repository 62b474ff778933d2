//! Renew: this guest is a copy, and so far its random numbers are those of all other copies.

use super::{Outcome, refused};
use crate::sys;
use husk_protocol::Answer;

/// Gives the kernel's generator a secret of this copy's own, and has all that was drawn beforehand forgotten.
pub fn call(seed: &[u8; 32]) -> Outcome {
    sys::random::renew(seed).map_err(|error| refused("renew the random numbers", error))?;
    Ok(Some(Answer::Done))
}
