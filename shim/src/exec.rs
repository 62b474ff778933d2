//! One more process in a container: added, started, ended, deleted.

use crate::events::{Events, TaskExecStarted, TaskExit};
use crate::exit::{Ended, Exit};
use crate::failure::Failure;
use crate::stdio::{self, Held, Names};
use crate::{log, task::Place};
use containerd_shim_protos::api::{StateResponse, Status};
use husk::container::Container;
use husk::container::execution::{Ending, Remote};
use husk::process::exit::KILLED;
use husk_protocol::TerminalSize;
use oci_spec::runtime::Process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A thread that waits for one process needs little.
pub const STACK: usize = 128 << 10;

/// The process.
pub struct Exec {
    /// Its name, unique in its container.
    pub id: String,
    names: Names,
    process: Process,
    /// Its end.
    pub ended: Ended,
    stage: Mutex<Stage>,
}

enum Stage {
    Added,
    Running {
        remote: Remote,
        held: Held,
    },
    /// It could not be started, or has been deleted.
    Over,
}

impl Exec {
    /// Added, not started.
    pub fn new(id: String, process: Process, names: Names) -> Exec {
        Exec { id, names, process, ended: Ended::default(), stage: Mutex::new(Stage::Added) }
    }

    /// Starts it in `container`, and has a thread wait for its end.
    pub fn start(self: &Arc<Self>, container: &Container, place: &Place) -> Result<u32, Failure> {
        let mut stage = self.lock();
        if !matches!(*stage, Stage::Added) {
            return Err(Failure::precondition("cannot start a process that has been started already"));
        }
        let (given, held) = stdio::open(&self.names, &place.namespace, place.id.as_str())?;
        let begun = container.execute(&self.process, given.borrow(), &place.operator);
        drop(given);
        let split = begun.map_err(Failure::from).and_then(|execution| {
            execution.split().map_err(|error| Failure::host("hold the process's connection", &error))
        });
        let (remote, ending) = match split {
            Ok(split) => split,
            Err(failure) => {
                *stage = Stage::Over;
                self.ended.note(Exit::now(u8::MAX));
                return Err(failure.while_doing("OCI runtime exec failed"));
            }
        };
        *stage = Stage::Running { remote, held };
        drop(stage);
        let pid = u32::try_from(container.state.pid).unwrap_or_default();
        place.events.publish(&TaskExecStarted {
            container_id: place.id.to_string(),
            exec_id: self.id.clone(),
            pid,
            ..Default::default()
        });
        let (exec, events, id) = (Arc::clone(self), place.events.clone(), place.id.to_string());
        let waits = move || exec.wait(ending, &events, id, pid);
        let spawned = std::thread::Builder::new().name("exec".into()).stack_size(STACK).spawn(waits);
        spawned.map_err(|error| Failure::host("make a thread for the process", &error))?;
        Ok(pid)
    }

    fn wait(&self, ending: Ending, events: &Events, container_id: String, pid: u32) {
        let status = ending.wait().unwrap_or_else(|error| {
            log::error(&format!("the process {} of {container_id} was lost sight of: {error}", self.id));
            KILLED
        });
        let exit = Exit::now(status);
        events.publish(&TaskExit {
            container_id,
            id: self.id.clone(),
            pid,
            exit_status: exit.status.into(),
            exited_at: exit.timestamp(),
            ..Default::default()
        });
        self.ended.note(exit);
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.ended.get().is_none() && matches!(*self.lock(), Stage::Running { .. })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<(), Failure> {
        if self.ended.get().is_some() {
            return Err(Failure::not_found("process already finished"));
        }
        match &*self.lock() {
            Stage::Running { remote, .. } => Ok(remote.signal(signal)?),
            Stage::Added => Err(Failure::precondition("process not created")),
            Stage::Over => Err(Failure::not_found("process already finished")),
        }
    }

    /// Its terminal has a new size.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Failure> {
        match &*self.lock() {
            Stage::Running { remote, .. } if self.names.terminal && self.ended.get().is_none() => {
                Ok(remote.resize(size)?)
            }
            // Nothing to resize, yet or any more, as with runc.
            _ => Ok(()),
        }
    }

    /// Nobody writes to its stdin any more.
    pub fn close_stdin(&self) {
        if let Stage::Running { held, .. } = &*self.lock() {
            held.close_stdin();
        }
    }

    /// Lets it go. It must not run.
    pub fn delete(&self) -> Result<Option<Exit>, Failure> {
        let mut stage = self.lock();
        let exit = self.ended.get();
        if matches!(*stage, Stage::Running { .. }) && exit.is_none() {
            return Err(Failure::precondition("cannot delete a running process"));
        }
        *stage = Stage::Over;
        Ok(exit)
    }

    /// As `State` tells it.
    pub fn state(&self, place: &Place, pid: u32) -> StateResponse {
        let exit = self.ended.get();
        let status = match (&*self.lock(), exit) {
            (_, Some(_)) | (Stage::Over, _) => Status::STOPPED,
            (Stage::Added, _) => Status::CREATED,
            (Stage::Running { .. }, _) => Status::RUNNING,
        };
        let mut response = StateResponse {
            id: self.id.clone(),
            exec_id: self.id.clone(),
            bundle: place.bundle.display().to_string(),
            pid: if status == Status::CREATED { 0 } else { pid },
            status: status.into(),
            ..Default::default()
        };
        self.names.tell(&mut response);
        tell_exit(exit, &mut response);
        response
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts an end into a state.
pub fn tell_exit(exit: Option<Exit>, response: &mut StateResponse) {
    if let Some(exit) = exit {
        response.exit_status = exit.status.into();
        response.exited_at = exit.timestamp();
    }
}
