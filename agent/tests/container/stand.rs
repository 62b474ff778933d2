//! A machine for the agent without a machine: this test program, started again as PID 1 of a pid namespace, serves as the
//! agent; unix sockets stand for vsock, a directory for the shared root file systems. Everything else is as in a guest.
//!
//! Needs root and a kernel with cgroup v2; `HUSK_BUSYBOX` names a busybox root file system (directory).

use husk_agent::machine::{CGROUPS, Machine, ROOTS, SHARES};
use husk_protocol::*;
use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio as Standard};
use std::time::Duration;

/// Nothing in these tests takes longer, even on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The agent's side: called by the test of that name when it is started again. The test harness has threads, the agent
/// must not: it is a fork, and PID 1 of a new pid namespace.
#[allow(unsafe_code)]
pub fn serve_as_agent() {
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{ForkResult, fork};
    let Ok(directory) = std::env::var("HUSK_STAND") else { return };
    let directory = PathBuf::from(directory);
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).unwrap();
    // SAFETY: no other thread of this test program holds a lock that the child takes: they wait for this test.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
            furnish(&directory);
            let served = husk_agent::serve_in(Box::new(Directory(directory)));
            std::process::exit(i32::from(served.is_err()));
        }
        ForkResult::Parent { child } => {
            let _ = nix::sys::wait::waitpid(child, None);
        }
    }
}

/// Mounts what a guest would have.
fn furnish(directory: &Path) {
    use nix::mount::{MsFlags, mount};
    let bind = |from: &Path, to: &str| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    };
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
    fs::create_dir_all("/run/husk").unwrap();
    mount(Some("husk"), "/run/husk", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    for name in ["root", "share", "new", "cgroup", "device"] {
        fs::create_dir(format!("/run/husk/{name}")).unwrap();
    }
    bind(&directory.join("cgroup/of-the-test"), CGROUPS);
}

/// The machine that the agent sees.
struct Directory(PathBuf);

impl Machine for Directory {
    fn connect(&self, port: u32) -> husk_agent::sys::Result<OwnedFd> {
        let stream = UnixStream::connect(self.0.join(format!("port-{port}")))?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    }

    fn mount(&self, tag: &str, at: &str) -> husk_agent::sys::Result<()> {
        let from = self.0.join(if tag == ROOT_TAG { "roots" } else { "shares" });
        assert!(at == ROOTS || at == SHARES);
        let flags = nix::mount::MsFlags::MS_BIND;
        Ok(nix::mount::mount(Some(&from), at, None::<&str>, flags, None::<&str>)?)
    }

    fn host_clock(&self) -> Option<OwnedFd> {
        None // it is our own
    }

    fn leave(&self) -> ! {
        std::process::exit(0)
    }
}

/// The host's side.
pub struct Stand {
    directory: tempfile::TempDir,
    cgroup: PathBuf,
    agent: Child,
    control: UnixStream,
    next_request: u32,
    next_port: u32,
    next_process: u32,
    told: VecDeque<FromAgent>,
}

