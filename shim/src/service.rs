//! The task service, versions 2 and 3, as containerd calls it: requests become calls on tasks, failures become codes.

use crate::events::Events;
use crate::failure::Failure;
use crate::memory;
use crate::options::Options;
use crate::sandbox::Pod;
use crate::task::Task;
use containerd_shim_protos::api;
use containerd_shim_protos::sandbox_sync::{Sandbox, create_sandbox};
use containerd_shim_protos::{Task as TaskService, create_task};
use husk_protocol::TerminalSize;
use protobuf::MessageField;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use ttrpc::{MethodHandler, TtrpcContext};

/// What containerd 2 calls.
const VERSION_3: &str = "containerd.task.v3.Task";
/// What containerd 1 calls: the same messages under another name.
const VERSION_2: &str = "containerd.task.v2.Task";

/// All containers of this shim.
pub struct Service {
    namespace: String,
    debug: bool,
    events: Events,
    pod: Arc<Pod>,
    /// By name. `None`: being made.
    tasks: Mutex<BTreeMap<String, Option<Arc<Task>>>>,
    /// Told when nobody needs us any more.
    done: Mutex<Sender<()>>,
}

type Methods = HashMap<String, Box<dyn MethodHandler + Send + Sync>>;

/// The methods of both versions, and of the sandbox service.
pub fn methods(service: &Arc<Service>) -> Methods {
    let third = create_task(Arc::clone(service) as Arc<dyn TaskService + Send + Sync>);
    let second = create_task(Arc::clone(service) as Arc<dyn TaskService + Send + Sync>);
    let second = second.into_iter().map(|(name, method)| (name.replace(VERSION_3, VERSION_2), method));
    let pod = create_sandbox(Arc::clone(&service.pod) as Arc<dyn Sandbox + Send + Sync>);
    third.into_iter().chain(second).chain(pod).collect()
}

impl Service {
    /// For containers in `namespace`. `done` is told when the server may end.
    pub fn new(namespace: &str, debug: bool, events: Events, done: Sender<()>) -> Service {
        Service {
            namespace: namespace.to_owned(),
            debug,
            events,
            pod: Arc::new(Pod::new(namespace, debug, done.clone())),
            tasks: Mutex::default(),
            done: Mutex::new(done),
        }
    }

    fn task(&self, id: &str) -> Result<Arc<Task>, Failure> {
        match self.tasks().get(id) {
            Some(Some(task)) => Ok(Arc::clone(task)),
            _ => Err(Failure::not_found(format!("container {id} does not exist in this shim"))),
        }
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Option<Arc<Task>>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, request: &api::CreateTaskRequest) -> Result<u32, Failure> {
        let mut tasks = self.tasks();
        if tasks.contains_key(&request.id) {
            return Err(Failure::new(
                ttrpc::Code::ALREADY_EXISTS,
                format!("container {} already exists", request.id),
            ));
        }
        tasks.insert(request.id.clone(), None);
        drop(tasks);
        let made = self.make_task(request);
        memory::give_back();
        let mut tasks = self.tasks();
        match made {
            Ok(task) => {
                let pid = task.pid;
                tasks.insert(request.id.clone(), Some(task));
                Ok(pid)
            }
            Err(failure) => {
                tasks.remove(&request.id);
                Err(failure)
            }
        }
    }

    fn make_task(&self, request: &api::CreateTaskRequest) -> Result<Arc<Task>, Failure> {
        let options = Options::of(request.options.as_ref())?;
        self.pod.complete(Path::new(&request.bundle))?;
        Task::create(request, options, &self.namespace, self.debug, &self.events)
    }
}

fn empty() -> api::Empty {
    api::Empty::new()
}

fn size(request: &api::ResizePtyRequest) -> TerminalSize {
    let cells = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    TerminalSize { rows: cells(request.height), columns: cells(request.width) }
}

impl TaskService for Service {
    fn create(
        &self,
        _: &TtrpcContext,
        request: api::CreateTaskRequest,
    ) -> ttrpc::Result<api::CreateTaskResponse> {
        let pid = self.make(&request)?;
        Ok(api::CreateTaskResponse { pid, ..Default::default() })
    }

    fn start(&self, _: &TtrpcContext, request: api::StartRequest) -> ttrpc::Result<api::StartResponse> {
        let task = self.task(&request.id)?;
        let started =
            if request.exec_id.is_empty() { task.start() } else { task.start_exec(&request.exec_id) };
        Ok(api::StartResponse { pid: started?, ..Default::default() })
    }

