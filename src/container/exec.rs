//! `exec`: one more process in a container.

use super::create::{self, Terminal};
use super::error::{ContainerError, host};
use super::execution::Execution;
use super::stand_in::{self, ExecOrder};
use super::{Container, SECCOMP, Status, pid_file};
use crate::bundle::{self, spec};
use crate::config::operator::Operator;
use crate::config::process::{self, Surroundings};
use crate::config::seccomp::Program;
use crate::host::file;
use crate::process::terminal;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// What is asked for.
#[derive(Debug)]
pub struct Request<'a> {
    /// What to run.
    pub what: What<'a>,
    /// Whether the caller leaves when it runs.
    pub detach: bool,
    /// Where the terminal's master end goes.
    pub console_socket: Option<&'a Path>,
    /// Where a pidfd of the stand-in goes.
    pub pidfd_socket: Option<&'a Path>,
    /// Where the stand-in's pid goes.
    pub pid_file: Option<&'a Path>,
    /// Whether a paused container will do.
    pub ignore_paused: bool,
    /// A group below the container's own to join.
    pub cgroup: Option<String>,
    /// The operator's configuration.
    pub operator: &'a Operator,
}

/// What to run.
#[derive(Debug)]
pub enum What<'a> {
    /// A process specification in a file.
    File(&'a Path),
    /// The container's own, but for this.
    Changes(Changes),
}

/// Changes to the container's own process specification.
#[derive(Debug, Default)]
pub struct Changes {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Working directory.
    pub cwd: Option<PathBuf>,
    /// More environment.
    pub env: Vec<String>,
    /// With a terminal.
    pub tty: bool,
    /// User, and group if given.
    pub user: Option<(u32, Option<u32>)>,
    /// More groups.
    pub additional_gids: Vec<u32>,
    /// More capabilities, by name.
    pub capabilities: Vec<String>,
    /// no_new_privs, if said.
    pub no_new_privileges: Option<bool>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub label: Option<String>,
}

impl Container {
    /// Runs a process. The status of its program, or 0 when we do not stay.
    pub fn exec(&self, request: &Request<'_>) -> Result<u8, ContainerError> {
        self.check_status(request.ignore_paused)?;
        let given = self.specification(&request.what)?;
        let wanted = process::terminal("process", &given)?;
        create::check_terminal(wanted.is_some(), !request.detach, request.console_socket.is_some())?;
        let terminal = Terminal::open(wanted, !request.detach)?;
        let order = ExecOrder {
            id: self.id.to_string(),
            control: self.control(),
            process: Box::new(husk_protocol::Process {
                plain_newlines: terminal.own.is_some(),
                ..self.decide(&given, request.cgroup.clone(), request.operator)?
            }),
            terminal: terminal.size,
            cgroup: self.state.cgroup.clone().filter(|_| request.detach),
        };
        if request.detach {
            self.exec_detached(request, order, &terminal)
        } else {
            self.exec_attached(request, order, &terminal)
        }
    }

