//! What this program does when it is not the server: `start`, `delete`, `-v`.

use crate::address::{self, Bound};
use crate::bootstrap::Bootstrap;
use crate::failure::Failure;
use crate::flags::Flags;
use crate::options::Options;
use crate::pod_bundle::PodBundle;
use crate::rootfs;
use containerd_shim_protos::api::DeleteResponse;
use husk::config::pod::{self, Role};
use husk::container::{Container, ContainerId, Store, delete as container};
use husk::process::exit::KILLED;
use protobuf::{Message, MessageField};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// What containerd may say at most, in bytes.
const LONGEST: u64 = 4 << 20;
/// Where older versions of containerd look for a running server's address.
const ADDRESS: &str = "address";

/// Starts a server, unless there is one, and says where it listens.
pub fn start(flags: &Flags) -> Result<(), Failure> {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_end(&mut input);
    read.map_err(|error| Failure::host("read standard input", &error))?;
    let newest = std::env::var("MAX_SHIM_VERSION").ok();
    let bootstrap = Bootstrap::read(&input, flags, newest.as_deref())?;
    let options = Options::of(bootstrap.options.as_ref())?;
    // Said before there is a server that would have to be ended.
    ContainerId::new(&flags.id)?;

    let directory = bootstrap.socket_directory.as_deref().unwrap_or(Path::new(address::DIRECTORY));
    // A container of a pod is served by its sandbox's server, and that is named after the sandbox.
    let group = group(Path::new("."))?.unwrap_or_else(|| flags.id.clone());
    let socket = address::of(directory, &flags.address, &flags.namespace, &group);
    let address = format!("{}{}", address::SCHEME, socket.display());
    if let Bound::New(listener) = address::bind(&socket)? {
        let started = start_server(flags, &options, &bootstrap, &socket, listener.into());
        started.inspect_err(|_| drop(std::fs::remove_file(&socket)))?;
    }
    // For a sandbox that this server is asked to make itself; and for `delete`.
    options.write(Path::new("."))?;
    std::fs::write(ADDRESS, &address).map_err(|error| Failure::host("write the address", &error))?;
    say(&bootstrap.answer(&address)?)
}

/// The name of the sandbox whose server serves the container with this bundle, if it is not one of its own.
fn group(bundle: &Path) -> Result<Option<String>, Failure> {
    // Without a bundle there is no container that could be made: the one who makes it will say so.
    let Ok(spec) = husk::bundle::read_config(bundle) else { return Ok(None) };
    let role = pod::role_of(spec.annotations().as_ref());
    match role.map_err(|error| Failure::invalid(error.to_string()))? {
        Role::Joins(sandbox) => {
            ContainerId::new(&sandbox)?;
            Ok(Some(sandbox))
        }
        Role::Alone | Role::Sandbox => Ok(None),
    }
}

fn start_server(
    flags: &Flags,
    options: &Options,
    bootstrap: &Bootstrap,
    socket: &Path,
    listener: OwnedFd,
) -> Result<(), Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::host("find this program", &error))?;
    let mut command = Command::new(own);
    command.args(flags.of_server(&socket.display().to_string()));
    if let Some(address) = &bootstrap.ttrpc_address {
        command.env("TTRPC_ADDRESS", address);
    }
    command.stdin(listener).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let child = command.spawn().map_err(|error| Failure::host("start the server", &error))?;
    place(child.id(), options)
}

/// Puts the server where it belongs: into its cgroup, and before containerd among those whom the kernel would kill.
fn place(pid: u32, options: &Options) -> Result<(), Failure> {
    if !options.shim_cgroup.is_empty() {
        let group = Path::new("/sys/fs/cgroup").join(options.shim_cgroup.trim_start_matches('/'));
        let joined = std::fs::create_dir_all(&group)
            .and_then(|()| std::fs::write(group.join("cgroup.procs"), pid.to_string()));
        joined.map_err(|error| Failure::host(&format!("join the cgroup {}", group.display()), &error))?;
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let score = own.trim().parse::<i32>().unwrap_or_default().saturating_add(1).min(1000);
    // Only a preference.
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    Ok(())
}

/// Removes everything that a server which is gone has left of a container.
pub fn delete(flags: &Flags) -> Result<(), Failure> {
    let bundle = match &flags.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(|error| Failure::host("find the bundle", &error))?,
    };
    let id = ContainerId::new(&flags.id)?;
    let store = Store::new(&Options::read(&bundle).store(&flags.namespace));
    let pid =
        Container::load(&store, &id).map_or(0, |found| u32::try_from(found.state.pid).unwrap_or_default());
    container::delete(&store, &id, true)?;
    rootfs::undo(&bundle);
    PodBundle::at(&bundle).undo();
    remove_socket(&bundle);
    let response = DeleteResponse {
        pid,
        exit_status: KILLED.into(),
        exited_at: MessageField::some(SystemTime::now().into()),
        ..Default::default()
    };
    let bytes = response.write_to_bytes();
    say(&bytes.map_err(|error| Failure::invalid(format!("the answer cannot be written: {error}")))?)
}

/// The socket whose address stands in a bundle, if nobody listens there any more.
fn remove_socket(bundle: &Path) {
    let address = std::fs::read_to_string(bundle.join(ADDRESS)).unwrap_or_default();
    if let Some(path) = address.strip_prefix(address::SCHEME).map(PathBuf::from)
        && std::os::unix::net::UnixStream::connect(&path).is_err()
    {
        let _ = std::fs::remove_file(path);
    }
}

/// Prints the version, as containerd's own shims do.
pub fn version() -> Result<(), Failure> {
    let program = std::env::args().next().unwrap_or_default();
    say(format!("{program}:\n  Version:  {}\n", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// Prints an answer for containerd.
pub fn say(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(bytes).and_then(|()| out.flush());
    said.map_err(|error| Failure::host("write standard output", &error))
}
