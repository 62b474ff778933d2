//! Takes away from the machine process what it does not need of the host, before the guest's first instruction.
//!
//! ```text
//!   build: a mount namespace of its own, in which the host's mounts follow but are not followed
//!     |  attach: a copy of each shared tree, read-only and inert where it can be   (everything else is opened now, too)
//!   enter: the copies become the only thing that the process can reach by path; capabilities, core dumps, spare
//!     |    descriptors and the way to new privileges are gone; of TCP, abstract sockets and signals to others (Landlock)
//!     |    no more is left than the way to a resolver
//!   the guest runs
//! ```
//! The process has one thread when it builds the jail (namespaces and privileges belong to threads, and those made
//! later inherit them). Threads that serve no files then drop the last capabilities too.
//!
//! The thread that looks after the network namespace keeps CAP_NET_ADMIN, and nothing else. Without CAP_SYS_ADMIN and
//! without a path to another namespace that is power over the container's own interfaces and no others.
//!
//! What the file server keeps: to act as any of the guest's users on the shared trees (owners, modes, device nodes,
//! file capabilities). CAP_SYS_ADMIN is not among it, so the file server keeps `trusted.*` attributes under another name.
//!
//! Not here: which system calls each thread may make ([`super::walls`]). Not yet: pid and other namespaces, a user
//! namespace for callers without root.

use super::export::{self, ExportError};
use super::order::{Export, ExportDevice};
use crate::device::fs::{Exports, FsError};
use crate::error::{ErrorKind, Kind};
use crate::host::mount::{Attributes, Depth};
use crate::host::{capability, landlock, mount, namespace};
use nix::sys::resource::{Resource, setrlimit};
use rustix::process::DumpableBehavior;
use rustix::thread::CapabilitySet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// A jail under construction.
pub struct Jail {
    /// Trees that will be all there is, with their names in the new root, and whether they are directories.
    trees: Vec<Tree>,
}

struct Tree {
    name: String,
    directory: bool,
    tree: OwnedFd,
}

impl Jail {
    /// Begins: from here on this process has mounts of its own. To be called while the process has one thread.
    pub fn build() -> Result<Jail, JailError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(JailError::Rootless);
        }
        match namespace::threads().map_err(host("count the threads of this process"))? {
            1 => {}
            threads => return Err(JailError::Threads(threads)),
        }
        namespace::unshare_mounts().map_err(host("make a mount namespace"))?;
        mount::follow_only().map_err(host("separate the mounts of this process from the host's"))?;
        Ok(Jail { trees: Vec::new() })
    }

    /// Prepares what the guest may use, and shows it on the devices' lists.
    pub fn attach_all(
        &mut self,
        exports: &[Export],
        root: &Exports,
        share: &Exports,
    ) -> Result<(), JailError> {
        for export in exports {
            let tree = self.attach(export)?;
            let list = match export.device {
                ExportDevice::Root => root,
                ExportDevice::Share => share,
            };
            list.add(&export.name, tree, export.read_only)?;
        }
        Ok(())
    }

    /// Prepares one shared tree. The descriptor reaches it, inside the jail too.
    pub fn attach(&mut self, export: &Export) -> Result<OwnedFd, JailError> {
        let tree = export::tree(export, false)?;
        let failed = |source| ExportError::Source { path: export.source.clone(), source };
        let directory = File::from(tree.try_clone().map_err(failed)?).metadata().map_err(failed)?.is_dir();
        let device = match export.device {
            ExportDevice::Root => "root",
            ExportDevice::Share => "share",
        };
        let reach = tree.try_clone().map_err(failed)?;
        self.trees.push(Tree { name: format!("{device}-{}", export.name), directory, tree });
        Ok(reach)
    }

    /// Closes it. Everything that has a path has to be open by now; threads of the machine are made afterwards.
    pub fn enter(self) -> Result<(), JailError> {
        let root = mount::tmpfs(ROOT_BYTES).map_err(host("make an empty root"))?;
        // Over any directory: in this namespace nobody looks for it again.
        mount::attach(&root, rustix::fs::CWD, "/proc").map_err(host("attach an empty root"))?;
        rustix::process::fchdir(&root).map_err(|error| host("go to the empty root")(error.into()))?;
        for Tree { name, directory, tree } in &self.trees {
            let place = |source| JailError::Place { name: name.clone(), source };
            if *directory {
                std::fs::create_dir(name).map_err(place)?;
            } else {
                File::create_new(name).map_err(place)?;
            }
            mount::attach(tree, &root, name).map_err(place)?;
        }
        let sealed = Attributes { read_only: true, inert: true, private: true };
        mount::set_attributes(&root, Depth::Top, sealed).map_err(host("seal the new root"))?;
        mount::enter_root().map_err(host("enter the new root"))?;
        drop_privileges()
    }
}

