//! `exec`: runs one more process in a container.

use super::context::{Context, absolute};
use super::create::refuse_descriptors;
use super::{CliError, usage};
use crate::container::exec::{Changes, Request, What};
use clap::Args;
use std::path::PathBuf;

/// Run a process in a container
#[derive(Debug, Args)]
pub struct Exec {
    /// Unix socket that is sent the terminal's master end
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that is sent a pidfd of the process's stand-in
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIRECTORY")]
    cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// User: UID[:GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Additional group
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<String>,
    /// File with the process's specification
    #[arg(short, long, value_name = "FILE")]
    process: Option<PathBuf>,
    /// Leave when it runs
    #[arg(short, long)]
    detach: bool,
    /// File for its stand-in's pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    no_new_privs: bool,
    /// Capability to add
    #[arg(short, long, value_name = "CAPABILITY")]
    cap: Vec<String>,
    /// Descriptors to pass on (refused unless 0: none can enter a machine)
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
    /// Control group below the container's own
    #[arg(long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Even if the container is paused
    #[arg(long)]
    ignore_paused: bool,
    /// The container, the program and its arguments
    #[arg(
        value_name = "CONTAINER COMMAND",
        required = false,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    operands: Vec<String>,
}

impl Exec {
    /// Acts. What fails before the process runs exits with 255, whatever it is, as under runc.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        usage::first("exec", &self.operands)?;
        self.run(context).map_err(|source| CliError::Failed {
            verb: "exec",
            source: source.into(),
            code: 255,
        })
    }

    fn run(&self, context: &Context) -> Result<u8, CliError> {
        let (id, args) = usage::first("exec", &self.operands)?;
        let container = context.container(id)?;
        refuse_descriptors(self.preserve_fds)?;
        let pid_file = self.pid_file.as_deref().map(absolute).transpose()?;
        let operator = context.operator()?;
        let what = match &self.process {
            Some(path) => What::File(path),
            None => What::Changes(self.changes(args)?),
        };
        Ok(container.exec(&Request {
            what,
            detach: self.detach,
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            pid_file: pid_file.as_deref(),
            ignore_paused: self.ignore_paused,
            cgroup: sub_cgroup(&self.cgroup)?,
            operator: &operator,
        })?)
    }

    fn changes(&self, args: &[String]) -> Result<Changes, CliError> {
        let number = |text: &str| text.parse::<u32>();
        let gid = |text: &String| {
            number(text)
                .map_err(|_| CliError::Message(format!("additional-gids must be a positive number {text}")))
        };
        Ok(Changes {
            args: args.to_vec(),
            cwd: self.cwd.clone(),
            env: self.env.clone(),
            tty: self.tty,
            user: self.user.as_deref().map(user).transpose()?,
            additional_gids: self.additional_gids.iter().map(gid).collect::<Result<_, _>>()?,
            capabilities: self.cap.clone(),
            no_new_privileges: self.no_new_privs.then_some(true),
            apparmor: self.apparmor.clone(),
            label: self.process_label.clone(),
        })
    }
}

/// `UID` or `UID:GID`.
fn user(text: &str) -> Result<(u32, Option<u32>), CliError> {
    let number = |what: &str, text: &str| {
        text.parse::<u32>().map_err(|_| CliError::Message(format!("bad {what}: {text:?} is not a number")))
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number("uid", uid)?, Some(number("gid", gid)?))),
        None => Ok((number("uid", text)?, None)),
    }
}

/// One path below the container's group: cgroup v2 has one hierarchy, and names of controllers make no sense in it.
fn sub_cgroup(given: &[String]) -> Result<Option<String>, CliError> {
    let refused =
        |path: &str, why: &str| Err(CliError::Message(format!("invalid --cgroup argument: {path} ({why})")));
    match given {
        [] => Ok(None),
        [path] if path.contains(':') => {
            refused(path, "controllers are of cgroup v1; a machine has cgroup v2")
        }
        [path] if path.split('/').any(|part| part == "..") => {
            Err(CliError::Message(format!("{path} is not a sub cgroup path")))
        }
        [path] => Ok(Some(path.trim_matches('/').to_owned())),
        [path, ..] => refused(path, "missing <controller>: prefix"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_two() {
        assert_eq!(user("1000").unwrap(), (1000, None));
        assert_eq!(user("1000:0").unwrap(), (1000, Some(0)));
        for text in ["", "root", "1000:", ":0", "-1", "1:2:3"] {
            assert!(user(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_group_is_below_the_containers_own() {
        let of = |list: &[&str]| sub_cgroup(&list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["/"]).unwrap().as_deref(), Some(""));
        assert_eq!(of(&["foo/bar"]).unwrap().as_deref(), Some("foo/bar"));
        assert_eq!(of(&[".."]).unwrap_err().to_string(), ".. is not a sub cgroup path");
        assert!(of(&["cpu:foo"]).is_err() && of(&["a", "b"]).is_err());
    }
}
