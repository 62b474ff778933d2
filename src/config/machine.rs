//! The machine: how many vcpus and how much memory it gets, and what it boots.

use super::annotation::Wishes;
use super::operator::{LEAST_MEMORY_MIB, MOST_VCPUS, Operator, Templates};
use super::pod::Announced;
use super::resources::Limits;
use crate::machine::order::MachineConfig;

/// What the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Processors that husk may use.
    pub processors: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
}

/// Decides. Vcpus: what the cpu limits round up to, at most what the host has (whoever names a number, the operator or
/// an annotation that the operator allows, may go beyond that). Memory: the container's limit and
/// headroom for the guest's kernel. Without limits the operator's defaults; never more than the operator's bounds.
///
/// A pod's machine has what its sandbox needs and what is announced for its containers.
pub fn decide(
    limits: &Limits,
    wishes: Wishes,
    announced: Announced,
    operator: &Operator,
    facts: Facts,
) -> MachineConfig {
    let machine = &operator.machine;
    let memory_mib = memory_mib(limits, wishes, announced, operator, facts);
    MachineConfig {
        vcpus: vcpus(limits, wishes, announced, operator, facts),
        memory_mib,
        most_memory_mib: most_memory_mib(operator, facts).max(memory_mib),
        headroom_mib: machine.headroom_mib,
        kernel: machine.kernel.clone(),
        initrd: machine.initrd.clone(),
        command_line: machine.kernel_command_line.clone(),
        boot_timeout_ms: machine.boot_timeout_ms,
        templates: (machine.templates != Templates::Never).then(|| machine.template_directory.clone()),
        system_calls: operator.host.system_calls,
    }
}

/// The machine of a container that has no limits and wishes for nothing.
pub fn unlimited(operator: &Operator) -> MachineConfig {
    let facts = Facts { processors: u32::MAX, memory_mib: u64::MAX };
    decide(&Limits::default(), Wishes::default(), Announced::default(), operator, facts)
}

fn vcpus(limits: &Limits, wishes: Wishes, announced: Announced, operator: &Operator, facts: Facts) -> u8 {
    let own = match (wishes.vcpus, limits.processors) {
        (Some(wish), _) => u32::from(wish),
        (None, Some(limit)) => limit.min(facts.processors.max(1)),
        (None, None) => u32::from(operator.machine.vcpus),
    };
    let announced = announced.processors.min(facts.processors.max(1));
    // A wish is for all that there is to be.
    let wanted = if wishes.vcpus.is_some() { own } else { own.max(announced) };
    let most = operator.machine.max_vcpus.clamp(1, MOST_VCPUS);
    u8::try_from(wanted.clamp(1, u32::from(most))).unwrap_or(1)
}

fn memory_mib(
    limits: &Limits,
    wishes: Wishes,
    announced: Announced,
    operator: &Operator,
    facts: Facts,
) -> u32 {
    let machine = &operator.machine;
    let own = match (wishes.memory_mib, limits.memory) {
        (Some(wish), _) => u64::from(wish),
        (None, Some(limit)) => limit.div_ceil(1 << 20).saturating_add(u64::from(machine.headroom_mib)),
        (None, None) => u64::from(machine.memory_mib),
    };
    let announced = announced.memory.div_ceil(1 << 20);
    let wanted = if wishes.memory_mib.is_some() { own } else { own.saturating_add(announced) };
    let most = most_memory_mib(operator, facts).max(LEAST_MEMORY_MIB);
    u32::try_from(wanted).unwrap_or(u32::MAX).clamp(LEAST_MEMORY_MIB, most)
}

/// The most memory that any machine may have.
fn most_memory_mib(operator: &Operator, facts: Facts) -> u32 {
    match operator.machine.max_memory_mib {
        0 => u32::try_from(facts.memory_mib).unwrap_or(u32::MAX),
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts = Facts { processors: 4, memory_mib: 8192 };

    fn limits(processors: Option<u32>, memory: Option<u64>) -> Limits {
        Limits { processors, memory, ..Limits::default() }
    }

    #[test]
    fn without_limits_the_operators_defaults_hold() {
        let machine =
            decide(&Limits::default(), Wishes::default(), Announced::default(), &Operator::default(), FACTS);
        assert_eq!((machine.vcpus, machine.memory_mib), (1, 512));
    }

    #[test]
    fn limits_decide_and_the_host_bounds_them() {
        let of = |processors, memory| {
            let machine = decide(
                &limits(processors, memory),
                Wishes::default(),
                Announced::default(),
                &Operator::default(),
                FACTS,
            );
            (machine.vcpus, machine.memory_mib)
        };
        assert_eq!(of(Some(2), Some(100 << 20)), (2, 148));
        assert_eq!(of(Some(u32::MAX), Some(u64::MAX)), (4, 8192));
        assert_eq!(of(Some(0), Some(1)), (1, 64));
    }

    #[test]
    fn wishes_win_over_limits_within_the_operators_bounds() {
        let mut operator = Operator::default();
        operator.machine.max_memory_mib = 1000;
        let wishes = Wishes { vcpus: Some(3), memory_mib: Some(5000) };
        let machine = decide(&limits(Some(1), Some(1 << 20)), wishes, Announced::default(), &operator, FACTS);
        assert_eq!((machine.vcpus, machine.memory_mib), (3, 1000));
    }

    #[test]
    fn a_pods_machine_has_what_is_announced_beside_what_its_sandbox_needs() {
        let of = |memory, processors| {
            let announced = Announced { memory, processors };
            let machine =
                decide(&Limits::default(), Wishes::default(), announced, &Operator::default(), FACTS);
            (machine.vcpus, machine.memory_mib)
        };
        assert_eq!(of(0, 0), (1, 512));
        assert_eq!(of((100 << 20) + 1, 2), (2, 613));
        assert_eq!(of(u64::MAX, u32::MAX), (4, 8192));
    }
}