    fn exec(&self, _: &TtrpcContext, request: api::ExecProcessRequest) -> ttrpc::Result<api::Empty> {
        self.task(&request.id)?.add(request)?;
        Ok(empty())
    }

    fn state(&self, _: &TtrpcContext, request: api::StateRequest) -> ttrpc::Result<api::StateResponse> {
        let task = self.task(&request.id)?;
        let state = if request.exec_id.is_empty() { task.state() } else { task.exec_state(&request.exec_id) };
        Ok(state?)
    }

    fn delete(&self, _: &TtrpcContext, request: api::DeleteRequest) -> ttrpc::Result<api::DeleteResponse> {
        let task = self.task(&request.id)?;
        let exit = if request.exec_id.is_empty() {
            let exit = task.delete()?;
            self.tasks().remove(&request.id);
            Some(exit)
        } else {
            task.delete_exec(&request.exec_id)?
        };
        memory::give_back();
        let mut response = api::DeleteResponse { pid: task.pid, ..Default::default() };
        if let Some(exit) = exit {
            response.exit_status = exit.status.into();
            response.exited_at = exit.timestamp();
        }
        Ok(response)
    }

    fn wait(&self, _: &TtrpcContext, request: api::WaitRequest) -> ttrpc::Result<api::WaitResponse> {
        let exit = self.task(&request.id)?.wait(&request.exec_id)?;
        Ok(api::WaitResponse {
            exit_status: exit.status.into(),
            exited_at: exit.timestamp(),
            ..Default::default()
        })
    }

    fn kill(&self, _: &TtrpcContext, request: api::KillRequest) -> ttrpc::Result<api::Empty> {
        let signal = i32::try_from(request.signal).unwrap_or(i32::MAX);
        let task = self.task(&request.id)?;
        if request.exec_id.is_empty() {
            task.signal(signal, request.all)?;
        } else {
            task.exec(&request.exec_id)?.signal(signal)?;
        }
        Ok(empty())
    }

    fn pids(&self, _: &TtrpcContext, request: api::PidsRequest) -> ttrpc::Result<api::PidsResponse> {
        let processes = self.task(&request.id)?.pids()?;
        Ok(api::PidsResponse { processes, ..Default::default() })
    }

    fn pause(&self, _: &TtrpcContext, request: api::PauseRequest) -> ttrpc::Result<api::Empty> {
        self.task(&request.id)?.pause()?;
        Ok(empty())
    }

    fn resume(&self, _: &TtrpcContext, request: api::ResumeRequest) -> ttrpc::Result<api::Empty> {
        self.task(&request.id)?.resume()?;
        Ok(empty())
    }

    fn checkpoint(&self, _: &TtrpcContext, request: api::CheckpointTaskRequest) -> ttrpc::Result<api::Empty> {
        self.task(&request.id)?;
        Err(Failure::new(ttrpc::Code::UNIMPLEMENTED, "husk does not checkpoint containers yet").into())
    }

    fn resize_pty(&self, _: &TtrpcContext, request: api::ResizePtyRequest) -> ttrpc::Result<api::Empty> {
        let task = self.task(&request.id)?;
        if request.exec_id.is_empty() {
            task.resize(size(&request))?;
        } else {
            task.exec(&request.exec_id)?.resize(size(&request))?;
        }
        Ok(empty())
    }

    fn close_io(&self, _: &TtrpcContext, request: api::CloseIORequest) -> ttrpc::Result<api::Empty> {
        let task = self.task(&request.id)?;
        match (request.stdin, request.exec_id.as_str()) {
            (false, _) => {}
            (true, "") => task.close_stdin(),
            (true, exec_id) => task.exec(exec_id)?.close_stdin(),
        }
        Ok(empty())
    }

    fn update(&self, _: &TtrpcContext, request: api::UpdateTaskRequest) -> ttrpc::Result<api::Empty> {
        let resources = request.resources.into_option().unwrap_or_default();
        self.task(&request.id)?.update(&resources.value)?;
        Ok(empty())
    }

