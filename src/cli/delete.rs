//! `delete`: removes a container.

use super::context::Context;
use super::{CliError, usage};
use crate::container::{ContainerId, delete};
use clap::Args;

/// Delete a container that has stopped
#[derive(Debug, Args)]
pub struct Delete {
    /// Even if it runs (it is killed); no error if there is none
    #[arg(short, long)]
    force: bool,
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

impl Delete {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let id = ContainerId::new(usage::one("delete", &self.operands)?)?;
        delete::delete(&context.store, &id, self.force)?;
        Ok(0)
    }
}
