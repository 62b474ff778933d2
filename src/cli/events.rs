//! `events`: tells a container's counters, and when it runs out of memory.

use super::context::Context;
use super::{CliError, usage};
use crate::container::events::Happening;
use crate::container::{Container, ContainerError, Status};
use crate::host::deadline;
use clap::Args;
use husk_protocol::Stats;
use serde_json::{Value, json};
use std::io::Write;
use std::time::{Duration, Instant};

/// Print a container's counters and out-of-memory events
#[derive(Debug, Args)]
pub struct Events {
    /// How often to print the counters
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    /// Print the counters once
    #[arg(long)]
    stats: bool,
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

impl Events {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let container = context.container(usage::one("events", &self.operands)?)?;
        let interval = humantime::parse_duration(&self.interval).ok().filter(|interval| !interval.is_zero());
        let interval =
            interval.ok_or_else(|| CliError::Message("duration interval must be greater than 0".into()))?;
        if container.status() == Status::Stopped {
            return Err(CliError::Message(format!("container with id {} is not running", container.id)));
        }
        if self.stats {
            print(&counters(&container)?)?;
        } else {
            follow(&container, interval)?;
        }
        Ok(0)
    }
}

/// Prints until the container ends.
fn follow(container: &Container, interval: Duration) -> Result<(), CliError> {
    let mut events = container.watch()?;
    let mut next = deadline::after(interval);
    loop {
        match events.next(next.saturating_duration_since(Instant::now()))? {
            Happening::OutOfMemory => print(&json!({"type": "oom", "id": container.id.as_str()}))?,
            Happening::Ended => return Ok(()),
            Happening::Nothing => {
                next = next.checked_add(interval).unwrap_or(next);
                match counters(container) {
                    Err(CliError::Container(ContainerError::NotRunning)) => return Ok(()),
                    counters => print(&counters?)?,
                }
            }
        }
    }
}

fn print(event: &Value) -> Result<(), CliError> {
    Ok(writeln!(std::io::stdout(), "{event}")?)
}

fn counters(container: &Container) -> Result<Value, CliError> {
    let stats = container.stats()?;
    Ok(json!({"type": "stats", "id": container.id.as_str(), "data": shown(&stats)}))
}

/// runc's form: nanoseconds and bytes. What a guest does not count (its disks are the host's) is empty.
fn shown(stats: &Stats) -> Value {
    let detail = |name: &str| {
        stats.memory_detail.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    };
    let raw: serde_json::Map<String, Value> =
        stats.memory_detail.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
    // For runc no limit on pids is 0.
    let pids_limit = if stats.pids_limit == u64::MAX { 0 } else { stats.pids_limit };
    json!({
        "cpu": {
            "usage": {"total": stats.cpu_total, "kernel": stats.cpu_system, "user": stats.cpu_user},
            "throttling": {
                "periods": stats.cpu_periods,
                "throttledPeriods": stats.cpu_throttled_periods,
                "throttledTime": stats.cpu_throttled,
            },
        },
        "cpuset": {},
        "memory": {
            "cache": detail("file"),
            "usage": {"limit": stats.memory_limit, "usage": stats.memory_usage, "max": stats.memory_peak, "failcnt": 0},
            "swap": {"limit": stats.swap_limit, "usage": stats.swap_usage, "max": 0, "failcnt": 0},
            "kernel": {"failcnt": 0},
            "kernelTCP": {"failcnt": 0},
            "raw": raw,
        },
        "pids": {"current": stats.pids, "limit": pids_limit},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": null,
    })
}
