//! A real kernel as the client: the server behind /dev/fuse, mounted in a namespace of the test's own thread.

use super::super::exports::Exports;
use super::super::segments::Segments;
use super::super::server::{Answer, Outcome, Server, Waiting};
use super::super::wire::OutHeader;
use super::super::{MAX_PAYLOAD, Policy, open_proc};
use super::{is_root, skip};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tempfile::TempDir;
use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

/// How the server is set up.
pub struct Setup {
    pub policy: Policy,
    pub descriptors: usize,
    /// Export a tmpfs: for what would take long on a disk.
    pub in_memory: bool,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { policy: Policy::Exclusive, descriptors: super::super::DESCRIPTORS, in_memory: false }
    }
}

/// Requests by opcode.
pub type Requests = Arc<Mutex<BTreeMap<u32, usize>>>;

/// A mounted file server with one export, `/0`.
pub struct Mounted {
    /// The export as the kernel shows it.
    pub inside: PathBuf,
    /// The export as it is.
    pub outside: PathBuf,
    /// The same with everything else of the test's, away from the export.
    pub beside: PathBuf,
    pub exports: Arc<Exports>,
    /// The most descriptors and inodes that the server had at any time.
    pub most_descriptors: Arc<AtomicUsize>,
    pub most_inodes: Arc<AtomicUsize>,
    /// How many requests of each kind (`opcode`) have come.
    pub requests: Requests,
    mountpoint: TempDir,
    pump: Option<JoinHandle<()>>,
    _source: TempDir,
}

/// An export's source, as the machine makes them.
pub fn source(path: &Path) -> OwnedFd {
    use rustix::fs::CWD;
    use rustix::mount::{OpenTreeFlags, open_tree};
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).unwrap()
}

impl Mounted {
    /// Mounts, or says why not.
    pub fn new(setup: Setup) -> Option<Mounted> {
        if !is_root() {
            skip("mounting needs root");
            return None;
        }
        let Ok(fuse) = OpenOptions::new().read(true).write(true).open("/dev/fuse") else {
            skip("there is no /dev/fuse");
            return None;
        };
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let root = tempfile::tempdir().unwrap();
        if setup.in_memory {
            let flags = MsFlags::empty();
            mount(Some("tmpfs"), root.path(), Some("tmpfs"), flags, Some("size=2g")).unwrap();
        }
        let outside = root.path().join("export");
        std::fs::create_dir_all(&outside).unwrap();
        let beside = root.path().join("beside");
        std::fs::create_dir_all(&beside).unwrap();
        let exports = Exports::new();
        exports.add("0", source(&outside), false).unwrap();
        let mountpoint = tempfile::tempdir().unwrap();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            fuse.as_raw_fd()
        );
        let flags = MsFlags::empty();
        mount(Some("husk"), mountpoint.path(), Some("fuse"), flags, Some(options.as_str())).unwrap();
        let (most_descriptors, most_inodes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let requests = Requests::default();
        let counters = (most_descriptors.clone(), most_inodes.clone(), requests.clone());
        let served = exports.clone();
        let pump = Some(std::thread::spawn(move || serve(fuse, &setup, served, &counters)));
        let inside = mountpoint.path().join("0");
        Some(Mounted {
            inside,
            outside,
            beside,
            exports,
            most_descriptors,
            most_inodes,
            requests,
            mountpoint,
            pump,
            _source: root,
        })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(self.mountpoint.path(), MntFlags::MNT_DETACH);
        if let Some(pump) = self.pump.take()
            && pump.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

/// From /dev/fuse to the server and back, until the unmount.
fn serve(
    mut fuse: File,
    setup: &Setup,
    exports: Arc<Exports>,
    most: &(Arc<AtomicUsize>, Arc<AtomicUsize>, Requests),
) {
    let proc = Arc::new(open_proc().unwrap());
    let mut server = Server::open(setup.policy, exports, proc, setup.descriptors).unwrap();
    let (mut request, mut reply) =
        (vec![0u8; MAX_PAYLOAD as usize + 8192], vec![0u8; MAX_PAYLOAD as usize + 8192]);
    let mut waits: Vec<(u64, Waiting, Vec<u8>)> = Vec::new();
    loop {
        if !waits.is_empty() {
            let mut events = [PollFd::new(fuse.as_fd(), PollFlags::POLLIN)];
            let came = poll(&mut events, PollTimeout::from(5u8)).unwrap();
            waits.retain(|(unique, waiting, body)| match server.try_again(*waiting) {
                Some(outcome) => {
                    end_wait(&fuse, *unique, outcome, body);
                    false
                }
                None => true,
            });
            if came == 0 {
                continue;
            }
        }
        let len = match fuse.read(&mut request) {
            Ok(len) => len,
            // The latter when the unmount comes between two reads.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ECONNABORTED)) => return,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT | libc::EAGAIN)) => {
                continue;
            }
            Err(error) => panic!("cannot read from /dev/fuse: {error}"),
        };
        let opcode = u32::from_le_bytes(request[4..8].try_into().unwrap());
        *most.2.lock().unwrap().entry(opcode).or_default() += 1;
        let (from, to) = (&mut request[..len], reply.as_mut_slice());
        let answer = server.serve(
            Segments::new(vec![VolatileSlice::from(from)]),
            Segments::new(vec![VolatileSlice::from(to)]),
        );
        let used = match answer {
            Answer::Used(used) => used,
            Answer::Wait(wait) => {
                let (unique, waiting, head) = (wait.unique, wait.waiting, size_of::<OutHeader>());
                let body = head + wait.body();
                waits.push((unique, waiting, reply[head..body].to_vec()));
                0
            }
            Answer::Interrupt(unique) => {
                if let Some(at) = waits.iter().position(|(waiting, ..)| *waiting == unique) {
                    waits.remove(at);
                    end_wait(&fuse, unique, Err(rustix::io::Errno::INTR), &[]);
                }
                0
            }
        };
        let (inodes, _, descriptors) = server.counts();
        most.0.fetch_max(descriptors, Ordering::Relaxed);
        most.1.fetch_max(inodes, Ordering::Relaxed);
        if used == 0 {
            continue;
        }
        match fuse.write(&reply[..used]) {
            Ok(_) => {}
            // The process that asked is gone.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => panic!("the kernel does not take a reply of {used} bytes: {error}"),
        }
    }
}

/// The reply to a request that has waited.
fn end_wait(mut fuse: &File, unique: u64, outcome: Outcome, body: &[u8]) {
    let (error, body) = outcome.map_or_else(|error| (-error.raw_os_error(), &[][..]), |()| (0, body));
    let reply = OutHeader { len: (size_of::<OutHeader>() + body.len()) as u32, error, unique };
    fuse.write_all(&[reply.as_bytes(), body].concat()).unwrap();
}
