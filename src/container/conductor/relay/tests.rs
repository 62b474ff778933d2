//! The thread's loop with a guest that a test plays.

use super::worker::Worker;
use super::*;
use crate::container::conductor::streams::Streams;
use crate::container::conductor::streams::testing::Board;
use crate::container::conductor::wake;
use crate::device::vsock::Endpoint;
use crate::host::identity::Identity;
use crate::machine::order::SystemCalls;
use husk_protocol::frame;
use husk_protocol::relay::*;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

struct Guest {
    directory: tempfile::TempDir,
    stream: UnixStream,
    relay: Relay,
    board: Arc<Board>,
}

impl Guest {
    fn new() -> Guest {
        let (stream, ours) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let relay = Relay::new(Walls::new(SystemCalls::Allow));
        let board = Arc::new(Board::default());
        let watched = wake().unwrap();
        let raised = watched.as_fd().try_clone_to_owned().unwrap();
        relay.shared.lock().thread = Thread::Runs(watched);
        let (shared, streams) = (Arc::clone(&relay.shared), board.clone());
        std::thread::spawn(move || {
            // As the file server's thread has it.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).unwrap();
            std::env::set_current_dir("/proc/self/fd").unwrap();
            let identity = Identity::current().unwrap();
            let streams: Arc<dyn Streams> = streams;
            let mut worker = Worker::new(Arc::clone(&shared), streams, identity, ours, raised);
            while worker.turn().is_ok() {}
            shared.give_up();
        });
        Guest { directory: tempfile::tempdir().unwrap(), stream, relay, board }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn say(&mut self, message: &FromGuest) {
        self.stream.write_all(&frame::encode(message).unwrap()).unwrap();
    }

    fn hear(&mut self) -> ToGuest {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).expect("it answers in time");
        let mut message = vec![0; frame::length(prefix).unwrap()];
        self.stream.read_exact(&mut message).unwrap();
        frame::decode(&message).unwrap()
    }

