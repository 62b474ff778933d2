//! What can go wrong with a container. The words are runc's where callers look for them.

use super::foreground::ForegroundError;
use super::stand_in::StandInError;
use super::state::StateError;
use super::status::Status;
use crate::bundle::BundleError;
use crate::config::ConfigError;
use crate::error::{ErrorKind, Kind};
use crate::host::cgroup::CgroupError;
use crate::host::systemd::SystemdError;
use crate::machine::control::client::ClientError;
use crate::machine::control::wire::WireError;
use crate::machine::export::ExportError;
use crate::machine::order::Failed;
use crate::process::signal::SignalError;
use crate::process::terminal::TerminalError;
use std::path::PathBuf;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The name is not one.
    #[error("invalid container ID format")]
    InvalidId,
    /// There is no name.
    #[error("container id cannot be empty")]
    EmptyId,
    /// The name is taken.
    #[error("container with given ID already exists")]
    Exists,
    /// There is no such container.
    #[error("container does not exist")]
    NotFound,
    /// A container names a sandbox that cannot be joined.
    #[error("sandbox {id}: {why}")]
    Sandbox {
        /// The name.
        id: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// A tree that it shares.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// Its program has ended, or never began.
    #[error("container not running")]
    NotRunning,
    /// It runs, so it cannot be deleted.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// Which.
        id: String,
        /// Its status.
        status: Status,
    },
    /// It did not end when it was killed.
    #[error("container init still running")]
    StillRunning,
    /// The status does not allow it.
    #[error("{0}")]
    WrongStatus(String),
    /// Options contradict each other or the bundle, or ask for what a machine cannot do.
    #[error("{0}")]
    BadRequest(String),
    /// husk cannot do this.
    #[error("{0}")]
    Unsupported(String),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Its specification cannot be honoured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its state file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// A control group of the host.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// systemd, which was to make one.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A terminal.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// Our own signals.
    #[error(transparent)]
    Signals(#[from] SignalError),
    /// Waiting for the container in the foreground.
    #[error(transparent)]
    Foreground(#[from] ForegroundError),
    /// A process that was to be run in it.
    #[error(transparent)]
    StandIn(#[from] StandInError),
    /// Its machine, spoken to over the control socket.
    #[error(transparent)]
    Control(#[from] ClientError),
    /// Its control socket, on our side.
    #[error(transparent)]
    Socket(#[from] WireError),
    /// Its machine, in its own words, while it was being made.
    #[error("{}", .0.message)]
    Machine(Failed),
    /// Its machine ended while it was being made, and said nothing.
    #[error("the machine process ended before the container was made ({how})")]
    MachineDied {
        /// With which status.
        how: String,
    },
    /// It did not report in time.
    #[error("the machine process did not report {what} in time")]
    MachineSilent {
        /// What was waited for.
        what: &'static str,
    },
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {reason}")]
    Hook {
        /// `prestart`, ...
        kind: &'static str,
        /// Its place in the list, from 0.
        index: usize,
        /// What happened.
        reason: String,
    },
    /// The host failed us.
    #[error("{what} {path}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Kind for ContainerError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidId | Self::EmptyId | Self::BadRequest(_) => ErrorKind::InvalidArgument,
            Self::Exists => ErrorKind::AlreadyExists,
            Self::NotFound | Self::NotRunning | Self::Sandbox { .. } => ErrorKind::NotFound,
            Self::Export(error) => error.kind(),
            Self::NotStopped { .. } | Self::WrongStatus(_) => ErrorKind::InvalidState,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Bundle(error) => error.kind(),
            Self::Config(error) => error.kind(),
            Self::StandIn(error) => error.kind(),
            Self::Control(error) => error.kind(),
            Self::Machine(failed) => failed.kind,
            _ => ErrorKind::Host,
        }
    }
}

/// Names what was attempted on a path when the host failed.
pub(super) fn host(
    what: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> ContainerError {
    let path = path.into();
    move |source| ContainerError::Host { what, path, source }
}
