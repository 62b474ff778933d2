//! `husk machine` (hidden): the process that *is* the machine. Its pid is the container's, its exit status too.
//!
//! ```text
//!   Order heard -> session, network namespace -> Prepared               (the parent runs its hooks from here on)
//!     -> machine assembled, shares attached -> jail entered -> guest runs -> agent greets
//!     -> Proceed heard -> container made -> Created                     (the parent goes its way)
//!     -> ... the container's first process ends -> last byte delivered, caches written back -> exit
//! ```
//! Of its caller's descriptors it keeps those of the container, and these only until the vsock device has them.

use crate::container::conductor::localhost;
use crate::container::conductor::streams::{Offered, Streams};
use crate::container::conductor::{
    Boot, Commands, Conductor, Guest, Life, Network, Relay, Shares, Size, Tuns,
};
use crate::device::balloon::Balloon;
use crate::device::vsock::{Endpoint, Switchboard};
use crate::error::{ErrorKind, Kind, chain};
use crate::host::clock::Jumps;
use crate::host::localhost::Localhost;
use crate::host::netlink::Netlink;
use crate::host::{capability, fault, tap};
use crate::machine::control::{server, wire::WireError};
use crate::machine::growth::GrowthError;
use crate::machine::order::{
    self, Descriptor, Failed, MachineConfig, NetworkNamespace, Order, Report, SystemCalls,
};
use crate::machine::slots::SlotError;
use crate::machine::template::{Template, Unfit};
use crate::machine::walls::Thread;
use crate::machine::{Jail, Machine, MachineError, Parts, Running, Spares, seed};
use crate::process::signal::Signals;
use crate::process::stdio::{self, Descriptors};
use crate::process::{self, log, terminal};
use husk_protocol::CONTROL_PORT;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The loopback's number in every namespace.
const LOOPBACK: u32 = 1;

/// What is said of a machine whose operator has taken a wall away.
const WEAKENED: &str = "host.system_calls in husk's configuration is not \"enforce\": nothing holds this machine's threads to their system calls";

/// Runs it. To be called before anything else in the process opens a descriptor, blocks a signal or makes a thread.
pub fn run() -> ExitCode {
    #[allow(unsafe_code)] // only `main` knows that nobody owns the inherited descriptors
    // SAFETY: this is the first thing that this process does.
    let parent = unsafe { stdio::parent_socket() };
    let Some(parent) = parent else {
        crate::log::tell("husk: machine is started by husk itself");
        return ExitCode::FAILURE;
    };
    ExitCode::from(be(parent))
}

fn be(parent: UnixStream) -> u8 {
    match prepare(&parent).and_then(|prepared| prepared.bring_up(&parent)) {
        Ok(life) => {
            // Closed: from here on the container lives without it.
            drop(parent);
            life.lead()
        }
        Err(failed) => {
            // The parent prints and logs it. If it is gone, nobody wants to know.
            let _ = order::send_report(&parent, &Report::Failed(failed));
            1
        }
    }
}

/// A machine process in its place on the host, with what it was given.
struct Prepared {
    order: Order,
    signals: Signals,
    control: UnixListener,
    descriptors: Descriptors,
    /// A copy of the terminal, if it has become ours.
    terminal: Option<OwnedFd>,
}

/// Hears the order, and takes the place that it names.
fn prepare(parent: &UnixStream) -> Result<Prepared, Failed> {
    let signals = Signals::take().map_err(|error| host("receive signals", &error))?;
    let (order, received) = order::receive_order(parent).map_err(|error| match error {
        WireError::Closed => failed(ErrorKind::Host, "the command that started the machine is gone".into()),
        error => of(&error),
    })?;
    let Received { control, terminal, streams, log } = Received::sort(&order, received)?;
    if let Some(file) = log {
        if order.machine.system_calls != SystemCalls::Enforce {
            log::warn(&file, order.log_form, WEAKENED);
        }
        log::begin(file, order.log_form, order.debug);
    }
    process::name_process(&order.id);
    nix::unistd::setsid().map_err(|error| host("begin a session", &error))?;
    enter_network(&order.network)?;

    let (descriptors, terminal) = match (terminal, order.terminal) {
        (None, size) if !streams.is_empty() => {
            let given = Descriptors::received(streams, size);
            (given.map_err(|error| because(ErrorKind::InvalidArgument, &error))?, None)
        }
        (Some(slave), Some(size)) => {
            // The user's own terminal stays its session's, which then tells us of its size.
            let ours = terminal::take_control(&slave).then(|| slave.try_clone()).transpose();
            let ours = ours.map_err(|error| host("duplicate the terminal", &error))?;
            stdio::replace_own_with_null()
                .map_err(|error| host("let the standard descriptors go", &error))?;
            (Descriptors::Terminal(slave, size), ours)
        }
        (None, None) => (
            Descriptors::own().map_err(|error| host("take the container's standard descriptors", &error))?,
            None,
        ),
        _ => return Err(failed(ErrorKind::InvalidArgument, "the order and its descriptors disagree".into())),
    };
    fault::point("machine: in place");
    order::send_report(parent, &Report::Prepared).map_err(|error| of(&error))?;
    Ok(Prepared { order, signals, control, descriptors, terminal })
}

