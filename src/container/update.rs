//! `update`, `pause`, `resume`, and what `ps` and `events` read: what is asked of a running container's machine.

use super::error::ContainerError;
use super::{Container, Status};
use crate::bundle::{self, spec};
use crate::config::operator::Operator;
use crate::config::{device, resources};
use crate::host::cgroup::Cgroup;
use crate::machine::control::{Command, Outcome};
use husk_protocol::{GuestProcess, Resources, Stats};
use oci_spec::runtime::LinuxResources;

impl Container {
    /// Freezes its processes.
    pub fn pause(&self) -> Result<(), ContainerError> {
        match self.status() {
            Status::Running | Status::Created => self.ask(&Command::Pause).map(drop),
            Status::Stopped => Err(ContainerError::NotRunning),
            other => Err(ContainerError::WrongStatus(format!("container not running or created: {other}"))),
        }
    }

    /// Thaws them.
    pub fn resume(&self) -> Result<(), ContainerError> {
        match self.status() {
            Status::Paused => self.ask(&Command::Resume).map(drop),
            _ => Err(ContainerError::WrongStatus("container not paused".into())),
        }
    }

    /// Its processes, as its own pid namespace has them. None when it has stopped.
    pub fn processes(&self) -> Result<Vec<GuestProcess>, ContainerError> {
        match self.ask(&Command::Processes) {
            Ok(Outcome::Processes(processes)) => Ok(processes),
            Ok(_) | Err(ContainerError::NotRunning) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The processes on the host that stand for it: its machine's, and those of its detached execs, which live in the
    /// same group. None when it has stopped.
    pub fn host_pids(&self) -> Vec<i32> {
        if self.status() == Status::Stopped {
            return Vec::new();
        }
        let group = self.state.cgroup.clone().map(|directory| Cgroup::known(directory).processes());
        let others = group.into_iter().flatten().filter(|pid| *pid != self.state.pid);
        std::iter::once(self.state.pid).chain(others).collect()
    }

    /// Its counters.
    pub fn stats(&self) -> Result<Stats, ContainerError> {
        match self.ask(&Command::Stats)? {
            Outcome::Stats(stats) => Ok(*stats),
            _ => Err(ContainerError::NotRunning),
        }
    }

    /// Changes its limits, inside and outside, to those in `json` (`linux.resources` of the spec).
    pub fn update(&self, json: &[u8], operator: &Operator) -> Result<(), ContainerError> {
        let read = spec::read::<LinuxResources>(json);
        let (given, _) = read.map_err(|error| ContainerError::BadRequest(error.to_string()))?;
        self.apply(&given, operator)
    }

    fn apply(&self, given: &LinuxResources, operator: &Operator) -> Result<(), ContainerError> {
        if self.status() == Status::Stopped {
            return Err(ContainerError::NotRunning);
        }
        self.check_device_rules(given)?;
        let limits = resources::decide(given, &operator.host)?;
        let machine_mib = limits.memory.map_or(Ok(self.state.memory_mib), |limit| self.memory_with(limit))?;
        self.check_usage(given, limits.memory)?;
        match self.state.home().filter(|_| self.state.sandbox.is_none()) {
            Some(home) => {
                let mut files = limits.outside.clone();
                // Before the machine grows to that.
                files.extend(limits.outside_memory(machine_mib, &operator.host));
                home.limit(&files)?;
            }
            None => {
                if let Some(field) = limits.only_outside {
                    return Err(ContainerError::Unsupported(format!(
                        "{field}: the container has no cgroup of its own on this host with a machine in it"
                    )));
                }
            }
        }
        let inside = Resources { files: limits.inside, devices: Vec::new(), vcpus: None };
        self.ask(&Command::Update(Box::new(inside))).map(drop)
    }

    /// How much memory its machine is going to have when it has this limit.
    fn memory_with(&self, limit: u64) -> Result<u32, ContainerError> {
        match self.ask(&Command::Memory { limit })? {
            Outcome::Memory(mib) => Ok(mib),
            _ => Err(ContainerError::NotRunning),
        }
    }

    /// Podman says all of a container's resources again. Device rules are in force as they were at its start: those and no
    /// others may be said.
    fn check_device_rules(&self, given: &LinuxResources) -> Result<(), ContainerError> {
        let Some(given) = given.devices().as_ref().filter(|rules| !rules.is_empty()) else { return Ok(()) };
        let spec = bundle::read_config(&self.state.bundle)?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let in_force = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        if device::rules(given)? == device::rules(in_force)? {
            return Ok(());
        }
        let text = "linux.resources.devices: the device rules of a running container cannot be changed";
        Err(ContainerError::Unsupported(text.into()))
    }

    /// `checkBeforeUpdate`: a limit below what is used now is refused.
    fn check_usage(&self, given: &LinuxResources, limit: Option<u64>) -> Result<(), ContainerError> {
        let check = given.memory().as_ref().and_then(|memory| memory.check_before_update()) == Some(true);
        let Some(limit) = limit.filter(|_| check) else { return Ok(()) };
        let usage = self.stats()?.memory_usage;
        if limit <= usage {
            let text = format!("rejecting memory limit {limit} <= usage {usage}");
            return Err(ContainerError::BadRequest(text));
        }
        Ok(())
    }
}
