//! The relay with a host that a test plays: unix sockets stand for vsock, a directory for what is shared.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Ports are sockets in a directory.
struct Ports(PathBuf);

impl Machine for Ports {
    fn connect(&self, port: u32) -> sys::Result<OwnedFd> {
        let stream = UnixStream::connect(self.0.join(format!("port-{port}")))?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    }

    fn mount(&self, _: &str, _: &str) -> sys::Result<()> {
        Ok(())
    }

    fn host_clock(&self) -> Option<OwnedFd> {
        None
    }

    fn leave(&self) -> ! {
        std::process::exit(0)
    }
}

/// The host's side.
struct Host {
    directory: tempfile::TempDir,
    stream: UnixStream,
    next_port: u32,
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::tempdir().unwrap();
        let (stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let top = directory.path().to_owned();
        std::thread::spawn(move || {
            let (machine, shares) = (Ports(top.clone()), top.to_str().unwrap().to_owned());
            let mut relay = Relay::open(&machine, theirs.into(), &shares).unwrap();
            while relay.turn().is_ok() {}
        });
        Host { directory, stream, next_port: 100 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn say(&mut self, message: &ToGuest) {
        self.stream.write_all(&frame::encode(message).unwrap()).unwrap();
    }

    fn hear(&mut self) -> FromGuest {
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix).expect("it answers in time");
        let mut message = vec![0; frame::length(prefix).unwrap()];
        self.stream.read_exact(&mut message).unwrap();
        frame::decode(&message).unwrap()
    }

    fn port(&mut self) -> (u32, UnixListener) {
        self.next_port += 1;
        (self.next_port, UnixListener::bind(self.path(&format!("port-{}", self.next_port))).unwrap())
    }

    fn serve(&mut self, node: Node, kind: SocketKind) -> PathBuf {
        self.say(&ToGuest::Serve { node, kind });
        assert_eq!(self.hear(), FromGuest::Serving { node, done: true });
        self.path(&bind_name(node))
    }

    /// Accepts whoever arrives next.
    fn accept(&mut self) -> UnixStream {
        let FromGuest::Arrived { token, peer, .. } = self.hear() else { panic!("nobody arrives") };
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let (port, listener) = self.port();
        self.say(&ToGuest::Accept { token, port });
        listener.accept().unwrap().0
    }
}

fn everything(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn each_way_of_a_connection_ends_alone_and_nothing_is_lost() {
    let mut host = Host::new();
    let path = host.serve(5, SocketKind::Stream);
    let client = UnixStream::connect(&path).unwrap();
    let outside = host.accept();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(&sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert!(everything(&outside) == sent);
    });
    (&outside).write_all(b"answer").unwrap();
    outside.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(everything(&client), b"answer");
    // One side is gone at once, and the other learns of it without saying anything.
    let client = UnixStream::connect(&path).unwrap();
    let outside = host.accept();
    drop(outside);
    assert_eq!(everything(&client), b"");
    assert!((0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        (&client).write_all(b"x").is_err()
    }));
    // Nobody outside.
    let client = UnixStream::connect(&path).unwrap();
    let FromGuest::Arrived { token, node: 5, .. } = host.hear() else { panic!("nobody arrives") };
    host.say(&ToGuest::Refuse { token });
    assert_eq!(everything(&client), b"");
    host.say(&ToGuest::Leave { node: 5 });
    assert!((0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        UnixStream::connect(&path).is_err()
    }));
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_else_waiting() {
    let mut host = Host::new();
    let path = host.serve(5, SocketKind::Stream);
    let lazy = UnixStream::connect(&path).unwrap();
    let mut flood = host.accept();
    flood.set_nonblocking(true).unwrap();
    let mut stuck = 0;
    let mut sent = 0;
    while stuck < 20 {
        match flood.write(&[7; 65536]) {
            Ok(count) => (sent, stuck) = (sent + count, 0),
            Err(_) => {
                stuck += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
    assert!(sent < 2 << 20, "{sent} bytes wait for a client that reads nothing");
    for _ in 0..20 {
        let mut client = UnixStream::connect(&path).unwrap();
        let mut outside = host.accept();
        client.write_all(b"quick").unwrap();
        outside.read_exact(&mut [0; 5]).unwrap();
    }
    drop(flood);
    assert_eq!(everything(&lazy).len(), sent);
}

#[test]
fn one_connection_too_many_waits_for_another_to_end() {
    let mut host = Host::new();
    let path = host.serve(5, SocketKind::Stream);
    let mut clients = Vec::new();
    let mut outsides = Vec::new();
    for _ in 0..MOST_CONNECTIONS {
        clients.push(UnixStream::connect(&path).unwrap());
        outsides.push(host.accept());
    }
    clients.push(UnixStream::connect(&path).unwrap());
    host.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(host.stream.read(&mut [0]).is_err(), "one more has arrived");
    host.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    drop((clients.swap_remove(0), outsides.swap_remove(0)));
    let mut last = host.accept();
    clients[0].write_all(b"at last").unwrap();
    last.read_exact(&mut [0; 7]).unwrap();
}

#[test]
fn clients_of_the_hosts_find_a_server_inside_once_it_listens() {
    let mut host = Host::new();
    let path = host.path(&node_name(9));
    // Bound, and not listening yet.
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
    let server = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(server.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    // The kernel of a guest finds the inode under that name as often as it is asked.
    let keep = host.path("kept");
    std::fs::hard_link(&path, &keep).unwrap();
    let again = |name: &Path| {
        if !name.exists() {
            std::fs::hard_link(&keep, name).unwrap();
        }
    };
    let (port, listener) = host.port();
    host.say(&ToGuest::Connect { node: 9, port });
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(40));
        again(&path);
    }
    listen(&server, Backlog::new(5).unwrap()).unwrap();
    again(&path);
    let server = UnixListener::from(server);
    let (mut inside, _) = server.accept().unwrap();
    let (mut outside, _) = listener.accept().unwrap();
    outside.write_all(b"hello").unwrap();
    inside.read_exact(&mut [0; 5]).unwrap();
    drop(server);
    again(&path);
    host.say(&ToGuest::Connect { node: 9, port });
    assert_eq!(host.hear(), FromGuest::Unreachable { port, node: 9, gone: true });
}

#[test]
fn datagrams_keep_their_bounds_and_wait_for_the_host() {
    let mut host = Host::new();
    let path = host.serve(6, SocketKind::Datagram);
    let client = UnixDatagram::unbound().unwrap();
    client.connect(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    client.send(&vec![b'x'; LONGEST_DATAGRAM + 1]).unwrap();
    let mut sent = 0;
    for _ in 0..100 {
        if client.send(&vec![b'x'; sent]).is_ok() {
            sent += 1;
        } else {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!(sent > MOST_DATAGRAMS as usize && sent < 40, "{sent} wait");
    for expected in 0..sent {
        let FromGuest::Datagram { node: 6, bytes, peer } = host.hear() else { panic!("no datagram comes") };
        assert_eq!((bytes.len(), peer.uid), (expected, nix::unistd::geteuid().as_raw()));
        host.say(&ToGuest::Taken { node: 6 });
    }
}

#[test]
fn a_fifo_goes_the_way_of_its_first_reader() {
    let mut host = Host::new();
    let path = host.path("3");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    host.say(&ToGuest::WatchFifo { share: "3".to_owned() });
    for round in 0..2 {
        // A reader inside, a writer outside.
        let reading = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read(path).unwrap()
        });
        assert_eq!(host.hear(), FromGuest::FifoRead { share: "3".to_owned() });
        let (port, listener) = host.port();
        host.say(&ToGuest::FillFifo { share: "3".to_owned(), port });
        let (mut writer, _) = listener.accept().unwrap();
        writer.write_all(b"from outside").unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap(), b"from outside", "round {round}");
        assert_eq!(host.hear(), FromGuest::FifoOver { share: "3".to_owned() });
        // A reader outside, writers inside, until the last one leaves.
        let (port, listener) = host.port();
        host.say(&ToGuest::DrainFifo { share: "3".to_owned(), port });
        let (reader, _) = listener.accept().unwrap();
        let mut first = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        first.write_all(b"from ").unwrap();
        let mut second = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        drop(first);
        second.write_all(b"inside").unwrap();
        drop(second);
        assert_eq!(everything(&reader), b"from inside");
        assert_eq!(host.hear(), FromGuest::FifoOver { share: "3".to_owned() });
    }
    // A reader inside that leaves before anybody writes.
    let reader = std::thread::spawn({
        let path = path.clone();
        move || drop(std::fs::File::open(path).unwrap())
    });
    assert_eq!(host.hear(), FromGuest::FifoRead { share: "3".to_owned() });
    reader.join().unwrap();
    assert_eq!(host.hear(), FromGuest::FifoOver { share: "3".to_owned() });
}
