//! Stats: a container's counters, from its cgroup. A counter whose controller is absent is 0.

use super::{Outcome, no_container};
use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::cgroup::events::number;
use husk_protocol::{Answer, ContainerKey, Stats};

/// Lines of memory.stat that are passed on.
const MOST_DETAILS: usize = 64;

/// Reads them.
pub fn call(agent: &Agent, key: ContainerKey) -> Outcome {
    let container = agent.containers.get(&key).ok_or_else(|| no_container(key))?;
    Ok(Some(Answer::Stats(Box::new(read(&container.cgroup)))))
}

fn read(cgroup: &Cgroup) -> Stats {
    let text = |name: &str| cgroup.read(name).unwrap_or_default();
    let value = |name: &str| amount(&text(name));
    let cpu = text("cpu.stat");
    let microseconds = |key: &str| number(&cpu, key).unwrap_or(0).saturating_mul(1000);
    Stats {
        cpu_total: microseconds("usage_usec"),
        cpu_user: microseconds("user_usec"),
        cpu_system: microseconds("system_usec"),
        cpu_periods: number(&cpu, "nr_periods").unwrap_or(0),
        cpu_throttled_periods: number(&cpu, "nr_throttled").unwrap_or(0),
        cpu_throttled: microseconds("throttled_usec"),
        memory_usage: value("memory.current"),
        memory_peak: value("memory.peak"),
        memory_limit: value("memory.max"),
        swap_usage: value("memory.swap.current"),
        swap_limit: value("memory.swap.max"),
        memory_detail: details(&text("memory.stat")),
        oom_kills: number(&text("memory.events"), "oom_kill").unwrap_or(0),
        pids: value("pids.current"),
        pids_limit: value("pids.max"),
    }
}

/// A number, or `max`.
fn amount(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        number => number.parse().unwrap_or(0),
    }
}

fn details(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .take(MOST_DETAILS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_the_greatest_number() {
        for (text, value) in [("max\n", u64::MAX), ("4096\n", 4096), ("", 0), ("x", 0)] {
            assert_eq!(amount(text), value);
        }
    }
}
