//! `husk template-maker` (hidden): makes a template beside a container whose start found none.

use super::spec;
use crate::container::template_maker::MakerOrder;
pub use crate::container::template_maker::VERB;
use crate::process::stdio;
use std::process::ExitCode;

/// Runs it. To be called before anything else in the process opens a descriptor.
pub fn run() -> ExitCode {
    #[allow(unsafe_code)] // only `main` knows that nobody owns the inherited descriptors
    // SAFETY: this is the first thing that this process does.
    let parent = unsafe { stdio::parent_socket() };
    let Some(parent) = parent else {
        crate::log::tell("husk: template-maker is started by husk itself");
        return ExitCode::FAILURE;
    };
    match MakerOrder::serve(&parent, spec::EXAMPLE) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
