//! `run`: creates a container, starts it, and stays until it ends.

use super::context::Context;
use super::create::Making;
use super::{CliError, usage};
use crate::container::run;
use clap::Args;

/// Create and run a container
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    making: Making,
    /// Leave when the container runs
    #[arg(short, long)]
    detach: bool,
    /// Keep the container when it has ended
    #[arg(long)]
    keep: bool,
    /// Accepted for runc's callers: processes of a container never become children of ours
    #[arg(long)]
    no_subreaper: bool,
    /// The container's name, unique on this host
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

impl Run {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let id = usage::one("run", &self.operands)?;
        let ran = self
            .making
            .with_request(context, id, !self.detach, |request| run::run(&context.store, request, self.keep));
        ran.map_err(|source| CliError::Failed { verb: "husk run", source: source.into(), code: 1 })
    }
}