impl Prepared {
    /// Boots the guest and makes the container. Everything on the host is opened before the guest's first instruction,
    /// and nothing after it.
    fn bring_up(self, parent: &UnixStream) -> Result<Life, Failed> {
        let Prepared { order, signals, control, descriptors, terminal } = self;
        let mut jail = Jail::build().map_err(|error| of(&error))?;
        let parts =
            Parts::find(&order.machine).map_err(|error| because(ErrorKind::InvalidArgument, &error))?;
        let (machine, renewal) = machine(&order.machine, &parts)?;
        let MachineConfig { memory_mib, most_memory_mib: most_mib, headroom_mib, .. } = order.machine;
        let size = Size { begun_mib: machine.memory_mib(), most_mib, headroom_mib };
        jail.attach_all(&order.exports, &machine.root_exports(), &machine.share_exports())
            .map_err(|error| of(&error))?;

        fault::point("machine: assembled");
        let board = machine.switchboard();
        let agent = offer_control(&board)?;
        let streams: Arc<dyn Streams> = Arc::new(board);
        let offered = Offered::of(descriptors, &streams).map_err(|error| because(ErrorKind::Host, &error))?;

        let jumps = Jumps::open().map_err(|error| host("listen for jumps of the clock", &error))?;
        let kernel_log = machine.kernel_log();
        let walls = machine.walls();
        let relay = Relay::new(walls);
        machine.share_exports().set_neighbour(Arc::new(relay.clone()));
        let shares = Shares::open(machine.root_exports(), machine.share_exports(), &order.exports);
        let tuns = Tuns::open(order.machine.vcpus);
        let localhost = order.localhost.then(Localhost::take_over).transpose();
        // A pod without forwarded ports is one all the same.
        let localhost = localhost
            .inspect_err(|error| tracing::warn!(%error, "ports of the pod's localhost cannot be forwarded"));
        jail.enter().map_err(|error| of(&error))?;
        fault::point("machine: jailed");
        // TAPs are made while the guest boots.
        let spares = machine.spares();
        let network = Network::begin(Arc::clone(&spares), tuns, walls)
            .map_err(|error| host("look after the network namespace", &error))?;
        let since = Instant::now();
        let running = machine.run().map_err(|error| of(&error))?;
        fault::point("machine: running");
        for (step, since) in running.timeline().steps() {
            tracing::debug!(step = ?step, microseconds = since.as_micros(), "the machine is put together");
        }
        // Threads made from here on have none either.
        capability::drop_all().map_err(|error| host("drop capabilities", &error))?;

        let guest: Arc<dyn Guest> = Arc::new(Inside { running, kernel_log, spares });
        let container = &order.container;
        let conductor = Conductor::open(container.key, container.process_key, guest, streams, size, walls)
            .map_err(|error| host("prepare for events", &error))?;
        conductor.take_shares(shares);
        conductor.take_network(network);
        conductor.take_relay(relay);
        conductor.converse(agent).map_err(|error| host("make a thread for the agent", &error))?;
        server::serve(control, Arc::new(Commands(Arc::clone(&conductor))), walls)
            .map_err(|error| host("make a thread for the control socket", &error))?;

        if let Ok(Some(localhost)) = localhost {
            localhost::serve(localhost, Arc::clone(&conductor), walls)
                .map_err(|error| host("make a thread for localhost", &error))?;
        }
        // All threads but the balloon's are made: this one's walls too, before it has heard a word of the guest's.
        walls.enter(Thread::Main, || Ok(())).map_err(|error| host("put up the walls of a thread", &error))?;

        let life = Life { conductor, signals, terminal, offered, jumps };
        let timeout = Duration::from_millis(order.machine.boot_timeout_ms);
        life.create(parent, Boot { container: order.container, since, timeout, renewal, memory_mib })?;
        Ok(life)
    }
}

