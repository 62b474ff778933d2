//! Capabilities: the spec's names to the kernel's numbers.

use husk_protocol::Capabilities as Sets;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

/// The five sets. A process without any (`None`) keeps all that the guest kernel has, as under runc.
pub fn sets(given: Option<&LinuxCapabilities>) -> Sets {
    let Some(given) = given else {
        let all = KNOWN.iter().fold(0, |bits, (_, number)| bits | 1 << number);
        return Sets { bounding: all, effective: all, permitted: all, inheritable: 0, ambient: 0 };
    };
    Sets {
        bounding: bits(given.bounding().as_ref()),
        effective: bits(given.effective().as_ref()),
        inheritable: bits(given.inheritable().as_ref()),
        permitted: bits(given.permitted().as_ref()),
        ambient: bits(given.ambient().as_ref()),
    }
}

/// The names that husk knows, `CAP_CHOWN` first.
pub fn names() -> impl Iterator<Item = String> {
    KNOWN.iter().map(|(capability, _)| format!("CAP_{capability}"))
}

fn bits(set: Option<&Capabilities>) -> u64 {
    let has = |capability| set.is_some_and(|set| set.contains(&capability));
    KNOWN.iter().filter(|(capability, _)| has(*capability)).fold(0, |bits, (_, number)| bits | 1 << number)
}

/// `linux/capability.h`, in its order.
const KNOWN: [(Capability, u32); 41] = [
    (Capability::Chown, 0),
    (Capability::DacOverride, 1),
    (Capability::DacReadSearch, 2),
    (Capability::Fowner, 3),
    (Capability::Fsetid, 4),
    (Capability::Kill, 5),
    (Capability::Setgid, 6),
    (Capability::Setuid, 7),
    (Capability::Setpcap, 8),
    (Capability::LinuxImmutable, 9),
    (Capability::NetBindService, 10),
    (Capability::NetBroadcast, 11),
    (Capability::NetAdmin, 12),
    (Capability::NetRaw, 13),
    (Capability::IpcLock, 14),
    (Capability::IpcOwner, 15),
    (Capability::SysModule, 16),
    (Capability::SysRawio, 17),
    (Capability::SysChroot, 18),
    (Capability::SysPtrace, 19),
    (Capability::SysPacct, 20),
    (Capability::SysAdmin, 21),
    (Capability::SysBoot, 22),
    (Capability::SysNice, 23),
    (Capability::SysResource, 24),
    (Capability::SysTime, 25),
    (Capability::SysTtyConfig, 26),
    (Capability::Mknod, 27),
    (Capability::Lease, 28),
    (Capability::AuditWrite, 29),
    (Capability::AuditControl, 30),
    (Capability::Setfcap, 31),
    (Capability::MacOverride, 32),
    (Capability::MacAdmin, 33),
    (Capability::Syslog, 34),
    (Capability::WakeAlarm, 35),
    (Capability::BlockSuspend, 36),
    (Capability::AuditRead, 37),
    (Capability::Perfmon, 38),
    (Capability::Bpf, 39),
    (Capability::CheckpointRestore, 40),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_kernels_bits() {
        let json =
            r#"{"bounding": ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"], "effective": ["CAP_NET_BIND_SERVICE"]}"#;
        let sets = sets(Some(&serde_json::from_str(json).unwrap()));
        assert_eq!(sets.bounding, 1 | 1 << 40);
        assert_eq!(sets.effective, 1 << 10);
        assert_eq!((sets.permitted, sets.inheritable, sets.ambient), (0, 0, 0));
    }

    #[test]
    fn every_name_is_understood_and_has_its_own_number() {
        for (number, name) in names().enumerate() {
            let json = format!(r#"{{"ambient": ["{name}"]}}"#);
            assert_eq!(sets(Some(&serde_json::from_str(&json).unwrap())).ambient, 1 << number, "{name}");
        }
    }

    #[test]
    fn a_process_without_capability_sets_keeps_all() {
        assert_eq!(sets(None).bounding, (1 << 41) - 1);
        assert_eq!(sets(None).ambient, 0);
    }
}
