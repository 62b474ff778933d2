//! `husk stand-in` (hidden): the process that stands on the host for a detached exec.

use crate::container::stand_in;
use crate::process::stdio;
use std::process::ExitCode;

/// Runs it. To be called before anything else in the process opens a descriptor or blocks a signal.
pub fn run() -> ExitCode {
    #[allow(unsafe_code)] // only `main` knows that nobody owns the inherited descriptors
    // SAFETY: this is the first thing that this process does.
    let parent = unsafe { stdio::parent_socket() };
    match parent {
        Some(parent) => ExitCode::from(stand_in::serve(parent)),
        None => {
            crate::log::tell("husk: stand-in is started by husk itself");
            ExitCode::FAILURE
        }
    }
}
