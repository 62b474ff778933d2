//! Processes: what `ps` shows of a container.
//!
//! In a helper: a process can make the reading of its command line wait, and choose how many there are.

use super::signal::members;
use super::{Outcome, no_container};
use crate::agent::Agent;
use crate::{cgroup, job};
use husk_protocol::{Answer, ContainerKey, GuestProcess, ProcessKey};
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

/// As many processes are listed.
const MOST: usize = 8192;
/// As much of a command line is given.
const LONGEST: u64 = 384;
/// What /proc/PID/stat counts memory in.
const PAGE: u64 = 4096;

/// Lists them.
pub fn call(agent: &mut Agent, request: u32, key: ContainerKey) -> Outcome {
    if !agent.containers.contains_key(&key) {
        return Err(no_container(key));
    }
    let path = cgroup::path(key);
    let known: HashMap<i32, ProcessKey> =
        agent.processes.of(key).map(|(key, process)| (process.pid, key)).collect();
    job::start(agent, Some(request), move || {
        let boot = boot_time();
        let listed = members(Path::new(&path));
        let mut inner = HashMap::new();
        let found: Vec<(i32, i32, GuestProcess)> = listed
            .into_iter()
            .take(MOST)
            .filter_map(|pid| {
                let (parent, mut process) = read(pid, boot)?;
                inner.insert(pid, process.pid);
                process.key = known.get(&pid).copied();
                Some((pid, parent, process))
            })
            .collect();
        let found = found.into_iter().map(|(_, parent, mut process)| {
            process.parent = inner.get(&parent).copied().unwrap_or(0);
            process
        });
        Ok(Answer::Processes(found.collect()))
    });
    Ok(None)
}

/// A process from its files in /proc: its parent's pid in the guest, and the rest.
fn read(pid: i32, boot: u64) -> Option<(i32, GuestProcess)> {
    let status = limited(&format!("/proc/{pid}/status"), 16 << 10)?;
    let stat = limited(&format!("/proc/{pid}/stat"), 4 << 10)?;
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let stat = Stat::parse(&stat)?;
    let command = limited(&format!("/proc/{pid}/cmdline"), LONGEST).unwrap_or_default();
    let command = command.trim_end_matches('\0').replace('\0', " ");
    Some((
        line("PPid:")?.trim().parse().ok()?,
        GuestProcess {
            // The last number is the one in the innermost pid namespace.
            pid: line("NSpid:")?.split_whitespace().next_back()?.parse().ok()?,
            parent: 0,
            uid: line("Uid:")?.split_whitespace().next()?.parse().ok()?,
            key: None,
            ticks: stat.ticks,
            started: boot.saturating_add(stat.start.saturating_mul(10_000_000)),
            terminal: stat.terminal,
            state: stat.state,
            nice: stat.nice,
            threads: stat.threads,
            virtual_memory: stat.virtual_memory,
            resident_memory: stat.resident_pages.saturating_mul(PAGE),
            command: if command.is_empty() { format!("[{}]", stat.name) } else { command },
            name: stat.name,
        },
    ))
}

/// The fields of /proc/PID/stat that are shown.
#[derive(Debug, PartialEq)]
struct Stat {
    name: String,
    state: char,
    terminal: u32,
    ticks: u64,
    nice: i32,
    threads: u32,
    start: u64,
    virtual_memory: u64,
    resident_pages: u64,
}

impl Stat {
    /// The name is in round brackets and may hold anything, brackets too.
    fn parse(text: &str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (_, name) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        // proc(5) counts from 1 and has pid and name first: its field N is ours N - 3.
        Some(Self {
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            terminal: u32::try_from(number(4)?).ok()?,      // tty_nr
            ticks: number(11)?.saturating_add(number(12)?), // utime, stime
            nice: fields.get(16)?.parse().ok()?,
            threads: u32::try_from(number(17)?).ok()?,
            start: number(19)?, // starttime
            virtual_memory: number(20)?,
            resident_pages: number(21)?,
        })
    }
}

/// When the guest started, in nanoseconds since the epoch.
fn boot_time() -> u64 {
    let Ok(now) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let now = seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec()).unwrap_or(0));
    now.saturating_sub(crate::sys::process::uptime())
}

fn limited(path: &str, most: u64) -> Option<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_read_whole() {
        let text = "7 (a) (b) S 1 7 7 34816 7 4194560 1 0 0 0 12 30 0 0 20 -5 3 0 500 8192 2 1";
        let stat = Stat::parse(text).unwrap();
        let expected = Stat {
            name: "a) (b".to_owned(),
            state: 'S',
            terminal: 34816,
            ticks: 42,
            nice: -5,
            threads: 3,
            start: 500,
            virtual_memory: 8192,
            resident_pages: 2,
        };
        assert_eq!(stat, expected);
        assert!(Stat::parse("7 sh S").is_none());
    }

    #[test]
    fn this_process_is_shown_with_its_command() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (_, process) = read(pid, 0).unwrap();
        assert!(!process.command.is_empty());
        assert_eq!(process.uid, nix::unistd::getuid().as_raw());
    }
}
