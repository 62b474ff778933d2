//! Scheduling policy and I/O priority of a process.

use super::error::{ConfigError, invalid};
use husk_protocol::{IoPriority, Scheduler};
use oci_spec::runtime::{IOPriorityClass, LinuxIOPriority, LinuxSchedulerFlag, LinuxSchedulerPolicy};

/// Arguments of sched_setattr(2), checked as runc checks them.
pub fn scheduler(field: &str, given: &oci_spec::runtime::Scheduler) -> Result<Scheduler, ConfigError> {
    use LinuxSchedulerPolicy as Policy;
    let policy = *given.policy();
    let nice = given.nice().unwrap_or(0);
    let priority = given.priority().unwrap_or(0);
    let times = [given.runtime(), given.deadline(), given.period()].map(|time| time.unwrap_or(0));
    if matches!(policy, Policy::SchedOther | Policy::SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(invalid(
            format!("{field}.nice"),
            format!("invalid scheduler.nice: {nice} when scheduler.policy is {policy}"),
        ));
    }
    if priority != 0 && !matches!(policy, Policy::SchedFifo | Policy::SchedRr) {
        let reason = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy";
        return Err(invalid(format!("{field}.priority"), reason));
    }
    if policy != Policy::SchedDeadline && times != [0, 0, 0] {
        let reason = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        return Err(invalid(format!("{field}.runtime"), reason));
    }
    let priority = u32::try_from(priority)
        .map_err(|_| invalid(format!("{field}.priority"), format!("{priority} is negative")))?;
    let [runtime, deadline, period] = times;
    Ok(Scheduler {
        policy: policy_number(policy),
        flags: flags(given.flags().as_deref().unwrap_or(&[])),
        nice,
        priority,
        runtime,
        deadline,
        period,
    })
}

/// Arguments of ioprio_set(2).
pub fn io_priority(field: &str, given: &LinuxIOPriority) -> Result<IoPriority, ConfigError> {
    let level = u8::try_from(given.priority()).ok().filter(|level| *level <= 7);
    let level = level.ok_or_else(|| {
        invalid(format!("{field}.priority"), format!("invalid ioPriority.Priority: {}", given.priority()))
    })?;
    let class = match given.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(IoPriority { class, level })
}

/// `linux/sched.h`.
fn policy_number(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

/// `linux/sched.h`, SCHED_FLAG_*.
fn flags(given: &[LinuxSchedulerFlag]) -> u64 {
    given.iter().fold(0, |bits, flag| {
        bits | match flag {
            LinuxSchedulerFlag::SchedResetOnFork => 0x01,
            LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
            LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
            LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
            LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
            LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
            LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(json: &str) -> Result<Scheduler, ConfigError> {
        scheduler("process.scheduler", &serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_policy_keeps_its_own_parameters_and_refuses_those_of_others() {
        assert_eq!(decide(r#"{"policy": "SCHED_BATCH", "nice": 5}"#).unwrap().policy, 3);
        assert_eq!(decide(r#"{"policy": "SCHED_FIFO", "priority": 10}"#).unwrap().priority, 10);
        assert!(decide(r#"{"policy": "SCHED_OTHER", "nice": 20}"#).is_err());
        assert!(decide(r#"{"policy": "SCHED_OTHER", "priority": 1}"#).is_err());
        assert!(decide(r#"{"policy": "SCHED_RR", "priority": 1, "runtime": 5}"#).is_err());
        assert!(decide(r#"{"policy": "SCHED_FIFO", "priority": -1}"#).is_err());
    }

    #[test]
    fn an_io_priority_beyond_seven_is_refused() {
        let decide = |json| io_priority("process.ioPriority", &serde_json::from_str(json).unwrap());
        assert_eq!(
            decide(r#"{"class": "IOPRIO_CLASS_IDLE", "priority": 7}"#).unwrap(),
            IoPriority { class: 3, level: 7 }
        );
        assert!(decide(r#"{"class": "IOPRIO_CLASS_RT", "priority": 8}"#).is_err());
        assert!(decide(r#"{"class": "IOPRIO_CLASS_RT", "priority": -1}"#).is_err());
    }
}
