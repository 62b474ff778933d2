//! `checkpoint` and `restore`: known, and refused for now, whatever their options are.

use super::CliError;
use crate::container::ContainerError;
use clap::Args;
use std::ffi::OsString;

/// Save a running container (refused: not supported yet)
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// Whatever runc takes
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Restore a saved container (refused: not supported yet)
#[derive(Debug, Args)]
pub struct Restore {
    /// Whatever runc takes
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

impl Checkpoint {
    /// Acts.
    pub fn act(self) -> Result<u8, CliError> {
        Err(refused("checkpoint"))
    }
}

impl Restore {
    /// Acts.
    pub fn act(self) -> Result<u8, CliError> {
        Err(refused("restore"))
    }
}

fn refused(verb: &str) -> CliError {
    let text = format!("{verb}: husk does not save and restore containers yet");
    ContainerError::Unsupported(text).into()
}
