//! One container, and the processes that were added to it.
//!
//! ```text
//!   create --> the machine is our child; a thread waits for it --------> reaped --> exit told --> deleted
//!              (or a sandbox's, that it joined: on its connection)
//!     start, exec ... (each holds `turn` shared)     the thread takes `turn` alone before it tells of the end
//! ```
//! So an exit is told after the start that it ends, and the container's after those of all its processes.

use crate::events::{
    Events, TaskCreate, TaskDelete, TaskExecAdded, TaskExit, TaskIO, TaskOOM, TaskPaused, TaskResumed,
    TaskStart,
};
use crate::exec::{self, Exec, tell_exit};
use crate::exit::{Ended, Exit};
use crate::failure::Failure;
use crate::options::Options;
use crate::stdio::{self, Held, Names};
use crate::{log, rootfs, stats};
use containerd_shim_protos::api::{
    CreateTaskRequest, ExecProcessRequest, ProcessInfo, StateResponse, Status as Word,
};
use containerd_shim_protos::shim::oci::ProcessDetails;
use husk::bundle::spec;
use husk::config::operator::Operator;
use husk::container::events::Happening;
use husk::container::{Container, ContainerId, Status, Store, create, delete, operator};
use husk::log::Form;
use husk::machine::control::Command;
use husk::process::exit::{GUEST_LOST, code_of};
use husk_protocol::TerminalSize;
use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

/// How long processes may take to end with their container.
const WITH_IT: Duration = Duration::from_secs(5);
/// How long an end that has happened may take to be told.
const TO_BE_TOLD: Duration = Duration::from_secs(20);
/// How often a watch looks up.
const GLANCE: Duration = Duration::from_secs(3600);

/// Where a container is and whom it concerns.
pub struct Place {
    /// Its name.
    pub id: ContainerId,
    /// containerd's namespace.
    pub namespace: String,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Where its state is kept.
    pub store: Store,
    /// husk's configuration.
    pub operator: Operator,
    /// Who wants to hear of it.
    pub events: Events,
}

/// The container.
pub struct Task {
    place: Place,
    names: Names,
    /// Its machine's pid. Of containers that have joined a sandbox, which have no process here, that is the sandbox's.
    pub pid: u32,
    ended: Ended,
    held: Mutex<Option<Held>>,
    turn: RwLock<()>,
    execs: Mutex<BTreeMap<String, Arc<Exec>>>,
}

impl Task {
    /// Makes the container. On failure nothing is left of it.
    pub fn create(
        request: &CreateTaskRequest,
        options: Options,
        namespace: &str,
        debug: bool,
        events: &Events,
    ) -> Result<Arc<Task>, Failure> {
        if !request.checkpoint.is_empty() {
            return Err(Failure::new(ttrpc::Code::UNIMPLEMENTED, "husk does not restore containers yet"));
        }
        let bundle = PathBuf::from(&request.bundle);
        let place = Place {
            id: ContainerId::new(&request.id)?,
            namespace: namespace.to_owned(),
            store: Store::new(&options.store(namespace)),
            operator: operator::read(options.config_path())?,
            bundle,
            events: events.clone(),
        };
        let names = Names {
            terminal: request.terminal,
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
        };
        rootfs::make(&place.bundle, &request.rootfs)?;
        let made = make(&place, &names, &options, debug);
        let (created, held) = made.inspect_err(|_| rootfs::undo(&place.bundle))?;
        let container = created.container;
        let task = Arc::new(Task {
            pid: u32::try_from(container.state.pid).unwrap_or_default(),
            place,
            names,
            ended: Ended::default(),
            held: Mutex::new(Some(held)),
            turn: RwLock::new(()),
            execs: Mutex::default(),
        });
        task.tell_creation(request);
        let waits = Arc::clone(&task);
        let thread = std::thread::Builder::new().name("task".into()).stack_size(exec::STACK);
        if let Err(error) = thread.spawn(move || waits.follow(created.held)) {
            let _ = container.kill_and_wait();
            let _ = delete::delete(&task.place.store, &task.place.id, true);
            rootfs::undo(&task.place.bundle);
            return Err(Failure::host("make a thread for the container", &error));
        }
        Ok(task)
    }

