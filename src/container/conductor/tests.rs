//! A container's life with a guest, an agent and a vsock device that are played here; everything between them, the
//! control socket included, is real.

mod evil_agent;
mod memory;

use super::streams::Offered;
use super::streams::testing::Board;
use super::*;
use crate::device::fs::Exports;
use crate::device::vsock::Endpoint;
use crate::host::clock::Jumps;
use crate::machine::control::client::{self, ClientError, Connection};
use crate::machine::control::wire::WireError;
use crate::machine::control::{Address, Command, Outcome, Phase, listen_at, server};
use crate::machine::order::{
    AccessTimes, Export, ExportDevice, Joining, Report, SystemCalls, receive_report, send_proceed,
};
use crate::process::signal::Signals;
use crate::process::stdio::Descriptors;
use husk_evil_agent::{Point, Way};
use husk_protocol::{Failure, FailureKind, FromAgent, ProcessStatus, Request, Stdio, Target, frame};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// What the threads here may call: a mistake in their lists ends the test.
const WALLS: Walls = Walls::new(SystemCalls::Enforce);
/// The slot that a balloon gets.
const BALLOON: u32 = 12;
/// The slot of the memory device.
const MEMORY: u32 = 13;
/// The port of localhost at which somebody inside listens.
const LISTENED: u16 = 8080;
/// Of the machine.
const SIZE: Size = Size { begun_mib: 512, most_mib: 2048, headroom_mib: 48 };
const SOON: Option<Duration> = Some(Duration::from_secs(5));

/// A guest that does as it is told.
struct Machine {
    end: EventFd,
    ended: Mutex<Option<String>>,
    pauses: AtomicUsize,
    runs: AtomicBool,
    /// Slots that its agent was told to look at.
    looked_at: Mutex<Vec<u32>>,
    /// How much more memory than at its beginning it was given, each time.
    plugged: Mutex<Vec<u64>>,
    /// How much of that its kernel takes.
    takes: AtomicU64,
}

