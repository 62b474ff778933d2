//! A container's first process: makes the container around itself.
//!
//! ```text
//!   clone3(mnt pid ipc uts user) -> the sandbox's namespaces -> maps -> cgroup and time namespace -> root, detached
//!     -> mounts -> devices -> terminal -> masks -> read-only -> pivot -> names -> program
//! ```
//!
//! Everything up to the pivot is done from outside through the root's descriptor, with the agent's own /proc, /dev and
//! shares still in sight and no process of the container to race with.

use super::hooks::{HookError, StartHooks};
use super::mount::{self as mounts, Surroundings};
use super::program::{self, ProgramError};
use super::resolve::{Root, text};
use super::{Streams, begin, device, give_up, mask, open_streams, sysctl, terminal};
use crate::channel::{ChildEnd, Note, Order};
use crate::container::shared_namespaces;
use crate::machine;
use crate::sys::{self, file, mount as kernel, process};
use husk_protocol::{Container, MountSource};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use std::os::fd::{AsFd, OwnedFd};

/// Why the container could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FirstError {
    /// The first steps.
    #[error("prepare the set-up process")]
    Begin(#[source] sys::Error),
    /// A namespace.
    #[error("set up the {0} namespace")]
    Namespace(&'static str, #[source] sys::Error),
    /// The root file system.
    #[error("error preparing rootfs {step}")]
    Root {
        /// Which step.
        step: &'static str,
        /// Why.
        source: sys::Error,
    },
    /// See there.
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    /// See there.
    #[error(transparent)]
    Device(#[from] device::DeviceError),
    /// See there.
    #[error(transparent)]
    Terminal(#[from] terminal::TerminalError),
    /// See there.
    #[error(transparent)]
    Mask(#[from] mask::MaskError),
    /// See there.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    /// sethostname(2).
    #[error("sethostname {0:?}")]
    HostName(String, #[source] sys::Error),
    /// setdomainname(2).
    #[error("setdomainname {0:?}")]
    DomainName(String, #[source] sys::Error),
    /// The working directory could not be made.
    #[error("mkdir {0}")]
    WorkingDirectory(String, #[source] sys::Error),
    /// See there.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// See there.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Makes the container and becomes its first process.
/// `sandbox`: the first process of the container whose namespaces it shares.
pub fn run(container: &Container, sandbox: Option<&OwnedFd>, streams: Streams, channel: &ChildEnd) -> ! {
    let Err(error) = make(container, sandbox, streams, channel);
    give_up(channel, &error)
}

fn make(
    container: &Container,
    sandbox: Option<&OwnedFd>,
    streams: Streams,
    channel: &ChildEnd,
) -> Result<std::convert::Infallible, FirstError> {
    let kept: Vec<&OwnedFd> = sandbox.into_iter().collect();
    begin(channel, &streams, &kept, &container.id).map_err(FirstError::Begin)?;
    if let Some(sandbox) = sandbox {
        share_namespaces(container, sandbox)?;
    }
    finish_namespaces(container, channel)?;
    let root = open_root(container)?;
    let late = make_mounts(&root, container)?;
    let wants_terminal = matches!(streams, Streams::Terminal(_));
    if needs_devices(container) {
        device::make(&root, &container.devices, container.key.0, container.namespaces.user)?;
        device::make_ptmx(&root)?;
    }
    let stdio = open_streams(streams, &root, &container.process, channel)?;
    if wants_terminal {
        terminal::show_at_console(&root, &stdio.stdin)?;
    }
    make_working_directory(&root, &container.process.cwd)?;
    sysctl::write(&container.sysctl)?;
    mask::protect(&root, &container.readonly_paths)?;
    mask::hide(&root, &container.masked_paths)?;
    for mount in &late {
        mounts::make_read_only(mount).map_err(root_step("read-only mounts"))?;
    }
    if container.root.read_only {
        mounts::make_read_only(&root).map_err(root_step("read-only"))?;
    }
    drop(late);
    pivot(&root).map_err(root_step("pivot_root"))?;
    if container.root.propagation != 0 {
        mounts::propagate(&root, container.root.propagation).map_err(root_step("propagation"))?;
    }
    drop(root);
    set_names(container)?;
    let hooks = StartHooks::prepare(&container.start_hooks)?;
    Err(program::run(&container.process, container.personality, &stdio, channel, Some(&hooks)).into())
}

fn root_step(step: &'static str) -> impl Fn(sys::Error) -> FirstError {
    move |source| FirstError::Root { step, source }
}

/// Joins those namespaces of the sandbox that are the pod's. The descriptor must not reach the program.
fn share_namespaces(container: &Container, sandbox: &OwnedFd) -> Result<(), FirstError> {
    let flags = shared_namespaces(container);
    if flags != 0 {
        process::set_namespaces(sandbox, flags).map_err(|error| FirstError::Namespace("sandbox's", error))?;
    }
    Ok(())
}

/// The namespaces that clone3 cannot give: those that need the maps, the cgroup or the clock offsets first.
fn finish_namespaces(container: &Container, channel: &ChildEnd) -> Result<(), FirstError> {
    let namespaces = container.namespaces;
    let failed = |name| move |error: Errno| FirstError::Namespace(name, error.into());
    if namespaces.time {
        unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)).map_err(failed("time"))?;
        channel.tell(&Note::Unshared).map_err(|error| FirstError::Namespace("time", error))?;
    }
    if namespaces.user || namespaces.time {
        channel.wait(Order::Proceed).map_err(|error| FirstError::Namespace("user", error))?;
    }
    if namespaces.user {
        process::set_ids(0, 0, &[]).map_err(|error| FirstError::Namespace("user", error))?;
    }
    if namespaces.time {
        let time = file::open_at(file::here(), c"/proc/self/ns/time_for_children", libc::O_RDONLY, 0, 0)
            .and_then(|time| process::set_namespaces(time, libc::CLONE_NEWTIME));
        time.map_err(|error| FirstError::Namespace("time", error))?;
    }
    if namespaces.cgroup {
        // Born in its cgroup already: that becomes the namespace's root.
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(failed("cgroup"))?;
    }
    Ok(())
}

/// A mount of the root file system of its own, attached where nothing else is.
fn open_root(container: &Container) -> Result<Root, FirstError> {
    let path = format!("{}/{}", machine::ROOTS, container.key.0);
    let open = || -> sys::Result<OwnedFd> {
        let copy = kernel::copy_of(file::here(), &text(&path)?, false)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let place = file::open_at(file::here(), &text(machine::NEW_ROOT)?, flags, 0, 0)?;
        kernel::attach(&copy, place)?;
        Ok(copy)
    };
    open().map(Root::new).map_err(root_step("mount"))
}

/// All mounts, in order. Gives those that are to be read-only in the end.
fn make_mounts(root: &Root, container: &Container) -> Result<Vec<OwnedFd>, FirstError> {
    let around = Surroundings {
        user_namespace: container.namespaces.user,
        cgroup_namespace: container.namespaces.cgroup,
    };
    let mut late = Vec::new();
    for mount in &container.mounts {
        late.extend(mounts::make(root, mount, around)?);
    }
    Ok(late)
}

/// Whether /dev is ours to fill: not when the caller has bound a directory there.
fn needs_devices(container: &Container) -> bool {
    !container.mounts.iter().any(|mount| {
        matches!(mount.source, MountSource::Share { directory: true, .. })
            && mount.destination.trim_end_matches('/') == "/dev"
    })
}

/// The working directory of a container's first process is made if the image lacks it, as runc does.
fn make_working_directory(root: &Root, cwd: &str) -> Result<(), FirstError> {
    if cwd.is_empty() || cwd == "/" {
        return Ok(());
    }
    let failed = |error| FirstError::WorkingDirectory(cwd.to_owned(), error);
    let made = root.directory(cwd).map_err(failed)?;
    let kind = nix::sys::stat::fstat(&made).map_err(|errno| failed(errno.into()))?.st_mode & libc::S_IFMT;
    if kind == libc::S_IFDIR { Ok(()) } else { Err(failed(sys::Error(Errno::ENOTDIR))) }
}

/// Makes `root` the root of this mount namespace, and lets everything else go.
fn pivot(root: impl AsFd) -> sys::Result<()> {
    nix::unistd::fchdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

fn set_names(container: &Container) -> Result<(), FirstError> {
    if let Some(name) = &container.hostname {
        nix::unistd::sethostname(name).map_err(|errno| FirstError::HostName(name.clone(), errno.into()))?;
    }
    if let Some(name) = &container.domainname {
        process::set_domain_name(name).map_err(|error| FirstError::DomainName(name.clone(), error))?;
    }
    Ok(())
}
