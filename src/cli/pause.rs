//! `pause` and `resume`: freeze and thaw a container's processes.

use super::context::Context;
use super::{CliError, usage};
use clap::Args;

/// Freeze a container's processes
#[derive(Debug, Args)]
pub struct Pause {
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

/// Thaw a container's processes
#[derive(Debug, Args)]
pub struct Resume {
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

impl Pause {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        context.container(usage::one("pause", &self.operands)?)?.pause()?;
        Ok(0)
    }
}

impl Resume {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        context.container(usage::one("resume", &self.operands)?)?.resume()?;
        Ok(0)
    }
}