    /// Runs a process on `streams` (stdin, stdout and stderr; of a terminal the first carries what is typed and the
    /// second what it shows). It is for the caller to stand for it.
    pub fn execute(
        &self,
        given: &Process,
        streams: [BorrowedFd<'_>; 3],
        operator: &Operator,
    ) -> Result<Execution, ContainerError> {
        self.check_status(false)?;
        let terminal = process::terminal("process", given)?;
        let process = Box::new(self.decide(given, None, operator)?);
        let [input, output, _] = streams;
        Ok(match terminal {
            Some(_) => Execution::begin(&self.control(), process, terminal, &[input, output])?,
            None => Execution::begin(&self.control(), process, None, &streams)?,
        })
    }

    fn check_status(&self, ignore_paused: bool) -> Result<(), ContainerError> {
        let refused = |text: &str| Err(ContainerError::WrongStatus(text.to_owned()));
        match self.status() {
            Status::Stopped => refused("cannot exec in a stopped container"),
            Status::Paused if !ignore_paused => {
                refused("cannot exec in a paused container (use --ignore-paused to override)")
            }
            _ => Ok(()),
        }
    }

    fn exec_detached(
        &self,
        request: &Request<'_>,
        order: ExecOrder,
        terminal: &Terminal,
    ) -> Result<u8, ContainerError> {
        let pid = stand_in::spawn(order, terminal.descriptor())?;
        let pid = i32::try_from(pid).unwrap_or(i32::MAX);
        let handed_over = (|| {
            if let (Some(socket), Some(pair)) = (request.console_socket, &terminal.pair) {
                terminal::send_to_console_socket(socket, pair.master.as_fd(), &pair.name)?;
            }
            if let Some(socket) = request.pidfd_socket {
                create::send_pidfd(socket, pid)?;
            }
            request.pid_file.map_or(Ok(()), |path| pid_file::write(path, pid))
        })();
        if handed_over.is_err() {
            // The caller will never know of it: with its stand-in the process inside goes too.
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        handed_over.map(|()| 0)
    }

    /// We are the stand-in ourselves.
    fn exec_attached(
        &self,
        request: &Request<'_>,
        order: ExecOrder,
        terminal: &Terminal,
    ) -> Result<u8, ContainerError> {
        let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        if let Some(socket) = request.pidfd_socket {
            create::send_pidfd(socket, own)?;
        }
        if let Some(path) = request.pid_file {
            pid_file::write(path, own)?;
        }
        Ok(stand_in::run(order, terminal.descriptor())?)
    }

    fn specification(&self, what: &What<'_>) -> Result<Process, ContainerError> {
        match what {
            What::File(path) => {
                let bytes = file::read_bounded(path, spec::LONGEST).map_err(host("open", *path))?;
                spec::parse_process(&bytes)
                    .map_err(|error| ContainerError::BadRequest(format!("{}: {error}", path.display())))
            }
            What::Changes(changes) => {
                let spec = bundle::read_config(&self.state.bundle)?;
                let missing = || ContainerError::BadRequest("process property must not be empty".into());
                changes.apply(spec.process().clone().ok_or_else(missing)?)
            }
        }
    }

    fn decide(
        &self,
        given: &Process,
        cgroup: Option<String>,
        operator: &Operator,
    ) -> Result<husk_protocol::Process, ContainerError> {
        let around =
            Surroundings { seccomp: self.seccomp()?, security_labels: operator.container.security_labels };
        let mut process = process::decide("process", given, &around)?;
        if given.capabilities().is_none() {
            process.capabilities = self.state.exec.capabilities;
        }
        process.oom_score_adj = process.oom_score_adj.or(self.state.exec.oom_score_adj);
        process.cgroup = cgroup;
        Ok(process)
    }

    /// The container's compiled profile, as `create` left it.
    fn seccomp(&self) -> Result<Program, ContainerError> {
        let path = self.directory.join(SECCOMP);
        match file::read_bounded(&path, spec::LONGEST) {
            Ok(bytes) => match bytes.split_first_chunk::<4>() {
                Some((flags, instructions)) if !instructions.is_empty() && instructions.len() % 8 == 0 => {
                    Ok(Program { flags: u32::from_le_bytes(*flags), instructions: instructions.to_vec() })
                }
                // Never a process without the filter that its container has.
                _ => {
                    Err(host("read", path)(std::io::Error::other("the compiled seccomp profile is damaged")))
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Program::default()),
            Err(error) => Err(host("read", path)(error)),
        }
    }
}

impl Changes {
    fn apply(&self, mut process: Process) -> Result<Process, ContainerError> {
        if self.args.is_empty() {
            return Err(ContainerError::BadRequest("exec args cannot be empty".into()));
        }
        process.set_args(Some(self.args.clone()));
        if let Some(cwd) = &self.cwd {
            process.set_cwd(cwd.clone());
        }
        if let Some(profile) = &self.apparmor {
            process.set_apparmor_profile(Some(profile.clone()));
        }
        if let Some(label) = &self.label {
            process.set_selinux_label(Some(label.clone()));
        }
        process.env_mut().get_or_insert_default().extend(self.env.iter().cloned());
        process.set_terminal(Some(self.tty));
        if let Some(value) = self.no_new_privileges {
            process.set_no_new_privileges(Some(value));
        }
        if let Some((uid, gid)) = self.user {
            process.user_mut().set_uid(uid);
            if let Some(gid) = gid {
                process.user_mut().set_gid(gid);
            }
        }
        if !self.additional_gids.is_empty() {
            let mut gids = process.user().additional_gids().clone().unwrap_or_default();
            gids.extend(&self.additional_gids);
            process.user_mut().set_additional_gids(Some(gids));
        }
        if !self.capabilities.is_empty() {
            let mut sets = process.capabilities().clone().unwrap_or_else(no_capabilities);
            self.add_capabilities(&mut sets)?;
            process.set_capabilities(Some(sets));
        }
        Ok(process)
    }

    /// As runc has it: the ambient set grows only where the container has inheritable capabilities at all.
    fn add_capabilities(&self, sets: &mut LinuxCapabilities) -> Result<(), ContainerError> {
        let known = |name: &String| {
            let unknown = |_| ContainerError::BadRequest(format!("--cap: {name:?} is not a capability"));
            serde_json::from_value::<Capability>(name.clone().into()).map_err(unknown)
        };
        let more = self.capabilities.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let added = |set: &Option<std::collections::HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.extend(&more);
            Some(set)
        };
        sets.set_bounding(added(sets.bounding()));
        sets.set_effective(added(sets.effective()));
        sets.set_permitted(added(sets.permitted()));
        if sets.inheritable().is_some() {
            sets.set_ambient(added(sets.ambient()));
        }
        Ok(())
    }
}

fn no_capabilities() -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    sets
}
