//! What we were given: a bundle.
//!
//! First step of the flow. [`Bundle::open`] finds the directory, reads `config.json` (bounded, as data that anyone may
//! have written), looks at the root filesystem and at the sources of bind mounts, and refuses early whatever cannot be
//! a container. It only looks: nothing is created, mounted or resolved inside the root filesystem. What the spec's
//! fields mean is decided in [`crate::config`].

mod objects;
pub mod spec;

use crate::error::{ErrorKind, Kind, plain};
use crate::host::{file, mount};
use oci_spec::runtime::{Mount, Spec};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// The name of a bundle's specification.
pub const CONFIG: &str = "config.json";

/// A bundle whose parts are there.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Its directory, absolute and without symbolic links.
    pub directory: PathBuf,
    /// Its specification.
    pub spec: Spec,
    /// Its root filesystem: a directory, absolute.
    pub rootfs: PathBuf,
    /// The sources of its bind mounts, by index into the specification's mounts.
    pub sources: BTreeMap<usize, Source>,
}

/// The source of a bind mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Whether it is a directory; else a file, socket, FIFO or device.
    pub directory: bool,
    /// The flags of the mount that it is on, `MS_*`.
    pub flags: u64,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The directory is not there, or not one.
    #[error("chdir {path}: {reason}")]
    Directory {
        /// As it was given.
        path: PathBuf,
        /// In the kernel's words.
        reason: String,
    },
    /// There is no specification in it.
    #[error("JSON specification file {CONFIG} not found")]
    NoConfig,
    /// The specification cannot be read.
    #[error("read {path}: {reason}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It is not what a specification should be.
    #[error("{CONFIG}")]
    Spec(#[source] spec::SpecError),
    /// There is no usable root filesystem.
    #[error("invalid rootfs: {0}")]
    Rootfs(String),
    /// A bind mount's source is not there.
    #[error("mounts[{index}].source: stat {path}: {reason}")]
    Source {
        /// Which mount.
        index: usize,
        /// Where it should be.
        path: PathBuf,
        /// In the kernel's words.
        reason: String,
    },
}

impl Kind for BundleError {
    fn kind(&self) -> ErrorKind {
        match self {
            BundleError::Directory { .. } | BundleError::NoConfig | BundleError::Source { .. } => {
                ErrorKind::NotFound
            }
            BundleError::Unreadable { .. } => ErrorKind::Host,
            BundleError::Spec(error) => error.kind(),
            BundleError::Rootfs(_) => ErrorKind::InvalidArgument,
        }
    }
}

impl Bundle {
    /// Opens the bundle in `directory`.
    pub fn open(directory: &Path) -> Result<Bundle, BundleError> {
        let given = directory;
        let failed =
            |error: io::Error| BundleError::Directory { path: given.to_owned(), reason: plain(&error) };
        let directory = given.canonicalize().map_err(failed)?;
        if !directory.is_dir() {
            return Err(failed(io::Error::from_raw_os_error(libc::ENOTDIR)));
        }
        let spec = read_config(&directory)?;
        let rootfs = rootfs(&directory, &spec)?;
        let sources = sources(&directory, spec.mounts().as_deref().unwrap_or(&[]))?;
        Ok(Bundle { directory, spec, rootfs, sources })
    }
}

/// Reads and checks the specification alone (`exec` needs no more).
pub fn read_config(directory: &Path) -> Result<Spec, BundleError> {
    let path = directory.join(CONFIG);
    let bytes = file::read_bounded(&path, spec::LONGEST).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => BundleError::NoConfig,
        _ => BundleError::Unreadable { path, reason: plain(&error) },
    })?;
    spec::parse(&bytes).map_err(BundleError::Spec)
}

/// Finds the root filesystem: a directory, and not a link to one (as runc demands: a link could be changed between
/// this look and its use).
fn rootfs(directory: &Path, spec: &Spec) -> Result<PathBuf, BundleError> {
    let root = spec.root().as_ref().ok_or_else(|| BundleError::Rootfs("root must be specified".into()))?;
    if root.path().as_os_str().is_empty() {
        return Err(BundleError::Rootfs("root.path must not be empty".into()));
    }
    let path = lexically_clean(&directory.join(root.path()));
    let failed =
        |error: &io::Error| BundleError::Rootfs(format!("stat {}: {}", path.display(), plain(error)));
    let resolved = path.canonicalize().map_err(|error| failed(&error))?;
    if resolved != path {
        return Err(BundleError::Rootfs("not an absolute path, or a symlink".into()));
    }
    if !resolved.is_dir() {
        return Err(failed(&io::Error::from_raw_os_error(libc::ENOTDIR)));
    }
    Ok(resolved)
}

/// Looks at the source of each bind mount.
fn sources(directory: &Path, mounts: &[Mount]) -> Result<BTreeMap<usize, Source>, BundleError> {
    let is_bind =
        |mount: &Mount| mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
    let mut found = BTreeMap::new();
    for (index, mount) in mounts.iter().enumerate().filter(|(_, mount)| is_bind(mount)) {
        let path = directory.join(mount.source().as_deref().unwrap_or(Path::new("")));
        let failed =
            |error: io::Error| BundleError::Source { index, path: path.clone(), reason: plain(&error) };
        let directory = path.metadata().map_err(failed)?.is_dir();
        let flags = mount::flags(&path).map_err(failed)?;
        found.insert(index, Source { path, directory, flags });
    }
    Ok(found)
}

/// Removes `.` and `..` without asking the file system, as Go's `filepath.Join` does: a root path of `.` is usual.
fn lexically_clean(path: &Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::new(), |mut clean, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
        clean
    })
}
