//! Resource limits: the spec's names to the kernel's numbers.

use super::error::{ConfigError, invalid};
use husk_protocol::ResourceLimit;
use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

/// The limits of a process; `field` is where they stand.
pub fn limits(field: &str, given: &[PosixRlimit]) -> Result<Vec<ResourceLimit>, ConfigError> {
    let mut limits: Vec<ResourceLimit> = Vec::with_capacity(given.len());
    for (index, limit) in given.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let resource = number(limit.typ());
        if limits.iter().any(|earlier| earlier.resource == resource) {
            return Err(invalid(format!("{field}.type"), format!("{} appears twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(invalid(
                format!("{field}.soft"),
                format!("{} is above the hard limit {}", limit.soft(), limit.hard()),
            ));
        }
        limits.push(ResourceLimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(limits)
}

/// `asm-generic/resource.h`.
fn number(typ: PosixRlimitType) -> u32 {
    match typ {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(json: &str) -> Result<Vec<ResourceLimit>, ConfigError> {
        limits("process.rlimits", &serde_json::from_str::<Vec<PosixRlimit>>(json).unwrap())
    }

    #[test]
    fn a_limit_keeps_its_values() {
        let limits =
            decide(r#"[{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 18446744073709551615}]"#).unwrap();
        assert_eq!(limits, [ResourceLimit { resource: libc::RLIMIT_NOFILE, soft: 1024, hard: u64::MAX }]);
    }

    #[test]
    fn a_limit_given_twice_or_upside_down_is_refused() {
        let twice =
            r#"[{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}, {"type": "RLIMIT_CPU", "soft": 2, "hard": 2}]"#;
        assert_eq!(
            decide(twice).unwrap_err().to_string(),
            "process.rlimits[1].type: RLIMIT_CPU appears twice"
        );
        let upside_down = r#"[{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]"#;
        assert!(decide(upside_down).unwrap_err().to_string().starts_with("process.rlimits[0].soft: "));
    }
}