impl Stand {
    /// Starts an agent. `None`, aloud, where that cannot be.
    pub fn open(test: &str) -> Option<Self> {
        let Ok(rootfs) = std::env::var("HUSK_BUSYBOX") else {
            eprintln!("skipped: {test}: HUSK_BUSYBOX names no busybox root file system");
            return None;
        };
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: {test}: not root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        for name in ["roots", "shares", "cgroup"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let copied =
            Command::new("cp").args(["-a", &rootfs]).arg(directory.path().join("roots/0")).status().unwrap();
        assert!(copied.success());
        let cgroup = make_cgroup(directory.path());
        let listener = UnixListener::bind(directory.path().join("port-1")).unwrap();
        let mut agent = Command::new(std::env::current_exe().unwrap());
        agent
            .args(["--exact", "serve_as_agent", "--ignored", "--nocapture", "-q"])
            .env("HUSK_STAND", directory.path())
            .stdin(Standard::null())
            .stdout(Standard::null());
        let agent = agent.spawn().unwrap();
        let (control, _) = listener.accept().unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stand = Self {
            directory,
            cgroup,
            agent,
            control,
            next_request: 0,
            next_port: 100,
            next_process: 0,
            told: VecDeque::new(),
        };
        assert!(matches!(stand.read(), FromAgent::Ready(Ready { version: VERSION, .. })));
        Some(stand)
    }

    /// The container's root file system, seen from the host.
    pub fn root(&self) -> PathBuf {
        self.directory.path().join("roots/0")
    }

    /// A directory whose entries can be shared.
    pub fn shares(&self) -> PathBuf {
        self.directory.path().join("shares")
    }

    /// The container's cgroup, seen from the host.
    pub fn cgroup(&self) -> PathBuf {
        self.cgroup.join("0")
    }

    /// Whether the kernel at hand has this controller for cgroup v2.
    pub fn has_controller(&self, name: &str) -> bool {
        let all = fs::read_to_string(self.cgroup.join("cgroup.controllers")).unwrap();
        all.split_whitespace().any(|controller| controller == name)
    }

    /// The agent's pid on the host.
    pub fn agent_pid(&self) -> u32 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.agent.id())).unwrap();
        let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap());
        children.collect::<String>().trim().parse().unwrap()
    }

    /// Asks, and waits for the answer. What is told meanwhile is kept.
    pub fn ask(&mut self, call: Call) -> Result<Answer, Failure> {
        let id = self.send(call);
        self.answer(id)
    }

    /// Asks.
    pub fn send(&mut self, call: Call) -> u32 {
        self.next_request += 1;
        let request = Request { id: self.next_request, call };
        self.control.write_all(&frame::encode(&request).unwrap()).unwrap();
        self.next_request
    }

    /// Waits for the answer to a request.
    pub fn answer(&mut self, id: u32) -> Result<Answer, Failure> {
        let is_it =
            |message: &FromAgent| matches!(message, FromAgent::Reply { id: other, .. } if *other == id);
        let FromAgent::Reply { outcome, .. } = self.told(is_it) else { unreachable!() };
        outcome
    }

    /// Waits for the end of a process.
    pub fn exited(&mut self, process: ProcessKey) -> Exited {
        let is_it =
            |message: &FromAgent| matches!(message, FromAgent::Exited(exited) if exited.process == process);
        let FromAgent::Exited(exited) = self.told(is_it) else { unreachable!() };
        exited
    }

    /// Waits for a message.
    pub fn told(&mut self, is_it: impl Fn(&FromAgent) -> bool) -> FromAgent {
        if let Some(at) = self.told.iter().position(&is_it) {
            return self.told.remove(at).unwrap();
        }
        loop {
            let message = self.read();
            if is_it(&message) {
                return message;
            }
            self.told.push_back(message);
        }
    }

    /// Whether anything was told that nobody has waited for.
    pub fn untaken(&self) -> Vec<&FromAgent> {
        self.told.iter().collect()
    }

    fn read(&mut self) -> FromAgent {
        let mut prefix = [0; 4];
        self.control.read_exact(&mut prefix).expect("the agent answers in time");
        let mut message = vec![0; frame::length(prefix).unwrap()];
        self.control.read_exact(&mut message).unwrap();
        frame::decode(&message).unwrap()
    }

    /// A port, and the listener behind it.
    pub fn port(&mut self) -> (u32, UnixListener) {
        self.next_port += 1;
        let path = self.directory.path().join(format!("port-{}", self.next_port));
        (self.next_port, UnixListener::bind(path).unwrap())
    }

    /// A process's number.
    pub fn key(&mut self) -> ProcessKey {
        self.next_process += 1;
        ProcessKey(self.next_process)
    }

    /// Creates, starts and waits for a container that runs this shell script; its output and status.
    pub fn run(&mut self, container: Container) -> Run {
        let mut running = self.start(container);
        let exited = self.exited(running.key);
        running.finish(exited)
    }

    /// Creates and starts a container with pipes.
    pub fn start(&mut self, container: Container) -> Running {
        let running = self.create(container).expect("create");
        self.ask(Call::Start { container: ContainerKey(0) }).expect("start");
        running
    }

    /// Creates a container with pipes.
    pub fn create(&mut self, mut container: Container) -> Result<Running, Failure> {
        container.process_key = self.key();
        let pipes = self.pipes(&mut container.process);
        let key = container.process_key;
        self.ask(Call::Create(Box::new(container)))?;
        Ok(pipes.accept(key))
    }

    /// Runs one more process with pipes.
    pub fn exec(&mut self, mut process: Process) -> Result<Running, Failure> {
        let key = self.key();
        let pipes = self.pipes(&mut process);
        self.ask(Call::Exec(Box::new(Exec { container: ContainerKey(0), key, process })))?;
        Ok(pipes.accept(key))
    }

    fn pipes(&mut self, process: &mut Process) -> Pipes {
        let (stdin, stdin_port) = self.port();
        let (stdout, stdout_port) = self.port();
        let (stderr, stderr_port) = self.port();
        process.stdio = Stdio::Pipes { stdin: Some(stdin), stdout: Some(stdout), stderr: Some(stderr) };
        Pipes(stdin_port, stdout_port, stderr_port)
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        for _ in 0..100 {
            let _ = fs::remove_dir(self.cgroup.join("0"));
            if fs::remove_dir(&self.cgroup).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = nix::mount::umount2(&self.directory.path().join("cgroup"), nix::mount::MntFlags::MNT_DETACH);
    }
}

