//! Limits on the host's disks. The guest has none of its own: its files are read and written by the machine process, so
//! these bind that.

use super::{ConfigError, Limits, invalid, unsupported};
use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

/// Decides.
pub fn decide(given: &LinuxBlockIo, limits: &mut Limits) -> Result<(), ConfigError> {
    let at = |name: &str| format!("linux.resources.blockIO.{name}");
    if given.leaf_weight().is_some_and(|weight| weight != 0) {
        return Err(unsupported(at("leafWeight"), "there is no such setting in cgroup v2"));
    }
    if given.weight_device().as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(unsupported(at("weightDevice"), "husk limits disks by throttle*Device, not by weight"));
    }
    if let Some(weight) = given.weight().filter(|weight| *weight != 0) {
        if !(10..=1000).contains(&weight) {
            return Err(invalid(at("weight"), format!("{weight} is not between 10 and 1000")));
        }
        // The linear conversion of runc: 10 to 1000 becomes 1 to 10000.
        let weight =
            u64::from(weight).saturating_sub(10).saturating_mul(9999).wrapping_div(990).saturating_add(1);
        limits.outside.push(("io.weight".into(), weight.to_string()));
        limits.only_outside.get_or_insert("linux.resources.blockIO.weight");
    }
    throttle(given.throttle_read_bps_device().as_deref(), "rbps", limits);
    throttle(given.throttle_write_bps_device().as_deref(), "wbps", limits);
    throttle(given.throttle_read_iops_device().as_deref(), "riops", limits);
    throttle(given.throttle_write_iops_device().as_deref(), "wiops", limits);
    Ok(())
}

fn throttle(given: Option<&[LinuxThrottleDevice]>, what: &str, limits: &mut Limits) {
    for device in given.unwrap_or(&[]) {
        let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
        limits
            .outside
            .push(("io.max".into(), format!("{}:{} {what}={rate}", device.major(), device.minor())));
        limits.only_outside.get_or_insert("linux.resources.blockIO");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{decide_json, pairs};

    #[test]
    fn disks_are_limited_outside_alone() {
        let json = r#"{"blockIO": {"weight": 500, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]}}"#;
        let limits = decide_json(json).unwrap();
        assert!(limits.inside.is_empty());
        assert_eq!(
            pairs(&limits.outside),
            [("io.weight", "4950"), ("io.max", "8:0 rbps=1048576"), ("io.max", "8:16 wiops=max")]
        );
        assert!(limits.only_outside.is_some());
    }

    #[test]
    fn weights_out_of_range_and_v1_settings_are_refused() {
        for json in [
            r#"{"weight": 9}"#,
            r#"{"weight": 1001}"#,
            r#"{"leafWeight": 10}"#,
            r#"{"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}"#,
        ] {
            assert!(decide_json(&format!(r#"{{"blockIO": {json}}}"#)).is_err(), "{json}");
        }
    }
}