/// A machine that is a copy of a template, with a secret for it, where there is one that fits; or else one that boots.
fn machine(config: &MachineConfig, parts: &Parts) -> Result<(Machine, Option<[u8; 32]>), Failed> {
    if let Some(directory) = &config.templates {
        let found = Template::find(directory, config, parts).map_err(MachineError::from);
        match found.and_then(|template| Machine::copy(config, &template)) {
            Ok(machine) => return Ok((machine, Some(seed::draw().map_err(|error| of(&error))?))),
            Err(MachineError::Template(Unfit::Missing)) => {
                tracing::debug!("a cold start: {}", Unfit::Missing);
            }
            Err(error) => tracing::warn!("a cold start, although there is a template: {}", chain(&error)),
        }
    }
    Ok((Machine::assemble(config, parts).map_err(|error| of(&error))?, None))
}

/// The descriptors that came with an order.
struct Received {
    control: UnixListener,
    terminal: Option<OwnedFd>,
    streams: Vec<OwnedFd>,
    log: Option<File>,
}

impl Received {
    fn sort(order: &Order, received: Vec<OwnedFd>) -> Result<Received, Failed> {
        let disagree = || failed(ErrorKind::InvalidArgument, "the order and its descriptors disagree".into());
        if received.len() != order.descriptors.len() {
            return Err(disagree());
        }
        let (mut control, mut terminal, mut streams, mut log) = (None, None, Vec::new(), None);
        for (what, descriptor) in order.descriptors.iter().zip(received) {
            match what {
                Descriptor::Control => control = Some(UnixListener::from(descriptor)),
                Descriptor::Terminal => terminal = Some(descriptor),
                Descriptor::Stream => streams.push(descriptor),
                Descriptor::Log => log = Some(File::from(descriptor)),
            }
        }
        Ok(Received { control: control.ok_or_else(disagree)?, terminal, streams, log })
    }
}

fn enter_network(network: &NetworkNamespace) -> Result<(), Failed> {
    match network {
        NetworkNamespace::New => {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| host("make a network namespace", &error))?;
            // As runc does: what callers put into the namespace may count on it.
            Netlink::open()
                .and_then(|mut netlink| tap::set_up(&mut netlink, LOOPBACK))
                .map_err(|error| host("bring the loopback up", &error))
        }
        NetworkNamespace::Path(path) => {
            let attempt = || format!("enter the network namespace {}", path.display());
            // A pipe that nobody writes to must not hold us.
            let namespace = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
            let namespace = namespace.map_err(|error| host(&attempt(), &error))?;
            setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|error| match error {
                Errno::EINVAL => failed(
                    ErrorKind::InvalidArgument,
                    format!("linux.namespaces: {} is not a network namespace", path.display()),
                ),
                error => host(&attempt(), &error),
            })
        }
    }
}

/// Offers the agent its port; what it says there is heard at the other end of the socket that is returned.
fn offer_control(board: &Switchboard) -> Result<UnixStream, Failed> {
    let pair = UnixStream::pair().and_then(|(ours, theirs)| Ok((ours, theirs.try_clone()?, theirs)));
    let (ours, read, write) = pair.map_err(|error| host("make a socket pair for the agent", &error))?;
    let both = Endpoint { from_guest: Some(write.into()), to_guest: Some(read.into()) };
    board.offer_at(CONTROL_PORT, both).map_err(|error| because(ErrorKind::Host, &error))?;
    Ok(ours)
}

/// A guest that runs, as its container's conductor sees it.
struct Inside {
    running: Running,
    kernel_log: Arc<crate::device::console::KernelLog>,
    spares: Arc<Spares>,
}

impl Guest for Inside {
    fn pause(&self) {
        self.running.pause();
    }

    fn resume(&self) {
        self.running.resume();
    }

    fn end(&self) -> BorrowedFd<'_> {
        self.running.end_event()
    }

    fn how_it_ended(&self) -> Option<String> {
        self.running.ended().map(|ended| ended.to_string())
    }

    fn last_words(&self) -> String {
        self.kernel_log.last_words()
    }

    fn plug_balloon(&self) -> Result<u32, SlotError> {
        self.spares.plug(Box::new(Balloon::new()))
    }

    fn plug_memory(&self, bytes: u64) -> Result<u32, GrowthError> {
        self.running.growth().grow(bytes)
    }
}

fn failed(kind: ErrorKind, message: String) -> Failed {
    Failed { kind, message }
}

/// An error in its own words, of a kind that it does not know itself.
fn because(kind: ErrorKind, error: &dyn std::error::Error) -> Failed {
    failed(kind, chain(error))
}

/// An error in its own words.
fn of<E: Kind>(error: &E) -> Failed {
    failed(error.kind(), chain(error))
}

/// The host did not let us do something.
fn host(attempt: &str, error: &dyn std::error::Error) -> Failed {
    failed(ErrorKind::Host, format!("cannot {attempt}: {}", chain(error)))
}
