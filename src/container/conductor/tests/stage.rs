//! What a container is put on: a guest that does as it is told, an agent, and a conductor with its control socket.

use super::*;

/// A guest that does as it is told.
pub(super) struct Machine {
    pub(super) end: EventFd,
    pub(super) ended: Mutex<Option<String>>,
    pub(super) pauses: AtomicUsize,
    pub(super) runs: AtomicBool,
    /// Slots that its agent was told to look at.
    pub(super) looked_at: Mutex<Vec<u32>>,
    /// How much more memory than at its beginning it was given, each time.
    pub(super) plugged: Mutex<Vec<u64>>,
    /// How much of that its kernel takes.
    pub(super) takes: AtomicU64,
}

impl Machine {
    pub(super) fn finish(&self, how: &str) {
        *self.ended.lock().unwrap() = Some(how.to_owned());
        raise(&self.end);
    }
}

impl Guest for Machine {
    fn pause(&self) {
        self.pauses.fetch_add(1, Ordering::SeqCst);
        self.runs.store(false, Ordering::SeqCst);
    }
    fn resume(&self) {
        self.runs.store(true, Ordering::SeqCst);
    }
    fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
    fn how_it_ended(&self) -> Option<String> {
        self.ended.lock().unwrap().clone()
    }
    fn last_words(&self) -> String {
        "its kernel said last: Kernel panic - not syncing".to_owned()
    }
    fn plug_balloon(&self) -> Result<u32, SlotError> {
        Ok(BALLOON)
    }
    fn plug_memory(&self, bytes: u64) -> Result<u32, GrowthError> {
        self.plugged.lock().unwrap().push(bytes);
        Ok(MEMORY)
    }
}

/// A container that is being run.
pub(super) struct Stage {
    pub(super) control: Address,
    pub(super) parent: UnixStream,
    pub(super) guest: Arc<Machine>,
    pub(super) manners: Arc<Manners>,
    pub(super) signals: Arc<Mutex<Vec<(Target, i32)>>>,
    pub(super) conductor: Arc<Conductor>,
    pub(super) stdout: Option<std::io::PipeReader>,
    pub(super) life: JoinHandle<Result<u8, Failed>>,
    pub(super) _directory: tempfile::TempDir,
}

pub(super) fn process(args: &[&str]) -> husk_protocol::Process {
    husk_protocol::Process {
        args: args.iter().map(|word| (*word).to_owned()).collect(),
        ..Default::default()
    }
}

pub(in super::super) fn container(args: &[&str]) -> husk_protocol::Container {
    husk_protocol::Container {
        key: ContainerKey(0),
        id: "c".into(),
        root: Default::default(),
        mounts: vec![],
        devices: vec![],
        namespaces: Default::default(),
        shared: None,
        uid_map: vec![],
        gid_map: vec![],
        time_offsets: vec![],
        hostname: None,
        domainname: None,
        sysctl: vec![],
        masked_paths: vec![],
        readonly_paths: vec![],
        resources: Default::default(),
        personality: None,
        process_key: ProcessKey(0),
        process: process(args),
        start_hooks: Default::default(),
    }
}

pub(super) fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// Puts a container on stage, its agent up if `agent`, as soon as its parent says so.
pub(super) fn stage(args: &[&str], agent: bool, timeout: Duration) -> Stage {
    stage_with(args, agent, timeout, SIZE.begun_mib, Arc::default())
}

