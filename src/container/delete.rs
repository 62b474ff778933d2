//! `delete`: removes what is left of a container, and the container itself if need be.

use super::error::ContainerError;
use super::state::StateError;
use super::store::Reserved;
use super::{Container, ContainerId, Status, Store, hooks};
use crate::host::{deadline, fault, tap};
use crate::machine::control::client::{ClientError, Connection};
use crate::machine::control::{Address, Command};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long whoever creates or deletes the same container may take.
const OTHERS_PATIENCE: Duration = Duration::from_secs(15);
/// How long a machine that only its control socket leads to may take to end.
const TO_END: Duration = Duration::from_secs(10);

/// Deletes a container: one that has stopped or was never started; with `force` any, and then it is no error if there
/// is none.
pub fn delete(store: &Store, id: &ContainerId, force: bool) -> Result<(), ContainerError> {
    match delete_existing(store, id, force) {
        Err(ContainerError::NotFound) if force => Ok(()),
        other => other,
    }
}

fn delete_existing(store: &Store, id: &ContainerId, force: bool) -> Result<(), ContainerError> {
    if force {
        end_creation(store, id);
    }
    let Some(reserved) = store.lock(id, if force { OTHERS_PATIENCE } else { Duration::ZERO })? else {
        let status = Status::Creating;
        return Err(ContainerError::NotStopped { id: id.to_string(), status });
    };
    match Container::load(store, id) {
        Ok(container) => delete_loaded(&container, reserved, force),
        // Left behind by a `create` that was killed before it could write a state.
        Err(ContainerError::NotFound) => {
            reserved.remove()?;
            Err(ContainerError::NotFound)
        }
        Err(ContainerError::State(StateError::Damaged { .. } | StateError::Unreadable { .. })) if force => {
            end_by_socket(&Address::of_first(&reserved.directory.join(super::CONTROL)))?;
            reserved.remove()
        }
        Err(error) => Err(error),
    }
}

fn delete_loaded(container: &Container, reserved: Reserved, force: bool) -> Result<(), ContainerError> {
    fault::point("to be deleted");
    match container.status() {
        Status::Stopped => {}
        Status::Created | Status::Creating => container.kill_and_wait()?,
        _ if force => container.kill_and_wait()?,
        status => return Err(ContainerError::NotStopped { id: container.id.to_string(), status }),
    }
    destroy(container, reserved)
}

/// Removes what a container that has stopped leaves: its group, its directory; then its hooks are told.
pub(super) fn destroy(container: &Container, reserved: Reserved) -> Result<(), ContainerError> {
    fault::point("killed");
    if let Some(home) = container.state.home() {
        home.clear_away()?;
    }
    fault::point("group removed");
    // A machine that ended by itself has done so itself. The namespace may be gone, and with it all that was in it.
    if let Some(Ok(namespace)) = container.state.network.as_ref().map(open_namespace)
        && let Err(error) = tap::clear_abandoned(&namespace)
    {
        tracing::debug!(%error, "cannot look after the network namespace");
    }
    reserved.remove()?;
    fault::point("deleted");
    hooks::run_all("poststop", &container.state.hooks.poststop, &container.oci_state(Status::Stopped));
    Ok(())
}

/// Without waiting for anything, whatever is there by now.
fn open_namespace(path: &PathBuf) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Kills the machine of a container that is still being created: its creator then fails, cleans up and lets go of the
/// lock. If there is no machine yet, waiting for the creator is all there is.
fn end_creation(store: &Store, id: &ContainerId) {
    if let Ok(container) = Container::load(store, id)
        && container.status() == Status::Creating
    {
        let _ = container.kill_and_wait();
    }
}

/// Kills a machine whose pid nobody knows any more, and waits until its control socket is dead.
fn end_by_socket(control: &Address) -> Result<(), ContainerError> {
    let until = deadline::after(TO_END);
    loop {
        match Connection::open(control) {
            Err(ClientError::Gone) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(mut connection) => {
                let kill = Command::Signal { signal: libc::SIGKILL, all: true };
                let _ = connection
                    .send(&kill, &[])
                    .and_then(|()| connection.receive(Some(Duration::from_secs(1))));
            }
        }
        if Instant::now() >= until {
            return Err(ContainerError::StillRunning);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
