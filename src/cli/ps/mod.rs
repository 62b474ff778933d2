//! `ps`: tells of a container's processes.
//!
//! runc hands its options to the host's ps and shows the container's rows of what that prints. A host's ps cannot see
//! into a guest: husk reads the common options itself ([`layout`]) and prints what they ask for ([`column`]). Others are
//! refused.

mod column;
mod layout;

use super::context::Context;
use super::{CliError, usage};
use crate::container::{Container, Status};
use crate::host::cgroup::Cgroup;
use clap::Args;
use column::Moment;
use std::io::Write;
use std::time::SystemTime;

/// List a container's processes
#[derive(Debug, Args)]
pub struct Ps {
    /// table (the processes inside) or json (the pids on the host that stand for them)
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// The container, and options of ps: -ef, aux, -o pid,cmd and the like
    #[arg(value_name = "CONTAINER", required = false, trailing_var_arg = true, allow_hyphen_values = true)]
    operands: Vec<String>,
}

impl Ps {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let (id, options) = usage::first("ps", &self.operands)?;
        let container = context.container(id)?;
        let mut out = std::io::stdout().lock();
        match self.format.as_str() {
            "json" => {
                let pids = serde_json::to_string(&host_pids(&container)).map_err(std::io::Error::from)?;
                writeln!(out, "{pids}")?;
            }
            "table" => {
                let layout = layout::of(options).map_err(CliError::Message)?;
                let now =
                    Moment { now: SystemTime::now(), memory: u64::from(container.state.memory_mib) << 20 };
                for line in layout.table(&container.processes()?, &now) {
                    writeln!(out, "{line}")?;
                }
            }
            _ => return Err(CliError::Message("invalid format option".into())),
        }
        Ok(0)
    }
}

/// The machine process, and the stand-ins of detached execs, which live in the same group.
fn host_pids(container: &Container) -> Vec<i32> {
    if container.status() == Status::Stopped {
        return Vec::new();
    }
    let group = container.state.cgroup.clone().map(|directory| Cgroup::known(directory).processes());
    let mut pids: Vec<i32> = group.into_iter().flatten().filter(|pid| *pid != container.state.pid).collect();
    pids.insert(0, container.state.pid);
    pids
}
