//! `create`: makes a container that waits for `start`.

use super::context::{Context, absolute};
use super::{CliError, usage};
use crate::container::{ContainerError, ContainerId, create};
use clap::Args;
use std::path::{Path, PathBuf};

/// Create a container from a bundle
#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    pub making: Making,
    /// The container's name, unique on this host
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

/// Options that `create` and `run` share.
#[derive(Debug, Args)]
pub struct Making {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIRECTORY", default_value = ".")]
    bundle: PathBuf,
    /// Unix socket that is sent the terminal's master end
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that is sent a pidfd of the machine process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// File for the machine process's pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Accepted for runc's callers: a machine has its own root
    #[arg(long)]
    no_pivot: bool,
    /// Accepted for runc's callers: a machine has its own keyrings
    #[arg(long)]
    no_new_keyring: bool,
    /// Descriptors to pass on (refused unless 0: none can enter a machine)
    #[arg(long, value_name = "N", default_value_t = 0)]
    preserve_fds: u32,
}

impl Create {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let id = usage::one("create", &self.operands)?;
        let created = self
            .making
            .with_request(context, id, false, |request| create::create(&context.store, request).map(drop));
        created.map(|()| 0).map_err(|source| CliError::Failed {
            verb: "husk create",
            source: source.into(),
            code: 1,
        })
    }
}

impl Making {
    /// Builds the request and acts on it.
    pub fn with_request<T>(
        &self,
        context: &Context,
        id: &str,
        foreground: bool,
        act: impl FnOnce(&create::Request<'_>) -> Result<T, ContainerError>,
    ) -> Result<T, CliError> {
        refuse_descriptors(self.preserve_fds)?;
        let id = ContainerId::new(id)?;
        let operator = context.operator()?;
        let pid_file = self.pid_file.as_deref().map(absolute).transpose()?;
        Ok(act(&create::Request {
            id: &id,
            bundle: &self.bundle,
            operator: &operator,
            program: Path::new(create::THIS_PROGRAM),
            streams: None,
            foreground,
            console_socket: self.console_socket.as_deref(),
            pidfd_socket: self.pidfd_socket.as_deref(),
            pid_file: pid_file.as_deref(),
            systemd_cgroup: context.systemd_cgroup,
            log: context.log.of_machine(foreground),
            debug: context.debug,
        })?)
    }
}

/// Open files cannot be passed into a machine: neither those that `--preserve-fds` counts nor those of socket activation.
pub fn refuse_descriptors(preserve: u32) -> Result<(), CliError> {
    let refused = |what: &str| {
        let text = format!("{what}: open descriptors of the host cannot be passed into a machine");
        Err(CliError::Container(ContainerError::Unsupported(text)))
    };
    if preserve > 0 {
        return refused("--preserve-fds");
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let for_us = number("LISTEN_PID") == Some(std::process::id());
    if for_us && number("LISTEN_FDS").is_some_and(|count| count > 0) { refused("LISTEN_FDS") } else { Ok(()) }
}