/// A cgroup v2 hierarchy at DIRECTORY/cgroup, and in it a cgroup for this test.
fn make_cgroup(directory: &Path) -> PathBuf {
    use nix::mount::{MsFlags, mount};
    let top = directory.join("cgroup");
    mount(Some("husk"), &top, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
    let all: String = fs::read_to_string(top.join("cgroup.controllers"))
        .unwrap()
        .split_whitespace()
        .map(|controller| format!("+{controller} "))
        .collect();
    let _ = fs::write(top.join("cgroup.subtree_control"), all);
    let inner = top.join(directory.file_name().unwrap());
    fs::create_dir(&inner).unwrap();
    let link = top.join("of-the-test");
    let _ = fs::create_dir(&link);
    mount(Some(&inner), &link, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    link
}

struct Pipes(UnixListener, UnixListener, UnixListener);

impl Pipes {
    fn accept(self, key: ProcessKey) -> Running {
        let accept = |listener: &UnixListener| {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Some(stream)
        };
        Running { key, stdin: accept(&self.0), stdout: accept(&self.1), stderr: accept(&self.2) }
    }
}

/// A process with its streams.
pub struct Running {
    pub key: ProcessKey,
    pub stdin: Option<UnixStream>,
    pub stdout: Option<UnixStream>,
    pub stderr: Option<UnixStream>,
}

impl Running {
    /// Reads what is left of its streams; checks the counts.
    pub fn finish(&mut self, exited: Exited) -> Run {
        drop(self.stdin.take());
        let read = |stream: Option<UnixStream>| {
            let mut bytes = Vec::new();
            stream.map(|mut stream| stream.read_to_end(&mut bytes).unwrap());
            bytes
        };
        let (stdout, stderr) = (read(self.stdout.take()), read(self.stderr.take()));
        assert_eq!((exited.stdout, exited.stderr), (stdout.len() as u64, stderr.len() as u64), "counts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Run { status: exited.status, stdout: text(stdout), stderr: text(stderr) }
    }
}

/// What came of a process.
#[derive(Debug, PartialEq)]
pub struct Run {
    pub status: ProcessStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A container like `runc spec` makes, which runs this shell script.
pub fn container(script: &str) -> Container {
    let filesystem = |destination: &str, kind: &str, set: u64, data: &str| Mount {
        destination: destination.to_owned(),
        source: MountSource::Filesystem { kind: kind.to_owned(), source: kind.to_owned() },
        attributes: MountAttributes { set, ..MountAttributes::default() },
        propagation: Vec::new(),
        data: data.to_owned(),
        copy_up: false,
    };
    let strict = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    let mut cgroup = filesystem("/sys/fs/cgroup", "cgroup", strict | libc::MS_RDONLY, "");
    cgroup.source = MountSource::Cgroup;
    Container {
        key: ContainerKey(0),
        id: "test".to_owned(),
        root: Root::default(),
        mounts: vec![
            filesystem("/proc", "proc", 0, ""),
            filesystem("/dev", "tmpfs", libc::MS_NOSUID | libc::MS_STRICTATIME, "mode=755,size=65536k"),
            filesystem(
                "/dev/pts",
                "devpts",
                libc::MS_NOSUID | libc::MS_NOEXEC,
                "newinstance,ptmxmode=0666,mode=0620,gid=5",
            ),
            filesystem("/dev/shm", "tmpfs", strict, "mode=1777,size=65536k"),
            filesystem("/dev/mqueue", "mqueue", strict, ""),
            filesystem("/sys", "sysfs", strict | libc::MS_RDONLY, ""),
            cgroup,
        ],
        devices: Vec::new(),
        namespaces: Namespaces {
            mount: true,
            pid: true,
            network: true,
            ipc: true,
            uts: true,
            user: false,
            cgroup: true,
            time: false,
        },
        shared: None,
        uid_map: Vec::new(),
        gid_map: Vec::new(),
        time_offsets: Vec::new(),
        hostname: Some("inside".to_owned()),
        domainname: None,
        sysctl: Vec::new(),
        masked_paths: ["/proc/kcore", "/proc/keys", "/proc/acpi", "/sys/firmware", "/proc/no-such"]
            .map(str::to_owned)
            .to_vec(),
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(str::to_owned).to_vec(),
        resources: Resources::default(),
        personality: None,
        process_key: ProcessKey(0),
        process: shell(script),
        start_hooks: StartHooks::default(),
    }
}

/// A shell with runc's default capabilities.
pub fn shell(script: &str) -> Process {
    let capabilities = (1 << 29) | (1 << 5) | (1 << 10); // audit_write, kill, net_bind_service
    Process {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"].map(str::to_owned).to_vec(),
        cwd: "/".to_owned(),
        capabilities: Capabilities {
            bounding: capabilities,
            effective: capabilities,
            permitted: capabilities,
            inheritable: 0,
            ambient: 0,
        },
        rlimits: vec![ResourceLimit { resource: libc::RLIMIT_NOFILE, soft: 1024, hard: 1024 }],
        no_new_privileges: true,
        ..Process::default()
    }
}
