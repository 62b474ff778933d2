//! `run`: create, start, and stay until the end, unless told to leave.

use super::create::{self, Request};
use super::error::ContainerError;
use super::foreground;
use super::{Container, Store, delete};
use crate::process::signal::Signals;
use crate::process::terminal::RawMode;
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::time::Duration;

/// How long another command may hold the container that we delete at its end.
const OTHERS_PATIENCE: Duration = Duration::from_secs(15);

/// Runs a container. The status of its program, or 0 when we do not stay.
pub fn run(store: &Store, request: &Request<'_>, keep: bool) -> Result<u8, ContainerError> {
    // Before anything is started: a signal that comes while the guest boots is for the container.
    let signals = if request.foreground { Some(Signals::take()?) } else { None };
    let created = create::create(store, request)?;
    let mut container = created.container;
    if let Err(error) = container.start_created() {
        let _ = container.kill_and_wait();
        // It was ours alone and never ran: nothing to keep.
        let _ = remove(store, &container);
        return Err(error);
    }
    let Some(signals) = signals else { return Ok(0) };
    let raw = created.terminal.as_ref().map(|own| own.try_clone()).transpose();
    let raw = raw.map_err(super::error::host("dup", "the terminal"))?.map(RawMode::enter).transpose()?;
    let machine = Pid::from_raw(container.state.pid);
    let status = foreground::follow(
        machine,
        &signals,
        &container.control(),
        created.terminal.as_ref().map(AsFd::as_fd),
    );
    drop(raw);
    if status.is_err() {
        let _ = container.kill_and_wait();
    }
    if !keep {
        remove(store, &container)?;
    }
    Ok(status?)
}

/// Another command may have deleted it in the meantime; that is as good.
fn remove(store: &Store, container: &Container) -> Result<(), ContainerError> {
    match store.lock(&container.id, OTHERS_PATIENCE) {
        Ok(Some(reserved)) => delete::destroy(container, reserved),
        Ok(None) | Err(ContainerError::NotFound) => Ok(()),
        Err(error) => Err(error),
    }
}
