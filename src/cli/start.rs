//! `start`: lets a created container's program run.

use super::context::Context;
use super::{CliError, usage};
use clap::Args;

/// Start a created container
#[derive(Debug, Args)]
pub struct Start {
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

impl Start {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        context.container(usage::one("start", &self.operands)?)?.start()?;
        Ok(0)
    }
}
