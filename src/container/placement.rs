//! Where a container's machine is put on the host: its control group and its network namespace.
//!
//! ```text
//!   find, home (nothing is made) -> take_in(pid) --------------------> limit (update) ------> clear_away (delete)
//!     cgroupfs                   make the group, write limits,      write limits           remove the group
//!                                then the pid
//!     systemd                    a unit around the pid, limits as   properties, then       stop the unit, remove
//!                                properties; write the limits       write the limits       what is left
//! ```
//! Both ways feed on the same limits ([`crate::config::HostCgroup::files`]). Later commands know from the state file alone
//! which way it was ([`Home`]).

use super::error::ContainerError;
use super::undo::Undo;
use crate::config::operator::Operator;
use crate::config::resources::Files;
use crate::config::unit::{self, Unit};
use crate::config::{Decision, HostCgroup, namespace};
use crate::host::cgroup::{self, Cgroup, Mode};
use crate::host::proc;
use crate::host::systemd::{self, Systemd};
use crate::machine::order::NetworkNamespace;
use std::path::Path;

/// The control group that a machine is to have.
#[derive(Debug)]
pub struct Placement {
    group: Cgroup,
    /// Who makes it, if not we ourselves.
    unit: Option<(Unit, unit::Properties)>,
}

/// Decides, without making anything. `None`: the machine stays in our group.
///
/// On a host without the unified hierarchy a container runs without a group of its own, as long as it asks for nothing
/// that needs one: its limits then hold inside the machine alone.
pub fn find(
    id: &str,
    decision: &Decision,
    operator: &Operator,
    systemd: bool,
) -> Result<Option<Placement>, ContainerError> {
    let wanted = &decision.cgroup;
    let unit = match systemd {
        true => {
            Some((Unit::parse(wanted.path.as_deref(), id)?, unit::added(&decision.annotations, operator)?))
        }
        false => None,
    };
    if unit.is_some() && !systemd::is_running() {
        let text = "systemd not running on this host, cannot use systemd cgroups manager";
        return Err(ContainerError::Unsupported(text.into()));
    }
    if cgroup::mode() != Mode::Unified {
        return without_unified(wanted).map(|()| None);
    }
    let group = match &unit {
        Some((unit, _)) => Cgroup::known(Path::new(cgroup::MOUNT_POINT).join(unit.directory())),
        None => Cgroup::at(wanted.path.as_deref().unwrap_or(Path::new(id)))?,
    };
    Ok(Some(Placement { group, unit }))
}

fn without_unified(wanted: &HostCgroup) -> Result<(), ContainerError> {
    match wanted.path.as_ref().map(|_| "linux.cgroupsPath").or(wanted.needed_for) {
        None => Ok(()),
        Some(field) => Err(ContainerError::Unsupported(format!(
            "{field}: this host has no cgroup v2 at {}, and husk knows no other; boot it with \
             systemd.unified_cgroup_hierarchy=1, or leave the field out",
            cgroup::MOUNT_POINT
        ))),
    }
}

impl Placement {
    /// What later commands must know of it, who will remove it with all that is in it: so not if it is somebody's.
    pub fn home(&self) -> Result<Home, ContainerError> {
        self.group.check_empty()?;
        Ok(self.made())
    }

    fn made(&self) -> Home {
        Home { group: self.group.clone(), unit: self.unit.as_ref().map(|(unit, _)| unit.name.clone()) }
    }

    /// Makes the group, with limits, around process `pid`, which has not used anything yet.
    pub fn take_in<'a>(&self, pid: i32, limits: &Files, undo: &mut Undo<'a>) -> Result<(), ContainerError> {
        match &self.unit {
            None => {
                let made = self.group.create()?;
                undo.push(move || cgroup::remove_all(&made));
                self.group.write(limits)?;
                Ok(self.group.add(pid)?)
            }
            Some((unit, added)) => {
                let mut systemd = Systemd::connect()?;
                let properties = in_properties(&mut systemd, limits)?;
                let pid = u32::try_from(pid).unwrap_or(0);
                let home = self.made();
                // Whatever comes of the job, nothing of it is to stay.
                undo.push(move || {
                    let _ = home.clear_away();
                });
                systemd.start_transient(&unit.name, &unit.properties(pid, added, properties))?;
                // What systemd has no property for, and what it rounds.
                Ok(self.group.write(limits)?)
            }
        }
    }
}

/// The control group that a machine has.
#[derive(Debug)]
pub struct Home {
    group: Cgroup,
    /// The unit that it belongs to, if systemd made it.
    unit: Option<String>,
}

impl Home {
    /// From what a state file says.
    pub fn known(group: &Path, unit: Option<&str>) -> Home {
        Home { group: Cgroup::known(group.to_owned()), unit: unit.map(str::to_owned) }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        self.group.directory()
    }

    /// Its unit.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_deref()
    }

    /// Changes its limits.
    pub fn limit(&self, limits: &Files) -> Result<(), ContainerError> {
        if let Some(unit) = &self.unit {
            let mut systemd = Systemd::connect()?;
            let properties = in_properties(&mut systemd, limits)?;
            systemd.set_properties(unit, &properties)?;
        }
        Ok(self.group.write(limits)?)
    }

    /// Removes it with all that is in it. A systemd that cannot be asked finds out by itself that the group has gone.
    pub fn clear_away(&self) -> Result<(), ContainerError> {
        self.group.kill();
        if let Some(unit) = &self.unit
            && let Err(error) = Systemd::connect().and_then(|mut systemd| systemd.stop(unit))
        {
            let error = crate::error::chain(&error);
            tracing::warn!(unit, error, "systemd does not stop the unit of a container that has ended");
        }
        Ok(self.group.remove()?)
    }
}

/// Limits in systemd's words; which it knows depends on its version, which is asked for only then.
fn in_properties(systemd: &mut Systemd, limits: &Files) -> Result<unit::Properties, ContainerError> {
    let version = if unit::depends_on_version(limits) { systemd.version()? } else { 0 };
    Ok(unit::limits(limits, version))
}

/// Refuses a network namespace that is our own, and one that is not there.
pub fn check_network(decision: &Decision) -> Result<(), ContainerError> {
    let NetworkNamespace::Path(path) = &decision.network else { return Ok(()) };
    match proc::same_file(path, Path::new("/proc/self/ns/net")) {
        Ok(false) => Ok(()),
        Ok(true) => {
            Err(ContainerError::Unsupported(format!("linux.namespaces: {}", namespace::NO_HOST_NETWORK)))
        }
        Err(source) => Err(super::error::host("linux.namespaces: network namespace", path)(source)),
    }
}
