//! Device nodes and device rules.
//!
//! A node inside leads to a device of the guest, never to one of the host. The few devices that a guest has carry the
//! same numbers everywhere, so a node for one of them is honoured; a node for anything else is refused, because what was
//! asked for is the host's device. One exception: a container that is allowed every device (`--privileged`) is given
//! nodes for all the host happens to have; it gets every device of the guest, and the rest is left out.

use super::error::{ConfigError, invalid, path_string, unsupported};
use husk_protocol::{Device, DeviceKind, DeviceRule};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType as Type};

/// Character devices that a guest has: major, minor.
const IN_THE_GUEST: [(u32, u32); 13] = [
    (1, 3),    // null
    (1, 5),    // zero
    (1, 7),    // full
    (1, 8),    // random
    (1, 9),    // urandom
    (1, 11),   // kmsg
    (5, 0),    // tty
    (5, 1),    // console
    (5, 2),    // ptmx
    (10, 200), // net/tun
    (10, 229), // fuse
    (10, 237), // loop-control
    (10, 236), // mapper/control
];

/// Decides the nodes; `rules` are the device rules of the same container.
pub fn nodes(given: &[LinuxDevice], rules: &[DeviceRule]) -> Result<Vec<Device>, ConfigError> {
    let everything = allows_everything(rules);
    let mut devices = Vec::with_capacity(given.len());
    for (index, node) in given.iter().enumerate() {
        let field = format!("linux.devices[{index}]");
        let kind = kind(&field, node.typ())?;
        let number = |name: &str, value: i64| {
            u32::try_from(value)
                .map_err(|_| invalid(format!("{field}.{name}"), format!("{value} is not a device number")))
        };
        let (major, minor) = match kind {
            DeviceKind::Fifo => (0, 0),
            _ => (number("major", node.major())?, number("minor", node.minor())?),
        };
        if !in_the_guest(kind, major, minor) {
            if everything {
                continue;
            }
            let reason = format!(
                "device {major}:{minor} ({}) is the host's: a machine has none of them",
                node.path().display()
            );
            return Err(unsupported(field, reason));
        }
        let path = path_string(&format!("{field}.path"), node.path())?;
        if !path.starts_with('/') {
            return Err(invalid(format!("{field}.path"), "must be an absolute path"));
        }
        devices.push(Device {
            path,
            kind,
            major,
            minor,
            mode: node.file_mode().unwrap_or(0o666) & 0o7777,
            uid: node.uid().unwrap_or(0),
            gid: node.gid().unwrap_or(0),
        });
    }
    Ok(devices)
}

/// Decides the rules. As runc does, what every container may use is allowed after whatever the spec says. No rule at all
/// means no more than that, and is told to the agent as an empty list.
pub fn rules(given: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, ConfigError> {
    let mut rules = Vec::with_capacity(given.len());
    for (index, rule) in given.iter().enumerate() {
        let field = format!("linux.resources.devices[{index}]");
        let number = |name: &str, value: Option<i64>| match value {
            None | Some(-1) => Ok(None),
            Some(value) => u32::try_from(value)
                .map(Some)
                .map_err(|_| invalid(format!("{field}.{name}"), format!("{value} is not a device number"))),
        };
        let kind = match rule.typ() {
            None | Some(Type::A) => None,
            Some(Type::B) => Some(DeviceKind::Block),
            Some(Type::C) => Some(DeviceKind::Character),
            Some(other) => {
                return Err(invalid(
                    format!("{field}.type"),
                    format!("invalid cgroup device type {:?}", other.as_str()),
                ));
            }
        };
        rules.push(DeviceRule {
            allow: rule.allow(),
            kind,
            major: number("major", rule.major())?,
            minor: number("minor", rule.minor())?,
            access: access(&format!("{field}.access"), rule.access().as_deref().unwrap_or(""))?,
        });
    }
    if !rules.is_empty() {
        rules.extend(ALWAYS_ALLOWED);
    }
    Ok(rules)
}

fn allows_everything(rules: &[DeviceRule]) -> bool {
    let is_all = |rule: &&DeviceRule| rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
    rules.iter().rfind(is_all).is_some_and(|rule| rule.allow && rule.access == READ | WRITE | MKNOD)
}

fn in_the_guest(kind: DeviceKind, major: u32, minor: u32) -> bool {
    match kind {
        DeviceKind::Fifo => true,
        DeviceKind::Block => false,
        DeviceKind::Character => major == 136 || IN_THE_GUEST.contains(&(major, minor)),
    }
}

fn kind(field: &str, typ: Type) -> Result<DeviceKind, ConfigError> {
    match typ {
        Type::C | Type::U => Ok(DeviceKind::Character),
        Type::B => Ok(DeviceKind::Block),
        Type::P => Ok(DeviceKind::Fifo),
        Type::A => Err(invalid(format!("{field}.type"), "invalid device type \"a\"")),
    }
}

fn access(field: &str, letters: &str) -> Result<u8, ConfigError> {
    if letters.is_empty() {
        return Err(invalid(field, "device access field cannot be empty"));
    }
    letters.chars().try_fold(0, |bits, letter| match letter {
        'r' => Ok(bits | READ),
        'w' => Ok(bits | WRITE),
        'm' => Ok(bits | MKNOD),
        other => Err(invalid(field, format!("{other:?} is none of r, w and m"))),
    })
}

const READ: u8 = 1;
const WRITE: u8 = 2;
const MKNOD: u8 = 4;

const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: u8) -> DeviceRule {
    DeviceRule { allow: true, kind: Some(kind), major, minor, access }
}