impl Machine {
    fn finish(&self, how: &str) {
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

/// How the agent behaves.
#[derive(Default)]
struct Manners {
    /// Answers nothing any more.
    mute: AtomicBool,
    /// Says that it has killed, and has not.
    lies: AtomicBool,
    /// Tells of an end, and answers what led to it some time later.
    hasty: AtomicBool,
    /// Claims this much more output than there is.
    boasts: AtomicUsize,
    /// Is evil from some point on.
    evil: Option<Way>,
}

/// The agent. A program is `echo WORDS`, which ends with status 7, or anything else, which runs until it is killed.
struct Agent {
    socket: UnixStream,
    board: Arc<Board>,
    manners: Arc<Manners>,
    guest: Arc<Machine>,
    first: Option<(ProcessKey, husk_protocol::Process)>,
    /// By their containers.
    firsts: HashMap<ContainerKey, ProcessKey>,
    /// Streams stay open while their process lives.
    streams: HashMap<ProcessKey, Vec<Endpoint>>,
    signals: Arc<Mutex<Vec<(Target, i32)>>>,
}

impl Agent {
    fn say(&mut self, message: &FromAgent) {
        let _ = self.socket.write_all(&frame::encode(message).unwrap());
    }

    /// Whether the time has come to be evil. It answers question number `id`.
    fn turns(&mut self, point: Point, id: u32) -> bool {
        let evil = self.manners.evil.filter(|evil| evil.at == point);
        if let Some(evil) = evil {
            let host = self.socket.try_clone().unwrap();
            evil.act(&OwnedFd::from(host).into(), id);
        }
        evil.is_some()
    }

    fn live(mut self) {
        if self.turns(Point::Greeting, 0) {
            // Whatever is asked goes nowhere.
            let _ = std::io::copy(&mut self.socket, &mut std::io::sink());
            return;
        }
        self.say(&FromAgent::Ready(Ready { version: husk_protocol::VERSION, uptime: 0 }));
        let mut prefix = [0; 4];
        while self.socket.read_exact(&mut prefix).is_ok() {
            let mut message = vec![0; frame::length(prefix).unwrap()];
            self.socket.read_exact(&mut message).unwrap();
            let Request { id, call } = frame::decode(&message).unwrap();
            if self.manners.mute.load(Ordering::SeqCst) {
                continue;
            }
            assert!(self.guest.runs.load(Ordering::SeqCst), "asked while paused: {call:?}");
            let point = match &call {
                Call::Create(_) => Some(Point::Create),
                Call::Start { .. } => Some(Point::Start),
                Call::Processes { .. } => Some(Point::Processes),
                Call::Signal { signal: libc::SIGKILL, .. } => Some(Point::Kill),
                _ => None,
            };
            if point.is_some_and(|point| self.turns(point, id)) {
                continue;
            }
            let started = point == Some(Point::Start);
            let mut ended = None;
            let answer = match call {
                Call::Create(container) => {
                    self.firsts.insert(container.key, container.process_key);
                    self.first = Some((container.process_key, container.process));
                    Answer::Created { guest_pid: 2 }
                }
                Call::Start { .. } => {
                    // If it has not made it, somebody else is to find out.
                    let Some((key, process)) = self.first.take() else { continue };
                    ended = self.execute(key, &process);
                    Answer::Done
                }
                Call::Exec(exec) => {
                    ended = self.execute(exec.key, &exec.process);
                    Answer::Created { guest_pid: 3 }
                }
                Call::Signal { target, signal } => {
                    self.signals.lock().unwrap().push((target, signal));
                    let key = match target {
                        Target::Process(key) => key,
                        Target::Container(key) => self.firsts[&key],
                    };
                    if signal == libc::SIGKILL && !self.manners.lies.load(Ordering::SeqCst) {
                        self.streams.remove(&key);
                        ended = Some(Exited {
                            process: key,
                            status: ProcessStatus::Signal(9),
                            stdout: 0,
                            stderr: 0,
                        });
                    }
                    Answer::Done
                }
                Call::Processes { .. } => Answer::Processes(Vec::new()),
                Call::AttachDevice { slot } => {
                    self.guest.looked_at.lock().unwrap().push(slot);
                    Answer::Done
                }
                Call::TakeMemory { slot, bytes } => {
                    assert_eq!(slot, MEMORY);
                    if bytes > self.guest.takes.load(Ordering::SeqCst) {
                        let late = Failure { kind: FailureKind::Guest, message: "it did not come".into() };
                        self.say(&FromAgent::Reply { id, outcome: Err(late) });
                        continue;
                    }
                    Answer::Done
                }
                Call::Forward { port, to: LISTENED } => {
                    let (ends, pipe) = self.board.connect(port).unwrap();
                    pipe.deliver(&ends, b"served");
                    Answer::Done
                }
                Call::Forward { .. } => {
                    let refused = Failure { kind: FailureKind::Guest, message: "refused".into() };
                    self.say(&FromAgent::Reply { id, outcome: Err(refused) });
                    continue;
                }
                _ => Answer::Done,
            };
            if let Some(exited) = ended.as_ref().filter(|_| self.manners.hasty.load(Ordering::SeqCst)) {
                self.say(&FromAgent::Exited(exited.clone()));
                std::thread::sleep(Duration::from_millis(300));
            }
            self.say(&FromAgent::Reply { id, outcome: Ok(answer) });
            if started {
                self.turns(Point::Running, id);
            }
            if let Some(exited) = ended {
                // Twice, and one of nobody: only what is news counts.
                self.say(&FromAgent::Exited(Exited { process: ProcessKey(77), ..exited.clone() }));
                self.say(&FromAgent::Exited(exited.clone()));
                self.say(&FromAgent::Exited(Exited { status: ProcessStatus::Code(99), ..exited }));
            }
        }
    }

    fn execute(&mut self, key: ProcessKey, process: &husk_protocol::Process) -> Option<Exited> {
        let ports = match process.stdio {
            Stdio::Null => vec![],
            Stdio::Pipes { stdin, stdout, stderr } => [stdout, stdin, stderr].into_iter().flatten().collect(),
            Stdio::Terminal { port, .. } => vec![port],
        };
        let mut ends: Vec<_> = ports.into_iter().map(|port| self.board.connect(port).unwrap()).collect();
        if process.args[0] != "echo" {
            self.streams.insert(key, ends.into_iter().map(|(ends, _)| ends).collect());
            return None;
        }
        let words = process.args[1].clone();
        let stdout = words.len() as u64 + self.manners.boasts.load(Ordering::SeqCst) as u64;
        if !ends.is_empty() {
            let (ends, pipe) = ends.remove(0);
            std::thread::spawn(move || pipe.deliver(&ends, words.as_bytes()));
        }
        Some(Exited { process: key, status: ProcessStatus::Code(7), stdout, stderr: 0 })
    }
}

/// A container that is being run.
struct Stage {
    control: Address,
    parent: UnixStream,
    guest: Arc<Machine>,
    manners: Arc<Manners>,
    signals: Arc<Mutex<Vec<(Target, i32)>>>,
    conductor: Arc<Conductor>,
    stdout: Option<std::io::PipeReader>,
    life: JoinHandle<Result<u8, Failed>>,
    _directory: tempfile::TempDir,
}

fn process(args: &[&str]) -> husk_protocol::Process {
    husk_protocol::Process {
        args: args.iter().map(|word| (*word).to_owned()).collect(),
        ..Default::default()
    }
}

pub(super) fn container(args: &[&str]) -> husk_protocol::Container {
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

fn null() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

/// Puts a container on stage, its agent up if `agent`, as soon as its parent says so.
fn stage(args: &[&str], agent: bool, timeout: Duration) -> Stage {
    stage_with(args, agent, timeout, SIZE.begun_mib, Arc::default())
}

/// The same, in a machine that is to have so much memory, with an agent of such manners.
fn stage_with(
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
fn created(args: &[&str]) -> Stage {
    let stage = stage(args, true, Duration::from_secs(60));
    send_proceed(&stage.parent).unwrap();
    assert_eq!(receive_report(&stage.parent, SOON).unwrap(), Report::Created { cold: true });
    stage
}

fn started(args: &[&str]) -> Stage {
    let stage = created(args);
    assert_eq!(stage.ask(Command::Start).unwrap(), Outcome::Done);
    stage
}

impl Stage {
    fn ask(&self, command: Command) -> Result<Outcome, ClientError> {
        client::ask(&self.control, &command)
    }

    fn kill(&self) -> Result<Outcome, ClientError> {
        self.ask(Command::Signal { signal: libc::SIGKILL, all: false })
    }

    fn exec(&self, args: &[&str], stdout: impl AsFd) -> Connection {
        let mut connection = Connection::open(&self.control).unwrap();
        let command = Command::Exec { process: Box::new(process(args)), terminal: None };
        let null = null();
        connection.send(&command, &[null.as_fd(), stdout.as_fd(), null.as_fd()]).unwrap();
        connection
    }

    /// Has a container join, whose memory limit is that; `Joined` is still to be heard.
    fn join(&self, args: &[&str], limit: &str, stdout: impl AsFd) -> Connection {
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
    fn ask_of(&self, container: u32, command: Command) -> Result<Outcome, ClientError> {
        let address = Address { container: ContainerKey(container), ..self.control.clone() };
        client::ask(&address, &command)
    }

    fn status(self) -> u8 {
        self.life.join().unwrap().unwrap()
    }
}

fn eventually(what: impl Fn() -> bool) -> bool {
    (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        what()
    })
}

#[test]
fn a_container_is_created_started_and_ends_with_its_status_after_its_last_byte() {
    let mut stage = created(&["echo", "hello"]);
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Created));
    assert_eq!(stage.ask(Command::Start).unwrap(), Outcome::Done);
    let mut text = String::new();
    stage.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(stage.status(), 7);
}

#[test]
fn a_reader_that_takes_its_time_gets_every_byte_before_the_exit() {
    let words = "x".repeat(300_000);
    let mut stage = started(&["echo", &words]);
    std::thread::sleep(Duration::from_millis(700));
    assert!(!stage.life.is_finished());
    let mut text = String::new();
    stage.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.len(), words.len());
    assert_eq!(stage.status(), 7);
}

#[test]
fn without_the_parents_word_nothing_is_made_and_without_the_parent_the_machine_ends() {
    let stage = stage(&["echo", "x"], true, Duration::from_secs(60));
    assert!(receive_report(&stage.parent, Some(Duration::from_millis(100))).is_err());
    drop(stage.parent);
    let failed = stage.life.join().unwrap().unwrap_err();
    assert!(failed.message.contains("is gone"), "{}", failed.message);
}

#[test]
fn a_guest_whose_agent_never_speaks_fails_in_time_with_words_and_the_kernels_last_lines() {
    let stage = stage(&["echo", "x"], false, Duration::from_millis(100));
    let failed = stage.life.join().unwrap().unwrap_err();
    assert_eq!(failed.kind, ErrorKind::Guest);
    for part in ["within 0.1 s", "husk check", "Kernel panic"] {
        assert!(failed.message.contains(part), "{}", failed.message);
    }
}

#[test]
fn a_guest_that_ends_before_its_agent_is_up_fails_at_once() {
    let stage = stage(&["echo", "x"], false, Duration::from_secs(60));
    stage.guest.finish("the guest asked for a reset");
    let failed = stage.life.join().unwrap().unwrap_err();
    assert!(
        failed.message.contains("before its agent was up: the guest asked for a reset"),
        "{}",
        failed.message
    );
}

#[test]
fn a_guest_that_ends_under_a_container_ends_it_with_255() {
    let stage = started(&["sleep"]);
    stage.guest.finish("the guest asked for a reset");
    assert_eq!(stage.status(), 255);
}

#[test]
fn a_second_start_is_refused_in_runcs_words() {
    let stage = started(&["sleep"]);
    let error = stage.ask(Command::Start).unwrap_err();
    assert_eq!(error.to_string(), "cannot start an already running container");
    stage.kill().unwrap();
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_kill_is_answered_and_the_container_ends_with_137() {
    let stage = started(&["sleep"]);
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_kill_ends_the_machine_in_time_when_the_agent_is_mute() {
    let stage = started(&["sleep"]);
    stage.manners.mute.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_kill_ends_the_machine_in_time_when_the_agent_only_says_that_it_has_killed() {
    let stage = started(&["sleep"]);
    stage.manners.lies.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
    assert!(begun.elapsed() < Duration::from_millis(2300), "{:?}", begun.elapsed());
}

#[test]
fn a_kill_ends_the_wait_for_a_reader_that_has_stopped() {
    let stage = started(&["echo", &"x".repeat(300_000)]);
    std::thread::sleep(Duration::from_millis(200));
    let begun = Instant::now();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    let stdout = { stage.conductor.clone() };
    assert_eq!(stage.status(), 7);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(stdout);
}

#[test]
fn an_agent_that_claims_output_which_never_comes_can_still_be_killed() {
    let stage = created(&["echo", "x"]);
    stage.manners.boasts.store(1 << 40, Ordering::SeqCst);
    stage.ask(Command::Start).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 7);
}

#[test]
fn an_exec_is_answered_when_it_runs_and_again_when_it_has_ended() {
    let stage = started(&["sleep"]);
    let (mut read, write) = std::io::pipe().unwrap();
    let mut exec = stage.exec(&["echo", "from exec"], write);
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Exited(7));
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from exec");
    assert!(matches!(exec.receive(SOON), Err(ClientError::Gone)));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn signals_and_sizes_on_an_execs_connection_are_for_its_process() {
    let stage = started(&["sleep"]);
    let mut exec = stage.exec(&["sleep"], null());
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    exec.send(&Command::Signal { signal: libc::SIGUSR1, all: false }, &[]).unwrap();
    exec.send(&Command::Resize(Default::default()), &[]).unwrap();
    exec.send(&Command::Signal { signal: libc::SIGKILL, all: false }, &[]).unwrap();
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Exited(137));
    let key = Target::Process(ProcessKey(1));
    assert_eq!(*stage.signals.lock().unwrap(), [(key, libc::SIGUSR1), (key, libc::SIGKILL)]);
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn an_exec_whose_connection_closes_is_killed_inside() {
    let stage = started(&["sleep"]);
    let mut exec = stage.exec(&["sleep"], null());
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    drop(exec);
    let killed = (Target::Process(ProcessKey(1)), libc::SIGKILL);
    assert!(eventually(|| stage.signals.lock().unwrap().contains(&killed)));
    assert!(eventually(|| stage.conductor.lock().processes.len() == 1));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn an_exec_that_outlives_its_container_is_told_of_its_end() {
    let stage = started(&["sleep"]);
    let mut exec = stage.exec(&["sleep"], null());
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Done);
    stage.kill().unwrap();
    assert_eq!(exec.receive(SOON).unwrap(), Outcome::Exited(137));
    assert_eq!(stage.status(), 137);
}

#[test]
fn an_exec_without_its_descriptors_is_refused() {
    let stage = started(&["sleep"]);
    let mut connection = Connection::open(&stage.control).unwrap();
    connection
        .send(&Command::Exec { process: Box::new(process(&["echo", "x"])), terminal: None }, &[])
        .unwrap();
    let error = connection.receive(SOON).unwrap_err();
    assert!(error.to_string().contains("three descriptors"), "{error}");
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_paused_container_still_answers_and_its_vcpus_run_only_while_it_does() {
    let stage = started(&["sleep"]);
    assert_eq!(stage.ask(Command::Pause).unwrap(), Outcome::Done);
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Paused));
    assert!(!stage.guest.runs.load(Ordering::SeqCst));
    assert_eq!(stage.ask(Command::Processes).unwrap(), Outcome::Processes(vec![]));
    assert!(eventually(|| !stage.guest.runs.load(Ordering::SeqCst)));
    assert_eq!(stage.guest.pauses.load(Ordering::SeqCst), 2);
    assert_eq!(stage.ask(Command::Pause).unwrap_err().to_string(), "cannot pause a container that is paused");
    let (_, write) = std::io::pipe().unwrap();
    let mut waiting = stage.exec(&["echo", "x"], write);
    let error = waiting.receive(Some(Duration::from_millis(200))).unwrap_err();
    assert!(matches!(error, ClientError::Wire(WireError::TimedOut)), "it ran in a frozen container: {error}");
    assert_eq!(stage.ask(Command::Resume).unwrap(), Outcome::Done);
    assert_eq!(waiting.receive(SOON).unwrap(), Outcome::Done);
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Running));
    assert!(stage.guest.runs.load(Ordering::SeqCst));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_paused_container_can_be_killed() {
    let stage = started(&["sleep"]);
    stage.ask(Command::Pause).unwrap();
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert_eq!(stage.status(), 137);
}

#[test]
fn what_a_container_frees_is_taken_back_once_it_has_lived_a_while() {
    let stage = started(&["sleep"]);
    let looked_at = || stage.guest.looked_at.lock().unwrap().clone();
    assert!(looked_at().is_empty());
    assert!(eventually(|| !looked_at().is_empty()));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(looked_at(), [BALLOON]);
    stage.kill().unwrap();
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_watcher_hears_of_memory_and_of_the_end() {
    let stage = started(&["sleep"]);
    let mut watcher = Connection::open(&stage.control).unwrap();
    watcher.send(&Command::Watch, &[]).unwrap();
    assert!(eventually(|| stage.conductor.lock().members[&ContainerKey(0)].watchers.len() == 1));
    (0..100_000).for_each(|_| stage.conductor.out_of_memory(ContainerKey(0)));
    stage.conductor.out_of_memory(ContainerKey(9));
    assert_eq!(watcher.receive(SOON).unwrap(), Outcome::OutOfMemory);
    stage.kill().unwrap();
    let mut heard = watcher.receive(SOON).unwrap();
    let mut times = 1;
    while heard == Outcome::OutOfMemory {
        heard = watcher.receive(SOON).unwrap();
        times += 1;
    }
    assert_eq!(heard, Outcome::Exited(137));
    assert!(times < 10, "a guest's flood reached a caller");
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_kill_before_the_container_exists_ends_the_machine() {
    let stage = stage(&["sleep"], false, Duration::from_secs(60));
    assert_eq!(stage.ask(Command::Status).unwrap(), Outcome::Status(Phase::Creating));
    assert_eq!(stage.kill().unwrap(), Outcome::Done);
    assert!(stage.life.join().unwrap().is_err());
}

/// Seen on a busy machine: it had ended before the agent's answer was looked at, and its start was said to have failed.
#[test]
fn a_container_that_joins_and_ends_at_once_was_started() {
    let stage = started(&["sleep"]);
    let (_read, write) = std::io::pipe().unwrap();
    let mut joined = stage.join(&["echo", "words"], "max", write);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Joined(ContainerKey(1)));
    stage.manners.hasty.store(true, Ordering::SeqCst);
    assert_eq!(stage.ask_of(1, Command::Start).unwrap(), Outcome::Done);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Exited(7));
    stage.manners.hasty.store(false, Ordering::SeqCst);
    stage.kill().unwrap();
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_container_that_joins_lives_and_ends_by_itself() {
    let stage = started(&["sleep"]);
    let (mut read, write) = std::io::pipe().unwrap();
    let mut joined = stage.join(&["echo", "from the second"], "max", write);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Joined(ContainerKey(1)));
    assert_eq!(stage.ask_of(1, Command::Status).unwrap(), Outcome::Status(Phase::Created));
    assert_eq!(stage.ask_of(0, Command::Status).unwrap(), Outcome::Status(Phase::Running));
    assert_eq!(stage.ask_of(1, Command::Start).unwrap(), Outcome::Done);
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Exited(7));
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from the second");
    // Whoever asks for it now, or for one that never was, asks for nothing.
    for number in [1, 77] {
        for command in [Command::Status, Command::Start, Command::Pause, Command::Stats] {
            let refused = stage.ask_of(number, command.clone());
            // What the played agent answers for anybody is not ours.
            assert!(refused.is_err() || command == Command::Stats, "{number} {command:?}: {refused:?}");
        }
    }
    let mut next = stage.join(&["sleep"], "max", null());
    assert_eq!(next.receive(SOON).unwrap(), Outcome::Joined(ContainerKey(2)), "a number is given once");
    stage.kill().unwrap();
    assert_eq!(next.receive(SOON).unwrap(), Outcome::Exited(137));
    assert_eq!(stage.status(), 137);
}