/// The same, in a machine that is to have so much memory, with an agent of such manners.
pub(super) fn stage_with(
    args: &[&str],
    agent: bool,
    timeout: Duration,
    memory_mib: u32,
    manners: Arc<Manners>,
) -> Stage {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control.sock");
    let board = Arc::new(Board::default());
    let streams: Arc<dyn Streams> = board.clone();
    let guest = Arc::new(Machine {
        end: wake().unwrap(),
        ended: Mutex::default(),
        pauses: AtomicUsize::new(0),
        runs: AtomicBool::new(true),
        looked_at: Mutex::default(),
        plugged: Mutex::default(),
        takes: AtomicU64::new(u64::MAX),
    });
    let (stdout, write) = std::io::pipe().unwrap();
    let offered =
        Offered::of(Descriptors::received(vec![null(), write.into(), null()], None).unwrap(), &streams)
            .unwrap();
    let conductor =
        Conductor::open(ContainerKey(0), ProcessKey(0), guest.clone(), streams, SIZE, WALLS).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    conductor.take_shares(Shares::open(Exports::new(), Exports::new(), &[]));
    conductor.converse(ours).unwrap();
    server::serve(listen_at(&control).unwrap(), Arc::new(Commands(conductor.clone())), WALLS).unwrap();

    let signals = Arc::new(Mutex::default());
    let agent_played = Agent {
        socket: theirs,
        board,
        manners: manners.clone(),
        guest: guest.clone(),
        first: None,
        firsts: HashMap::new(),
        streams: HashMap::new(),
        signals: Arc::clone(&signals),
    };
    if agent {
        std::thread::spawn(move || agent_played.live());
    } else {
        std::mem::forget(agent_played);
    }

    let (parent, theirs) = UnixStream::pair().unwrap();
    let container = container(args);
    let led = conductor.clone();
    let life = std::thread::spawn(move || {
        let life = Life {
            conductor: led,
            signals: Signals::take().unwrap(),
            terminal: None,
            offered,
            jumps: Jumps::open().unwrap(),
        };
        life.create(&theirs, Boot { container, since: Instant::now(), timeout, renewal: None, memory_mib })?;
        drop(theirs);
        Ok(life.lead())
    });
    Stage {
        control: Address::of_first(&control),
        parent,
        guest,
        manners,
        signals,
        conductor,
        stdout: Some(stdout),
        life,
        _directory: directory,
    }
}

/// The same, and created.
pub(super) fn created(args: &[&str]) -> Stage {
    let stage = stage(args, true, Duration::from_secs(60));
    send_proceed(&stage.parent).unwrap();
    assert_eq!(receive_report(&stage.parent, SOON).unwrap(), Report::Created { cold: true });
    stage
}

pub(super) fn started(args: &[&str]) -> Stage {
    let stage = created(args);
    assert_eq!(stage.ask(Command::Start).unwrap(), Outcome::Done);
    stage
}

impl Stage {
    pub(super) fn ask(&self, command: Command) -> Result<Outcome, ClientError> {
        client::ask(&self.control, &command)
    }

    pub(super) fn kill(&self) -> Result<Outcome, ClientError> {
        self.ask(Command::Signal { signal: libc::SIGKILL, all: false })
    }

    pub(super) fn exec(&self, args: &[&str], stdout: impl AsFd) -> Connection {
        let mut connection = Connection::open(&self.control).unwrap();
        let command = Command::Exec { process: Box::new(process(args)), terminal: None };
        let null = null();
        connection.send(&command, &[null.as_fd(), stdout.as_fd(), null.as_fd()]).unwrap();
        connection
    }

    /// Has a container join, whose memory limit is that; `Joined` is still to be heard.
    pub(super) fn join(&self, args: &[&str], limit: &str, stdout: impl AsFd) -> Connection {
        let mut container = container(args);
        // The machine's numbers are not the caller's to give.
        (container.key, container.process_key) = (ContainerKey(77), ProcessKey(77));
        container.resources.files = vec![("memory.max".into(), limit.into())];
        let root = Export {
            device: ExportDevice::Root,
            name: "0".into(),
            source: "/".into(),
            read_only: false,
            recursive: true,
            access_times: AccessTimes::default(),
            all_access_times: AccessTimes::default(),
        };
        let joining = Joining { container, terminal: None, exports: vec![root] };
        let mut connection = Connection::open(&self.control).unwrap();
        let (null, tree) = (null(), null());
        let descriptors = [tree.as_fd(), null.as_fd(), stdout.as_fd(), null.as_fd()];
        connection.send(&Command::Join(Box::new(joining)), &descriptors).unwrap();
        connection
    }

    /// Asks for a container by its number.
    pub(super) fn ask_of(&self, container: u32, command: Command) -> Result<Outcome, ClientError> {
        let address = Address { container: ContainerKey(container), ..self.control.clone() };
        client::ask(&address, &command)
    }

    pub(super) fn status(self) -> u8 {
        self.life.join().unwrap().unwrap()
    }
}

pub(super) fn eventually(what: impl Fn() -> bool) -> bool {
    (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        what()
    })
}