    /// Looks at a socket, until nobody has to wait any more.
    fn look(&self, node: Node, path: &Path) {
        let inode = Arc::new(inode(path));
        while !self.relay.seen(node, &inode) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Looks at a socket of which the agent is told, and has it served.
    fn serve(&mut self, node: Node, path: &Path, kind: SocketKind) {
        assert!(!self.relay.seen(node, &Arc::new(inode(path))));
        assert_eq!(self.hear(), ToGuest::Serve { node, kind });
        assert!(!self.relay.seen(node, &Arc::new(inode(path))), "nobody is there yet");
        self.say(&FromGuest::Serving { node, done: true });
        self.relay.settle();
        assert!(self.relay.seen(node, &Arc::new(inode(path))));
    }

    fn arrive(&mut self, node: Node, token: u32) -> Option<Endpoint> {
        self.say(&FromGuest::Arrived { node, token, peer: me() });
        match self.hear() {
            ToGuest::Accept { token: same, port } if same == token => {
                Some(self.board.connect(port).unwrap().0)
            }
            ToGuest::Refuse { token: same } if same == token => None,
            other => panic!("{other:?}"),
        }
    }
}

fn inode(path: &Path) -> OwnedFd {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn me() -> Peer {
    Peer { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() }
}

#[test]
fn a_server_outside_is_found_and_its_client_is_who_it_is_inside() {
    let mut guest = Guest::new();
    let path = guest.path("socket");
    let server = UnixListener::bind(&path).unwrap();
    guest.serve(7, &path, SocketKind::Stream);
    let ends = guest.arrive(7, 1).unwrap();
    let (mut client, _) = server.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    File::from(ends.to_guest.unwrap()).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
    if nix::unistd::geteuid().is_root() {
        guest.say(&FromGuest::Arrived { node: 7, token: 2, peer: Peer { uid: 1000, gid: 1001 } });
        assert!(matches!(guest.hear(), ToGuest::Accept { token: 2, .. }));
        let peer = getsockopt(&server.accept().unwrap().0, sockopt::PeerCredentials).unwrap();
        assert_eq!((peer.uid(), peer.gid()), (1000, 1001));
    }
    assert!(guest.arrive(8, 3).is_none(), "a socket that was never served");
    drop(server);
    assert!(guest.arrive(7, 4).is_none());
    assert_eq!(guest.hear(), ToGuest::Leave { node: 7 });
    assert!(guest.arrive(7, 5).is_none());
}

#[test]
fn where_nobody_listens_nobody_waits() {
    let mut guest = Guest::new();
    let path = guest.path("dead");
    drop(UnixListener::bind(&path).unwrap());
    guest.look(1, &path);
    // The agent cannot: so nobody is there.
    let path = guest.path("socket");
    let _server = UnixListener::bind(&path).unwrap();
    assert!(!guest.relay.seen(2, &Arc::new(inode(&path))));
    assert_eq!(guest.hear(), ToGuest::Serve { node: 2, kind: SocketKind::Stream });
    guest.say(&FromGuest::Serving { node: 2, done: false });
    guest.look(2, &path);
    assert!(guest.arrive(2, 1).is_none());
    // It breaks the framing, and those who look at sockets do not wait for it.
    guest.stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    guest.look(3, &path);
}

#[test]
fn a_busy_server_gets_its_clients_when_it_has_room() {
    let mut guest = Guest::new();
    let path = guest.path("socket");
    let server = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    guest.serve(7, &path, SocketKind::Stream);
    for token in 0..5 {
        guest.say(&FromGuest::Arrived { node: 7, token, peer: me() });
    }
    let mut accepted = 0;
    for _ in 0..5 {
        let ToGuest::Accept { .. } = guest.hear() else { panic!("refused") };
        accepted += 1;
        if accepted >= 2 {
            server.accept().unwrap();
        }
    }
}

#[test]
fn there_are_as_many_connections_as_there_may_be() {
    let mut guest = Guest::new();
    let path = guest.path("socket");
    let server = UnixListener::bind(&path).unwrap();
    guest.serve(7, &path, SocketKind::Stream);
    for token in 0..MOST_CONNECTIONS as u32 {
        guest.say(&FromGuest::Arrived { node: 7, token, peer: me() });
        server.accept().unwrap();
        assert!(matches!(guest.hear(), ToGuest::Accept { .. }));
    }
    assert!(guest.arrive(7, 1000).is_none());
    assert_eq!(guest.board.open(), MOST_CONNECTIONS);
}

#[test]
fn datagrams_arrive_whole_and_a_guest_that_sends_too_many_is_left() {
    let mut guest = Guest::new();
    let path = guest.path("log");
    let server = UnixDatagram::bind(&path).unwrap();
    setsockopt(&server, sockopt::PassCred, &true).unwrap();
    guest.serve(7, &path, SocketKind::Datagram);
    let root = nix::unistd::geteuid().is_root();
    let peer = if root { Peer { uid: 1000, gid: 1001 } } else { me() };
    for text in ["one", "two"] {
        guest.say(&FromGuest::Datagram { node: 7, peer: peer.clone(), bytes: text.into() });
        assert_eq!(guest.hear(), ToGuest::Taken { node: 7 });
    }
    let mut bytes = [0; 100];
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let mut room = nix::cmsg_space!(libc::ucred);
    let flags = nix::sys::socket::MsgFlags::empty();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&server);
    let message = nix::sys::socket::recvmsg::<()>(raw, &mut parts, Some(&mut room), flags).unwrap();
    let signed = message.cmsgs().unwrap().find_map(|one| match one {
        nix::sys::socket::ControlMessageOwned::ScmCredentials(who) => Some((who.uid(), who.gid())),
        _ => None,
    });
    assert_eq!((message.bytes, signed), (3, Some((peer.uid, peer.gid))));
    assert_eq!((server.recv(&mut bytes).unwrap(), &bytes[..3]), (3, b"two".as_slice()));
    // The server takes no more, and the guest does not stop.
    let text = || FromGuest::Datagram { node: 7, peer: me(), bytes: vec![b'x'; 1000] };
    for _ in 0..2000 {
        if guest.stream.write_all(&frame::encode(&text()).unwrap()).is_err() {
            break;
        }
    }
    let mut rest = Vec::new();
    // A reset, as what it sent was not read to the end.
    let _ = guest.stream.read_to_end(&mut rest);
    assert!(guest.stream.write_all(b"x").is_err());
}

#[test]
fn clients_outside_are_passed_on_until_the_server_inside_is_gone() {
    let mut guest = Guest::new();
    let path = guest.path("socket");
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    let flags = SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(&path).unwrap()).unwrap();
    guest.relay.made(Made { node: 9, socket, owner: (me().uid, me().gid) });
    let connect = || {
        (0..200).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            UnixStream::connect(&path).ok()
        })
    };
    let mut client = connect().expect("somebody listens");
    let ToGuest::Connect { node: 9, port } = guest.hear() else { panic!("nobody is passed on") };
    client.write_all(b"hello").unwrap();
    let ends = guest.board.connect(port).unwrap().0;
    File::from(ends.to_guest.unwrap()).read_exact(&mut [0; 5]).unwrap();
    let mut client = connect().expect("somebody listens");
    let ToGuest::Connect { node: 9, port } = guest.hear() else { panic!("nobody is passed on") };
    guest.say(&FromGuest::Unreachable { port, node: 9, gone: true });
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!((0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        UnixStream::connect(&path).is_err()
    }));
}

#[test]
fn a_fifo_goes_the_way_of_its_first_reader() {
    let mut guest = Guest::new();
    let path = guest.path("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    guest.relay.fifo(c"3", &Arc::new(inode(&path)));
    let share = || "3".to_owned();
    assert_eq!(guest.hear(), ToGuest::WatchFifo { share: share() });
    for round in 0..2 {
        // A reader outside.
        let reading = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read(path).unwrap()
        });
        let ToGuest::DrainFifo { port, .. } = guest.hear() else { panic!("its reader is not found") };
        let (ends, _) = guest.board.connect(port).unwrap();
        File::from(ends.from_guest.unwrap()).write_all(b"from inside").unwrap();
        guest.say(&FromGuest::FifoOver { share: share() });
        assert_eq!(reading.join().unwrap(), b"from inside", "round {round}");
        // A reader inside; a writer outside that waited for it.
        let writing = std::thread::spawn({
            let path = path.clone();
            move || std::fs::write(path, b"from outside").unwrap()
        });
        std::thread::sleep(Duration::from_millis(300));
        assert!(!writing.is_finished(), "opened without a reader");
        guest.say(&FromGuest::FifoRead { share: share() });
        let ToGuest::FillFifo { port, .. } = guest.hear() else { panic!("its writer is not found") };
        let (ends, _) = guest.board.connect(port).unwrap();
        let mut from = File::from(ends.to_guest.unwrap());
        let mut text = [0; 12];
        from.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"from outside");
        writing.join().unwrap();
        assert_eq!(from.read(&mut text).unwrap(), 0);
        drop(from);
        guest.say(&FromGuest::FifoOver { share: share() });
    }
}
