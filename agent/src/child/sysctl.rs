//! Kernel parameters, written through the agent's own procfs: the container's may be anything by now.

use super::resolve::text;
use crate::sys::{self, file};
use std::os::fd::OwnedFd;

/// A parameter could not be written.
#[derive(Debug, thiserror::Error)]
#[error("error writing sysctl {name:?}")]
pub struct SysctlError {
    name: String,
    source: sys::Error,
}

/// Writes parameters: name with dots (or slashes), value.
pub fn write(parameters: &[(String, String)]) -> Result<(), SysctlError> {
    if parameters.is_empty() {
        return Ok(());
    }
    let failed = |name: &str| {
        let name = name.to_owned();
        move |source| SysctlError { name, source }
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let directory = file::open_at(file::here(), c"/proc/sys", flags, 0, 0).map_err(failed("/proc/sys"))?;
    for (name, value) in parameters {
        write_one(&directory, name, value).map_err(failed(name))?;
    }
    Ok(())
}

fn write_one(directory: &OwnedFd, name: &str, value: &str) -> sys::Result<()> {
    let path = text(&name.replace('.', "/"))?;
    let opened = file::open_at(directory, &path, libc::O_WRONLY, 0, file::BENEATH | file::NO_SYMLINKS)?;
    nix::unistd::write(&opened, value.as_bytes())?;
    Ok(())
}
