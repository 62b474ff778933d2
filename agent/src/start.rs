//! From the kernel's hand-over to serving.
//!
//! On the path of every start, so: the host is told before anything is mounted, and what the kernel has given already is
//! used as it is. The agent then moves to a small file system of its own and empties the initramfs: a container that
//! manages to look beneath its root, however privileged, finds nothing there, and the agent's program can be opened for
//! writing by nobody.

use crate::child::device;
use crate::child::text;
use crate::control::Control;
use crate::machine::{CGROUPS, Machine};
use crate::sys::{self, file, mount as kernel, privilege, process};
use husk_protocol::{FromAgent, Ready, VERSION};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, chroot, mkdir, unlink};
use std::os::fd::OwnedFd;

/// A step of the start that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct StartError {
    step: &'static str,
    source: sys::Error,
}

fn at(step: &'static str) -> impl Fn(sys::Error) -> StartError {
    move |source| StartError { step, source }
}

/// Connects to the host and says that the agent serves: what the host sends next waits in the socket meanwhile.
pub fn greet(machine: &dyn Machine) -> Result<Control, StartError> {
    privilege::hide().map_err(at("hide from containers"))?;
    let socket = machine.connect(husk_protocol::CONTROL_PORT).map_err(at("connect to the host"))?;
    let mut control = Control::new(socket);
    control.send(&FromAgent::Ready(Ready { version: VERSION, uptime: process::uptime() }));
    Ok(control)
}

/// Makes the guest's own file systems, as PID 1 of an initramfs.
pub fn furnish() -> Result<(), StartError> {
    umask(Mode::empty());
    leave_initramfs().map_err(at("leave the initramfs"))?;
    attach(c"proc", "/proc", &[]).map_err(at("mount proc"))?;
    attach(c"cgroup2", CGROUPS, &[c"nsdelegate", c"memory_recursiveprot"]).map_err(at("mount cgroup2"))?;
    promise_memory();
    serve_as_init();
    Ok(())
}

/// The kernel refuses an allocation that is larger than the machine, written to or not. A container is not to notice how
/// small its machine is: on a host the same allocation is fine, and its limit counts what is used.
fn promise_memory() {
    if let Err(error) = write("/proc/sys/vm/overcommit_memory", "1") {
        crate::log::error(&format!("let containers reserve memory: {error}"));
    }
}

/// What does not depend on being in an initramfs: protection from the OOM killer, controllers, loopback. A guest that
/// lacks one of them still serves.
pub fn serve_as_init() {
    let steps = [
        ("set oom_score_adj", write("/proc/self/oom_score_adj", "-1000")),
        ("enable cgroup controllers", crate::cgroup::enable_controllers()),
        ("bring the loopback up", process::loopback_up()),
    ];
    for (step, done) in steps {
        if let Err(error) = done {
            crate::log::error(&format!("{step}: {error}"));
        }
    }
}

/// The directories of the agent's own root.
const DIRECTORIES: [&str; 10] = [
    "proc",
    "sys",
    "dev",
    "run",
    "run/husk",
    "run/husk/root",
    "run/husk/share",
    "run/husk/new",
    "run/husk/cgroup",
    "run/husk/device",
];

/// The nodes of the agent's own /dev: what it uses, and what user namespaces get bound.
const NODES: [(&str, u32, u32); 7] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/kmsg", 1, 11),
    ("dev/tty", 5, 0),
];

/// Moves to a tmpfs. The initramfs cannot be unmounted: it is emptied, closed to writers and covered.
fn leave_initramfs() -> sys::Result<()> {
    let tmpfs = kernel::Configuration::open(c"tmpfs")?;
    tmpfs.set(c"source", c"husk")?;
    tmpfs.set(c"mode", c"755")?;
    let root = tmpfs.mount(libc::MOUNT_ATTR_NOSUID)?;
    let _ = unlink("/init"); // a test may have started it otherwise
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY,
        None::<&str>,
    )?;
    let cover = file::open_at(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
    kernel::attach(&root, cover)?;
    nix::unistd::fchdir(&root)?;
    chroot(".")?;
    chdir("/")?;
    for directory in DIRECTORIES {
        mkdir(directory, Mode::from_bits_truncate(0o755))?;
    }
    for (path, major, minor) in NODES {
        device::mknod(file::here(), &text(path)?, &device::character(path, major, minor, 0o666))?;
    }
    Ok(())
}

/// Mounts the guest's sysfs, for the few things that need it.
pub fn need_sysfs() -> sys::Result<()> {
    if std::path::Path::new("/sys/devices").exists() { Ok(()) } else { attach(c"sysfs", "/sys", &[]) }
}

fn attach(kind: &std::ffi::CStr, path: &str, flags: &[&std::ffi::CStr]) -> sys::Result<()> {
    let configuration = kernel::Configuration::open(kind)?;
    configuration.set(c"source", kind)?;
    for flag in flags {
        configuration.set_flag(flag)?;
    }
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    let mount: OwnedFd = configuration.mount(attributes)?;
    let place = file::open_at(file::here(), &text(path)?, libc::O_PATH | libc::O_DIRECTORY, 0, 0)?;
    kernel::attach(mount, place)
}

fn write(path: &str, value: &str) -> sys::Result<()> {
    Ok(std::fs::write(path, value)?)
}