/// Leaves the calling process, which has one thread, what is open already and nothing else: for one that opens nothing
/// any more and serves no files, but has the pid that callers take for a container's. Who enters its mounts, as if
/// they were the container's, finds an empty directory, and not the host's files.
pub fn leave_all() -> Result<(), JailError> {
    Jail::build()?.enter()?;
    capability::drop_all().map_err(host("drop capabilities"))
}

fn drop_privileges() -> Result<(), JailError> {
    rustix::thread::set_no_new_privs(true).map_err(|error| host("refuse new privileges")(error.into()))?;
    capability::keep_only(FILE_SERVER.union(NETWORK)).map_err(host("drop capabilities"))?;
    let limit = |resource, most| setrlimit(resource, most, most).map_err(io::Error::from);
    limit(Resource::RLIMIT_CORE, 0).map_err(host("forbid core dumps"))?;
    limit(Resource::RLIMIT_NOFILE, MOST_DESCRIPTORS).map_err(host("limit descriptors"))?;
    landlock::confine(&[NAME_SERVICE]).map_err(host("enter a Landlock domain"))?;
    // Last: from here on /proc/self belongs to root alone.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| host("forbid core dumps and tracing")(error.into()))
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> JailError {
    move |source| JailError::Host { what, source }
}

/// Why there is no jail. There is no machine without one.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Not root.
    #[error("husk has to be run by root: containers of ordinary users are not supported yet")]
    Rootless,
    /// A mistake of ours.
    #[error("the machine's jail has to be built before threads exist, and there are {0}")]
    Threads(usize),
    /// A tree.
    #[error(transparent)]
    Tree(#[from] ExportError),
    /// A source cannot be put into the new root.
    #[error("cannot attach the shared tree {name}")]
    Place {
        /// Its name there.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file server does not take it.
    #[error("cannot give a shared tree to the file server")]
    Export(#[from] FsError),
    /// The host failed us.
    #[error("cannot {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl Kind for JailError {
    fn kind(&self) -> ErrorKind {
        match self {
            JailError::Rootless => ErrorKind::Unsupported,
            JailError::Tree(error) => error.kind(),
            _ => ErrorKind::Host,
        }
    }
}

/// What acting as the guest's users on files takes.
pub(super) const FILE_SERVER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP);
/// What interfaces that come and go take: of one thread that serves no guest
/// ([`crate::host::network`]), and only within the namespace that the process is in.
pub(super) const NETWORK: CapabilitySet = CapabilitySet::NET_ADMIN;
/// For the names of a few thousand mount points and nothing else.
const ROOT_BYTES: u64 = 1 << 20;
/// The only TCP port that is ever connected to: a resolver's, in the container's network namespace.
const NAME_SERVICE: u16 = 53;
/// Of these the file servers take most.
const MOST_DESCRIPTORS: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::super::order::AccessTimes;
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::path::PathBuf;
    use std::process::Command;

    fn export(name: &str, source: &std::path::Path, read_only: bool) -> Export {
        Export {
            device: ExportDevice::Share,
            name: name.to_owned(),
            source: source.to_owned(),
            read_only,
            recursive: true,
            access_times: AccessTimes::default(),
            all_access_times: AccessTimes::default(),
        }
    }

    /// Runs inside a process of its own (see the test below), because there is no way back.
    #[test]
    #[ignore = "run by its parent test in a process of its own"]
    fn inside() {
        let base = PathBuf::from(std::env::var_os("HUSK_JAIL_TEST").unwrap());
        // The test harness has threads; what the check stands for is shown with it, then passed by.
        assert!(matches!(Jail::build(), Err(JailError::Threads(_))));
        namespace::unshare_mounts().unwrap();
        mount::follow_only().unwrap();
        let mut jail = Jail { trees: Vec::new() };
        let directory = jail.attach(&export("0", &base.join("shared"), false)).unwrap();
        let file = jail.attach(&export("1", &base.join("file"), true)).unwrap();
        let missing = jail.attach(&export("2", &base.join("missing"), true)).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::InvalidArgument);
        let abstract_address =
            SocketAddr::from_abstract_name(format!("husk-jail-{}", std::process::id())).unwrap();
        let _outside = UnixListener::bind_addr(&abstract_address).unwrap();
        jail.enter().unwrap();

        let mut seen: Vec<_> =
            std::fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
        seen.sort();
        assert_eq!(seen, ["share-0", "share-1"]);
        assert_eq!(std::fs::read_dir("/share-0/../..").unwrap().count(), 2, "nothing above the new root");
        assert!(std::fs::create_dir("/new").is_err(), "the new root is sealed");
        std::fs::write("/share-0/written", "inside").unwrap();
        assert!(std::fs::write("/share-1", "x").is_err(), "read-only");
        let by_descriptor =
            rustix::fs::openat(&directory, "written", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())
                .unwrap();
        assert_eq!(io::read_to_string(File::from(by_descriptor)).unwrap(), "inside");
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 7);
        let mut mode = std::fs::metadata("/share-0/written").unwrap().permissions();
        mode.set_mode(0o4755);
        std::fs::set_permissions("/share-0/written", mode).unwrap();
        assert!(nix::unistd::sethostname("x").is_err(), "no capability for that");
        assert_eq!(nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (4096, 4096));
        assert_eq!(nix::sys::resource::getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        assert!(rustix::thread::no_new_privs().unwrap());
        let version = crate::host::landlock::version().unwrap_or(0);
        eprintln!("Landlock's version is {version}");
        let connect = |port| TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.kind());
        if version >= 4 {
            let denied = io::ErrorKind::PermissionDenied;
            assert_eq!(TcpListener::bind("127.0.0.1:0").map_err(|error| error.kind()).err(), Some(denied));
            assert_eq!(connect(9).err(), Some(denied));
            assert_ne!(connect(NAME_SERVICE).err(), Some(denied));
        }
        if version >= 6 {
            let connected = UnixStream::connect_addr(&abstract_address).map_err(|error| error.kind());
            assert_eq!(connected.err(), Some(io::ErrorKind::PermissionDenied));
            let parent = nix::unistd::getppid();
            assert_eq!(nix::sys::signal::kill(parent, None), Err(nix::errno::Errno::EPERM));
        }
        // The harness reports through descriptors that it has already.
    }

    #[test]
    fn the_process_reaches_what_is_shared_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root to build a jail");
            return;
        }
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("shared")).unwrap();
        std::fs::write(base.path().join("file"), "content").unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "machine::jail::tests::inside", "--ignored", "--nocapture", "--test-threads=1"])
            .env("HUSK_JAIL_TEST", base.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
        assert_eq!(std::fs::read(base.path().join("shared/written")).unwrap(), b"inside");
        assert!(std::fs::metadata("/share-0").is_err());
    }
}