    fn stats(&self, _: &TtrpcContext, request: api::StatsRequest) -> ttrpc::Result<api::StatsResponse> {
        let stats = self.task(&request.id)?.stats()?;
        Ok(api::StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    fn connect(&self, _: &TtrpcContext, request: api::ConnectRequest) -> ttrpc::Result<api::ConnectResponse> {
        // A shim without that container is one all the same.
        let task_pid = self.task(&request.id).map_or(0, |task| task.pid);
        Ok(api::ConnectResponse { shim_pid: std::process::id(), task_pid, ..Default::default() })
    }

    fn shutdown(&self, _: &TtrpcContext, _: api::ShutdownRequest) -> ttrpc::Result<api::Empty> {
        // Others may still need us. A sandbox's shim is shut down by its own service.
        if self.tasks().is_empty() && !self.pod.exists() {
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            // The second who asks is told the same.
            let _ = done.send(());
        }
        Ok(empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message;
    use protobuf::well_known_types::any::Any;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;
    use ttrpc::Code;

    struct Stage {
        _server: ttrpc::Server,
        client: ttrpc::Client,
        done: Receiver<()>,
        directory: tempfile::TempDir,
    }

    fn stage() -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let address = format!("unix://{}", directory.path().join("s").display());
        let (say, done) = channel();
        let events = Events::begin("default", None).unwrap();
        let service = Arc::new(Service::new("default", false, events, say));
        let mut server = ttrpc::Server::new().bind(&address).unwrap().register_service(methods(&service));
        server.start().unwrap();
        Stage { _server: server, client: ttrpc::Client::connect(&address).unwrap(), done, directory }
    }

    impl Stage {
        fn call<R: Message>(&self, version: &str, method: &str, message: &impl Message) -> Result<R, Code> {
            let request = ttrpc::Request {
                service: version.into(),
                method: method.into(),
                timeout_nano: i64::try_from(Duration::from_secs(10).as_nanos()).unwrap(),
                payload: message.write_to_bytes().unwrap(),
                ..Default::default()
            };
            match self.client.request(request) {
                Ok(response) => Ok(R::parse_from_bytes(&response.payload).unwrap()),
                Err(ttrpc::Error::RpcStatus(status)) => Err(status.code()),
                Err(error) => panic!("{error}"),
            }
        }

        fn create(&self, change: impl Fn(&mut api::CreateTaskRequest)) -> Code {
            let mut request = api::CreateTaskRequest {
                id: "one".into(),
                bundle: self.directory.path().display().to_string(),
                ..Default::default()
            };
            change(&mut request);
            self.call::<api::CreateTaskResponse>(VERSION_3, "Create", &request).unwrap_err()
        }
    }

    #[test]
    fn both_versions_answer_and_the_last_word_is_shutdown() {
        let stage = stage();
        for version in [VERSION_2, VERSION_3] {
            let request = api::ConnectRequest { id: "one".into(), ..Default::default() };
            let answer: api::ConnectResponse = stage.call(version, "Connect", &request).unwrap();
            assert_eq!((answer.shim_pid, answer.task_pid), (std::process::id(), 0));
            for method in
                ["State", "Start", "Kill", "Delete", "Pids", "Wait", "Stats", "Exec", "CloseIO", "ResizePty"]
            {
                // The first field of each is the id.
                let answer = stage.call::<api::Empty>(version, method, &request);
                assert_eq!(answer.unwrap_err(), Code::NOT_FOUND, "{version} {method}");
            }
        }
        stage.call::<api::Empty>(VERSION_2, "Shutdown", &api::ShutdownRequest::new()).unwrap();
        stage.done.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_creation_that_cannot_be_is_refused_with_its_code_and_its_name_stays_free() {
        let stage = stage();
        let root = stage.directory.path().join("root").display().to_string();
        let options = containerd_shim_protos::shim::oci::Options {
            root,
            binary_name: "/bin/true".into(),
            ..Default::default()
        };
        let options = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: options.write_to_bytes().unwrap(),
            ..Default::default()
        };
        let strange = Any { type_url: "io.example.Options".into(), ..Default::default() };
        let wrong = stage.create(|request| request.options = MessageField::some(strange.clone()));
        assert_eq!(wrong, Code::INVALID_ARGUMENT);
        assert_eq!(stage.create(|request| request.id = "../one".into()), Code::INVALID_ARGUMENT);
        assert_eq!(stage.create(|request| request.checkpoint = "/c".into()), Code::UNIMPLEMENTED);
        let missing = stage.create(|request| {
            request.options = MessageField::some(options.clone());
            request.stdout = "/nonexistent/fifo".into();
        });
        assert_eq!(missing, Code::NOT_FOUND);
    }
}
