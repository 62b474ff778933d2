//! A process: the spec's `process` (of a bundle or of `exec --process`) to what the agent runs.

use super::error::{ConfigError, c_string, invalid, path_string, unsupported};
use super::operator::SecurityLabels;
use super::{capability, rlimit, scheduler};
use husk_protocol::{Stdio, TerminalSize, User};
use oci_spec::runtime::Process;

/// What of a process does not come from its own spec.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The container's seccomp program, empty for none.
    pub seccomp: super::seccomp::Program,
    /// What the operator says about AppArmor profiles and SELinux labels.
    pub security_labels: SecurityLabels,
}

/// Decides. `field` is the path of the process in what the user wrote, for errors.
pub fn decide(
    field: &str,
    given: &Process,
    around: &Surroundings,
) -> Result<husk_protocol::Process, ConfigError> {
    let at = |name: &str| format!("{field}.{name}");
    refuse_others(field, given, around.security_labels)?;
    let args = strings(&at("args"), given.args().as_deref().unwrap_or(&[]))?;
    if args.is_empty() {
        return Err(invalid(at("args"), "args must not be empty"));
    }
    let cwd = path_string(&at("cwd"), given.cwd())?;
    if cwd.is_empty() {
        return Err(invalid(at("cwd"), "Cwd property must not be empty"));
    }
    if !cwd.starts_with('/') {
        return Err(invalid(at("cwd"), "Cwd must be an absolute path"));
    }
    Ok(husk_protocol::Process {
        args,
        env: environment(&at("env"), given.env().as_deref().unwrap_or(&[]))?,
        cwd,
        user: user(&at("user"), given)?,
        stdio: Stdio::Null,
        capabilities: capability::sets(given.capabilities().as_ref()),
        rlimits: rlimit::limits(&at("rlimits"), given.rlimits().as_deref().unwrap_or(&[]))?,
        no_new_privileges: given.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(&at("oomScoreAdj"), given.oom_score_adj())?,
        scheduler: given
            .scheduler()
            .as_ref()
            .map(|given| scheduler::scheduler(&at("scheduler"), given))
            .transpose()?,
        io_priority: given
            .io_priority()
            .as_ref()
            .map(|given| scheduler::io_priority(&at("ioPriority"), given))
            .transpose()?,
        cpu_affinity: given
            .exec_cpu_affinity()
            .as_ref()
            .map(|given| (given.initial().clone(), given.cpu_affinity_final().clone())),
        seccomp: around.seccomp.instructions.clone(),
        seccomp_flags: around.seccomp.flags,
        cgroup: None,
        plain_newlines: false,
    })
}

/// The first size of the process's terminal; `None` when it has no terminal.
pub fn terminal(field: &str, given: &Process) -> Result<Option<TerminalSize>, ConfigError> {
    if !given.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let Some(size) = given.console_size() else { return Ok(Some(TerminalSize::default())) };
    let fits = |name: &str, value: u64| {
        u16::try_from(value)
            .map_err(|_| invalid(format!("{field}.consoleSize.{name}"), format!("{value} is above 65535")))
    };
    Ok(Some(TerminalSize { rows: fits("height", size.height())?, columns: fits("width", size.width())? }))
}

fn refuse_others(field: &str, given: &Process, labels: SecurityLabels) -> Result<(), ConfigError> {
    if given.command_line().as_ref().is_some_and(|line| !line.is_empty()) {
        return Err(unsupported(format!("{field}.commandLine"), "is for Windows; use args"));
    }
    let named =
        |label: &Option<String>| label.as_ref().is_some_and(|text| !text.is_empty() && text != "unconfined");
    if labels == SecurityLabels::Ignore {
        return Ok(());
    }
    let instead = "the guest kernel has no such module; see security_labels in husk's configuration file";
    if named(given.apparmor_profile()) {
        return Err(unsupported(format!("{field}.apparmorProfile"), instead));
    }
    if named(given.selinux_label()) {
        return Err(unsupported(format!("{field}.selinuxLabel"), instead));
    }
    Ok(())
}

fn strings(field: &str, given: &[String]) -> Result<Vec<String>, ConfigError> {
    given.iter().enumerate().map(|(index, text)| c_string(&format!("{field}[{index}]"), text)).collect()
}

/// Checks the environment and keeps the last value of each name, as runc does.
fn environment(field: &str, given: &[String]) -> Result<Vec<String>, ConfigError> {
    let mut environment: Vec<String> = Vec::with_capacity(given.len());
    let mut places = std::collections::HashMap::new();
    for (index, entry) in given.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let entry = c_string(&field, entry)?;
        let (name, _) = entry
            .split_once('=')
            .ok_or_else(|| invalid(&field, "invalid environment variable: missing '='"))?;
        if name.is_empty() {
            return Err(invalid(&field, "invalid environment variable: name cannot be empty"));
        }
        match places.entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(place) => {
                if let Some(earlier) = environment.get_mut(*place.get()) {
                    *earlier = entry;
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(environment.len());
                environment.push(entry);
            }
        }
    }
    Ok(environment)
}

fn user(field: &str, given: &Process) -> Result<User, ConfigError> {
    let given = given.user();
    let umask = given.umask();
    if umask.is_some_and(|mask| mask > 0o777) {
        return Err(invalid(format!("{field}.umask"), format!("{:#o} is above 0o777", umask.unwrap_or(0))));
    }
    Ok(User {
        uid: given.uid(),
        gid: given.gid(),
        additional_gids: given.additional_gids().clone().unwrap_or_default(),
        umask,
    })
}

fn oom_score_adj(field: &str, given: Option<i32>) -> Result<Option<i32>, ConfigError> {
    match given {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(invalid(field, format!("{score} is not between -1000 and 1000")))
        }
        other => Ok(other),
    }
}
