//! The tree that stands for something shared: a copy of a mount that is attached nowhere, with the attributes that the
//! guest's use of it wants.
//!
//! A machine makes its own while it builds its jail. Once it is in it, it can open nothing on the host: whoever has a
//! container join it makes them, and sends them.

use super::order::{AccessTimes, Export};
use crate::error::{ErrorKind, Kind};
use crate::host::mount::{self, Attributes, Depth};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Makes the tree of `export`. `private`: mounts that are made below the source afterwards never show up in it.
pub fn tree(export: &Export, private: bool) -> Result<OwnedFd, ExportError> {
    let failed = |source| ExportError::Source { path: export.source.clone(), source };
    let depth = if export.recursive { Depth::All } else { Depth::Top };
    let tree =
        mount::copy_tree(&export.source, depth).map_err(|source| match mount::is_too_old(&source) {
            true => ExportError::OldKernel,
            false => failed(source),
        })?;
    // Without the mounts below it, later ones must not show up either.
    let private = private || depth == Depth::Top;
    let attributes = Attributes { read_only: export.read_only, inert: true, private };
    mount::set_attributes(&tree, depth, attributes).map_err(failed)?;
    for (times, depth) in [(export.access_times, Depth::Top), (export.all_access_times, Depth::All)] {
        if times != AccessTimes::default() {
            mount::set_access_times(&tree, depth, times.set, times.clear).map_err(failed)?;
        }
    }
    Ok(tree)
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// No mount_setattr or open_tree.
    #[error("the host's kernel is too old: mounts by descriptor need Linux 5.12")]
    OldKernel,
    /// A source cannot be shared.
    #[error("cannot share {}", path.display())]
    Source {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Kind for ExportError {
    fn kind(&self) -> ErrorKind {
        match self {
            ExportError::OldKernel => ErrorKind::Unsupported,
            ExportError::Source { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::InvalidArgument
            }
            ExportError::Source { .. } => ErrorKind::Host,
        }
    }
}
