//! The sandbox service: pods whose sandbox containerd leaves to us (`sandboxer = "shim"`). No pause image is needed then.
//!
//! ```text
//!   CreateSandbox --> the machine boots, its agent is ready --> StartSandbox --> the pod's containers join (task service)
//!   StopSandbox   --> the machine is gone; SandboxStatus and WaitSandbox tell of its end --> ShutdownSandbox: the shim ends
//! ```
//! To the rest of husk the sandbox is a container like that of a pod with a pause image; only its bundle is ours, and no
//! events are told of it, as it is no task of containerd's.

use crate::events::Events;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::options::Options;
use crate::pod_bundle::{Given, PodBundle};
use crate::pod_config::PodConfig;
use crate::task::Task;
use containerd_shim_protos::api::{CreateTaskRequest, Status};
use containerd_shim_protos::sandbox_api as api;
use containerd_shim_protos::sandbox_sync::Sandbox as SandboxService;
use protobuf::MessageField;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use ttrpc::TtrpcContext;

/// How long a machine may take to be gone when it was killed.
const GONE: Duration = Duration::from_secs(10);
/// `PodSandboxState`, by name.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// The pod of this shim, if containerd made it by this service.
pub struct Pod {
    namespace: String,
    debug: bool,
    slot: Mutex<Slot>,
    /// Told when nobody needs us any more.
    done: Mutex<Sender<()>>,
}

enum Slot {
    Empty,
    Making,
    Made(Arc<Sandbox>),
}

/// Its sandbox.
struct Sandbox {
    id: String,
    bundle: PodBundle,
    task: Arc<Task>,
    made: SystemTime,
}

impl Pod {
    /// None yet. `done` is told when the server may end.
    pub fn new(namespace: &str, debug: bool, done: Sender<()>) -> Pod {
        Pod { namespace: namespace.to_owned(), debug, slot: Mutex::new(Slot::Empty), done: Mutex::new(done) }
    }

    /// Whether there is one, which keeps the shim.
    pub fn exists(&self) -> bool {
        !matches!(*self.slot(), Slot::Empty)
    }

    /// Adds to a container's bundle what the pod's containers share.
    pub fn complete(&self, container: &Path) -> Result<(), Failure> {
        let sandbox = match &*self.slot() {
            Slot::Made(sandbox) => Arc::clone(sandbox),
            Slot::Empty | Slot::Making => return Ok(()),
        };
        sandbox.bundle.complete(container)
    }

    fn find(&self, id: &str) -> Result<Arc<Sandbox>, Failure> {
        match &*self.slot() {
            Slot::Made(sandbox) if sandbox.id == id => Ok(Arc::clone(sandbox)),
            _ => Err(Failure::not_found(format!("sandbox {id} does not exist in this shim"))),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, request: &api::CreateSandboxRequest) -> Result<(), Failure> {
        {
            let mut slot = self.slot();
            if !matches!(*slot, Slot::Empty) {
                let message = "this shim has its sandbox already";
                return Err(Failure::new(ttrpc::Code::ALREADY_EXISTS, message));
            }
            *slot = Slot::Making;
        }
        let made = self.make(request);
        let mut slot = self.slot();
        match made {
            Ok(sandbox) => {
                *slot = Slot::Made(Arc::new(sandbox));
                Ok(())
            }
            Err(failure) => {
                *slot = Slot::Empty;
                Err(failure)
            }
        }
    }

    fn make(&self, request: &api::CreateSandboxRequest) -> Result<Sandbox, Failure> {
        let config = PodConfig::read(request.options.as_ref())?;
        let refused = |what| Err(Failure::new(ttrpc::Code::UNIMPLEMENTED, what));
        if config.host_network {
            return refused("hostNetwork: the host's network is not in a guest");
        }
        if config.user_namespace {
            return refused("hostUsers: false: the containers of a pod have no user namespaces in husk yet");
        }
        if !request.rootfs.is_empty() {
            return refused("a sandbox with a root file system: husk's needs none");
        }
        let bundle = PodBundle::at(Path::new(&request.bundle_path));
        let options = Options::read(bundle.path());
        bundle.make(&Given {
            id: &request.sandbox_id,
            network: &request.netns_path,
            annotations: &request.annotations,
            config: &config,
        })?;
        bundle.share_memory()?;
        let create = CreateTaskRequest {
            id: request.sandbox_id.clone(),
            bundle: request.bundle_path.clone(),
            ..Default::default()
        };
        let unheard = Events::begin(&self.namespace, None)
            .map_err(|error| Failure::host("make a place for events", &error))?;
        let task = Task::create(&create, options, &self.namespace, self.debug, &unheard);
        let task = task.inspect_err(|_| bundle.undo())?;
        Ok(Sandbox { id: request.sandbox_id.clone(), bundle, task, made: SystemTime::now() })
    }

    fn shut_down(&self, id: &str) -> Result<(), Failure> {
        match self.find(id) {
            Ok(sandbox) => sandbox.remove()?,
            // One that was never made has a shim all the same.
            Err(_) if !self.exists() => {}
            Err(failure) => return Err(failure),
        }
        *self.slot() = Slot::Empty;
        // The second who asks is told the same.
        let _ = self.done.lock().unwrap_or_else(PoisonError::into_inner).send(());
        Ok(())
    }
}

impl Sandbox {
    /// Its machine is gone when this is `Ok`: first it is asked, if there is time for that.
    fn stop(&self, grace: Duration) -> Result<Exit, Failure> {
        let signals = [(libc::SIGTERM, grace), (libc::SIGKILL, GONE)];
        for (signal, limit) in signals.into_iter().filter(|(_, limit)| !limit.is_zero()) {
            match self.task.signal(signal, false) {
                Ok(()) => {}
                Err(failure) if failure.code == ttrpc::Code::NOT_FOUND => {}
                Err(failure) => return Err(failure),
            }
            if let Some(exit) = self.task.ended_within(limit) {
                return Ok(exit);
            }
        }
        Err(Failure::new(ttrpc::Code::DEADLINE_EXCEEDED, "the sandbox's machine does not end"))
    }

