//! What the agent needs of the machine around it: a way to the host, and the host's shared file systems.
//!
//! [`Guest`] is the real one. Tests give another, with unix sockets and bind mounts in its place, so that everything else
//! runs as it does in a guest.

use crate::child::{device, text};
use crate::sys::{self, file, mount as kernel};
use husk_protocol::{ROOT_TAG, SHARE_TAG};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// Where containers' root file systems are: one directory per container's number.
pub const ROOTS: &str = "/run/husk/root";
/// Where bind mounts' sources are.
pub const SHARES: &str = "/run/husk/share";
/// Where each child, in its own mount namespace, attaches its container's root.
pub const NEW_ROOT: &str = "/run/husk/new";
/// The cgroup hierarchy: one directory per container's number.
pub const CGROUPS: &str = "/run/husk/cgroup";
/// Device nodes for containers that may not make their own.
pub const DEVICES: &str = "/run/husk/device";

/// The node that the agent makes for a container's device number `number`.
pub fn device_node(container: u32, number: usize) -> String {
    format!("{DEVICES}/{container}-{number}")
}

/// The machine, as the agent sees it.
pub trait Machine {
    /// Opens a connection to the host's port: a non-blocking stream socket that may still be connecting.
    fn connect(&self, port: u32) -> sys::Result<OwnedFd>;

    /// Mounts a shared file system at a directory.
    fn mount(&self, tag: &str, at: &str) -> sys::Result<()>;

    /// A PTP device that shows the host's clock, if there is one.
    fn host_clock(&self) -> Option<OwnedFd>;

    /// The host is gone: there is nothing left to serve.
    fn leave(&self) -> !;
}

/// Which of the shared file systems are mounted. They are mounted when something first needs them.
#[derive(Default)]
pub struct Shared {
    roots: bool,
    shares: bool,
}

impl Shared {
    /// Mounts containers' roots.
    pub fn need_roots(&mut self, machine: &dyn Machine) -> sys::Result<()> {
        if !self.roots {
            machine.mount(ROOT_TAG, ROOTS)?;
            self.roots = true;
        }
        Ok(())
    }

    /// Mounts bind mounts' sources.
    pub fn need_shares(&mut self, machine: &dyn Machine) -> sys::Result<()> {
        if !self.shares {
            machine.mount(SHARE_TAG, SHARES)?;
            self.shares = true;
        }
        Ok(())
    }
}

/// How long a call to the host may stay unanswered, in seconds.
const CONNECT_TIMEOUT_S: i64 = 3600;

/// A husk guest: vsock and virtio-fs.
pub struct Guest;

impl Machine for Guest {
    fn connect(&self, port: u32) -> sys::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
        // A template is saved with the call unanswered, and time goes by until that is done.
        file::set_connect_timeout(&socket, CONNECT_TIMEOUT_S)?;
        match connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port)) {
            Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
            Err(error) => Err(error.into()),
        }
    }

    fn mount(&self, tag: &str, at: &str) -> sys::Result<()> {
        let configuration = kernel::Configuration::open(c"virtiofs")?;
        configuration.set(c"source", &text(tag)?)?;
        let mount = configuration.mount(0)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        kernel::attach(mount, file::open_at(file::here(), &text(at)?, flags, 0, 0)?)
    }

    fn host_clock(&self) -> Option<OwnedFd> {
        // Its major number is the next free one when the driver starts.
        let devices = std::fs::read_to_string("/proc/devices").ok()?;
        let major = devices.lines().find_map(|line| line.trim().strip_suffix(" ptp"))?.parse().ok()?;
        device::mknod(file::here(), c"/dev/ptp0", &device::character("/dev/ptp0", major, 0, 0o600)).ok()?;
        file::open_at(file::here(), c"/dev/ptp0", libc::O_RDONLY, 0, 0).ok()
    }

    fn leave(&self) -> ! {
        crate::log::error("the host closed the control connection");
        let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
        // Only a kernel without reboot comes here: PID 1 must not end.
        loop {
            nix::unistd::pause();
        }
    }
}