#[test]
fn signals_and_pauses_are_for_the_container_that_is_named() {
    let stage = started(&["sleep"]);
    let mut joined = stage.join(&["sleep"], "max", null());
    joined.receive(SOON).unwrap();
    stage.ask_of(1, Command::Start).unwrap();
    joined.send(&Command::Signal { signal: libc::SIGUSR1, all: false }, &[]).unwrap();
    stage.ask_of(1, Command::Signal { signal: libc::SIGUSR2, all: true }).unwrap();
    let sent = [
        (Target::Process(ProcessKey(1)), libc::SIGUSR1),
        (Target::Container(ContainerKey(1)), libc::SIGUSR2),
    ];
    assert!(eventually(|| sent.iter().all(|sent| stage.signals.lock().unwrap().contains(sent))));
    // The vcpus stop with the last of them, and run again with the first.
    stage.ask_of(1, Command::Pause).unwrap();
    assert_eq!(stage.ask_of(0, Command::Status).unwrap(), Outcome::Status(Phase::Running));
    assert!(stage.guest.runs.load(Ordering::SeqCst));
    stage.ask_of(0, Command::Pause).unwrap();
    assert!(!stage.guest.runs.load(Ordering::SeqCst));
    stage.ask_of(1, Command::Resume).unwrap();
    assert!(stage.guest.runs.load(Ordering::SeqCst));
    assert_eq!(stage.ask_of(0, Command::Status).unwrap(), Outcome::Status(Phase::Paused));
    stage.ask_of(1, Command::Signal { signal: libc::SIGKILL, all: true }).unwrap();
    assert_eq!(joined.receive(SOON).unwrap(), Outcome::Exited(137));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_container_whose_connection_closes_is_killed_and_nothing_of_it_stays() {
    let stage = started(&["sleep"]);
    let mut joined = stage.join(&["sleep"], "max", null());
    joined.receive(SOON).unwrap();
    stage.ask_of(1, Command::Start).unwrap();
    drop(joined);
    let killed = (Target::Container(ContainerKey(1)), libc::SIGKILL);
    assert!(eventually(|| stage.signals.lock().unwrap().contains(&killed)));
    assert!(eventually(|| stage.conductor.lock().members.len() == 1));
    assert_eq!(stage.conductor.lock().processes.len(), 1);
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_sandbox_that_is_being_made_or_has_ended_cannot_be_joined() {
    let stage = stage(&["sleep"], true, Duration::from_secs(60));
    let refused = stage.join(&["sleep"], "max", null()).receive(SOON).unwrap_err().to_string();
    assert_eq!(refused, "the sandbox is not running");
    send_proceed(&stage.parent).unwrap();
    assert_eq!(receive_report(&stage.parent, SOON).unwrap(), Report::Created { cold: true });
    // Without what it was said to come with.
    let joining = Joining { container: container(&["x"]), terminal: None, exports: vec![] };
    let mut connection = Connection::open(&stage.control).unwrap();
    let null = null();
    connection.send(&Command::Join(Box::new(joining)), &[null.as_fd(); 3]).unwrap();
    let refused = connection.receive(SOON).unwrap_err().to_string();
    assert!(refused.contains("disagree"), "{refused}");
    assert!(eventually(|| stage.conductor.lock().members.len() == 1));
    stage.kill().unwrap();
    stage.status();
}

#[test]
fn a_guest_that_does_not_end_a_container_that_was_killed_loses_its_machine() {
    let stage = started(&["sleep"]);
    let mut joined = stage.join(&["sleep"], "max", null());
    joined.receive(SOON).unwrap();
    stage.ask_of(1, Command::Start).unwrap();
    stage.manners.lies.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    stage.ask_of(1, Command::Signal { signal: libc::SIGKILL, all: true }).unwrap();
    assert_eq!(joined.receive(Some(Duration::from_secs(20))).unwrap(), Outcome::Exited(137));
    assert!(begun.elapsed() >= deadline::KILL_JOINED, "{:?}", begun.elapsed());
    assert_eq!(stage.status(), 137);
}

#[test]
fn a_connection_to_localhost_is_led_to_who_listens_inside_and_reset_if_nobody_does() {
    let stage = started(&["sleep"]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut doors = localhost::Doors::new(Arc::clone(&stage.conductor));
    let mut connect = |to| {
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        doors.lead(listener.accept().unwrap().0.into(), to);
        client
    };
    let mut said = String::new();
    connect(LISTENED).read_to_string(&mut said).unwrap();
    assert_eq!(said, "served");
    let refused = connect(1).read(&mut [0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionReset);
    stage.kill().unwrap();
}
