//! `ps`: tells of a container's processes.

use super::context::Context;
use super::{CliError, usage};
use clap::Args;
use husk_protocol::GuestProcess;
use std::io::Write;
use std::time::{Duration, SystemTime};

/// List a container's processes
#[derive(Debug, Args)]
pub struct Ps {
    /// table (the processes inside) or json (the pids on the host that stand for them)
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// The container
    #[arg(value_name = "CONTAINER", required = false, trailing_var_arg = true, allow_hyphen_values = true)]
    operands: Vec<String>,
}

/// As `ps -ef` has it.
const HEADER: &str = "UID          PID    PPID  C STIME TTY          TIME CMD";
/// Ticks of processor time in a second, as the agent counts.
const TICKS: u64 = 100;

impl Ps {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let (id, options) = usage::first("ps", &self.operands)?;
        let container = context.container(id)?;
        let mut out = std::io::stdout().lock();
        match self.format.as_str() {
            "json" => {
                let pids = serde_json::to_string(&container.host_pids()).map_err(std::io::Error::from)?;
                writeln!(out, "{pids}")?;
            }
            "table" if options.is_empty() || options == ["-ef"] || options == ["-e", "-f"] => {
                writeln!(out, "{HEADER}")?;
                for process in container.processes()? {
                    writeln!(out, "{}", row(&process, SystemTime::now()))?;
                }
            }
            "table" => {
                let text = format!(
                    "ps options {options:?} are not supported by husk: it shows what \"ps -ef\" does"
                );
                return Err(CliError::Message(text));
            }
            _ => return Err(CliError::Message("invalid format option".into())),
        }
        Ok(0)
    }
}

fn row(process: &GuestProcess, now: SystemTime) -> String {
    let seconds = process.ticks / TICKS;
    let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let started = started(process.started, now);
    let terminal = terminal(process.terminal);
    let GuestProcess { uid, pid, parent, command, .. } = process;
    format!("{uid:<8} {pid:>7} {parent:>7}  0 {started:>5} {terminal:<8} {time} {command}")
}

/// The hour of the day (UTC) within a day, the date after that.
fn started(nanoseconds: u64, now: SystemTime) -> String {
    // The guest says it, and any number of it is in the range of the clock.
    let Some(then) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanoseconds)) else {
        return "?".into();
    };
    let text = humantime::format_rfc3339_seconds(then).to_string();
    let recent = now.duration_since(then).is_ok_and(|age| age < Duration::from_secs(24 * 3600));
    let part = |range| text.get(range).unwrap_or("?").to_owned();
    if recent { part(11..16) } else { part(5..10) }
}

/// /proc/PID/stat's number of a terminal: pseudo-terminals have major numbers from 136.
fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match (number, major) {
        (0, _) => "?".into(),
        (_, 136..=143) => format!("pts/{}", (major & 7) << 8 | minor),
        _ => format!("{major}:{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_looks_like_those_of_ps() {
        let process = GuestProcess {
            pid: 7,
            parent: 1,
            uid: 0,
            key: None,
            ticks: 372_500,
            started: 1_700_000_000_000_000_000,
            terminal: 136 << 8 | 3,
            command: "sleep 10".into(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_100);
        assert_eq!(row(&process, now), "0              7       1  0 22:13 pts/3    01:02:05 sleep 10");
        let later = now + Duration::from_secs(7 * 24 * 3600);
        assert!(row(&process, later).contains(" 11-14 "));
    }
}