/// What every container may do with devices, as under runc: make any node, use the harmless ones, terminals and tun.
const ALWAYS_ALLOWED: [DeviceRule; 11] = [
    allow(DeviceKind::Character, None, None, MKNOD),
    allow(DeviceKind::Block, None, None, MKNOD),
    allow(DeviceKind::Character, Some(1), Some(3), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(1), Some(8), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(1), Some(7), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(5), Some(0), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(1), Some(5), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(1), Some(9), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(136), None, READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(5), Some(2), READ | WRITE | MKNOD),
    allow(DeviceKind::Character, Some(10), Some(200), READ | WRITE | MKNOD),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(json: &str) -> Result<Vec<DeviceRule>, ConfigError> {
        rules(&serde_json::from_str::<Vec<LinuxDeviceCgroup>>(json).unwrap())
    }

    fn nodes_of(json: &str, rules: &[DeviceRule]) -> Result<Vec<Device>, ConfigError> {
        nodes(&serde_json::from_str::<Vec<LinuxDevice>>(json).unwrap(), rules)
    }

    #[test]
    fn rules_keep_their_order_and_the_usual_ones_come_last() {
        let rules = rules_of(r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]"#).unwrap();
        assert_eq!(rules[0], DeviceRule { allow: false, kind: None, major: None, minor: None, access: 7 });
        assert_eq!(
            rules[1],
            DeviceRule {
                allow: true,
                kind: Some(DeviceKind::Character),
                major: Some(10),
                minor: Some(229),
                access: 3
            }
        );
        assert_eq!(rules.len(), 2 + ALWAYS_ALLOWED.len());
        assert!(rules_of("[]").unwrap().is_empty());
    }

    #[test]
    fn rules_without_access_or_with_a_strange_one_are_refused() {
        for rule in [
            r#"{"allow": true}"#,
            r#"{"allow": true, "access": "rx"}"#,
            r#"{"allow": true, "type": "p", "access": "r"}"#,
            r#"{"allow": true, "major": -2, "access": "r"}"#,
        ] {
            assert!(rules_of(&format!("[{rule}]")).is_err(), "{rule}");
        }
    }

    #[test]
    fn a_device_of_the_guest_is_made_and_one_of_the_host_is_refused() {
        let fuse = r#"[{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 33188}]"#;
        assert_eq!(nodes_of(fuse, &[]).unwrap()[0].mode, 0o644);
        let disk = r#"[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}]"#;
        let error = nodes_of(disk, &[]).unwrap_err().to_string();
        assert!(error.starts_with("linux.devices[0]: device 8:0 (/dev/sda)"), "{error}");
    }

    #[test]
    fn a_privileged_container_gets_the_guests_devices_and_none_of_the_hosts() {
        let all = rules_of(r#"[{"allow": true, "access": "rwm"}]"#).unwrap();
        let both = r#"[{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}, {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]"#;
        let nodes = nodes_of(both, &all).unwrap();
        assert_eq!(nodes.iter().map(|node| node.path.as_str()).collect::<Vec<_>>(), ["/dev/fuse"]);
    }
}
