//! Processor limits.

use super::{ConfigError, Limits, invalid, unsupported};
use crate::config::operator::Host;
use oci_spec::runtime::LinuxCpu;

/// The kernel's own period, in microseconds (cgroup-v2.rst, cpu.max).
const USUAL_PERIOD: u64 = 100_000;

/// Decides.
pub fn decide(given: &LinuxCpu, room: &Host, limits: &mut Limits) -> Result<(), ConfigError> {
    let at = |name: &str| format!("linux.resources.cpu.{name}");
    if given.realtime_runtime().is_some_and(|runtime| runtime != 0) {
        return Err(unsupported(at("realtimeRuntime"), "realtime groups cannot be limited with cgroup v2"));
    }
    if given.realtime_period().is_some_and(|period| period != 0) {
        return Err(unsupported(at("realtimePeriod"), "realtime groups cannot be limited with cgroup v2"));
    }
    if let Some(idle) = given.idle() {
        if !matches!(idle, 0 | 1) {
            return Err(invalid(at("idle"), format!("{idle} is neither 0 nor 1")));
        }
        both(limits, "cpu.idle", idle.to_string());
    }
    // An idle group has no weight: writing one would fail.
    if let Some(weight) = given.shares().and_then(weight).filter(|_| given.idle() != Some(1)) {
        both(limits, "cpu.weight", weight.to_string());
    }
    bandwidth(given, room, limits)?;
    cpuset(given, limits)
}

/// `quota`, `period` and `burst`.
fn bandwidth(given: &LinuxCpu, room: &Host, limits: &mut Limits) -> Result<(), ConfigError> {
    let quota = given.quota().unwrap_or(0);
    let period = given.period().filter(|period| *period != 0);
    if quota != 0 || period.is_some() {
        let period = period.unwrap_or(USUAL_PERIOD);
        match u64::try_from(quota) {
            Ok(quota) if quota > 0 => {
                let room = period.saturating_mul(u64::from(room.cpu_room_percent)) / 100;
                limits.inside.push(("cpu.max".into(), format!("{quota} {period}")));
                limits.outside.push(("cpu.max".into(), format!("{} {period}", quota.saturating_add(room))));
                limits.processors = Some(u32::try_from(quota.div_ceil(period)).unwrap_or(u32::MAX));
            }
            _ => both(limits, "cpu.max", format!("max {period}")),
        }
    }
    if let Some(burst) = given.burst() {
        if quota > 0 && burst > quota.unsigned_abs() {
            return Err(invalid("linux.resources.cpu.burst", format!("{burst} is above the quota {quota}")));
        }
        both(limits, "cpu.max.burst", burst.to_string());
    }
    Ok(())
}

/// `cpus` and `mems` are numbers of the host: they bind the machine. Inside they decide how many vcpus there are.
fn cpuset(given: &LinuxCpu, limits: &mut Limits) -> Result<(), ConfigError> {
    if let Some(cpus) = given.cpus().as_ref().filter(|list| !list.is_empty()) {
        let count = count(cpus)
            .ok_or_else(|| invalid("linux.resources.cpu.cpus", format!("{cpus:?} is not a list of cpus")))?;
        limits.processors = Some(limits.processors.map_or(count, |quota| quota.min(count)));
        limits.outside.push(("cpuset.cpus".into(), cpus.clone()));
        limits.only_outside.get_or_insert("linux.resources.cpu.cpus");
    }
    if let Some(mems) = given.mems().as_ref().filter(|list| !list.is_empty()) {
        if count(mems).is_none() {
            return Err(invalid(
                "linux.resources.cpu.mems",
                format!("{mems:?} is not a list of memory nodes"),
            ));
        }
        limits.outside.push(("cpuset.mems".into(), mems.clone()));
        limits.only_outside.get_or_insert("linux.resources.cpu.mems");
    }
    Ok(())
}

/// How many numbers a list such as `0-2,7` holds.
fn count(list: &str) -> Option<u32> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < 65536);
    let mut held = std::collections::BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        held.extend(first..=last);
    }
    u32::try_from(held.len()).ok()
}

/// cgroup v1's shares (2 to 262144, usually 1024) to v2's weight (1 to 10000, usually 100): the curve through least,
/// usual and most that runc has used since 1.3.2. 0 is not said.
fn weight(shares: u64) -> Option<u64> {
    match shares {
        0 => None,
        1..=2 => Some(1),
        262_144.. => Some(10_000),
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            Some(10f64.powf(exponent).ceil() as u64)
        }
    }
}

fn both(limits: &mut Limits, name: &str, value: String) {
    limits.inside.push((name.into(), value.clone()));
    limits.outside.push((name.into(), value));
}

#[cfg(test)]
mod tests {
    use super::super::tests::{decide_json, pairs};
    use super::*;

    #[test]
    fn shares_become_the_weights_of_runc() {
        for (shares, expected) in [
            (0, None),
            (1, Some(1)),
            (2, Some(1)),
            (512, Some(59)),
            (1024, Some(100)),
            (262_144, Some(10_000)),
            (u64::MAX, Some(10_000)),
        ] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn a_quota_has_room_outside_and_rounds_up_to_vcpus() {
        let limits = decide_json(r#"{"cpu": {"quota": 150000, "period": 100000}}"#).unwrap();
        assert_eq!(pairs(&limits.inside), [("cpu.max", "150000 100000")]);
        assert_eq!(pairs(&limits.outside), [("cpu.max", "200000 100000")]);
        assert_eq!(limits.processors, Some(2));
        assert_eq!(decide_json(r#"{"cpu": {"quota": 50000}}"#).unwrap().processors, Some(1));
        let unlimited = decide_json(r#"{"cpu": {"quota": -1}}"#).unwrap();
        assert_eq!((pairs(&unlimited.inside), unlimited.processors), (vec![("cpu.max", "max 100000")], None));
    }

    #[test]
    fn a_cpuset_binds_the_machine_and_counts_vcpus() {
        let limits = decide_json(r#"{"cpu": {"cpus": "0-2,7", "mems": "0", "quota": 800000}}"#).unwrap();
        assert_eq!(limits.processors, Some(4));
        assert_eq!(limits.only_outside, Some("linux.resources.cpu.cpus"));
        assert!(pairs(&limits.outside).contains(&("cpuset.cpus", "0-2,7")));
        assert!(!pairs(&limits.inside).iter().any(|(name, _)| name.starts_with("cpuset")));
        for list in ["a", "3-1", "0-", "-1", "0,,1", "0-999999999"] {
            assert!(decide_json(&format!(r#"{{"cpu": {{"cpus": "{list}"}}}}"#)).is_err(), "{list}");
        }
    }

    #[test]
    fn an_idle_group_gets_no_weight() {
        let limits = decide_json(r#"{"cpu": {"idle": 1, "shares": 1024}}"#).unwrap();
        assert_eq!(pairs(&limits.inside), [("cpu.idle", "1")]);
        assert!(decide_json(r#"{"cpu": {"idle": 2}}"#).is_err());
        assert!(decide_json(r#"{"cpu": {"realtimeRuntime": 1000}}"#).is_err());
        assert!(decide_json(r#"{"cpu": {"quota": 100, "burst": 200}}"#).is_err());
    }
}
