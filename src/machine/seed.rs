//! Secrets for the guest's random number generator.

use super::MachineError;
use std::fs::File;
use std::io::Read;

/// 32 bytes from the host's generator.
pub fn draw() -> Result<[u8; 32], MachineError> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut seed))
        .map_err(MachineError::Seed)?;
    Ok(seed)
}
