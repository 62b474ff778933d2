//! A container's cgroup: `/run/husk/cgroup/NUMBER`, in a hierarchy with every controller on.
//!
//! All files here are the kernel's: reading and writing them never waits for a container.

pub mod device_rules;
pub mod events;

use crate::child::text;
use crate::machine::CGROUPS;
use crate::sys::{self, bpf, file};
use husk_protocol::{ContainerKey, DeviceRule};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// No cgroup file that we read is longer than this.
const LONGEST: u64 = 256 << 10;

/// Why a cgroup could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The directory.
    #[error("make cgroup {0:?}")]
    Make(String, #[source] sys::Error),
    /// A limit.
    #[error("error setting cgroup config: write {value:?} to {name}")]
    Write {
        /// The file.
        name: String,
        /// What.
        value: String,
        /// Why.
        source: sys::Error,
    },
    /// The device program.
    #[error("error setting cgroup config: device rules")]
    Devices(#[source] sys::Error),
}

/// A cgroup by descriptor.
pub struct Cgroup {
    directory: OwnedFd,
    program: Option<OwnedFd>,
}

/// Turns every controller on for what is below the root.
pub fn enable_controllers() -> sys::Result<()> {
    let enable: String = std::fs::read_to_string(format!("{CGROUPS}/cgroup.controllers"))?
        .split_whitespace()
        .flat_map(|controller| ["+", controller, " "])
        .collect();
    Ok(std::fs::write(format!("{CGROUPS}/cgroup.subtree_control"), enable)?)
}

/// Where a container's cgroup is.
pub fn path(key: ContainerKey) -> String {
    format!("{CGROUPS}/{}", key.0)
}

impl Cgroup {
    /// Makes a container's cgroup.
    pub fn make(key: ContainerKey) -> Result<Self, CgroupError> {
        let path = path(key);
        let make = || -> sys::Result<OwnedFd> {
            nix::unistd::mkdir(path.as_str(), Mode::from_bits_truncate(0o755))?;
            file::open_at(file::here(), &text(&path)?, libc::O_RDONLY | libc::O_DIRECTORY, 0, 0)
        };
        match make() {
            Ok(directory) => Ok(Self { directory, program: None }),
            Err(error) => Err(CgroupError::Make(path, error)),
        }
    }

    /// Opens one that exists, for a helper.
    pub fn open_at(path: &str) -> sys::Result<Self> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        Ok(Self { directory: file::open_at(file::here(), &text(path)?, flags, 0, 0)?, program: None })
    }

    /// Writes limits. Lowering one may make the kernel reclaim memory here and now: not for PID 1 once the cgroup has
    /// processes.
    pub fn limit(&self, files: &[(String, String)]) -> Result<(), CgroupError> {
        files.iter().try_for_each(|(name, value)| {
            self.write(name, value).map_err(|source| CgroupError::Write {
                name: name.clone(),
                value: value.clone(),
                source,
            })
        })
    }

    /// Puts device rules in force, in place of those before.
    pub fn govern_devices(&mut self, rules: &[DeviceRule]) -> Result<(), CgroupError> {
        self.set_device_rules(rules).map_err(CgroupError::Devices)
    }

    fn set_device_rules(&mut self, rules: &[DeviceRule]) -> sys::Result<()> {
        let program = bpf::load(bpf::DEVICE, &device_rules::compile(rules))?;
        bpf::attach(bpf::DEVICE, &self.directory, &program, self.program.as_ref())?;
        self.program = Some(program);
        Ok(())
    }

    /// Writes one of its files.
    pub fn write(&self, name: &str, value: &str) -> sys::Result<()> {
        let mut file = self.open(name, libc::O_WRONLY)?;
        Ok(file.write_all(value.as_bytes())?)
    }

    /// Reads one of its files.
    pub fn read(&self, name: &str) -> sys::Result<String> {
        let mut text = String::new();
        self.open(name, libc::O_RDONLY)?.take(LONGEST).read_to_string(&mut text)?;
        Ok(text)
    }

    /// Opens one of its files.
    pub fn open(&self, name: &str, flags: i32) -> sys::Result<std::fs::File> {
        if name.contains('/') || name.starts_with("..") {
            return Err(sys::Error(Errno::EINVAL));
        }
        Ok(file::open_at(&self.directory, &text(name)?, flags, 0, file::BENEATH | file::NO_SYMLINKS)?.into())
    }

    /// Opens a cgroup below it.
    pub fn open_below(&self, path: &str) -> sys::Result<OwnedFd> {
        let path = text(path.trim_start_matches('/'))?;
        let flags = libc::O_RDONLY | libc::O_DIRECTORY;
        file::open_at(&self.directory, &path, flags, 0, file::BENEATH | file::NO_SYMLINKS)
    }

    /// Kills every process in it and below it.
    pub fn kill(&self) -> sys::Result<()> {
        self.write("cgroup.kill", "1")
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Removes a container's cgroup and what is below it. A container may have made any number of them: for a helper, not
/// for PID 1.
pub fn remove_tree(path: &str) -> sys::Result<()> {
    let mut ahead = vec![path.to_owned()];
    while let Some(here) = ahead.last().cloned() {
        match rmdir(&here) {
            Ok(()) | Err(Errno::ENOENT) => drop(ahead.pop()),
            Err(Errno::EBUSY) => {
                let inner = std::fs::read_dir(&here)?
                    .filter_map(std::result::Result::ok)
                    .find(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                match inner {
                    Some(entry) => ahead.push(entry.path().to_string_lossy().into_owned()),
                    None => return Err(sys::Error(Errno::EBUSY)), // processes are left
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// rmdir(2).
pub fn rmdir(path: &str) -> nix::Result<()> {
    std::fs::remove_dir(path).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
