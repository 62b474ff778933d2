//! `update`: changes a container's limits.

use super::context::Context;
use super::{CliError, usage};
use crate::bundle::spec;
use crate::error::plain;
use crate::host::file;
use clap::Args;
use serde_json::{Map, Value};

/// Change a container's limits
#[derive(Debug, Args)]
pub struct Update {
    /// File with new limits (linux.resources of the spec), or - for standard input; other options are then ignored
    #[arg(short, long, value_name = "FILE")]
    resources: Option<String>,
    /// Weight of disk access, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the cpu quota, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Cpu time in a period, microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Cpu time beyond the quota that may be saved up, microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Cpu weight, 2 to 262144
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// Refused: cgroup v2 cannot limit realtime
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Refused: cgroup v2 cannot limit realtime
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Only when nothing else wants the cpu: 0 or 1
    #[arg(long, value_name = "SWITCH")]
    cpu_idle: Option<i64>,
    /// Cpus of the host
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes of the host
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory, bytes or with k, m, g
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is left to it when memory is scarce
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Memory and swap together
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Refused: cgroup v2 cannot limit it apart
    #[arg(long, value_name = "SIZE", hide = true, allow_hyphen_values = true)]
    kernel_memory: Option<String>,
    /// Refused: cgroup v2 cannot limit it apart
    #[arg(long, value_name = "SIZE", hide = true, allow_hyphen_values = true)]
    kernel_memory_tcp: Option<String>,
    /// Processes
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Refused: husk does not assign cache
    #[arg(long, value_name = "SCHEMA", hide = true)]
    l3_cache_schema: Option<String>,
    /// Refused: husk does not assign memory bandwidth
    #[arg(long, value_name = "SCHEMA", hide = true)]
    mem_bw_schema: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

impl Update {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let container = context.container(usage::one("update", &self.operands)?)?;
        if self.l3_cache_schema.is_some() || self.mem_bw_schema.is_some() {
            let text = "l3-cache-schema, mem-bw-schema: husk does not assign cache or memory bandwidth";
            return Err(CliError::Message(text.into()));
        }
        let resources = match self.resources.as_deref() {
            Some(from) => read(from)?,
            None => serde_json::to_vec(&self.limits()?).map_err(std::io::Error::from)?,
        };
        container.update(&resources, &context.operator()?)?;
        Ok(0)
    }

    fn limits(&self) -> Result<Value, CliError> {
        let mut given = Map::new();
        let mut put = |group: &str, name: &str, value: Option<Value>| {
            if let Some(value) = value {
                let group = given.entry(group).or_insert_with(|| Value::Object(Map::new()));
                if let Some(group) = group.as_object_mut() {
                    group.insert(name.into(), value);
                }
            }
        };
        put("blockIO", "weight", self.blkio_weight.map(Value::from));
        put("cpu", "period", self.cpu_period.map(Value::from));
        put("cpu", "quota", self.cpu_quota.map(Value::from));
        put("cpu", "burst", self.cpu_burst.map(Value::from));
        put("cpu", "shares", self.cpu_share.map(Value::from));
        put("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from));
        put("cpu", "realtimeRuntime", self.cpu_rt_runtime.map(Value::from));
        put("cpu", "idle", self.cpu_idle.map(Value::from));
        put("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from));
        put("cpu", "mems", self.cpuset_mems.clone().map(Value::from));
        put("memory", "limit", size("memory", self.memory.as_deref())?);
        put("memory", "reservation", size("memory-reservation", self.memory_reservation.as_deref())?);
        put("memory", "swap", size("memory-swap", self.memory_swap.as_deref())?);
        put("memory", "kernel", size("kernel-memory", self.kernel_memory.as_deref())?);
        put("memory", "kernelTCP", size("kernel-memory-tcp", self.kernel_memory_tcp.as_deref())?);
        put("pids", "limit", self.pids_limit.map(Value::from));
        Ok(Value::Object(given))
    }
}

fn read(from: &str) -> Result<Vec<u8>, CliError> {
    let bytes = match from {
        "-" => file::read_to_bound(std::io::stdin(), spec::LONGEST),
        path => file::read_bounded(path.as_ref(), spec::LONGEST),
    };
    bytes.map_err(|error| CliError::Message(format!("open {from}: {}", plain(&error))))
}

/// Bytes, or with a unit of 1024s: `64m`, `1.5G`, `512KiB`. -1 is no limit.
fn size(option: &str, text: Option<&str>) -> Result<Option<Value>, CliError> {
    let Some(text) = text else { return Ok(None) };
    if text == "-1" {
        return Ok(Some((-1).into()));
    }
    let wrong = || CliError::Message(format!("invalid value for {option}: invalid size: '{text}'"));
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let power = match lower.get(digits.len()..).unwrap_or("").trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(wrong()),
    };
    let number: f64 =
        digits.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0).ok_or_else(wrong)?;
    let bytes = number * f64::from(2u16).powi(power);
    #[allow(clippy::cast_possible_truncation)] // checked against i64's range
    if bytes < 9.2e18 { Ok(Some((bytes as i64).into())) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, expected) in [
            ("1000", 1000),
            ("64m", 64 << 20),
            ("1.5G", 3 << 29),
            ("512KiB", 512 << 10),
            ("-1", -1),
            ("0", 0),
        ] {
            assert_eq!(size("memory", Some(text)).unwrap(), Some(Value::from(expected as i64)), "{text}");
        }
        for text in ["", "m", "-2", "1x", "1e30", "nan", "inf", "99999999p"] {
            assert!(size("memory", Some(text)).is_err(), "{text:?}");
        }
    }
}
