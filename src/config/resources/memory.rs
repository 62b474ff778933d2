//! Memory limits.

use super::{ConfigError, Limits, invalid, unsupported};
use oci_spec::runtime::LinuxMemory;

/// Decides. In the spec -1 is no limit and 0 is not said.
#[allow(deprecated)] // kernel memory limits are read in order to refuse them
pub fn decide(given: &LinuxMemory, limits: &mut Limits) -> Result<(), ConfigError> {
    refuse_others(given)?;
    let at = |name: &str| format!("linux.resources.memory.{name}");
    let value = |name: &str, value: Option<i64>| match value.unwrap_or(0) {
        value @ -1.. => Ok(value),
        value => Err(invalid(at(name), format!("{value} is negative"))),
    };
    let limit = value("limit", given.limit())?;
    let swap = value("swap", given.swap())?;
    let reservation = value("reservation", given.reservation())?;
    if let Some(swap) = swap_alone(limit, swap).map_err(|reason| invalid(at("swap"), reason))? {
        limits.inside.push(("memory.swap.max".into(), swap.clone()));
        limits.outside.push(("memory.swap.max".into(), swap));
    }
    if let Some(text) = text(limit) {
        limits.inside.push(("memory.max".into(), text));
    }
    if let Some(text) = text(reservation) {
        limits.inside.push(("memory.low".into(), text.clone()));
        limits.outside.push(("memory.low".into(), text));
    }
    limits.memory = u64::try_from(limit).ok().filter(|limit| *limit > 0);
    Ok(())
}

#[allow(deprecated)]
fn refuse_others(given: &LinuxMemory) -> Result<(), ConfigError> {
    let at = |name: &str| format!("linux.resources.memory.{name}");
    let limits = |value: Option<i64>| value.is_some_and(|value| value > 0);
    if limits(given.kernel()) {
        return Err(unsupported(at("kernel"), "kernel memory cannot be limited apart with cgroup v2"));
    }
    if limits(given.kernel_tcp()) {
        return Err(unsupported(at("kernelTCP"), "kernel memory cannot be limited apart with cgroup v2"));
    }
    if given.swappiness().is_some() {
        return Err(unsupported(at("swappiness"), "there is no such setting in cgroup v2"));
    }
    if given.disable_oom_killer() == Some(true) {
        return Err(unsupported(at("disableOOMKiller"), "there is no such setting in cgroup v2"));
    }
    if given.use_hierarchy() == Some(false) {
        return Err(unsupported(at("useHierarchy"), "cgroup v2 always has a hierarchy"));
    }
    Ok(())
}

/// The spec's `swap` is memory and swap together; cgroup v2 limits swap alone.
fn swap_alone(limit: i64, swap: i64) -> Result<Option<String>, String> {
    match (limit, swap) {
        (-1, 0) | (_, -1) => Ok(Some("max".into())),
        (_, 0) => Ok(None),
        (-1, swap) => Ok(Some(swap.to_string())),
        (0, _) => Err("unable to set swap limit without memory limit".into()),
        (limit, swap) if swap < limit => Err("memory+swap limit should be >= memory limit".into()),
        (limit, swap) => Ok(Some(swap.saturating_sub(limit).to_string())),
    }
}

fn text(value: i64) -> Option<String> {
    match value {
        0 => None,
        -1 => Some("max".into()),
        value => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{decide_json, pairs};

    #[test]
    fn limits_become_the_files_that_runc_writes() {
        let table = [
            (r#"{"limit": 1000, "swap": 3000}"#, vec![("memory.swap.max", "2000"), ("memory.max", "1000")]),
            (r#"{"limit": 1000, "swap": 1000}"#, vec![("memory.swap.max", "0"), ("memory.max", "1000")]),
            (r#"{"limit": 1000, "swap": -1}"#, vec![("memory.swap.max", "max"), ("memory.max", "1000")]),
            (r#"{"limit": -1}"#, vec![("memory.swap.max", "max"), ("memory.max", "max")]),
            (r#"{"limit": 1000}"#, vec![("memory.max", "1000")]),
            (r#"{"reservation": 500}"#, vec![("memory.low", "500")]),
            (r#"{"limit": 0, "kernel": 0, "disableOOMKiller": false}"#, vec![]),
        ];
        for (json, files) in table {
            let limits = decide_json(&format!(r#"{{"memory": {json}}}"#)).unwrap();
            assert_eq!(pairs(&limits.inside), files, "{json}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_field() {
        let table = [
            (
                r#"{"swap": 3000}"#,
                "linux.resources.memory.swap: unable to set swap limit without memory limit",
            ),
            (
                r#"{"limit": 3000, "swap": 1000}"#,
                "linux.resources.memory.swap: memory+swap limit should be >= memory limit",
            ),
            (r#"{"limit": -2}"#, "linux.resources.memory.limit: -2 is negative"),
            (r#"{"swappiness": 60}"#, "linux.resources.memory.swappiness: "),
            (r#"{"disableOOMKiller": true}"#, "linux.resources.memory.disableOOMKiller: "),
            (r#"{"kernel": 1000}"#, "linux.resources.memory.kernel: "),
            (r#"{"kernelTCP": 1000}"#, "linux.resources.memory.kernelTCP: "),
            (r#"{"useHierarchy": false}"#, "linux.resources.memory.useHierarchy: "),
        ];
        for (json, message) in table {
            let error = decide_json(&format!(r#"{{"memory": {json}}}"#)).unwrap_err().to_string();
            assert!(error.starts_with(message), "{json}: {error}");
        }
    }
}