    fn tell_creation(&self, request: &CreateTaskRequest) {
        self.place.events.publish(&TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle.clone(),
            rootfs: request.rootfs.clone(),
            io: MessageField::some(TaskIO {
                stdin: request.stdin.clone(),
                stdout: request.stdout.clone(),
                stderr: request.stderr.clone(),
                terminal: request.terminal,
                ..Default::default()
            }),
            pid: self.pid,
            ..Default::default()
        });
    }

    /// The thread that waits for the end, and tells of kills for memory until then.
    fn follow(&self, held: create::Held) {
        if let Ok(container) = self.container()
            && let Ok(mut watch) = container.watch()
        {
            loop {
                match watch.next(GLANCE) {
                    Ok(Happening::OutOfMemory) => {
                        let container_id = self.place.id.to_string();
                        self.place.events.publish(&TaskOOM { container_id, ..Default::default() });
                    }
                    Ok(Happening::Nothing) => {}
                    Ok(Happening::Ended) | Err(_) => break,
                }
            }
        }
        let status = match held {
            create::Held::Process => self.reap(),
            create::Held::Connection(execution) => execution.into_ending().wait().unwrap_or_else(|error| {
                log::error(&format!("the container {} was lost sight of: {error}", self.place.id));
                GUEST_LOST
            }),
        };
        let _alone = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        for exec in self.running() {
            exec.ended.wait_for(WITH_IT);
        }
        let exit = Exit::now(status);
        self.place.events.publish(&TaskExit {
            container_id: self.place.id.to_string(),
            id: self.place.id.to_string(),
            pid: self.pid,
            exit_status: exit.status.into(),
            exited_at: exit.timestamp(),
            ..Default::default()
        });
        self.ended.note(exit);
    }

    fn reap(&self) -> u8 {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or(i32::MAX));
        loop {
            match waitpid(pid, None) {
                Ok(status) => {
                    if let Some(code) = code_of(status) {
                        return code;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(error) => {
                    log::error(&format!("the machine process {pid} of {} was lost: {error}", self.place.id));
                    return GUEST_LOST;
                }
            }
        }
    }

    /// Its program runs.
    pub fn start(&self) -> Result<u32, Failure> {
        let _turn = self.turn();
        let started = self.container().and_then(|mut container| Ok(container.start()?));
        started.map_err(|failure| failure.while_doing("OCI runtime start failed"))?;
        let container_id = self.place.id.to_string();
        self.place.events.publish(&TaskStart { container_id, pid: self.pid, ..Default::default() });
        Ok(self.pid)
    }

    /// A process is to be added.
    pub fn add(&self, request: ExecProcessRequest) -> Result<(), Failure> {
        // Before it is told that there will be one.
        let status = if self.ended.get().is_some() { Status::Stopped } else { self.container()?.status() };
        if matches!(status, Status::Stopped | Status::Paused) {
            return Err(Failure::precondition(format!("cannot exec in a {status} container")));
        }
        let given = request.spec.into_option().unwrap_or_default();
        let process = spec::parse_process(&given.value);
        let mut process =
            process.map_err(|error| Failure::invalid(format!("the process's specification: {error}")))?;
        process.set_terminal(Some(request.terminal));
        let names = Names {
            terminal: request.terminal,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let exec_id = request.exec_id;
        let mut execs = self.execs();
        if exec_id.is_empty() || exec_id == self.place.id.as_str() || execs.contains_key(&exec_id) {
            return Err(Failure::new(ttrpc::Code::ALREADY_EXISTS, format!("id {exec_id}: already exists")));
        }
        execs.insert(exec_id.clone(), Arc::new(Exec::new(exec_id.clone(), process, names)));
        drop(execs);
        let container_id = self.place.id.to_string();
        self.place.events.publish(&TaskExecAdded { container_id, exec_id, ..Default::default() });
        Ok(())
    }

    /// One that was added is to run.
    pub fn start_exec(&self, id: &str) -> Result<u32, Failure> {
        let _turn = self.turn();
        let exec = self.exec(id)?;
        if self.ended.get().is_some() {
            return Err(Failure::precondition("cannot exec in a stopped container"));
        }
        exec.start(&self.container()?, &self.place)
    }

    /// Sends its first process a signal, or all of them.
    pub fn signal(&self, signal: i32, all: bool) -> Result<(), Failure> {
        if self.ended.get().is_some() {
            return Err(Failure::not_found("process already finished"));
        }
        Ok(self.container()?.signal(signal, all)?)
    }

    /// Its terminal has a new size.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Failure> {
        if !self.names.terminal || self.ended.get().is_some() {
            return Ok(());
        }
        Ok(self.container()?.ask(&Command::Resize(size)).map(drop)?)
    }

    /// Nobody writes to its stdin any more.
    pub fn close_stdin(&self) {
        if let Some(held) = self.held.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            held.close_stdin();
        }
    }

    /// Freezes it.
    pub fn pause(&self) -> Result<(), Failure> {
        self.container()?.pause()?;
        let container_id = self.place.id.to_string();
        self.place.events.publish(&TaskPaused { container_id, ..Default::default() });
        Ok(())
    }

    /// Thaws it.
    pub fn resume(&self) -> Result<(), Failure> {
        self.container()?.resume()?;
        let container_id = self.place.id.to_string();
        self.place.events.publish(&TaskResumed { container_id, ..Default::default() });
        Ok(())
    }

    /// New limits, as JSON.
    pub fn update(&self, resources: &[u8]) -> Result<(), Failure> {
        Ok(self.container()?.update(resources, &self.place.operator)?)
    }

    /// Its counters.
    pub fn stats(&self) -> Result<Any, Failure> {
        let stats = self.container()?.stats()?;
        stats::packed(&stats)
            .map_err(|error| Failure::invalid(format!("the counters cannot be told: {error}")))
    }

    /// The processes on the host that stand for it. One that was added here has none of its own: the machine's stands for
    /// it, and its name is told.
    pub fn pids(&self) -> Result<Vec<ProcessInfo>, Failure> {
        let pids = self.container()?.host_pids();
        let own = pids.into_iter().filter_map(|pid| u32::try_from(pid).ok());
        let mut told: Vec<ProcessInfo> = own.map(|pid| ProcessInfo { pid, ..Default::default() }).collect();
        for exec in self.running() {
            let details = ProcessDetails { exec_id: exec.id.clone(), ..Default::default() };
            let value = details.write_to_bytes().unwrap_or_default();
            let info =
                Any { type_url: "containerd.runc.v1.ProcessDetails".into(), value, ..Default::default() };
            told.push(ProcessInfo { pid: self.pid, info: MessageField::some(info), ..Default::default() });
        }
        Ok(told)
    }

    /// As `State` tells it.
    pub fn state(&self) -> Result<StateResponse, Failure> {
        let mut exit = self.ended.get();
        let status = match exit {
            Some(_) => Status::Stopped,
            None => self.container().map_or(Status::Stopped, |container| container.status()),
        };
        if status == Status::Stopped && exit.is_none() {
            // It has ended a moment ago.
            exit = self.ended.wait_for(TO_BE_TOLD);
        }
        let status = match status {
            Status::Creating | Status::Created => Word::CREATED,
            Status::Running => Word::RUNNING,
            Status::Paused => Word::PAUSED,
            Status::Stopped => Word::STOPPED,
        };
        let mut response = StateResponse {
            id: self.place.id.to_string(),
            bundle: self.place.bundle.display().to_string(),
            pid: self.pid,
            status: status.into(),
            ..Default::default()
        };
        self.names.tell(&mut response);
        tell_exit(exit, &mut response);
        Ok(response)
    }

    /// As `State` tells of one of its processes.
    pub fn exec_state(&self, id: &str) -> Result<StateResponse, Failure> {
        Ok(self.exec(id)?.state(&self.place, self.pid))
    }

    /// Waits for its end, or that of one of its processes.
    pub fn wait(&self, exec_id: &str) -> Result<Exit, Failure> {
        if exec_id.is_empty() { Ok(self.ended.wait()) } else { Ok(self.exec(exec_id)?.ended.wait()) }
    }

    /// Waits for its end, up to `limit`.
    pub fn ended_within(&self, limit: Duration) -> Option<Exit> {
        self.ended.wait_for(limit)
    }

    /// Lets one of its processes go.
    pub fn delete_exec(&self, id: &str) -> Result<Option<Exit>, Failure> {
        let exit = self.exec(id)?.delete()?;
        self.execs().remove(id);
        Ok(exit)
    }

    /// Removes it: one that has stopped, or was never started.
    pub fn delete(&self) -> Result<Exit, Failure> {
        match delete::delete(&self.place.store, &self.place.id, false) {
            // Somebody deleted it under its name with the command.
            Ok(()) | Err(husk::container::ContainerError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
        let late = || Failure::new(ttrpc::Code::UNKNOWN, "the container's end was not seen");
        let exit = self.ended.wait_for(TO_BE_TOLD).ok_or_else(late)?;
        rootfs::undo(&self.place.bundle);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.place.events.publish(&TaskDelete {
            container_id: self.place.id.to_string(),
            pid: self.pid,
            exit_status: exit.status.into(),
            exited_at: exit.timestamp(),
            ..Default::default()
        });
        Ok(exit)
    }

    /// What the store says of it. Read each time: the command may have changed it.
    fn container(&self) -> Result<Container, Failure> {
        Ok(Container::load(&self.place.store, &self.place.id)?)
    }

    /// One of its processes.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>, Failure> {
        let found = self.execs().get(id).cloned();
        found.ok_or_else(|| Failure::not_found(format!("process does not exist {id}")))
    }

    fn running(&self) -> Vec<Arc<Exec>> {
        self.execs().values().filter(|exec| exec.runs()).cloned().collect()
    }

    fn execs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Exec>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) -> RwLockReadGuard<'_, ()> {
        self.turn.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn make(
    place: &Place,
    names: &Names,
    options: &Options,
    debug: bool,
) -> Result<(create::Created, Held), Failure> {
    options.write(&place.bundle)?;
    let program = options.program()?;
    let (given, held) = stdio::open(names, &place.namespace, place.id.as_str())?;
    let path = place.bundle.join("log.json");
    let log = File::options().append(true).create(true).open(&path);
    let log = log.map_err(|error| Failure::host(&format!("open {}", path.display()), &error))?;
    let created = create::create(
        &place.store,
        &create::Request {
            id: &place.id,
            bundle: &place.bundle,
            operator: &place.operator,
            program: &program,
            streams: Some(given.borrow()),
            foreground: false,
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            systemd_cgroup: options.systemd_cgroup,
            log: Some(create::MachineLog { to: log.as_fd(), form: Form::Json }),
            debug,
        },
    );
    let created = created.map_err(|error| Failure::from(error).while_doing("OCI runtime create failed"))?;
    Ok((created, held))
}