    fn remove(&self) -> Result<(), Failure> {
        self.stop(Duration::ZERO)?;
        self.task.delete()?;
        self.bundle.undo();
        Ok(())
    }

    fn status(&self) -> Result<api::SandboxStatusResponse, Failure> {
        let state = self.task.state()?;
        let ready = matches!(state.status.enum_value(), Ok(Status::RUNNING | Status::PAUSED));
        Ok(api::SandboxStatusResponse {
            sandbox_id: self.id.clone(),
            pid: self.task.pid,
            state: if ready { READY } else { NOT_READY }.into(),
            created_at: MessageField::some(self.made.into()),
            exited_at: state.exited_at,
            ..Default::default()
        })
    }
}

impl SandboxService for Pod {
    fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::CreateSandboxRequest,
    ) -> ttrpc::Result<api::CreateSandboxResponse> {
        self.create(&request)?;
        crate::memory::give_back();
        Ok(api::CreateSandboxResponse::new())
    }

    fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StartSandboxRequest,
    ) -> ttrpc::Result<api::StartSandboxResponse> {
        let sandbox = self.find(&request.sandbox_id)?;
        let pid = sandbox.task.start()?;
        let created_at = MessageField::some(sandbox.made.into());
        Ok(api::StartSandboxResponse { pid, created_at, ..Default::default() })
    }

    fn platform(
        &self,
        _: &TtrpcContext,
        request: api::PlatformRequest,
    ) -> ttrpc::Result<api::PlatformResponse> {
        self.find(&request.sandbox_id)?;
        let mut response = api::PlatformResponse::new();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".into();
        // As Go names it.
        platform.architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .into();
        Ok(response)
    }

    fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::StopSandboxRequest,
    ) -> ttrpc::Result<api::StopSandboxResponse> {
        self.find(&request.sandbox_id)?.stop(Duration::from_secs(request.timeout_secs.into()))?;
        Ok(api::StopSandboxResponse::new())
    }

    fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::WaitSandboxRequest,
    ) -> ttrpc::Result<api::WaitSandboxResponse> {
        let exit = self.find(&request.sandbox_id)?.task.wait("")?;
        Ok(api::WaitSandboxResponse {
            exit_status: exit.status.into(),
            exited_at: exit.timestamp(),
            ..Default::default()
        })
    }

    fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: api::SandboxStatusRequest,
    ) -> ttrpc::Result<api::SandboxStatusResponse> {
        Ok(self.find(&request.sandbox_id)?.status()?)
    }

    fn ping_sandbox(&self, _: &TtrpcContext, request: api::PingRequest) -> ttrpc::Result<api::PingResponse> {
        self.find(&request.sandbox_id)?;
        Ok(api::PingResponse::new())
    }

    fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: api::ShutdownSandboxRequest,
    ) -> ttrpc::Result<api::ShutdownSandboxResponse> {
        self.shut_down(&request.sandbox_id)?;
        Ok(api::ShutdownSandboxResponse::new())
    }

    fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: api::SandboxMetricsRequest,
    ) -> ttrpc::Result<api::SandboxMetricsResponse> {
        let sandbox = self.find(&request.sandbox_id)?;
        let stats = sandbox.task.stats()?;
        let mut response = api::SandboxMetricsResponse::new();
        let metrics = response.metrics.mut_or_insert_default();
        metrics.timestamp = MessageField::some(SystemTime::now().into());
        metrics.id.clone_from(&sandbox.id);
        metrics.data = MessageField::some(stats);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_config::tests::{any, field};
    use std::sync::mpsc::channel;
    use ttrpc::Code;

    fn request(bundle: &Path, namespaces: Vec<u8>) -> api::CreateSandboxRequest {
        api::CreateSandboxRequest {
            sandbox_id: "s".into(),
            bundle_path: bundle.display().to_string(),
            options: MessageField::some(any(field(8, field(2, field(1, namespaces))))),
            ..Default::default()
        }
    }

    #[test]
    fn a_pod_that_cannot_be_is_refused_with_its_code_and_leaves_the_shim_free() {
        let (say, _done) = channel();
        let pod = Pod::new("default", false, say);
        let bundle = tempfile::tempdir().unwrap();
        for namespaces in [vec![8, 2], field(5, field(2, [8, 1]))] {
            let failure = pod.create(&request(bundle.path(), namespaces)).unwrap_err();
            assert_eq!(failure.code, Code::UNIMPLEMENTED, "{failure}");
        }
        let mut wrong = request(bundle.path(), vec![]);
        wrong.options = MessageField::some(protobuf::well_known_types::any::Any {
            type_url: "io.example.Pod".into(),
            ..Default::default()
        });
        assert_eq!(pod.create(&wrong).unwrap_err().code, Code::INVALID_ARGUMENT);
        assert!(!pod.exists());
        assert_eq!(std::fs::read_dir(bundle.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sandbox_that_is_not_there_is_not_found_and_its_shim_ends_when_told() {
        let (say, done) = channel();
        let pod = Pod::new("default", false, say);
        assert_eq!(pod.find("s").err().unwrap().code, Code::NOT_FOUND);
        // Nothing to add: the container is of a pod whose sandbox is a container.
        pod.complete(Path::new("/nonexistent")).unwrap();
        pod.shut_down("s").unwrap();
        done.try_recv().unwrap();
    }
}
