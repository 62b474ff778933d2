//! Sockets on both sides of a mount, with a real kernel between: two "kernels" are played by one, which knows a shared
//! inode and the host's own as two.

use super::super::Policy;
use super::super::sockets::{Alias, Made, Neighbour};
use super::mount::{Mounted, Setup};
use nix::errno::Errno;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Tells the test of what it hears, and lets those wait who look at a socket until the test says otherwise.
struct Told {
    seen: Mutex<Sender<u64>>,
    made: Mutex<Sender<Made>>,
    gone: Mutex<Sender<u64>>,
    served: Mutex<BTreeSet<u64>>,
}

struct Hears {
    seen: Receiver<u64>,
    made: Receiver<Made>,
    gone: Receiver<u64>,
}

fn neighbour() -> (Arc<Told>, Hears) {
    let (seen, hears_seen) = channel();
    let (made, hears_made) = channel();
    let (gone, hears_gone) = channel();
    let told = Told { seen: seen.into(), made: made.into(), gone: gone.into(), served: Mutex::default() };
    (Arc::new(told), Hears { seen: hears_seen, made: hears_made, gone: hears_gone })
}

impl Neighbour for Told {
    fn alias(&self, name: &[u8]) -> Option<Alias> {
        let text = std::str::from_utf8(name).ok()?;
        let bind = text.strip_prefix("bind-").and_then(|number| number.parse().ok()).map(Alias::Bind);
        bind.or_else(|| text.strip_prefix("node-")?.parse().ok().map(Alias::Node))
    }

    fn seen(&self, node: u64, _socket: &Arc<OwnedFd>) -> bool {
        let _ = self.seen.lock().unwrap().send(node);
        self.served.lock().unwrap().contains(&node)
    }

    fn made(&self, made: Made) {
        let _ = self.made.lock().unwrap().send(made);
    }

    fn fifo(&self, export: &std::ffi::CStr, _fifo: &Arc<OwnedFd>) {
        panic!("{export:?} is no FIFO");
    }

    fn gone(&self, node: u64) {
        let _ = self.gone.lock().unwrap().send(node);
    }
}

fn mounted(told: &Arc<Told>) -> Option<Mounted> {
    let mounted = Mounted::new(Setup { policy: Policy::Shared, in_memory: true, ..Setup::default() })?;
    mounted.exports.set_neighbour(told.clone());
    Some(mounted)
}

#[test]
fn who_connects_to_a_socket_of_the_hosts_waits_for_who_stands_in_for_it_and_finds_it() {
    let (told, hears) = neighbour();
    let Some(mounted) = mounted(&told) else { return };
    let top = mounted.inside.parent().unwrap().to_owned();
    std::fs::create_dir(mounted.outside.join("d")).unwrap();
    let _server = UnixListener::bind(mounted.outside.join("d/socket")).unwrap();
    let path = mounted.inside.join("d/socket");
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| UnixStream::connect(&path));
        let node = hears.seen.recv().unwrap();
        let stand_in = UnixListener::bind(top.join(format!("bind-{node}"))).unwrap();
        told.served.lock().unwrap().insert(node);
        let mut client = connecting.join().unwrap().unwrap();
        let (mut accepted, _) = stand_in.accept().unwrap();
        client.write_all(b"hello").unwrap();
        drop(client);
        let mut text = String::new();
        accepted.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        // Under both names it is the socket that it was.
        assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
        drop(stand_in);
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::ECONNREFUSED as i32));
        let other = UnixListener::bind(top.join("bind-1000000")).unwrap_err();
        assert_eq!(other.raw_os_error(), Some(Errno::ESTALE as i32), "no such inode");
        let directory = std::fs::metadata(mounted.inside.join("d")).unwrap().ino();
        assert!(
            directory > 0 && UnixListener::bind(top.join("other")).is_err(),
            "nothing else is made there"
        );
        assert!(std::fs::create_dir(top.join(format!("bind-{node}"))).is_err());
    });
}

#[test]
fn a_socket_that_a_process_inside_makes_is_one_outside_too() {
    let (told, hears) = neighbour();
    let Some(mounted) = mounted(&told) else { return };
    let top = mounted.inside.parent().unwrap().to_owned();
    std::fs::set_permissions(&mounted.outside, Permissions::from_mode(0o777)).unwrap();
    let server = UnixListener::bind(mounted.inside.join("socket")).unwrap();
    let made = hears.made.recv().unwrap();
    let outside = UnixListener::from(made.socket);
    outside.set_nonblocking(false).unwrap();
    nix::sys::socket::listen(&outside, nix::sys::socket::Backlog::MAXCONN).unwrap();
    let mut client = UnixStream::connect(mounted.outside.join("socket")).unwrap();
    let (mut from_client, _) = outside.accept().unwrap();
    client.write_all(b"x").unwrap();
    from_client.read_exact(&mut [0]).unwrap();
    // The neighbour finds the server by the inode's number, wherever it is.
    std::fs::rename(mounted.inside.join("socket"), mounted.inside.join("moved")).unwrap();
    let name = top.join(format!("node-{}", made.node));
    let _inside = UnixStream::connect(&name).unwrap();
    server.accept().unwrap();
    assert_eq!(std::fs::remove_file(&name).unwrap_err().raw_os_error(), Some(Errno::ENOENT as i32));
    assert!(hears.seen.try_recv().is_err(), "it is no socket of others");
    let again = UnixListener::bind(mounted.inside.join("moved")).unwrap_err();
    assert_eq!(again.raw_os_error(), Some(Errno::EADDRINUSE as i32));
    assert_eq!(std::fs::metadata(mounted.outside.join("moved")).unwrap().mode() & 0o777, 0o755);
    chown(mounted.inside.join("moved"), Some(7), Some(8)).unwrap();
    assert_eq!(std::fs::metadata(mounted.outside.join("moved")).unwrap().uid(), 7);
    std::fs::remove_file(mounted.inside.join("moved")).unwrap();
    drop(server);
    assert_eq!(hears.gone.recv().unwrap(), made.node);
    // As long as an address can be: then there is the inode alone.
    let long = "n".repeat(104);
    std::env::set_current_dir(&mounted.inside).unwrap();
    let bound = UnixListener::bind(&long);
    std::env::set_current_dir("/").unwrap();
    let _server = bound.unwrap();
    assert!(std::fs::metadata(mounted.outside.join(&long)).unwrap().file_type().is_socket());
    assert!(hears.made.try_recv().is_err());
}
