//! Control groups of the host, version 2.
//!
//! The machine process and its stand-ins live in the group that the bundle names, so that callers who look at
//! /proc/PID/cgroup find limits and counters there, and so that whatever the guest does is bounded from outside.

use super::deadline;
use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the unified hierarchy is mounted.
pub const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// What kind of control groups a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 2 alone.
    Unified,
    /// Version 1 controllers, with a version 2 tree beside them.
    Hybrid,
    /// Version 1 alone.
    Legacy,
    /// None mounted.
    None,
}

/// Finds out which.
pub fn mode() -> Mode {
    let is_unified = |path: &Path| {
        nix::sys::statfs::statfs(path)
            .is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
    };
    let top = Path::new(MOUNT_POINT);
    if is_unified(top) {
        Mode::Unified
    } else if is_unified(&top.join("unified")) {
        Mode::Hybrid
    } else if top.join("memory").is_dir() || top.join("cpu").is_dir() {
        Mode::Legacy
    } else {
        Mode::None
    }
}

/// What can go wrong with a group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A path that leads out of the hierarchy.
    #[error("cgroup path {0:?} is not a path below {MOUNT_POINT}")]
    BadPath(PathBuf),
    /// /proc/self/cgroup does not say where we are.
    #[error("cannot find our own cgroup")]
    Lost(#[source] io::Error),
    /// Processes are in it already.
    #[error("container's cgroup is not empty: {count} process(es) found")]
    NotEmpty {
        /// How many.
        count: usize,
    },
    /// It could not be made.
    #[error("unable to create cgroup {path}")]
    Create {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A limit could not be written.
    #[error("failed to write {value:?} to {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What was to be written.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It could not be removed.
    #[error("unable to remove container's cgroup {path}")]
    Remove {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A group of the unified hierarchy, by its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// The group at `path` as the cgroupfs form of `linux.cgroupsPath` means it: absolute is from the hierarchy's top,
    /// relative is beside our own group.
    pub fn at(path: &Path) -> Result<Cgroup, CgroupError> {
        let mut directory = PathBuf::from(MOUNT_POINT);
        if path.is_relative() {
            let own = own_group().map_err(CgroupError::Lost)?;
            directory.push(own.parent().unwrap_or(Path::new("")));
        }
        let top = directory.clone();
        for component in path.components() {
            match component {
                Component::Normal(name) => directory.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(CgroupError::BadPath(path.to_owned()));
                }
            }
        }
        if directory == top {
            return Err(CgroupError::BadPath(path.to_owned()));
        }
        Ok(Cgroup { directory })
    }

    /// A group whose directory is known from a state file.
    pub fn known(directory: PathBuf) -> Cgroup {
        Cgroup { directory }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Refuses one that is somebody's.
    pub fn check_empty(&self) -> Result<(), CgroupError> {
        match self.processes().len() {
            0 => Ok(()),
            count => Err(CgroupError::NotEmpty { count }),
        }
    }

    /// Makes it (and its parents), with every controller that the hierarchy has handed down to it. A group that exists
    /// and is empty is taken as it is. What was made stands in the returned list, outermost first.
    pub fn create(&self) -> Result<Vec<PathBuf>, CgroupError> {
        if self.directory.is_dir() {
            return self.check_empty().map(|()| Vec::new());
        }
        let mut made = Vec::new();
        let below = self.directory.strip_prefix(MOUNT_POINT).unwrap_or(&self.directory);
        let mut current = PathBuf::from(MOUNT_POINT);
        for name in below.components() {
            enable_controllers(&current);
            current.push(name);
            match std::fs::create_dir(&current) {
                Ok(()) => made.push(current.clone()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    remove_all(&made);
                    return Err(CgroupError::Create { path: current, source });
                }
            }
        }
        Ok(made)
    }

    /// Writes limits, in order. A controller that is not there is an error: a limit is never dropped in silence.
    pub fn write(&self, files: &[(String, String)]) -> Result<(), CgroupError> {
        for (name, value) in files {
            let path = self.directory.join(name);
            // A swap limit on a host without swap accounting limits nothing and is what the container gets anyway.
            let no_swap = name == "memory.swap.max" && matches!(value.as_str(), "0" | "max");
            match std::fs::OpenOptions::new().write(true).open(&path).and_then(|file| write_once(file, value))
            {
                Ok(()) => {}
                Err(error) if no_swap && error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError::Write { path, value: value.clone(), source }),
            }
        }
        Ok(())
    }

    /// Moves a process into it, with all its threads.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        let path = self.directory.join("cgroup.procs");
        let value = pid.to_string();
        let moved = std::fs::OpenOptions::new().write(true).open(&path);
        let moved = moved.and_then(|file| write_once(file, &value));
        moved.map_err(|source| CgroupError::Write { path, value, source })
    }

    /// The pids in it and below.
    pub fn processes(&self) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        for directory in self.tree() {
            let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        found
    }

    /// Kills whatever is in it (processes that outlived the machine: none should).
    pub fn kill(&self) {
        // One write kills the whole group, new children included; older kernels (before 5.14) lack it.
        if std::fs::write(self.directory.join("cgroup.kill"), "1").is_err() {
            for pid in self.processes() {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
    }

    /// Removes it and what is below. It is not an error if it is gone. A process that has just ended can keep a group
    /// busy for a moment, so this tries for up to a second.
    pub fn remove(&self) -> Result<(), CgroupError> {
        let until = deadline::after(Duration::from_secs(1));
        loop {
            let failed =
                self.tree().iter().rev().find_map(|directory| match std::fs::remove_dir(directory) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Some(error),
                    _ => None,
                });
            match failed {
                None => return Ok(()),
                Some(source) if Instant::now() >= until => {
                    return Err(CgroupError::Remove { path: self.directory.clone(), source });
                }
                Some(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Its directory and all below, parents first.
    fn tree(&self) -> Vec<PathBuf> {
        let mut found = vec![self.directory.clone()];
        let mut next = 0_usize;
        while let Some(directory) = found.get(next).cloned() {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            found.extend(
                entries
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
            next = next.saturating_add(1);
        }
        found
    }
}

/// Removes groups that [`Cgroup::create`] made, innermost first, for an undo.
pub fn remove_all(made: &[PathBuf]) {
    for directory in made.iter().rev() {
        let _ = std::fs::remove_dir(directory);
    }
}

/// A limit is one write(2): a group's file takes what it gets at once or refuses it.
fn write_once(mut file: std::fs::File, value: &str) -> io::Result<()> {
    use std::io::Write;
    file.write(value.as_bytes()).map(drop)
}

/// Hands every controller down to the groups below `directory`. One that cannot be is found missing when a limit of it
/// is written, so failures are not told here.
fn enable_controllers(directory: &Path) {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let enabled = std::fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    let enabled: BTreeSet<&str> = enabled.split_whitespace().collect();
    for controller in available.split_whitespace().filter(|name| !enabled.contains(name)) {
        let _ = std::fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Our own group, relative to the mount point.
fn own_group() -> io::Result<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
    path.map(PathBuf::from).ok_or_else(|| io::Error::other("no line of /proc/self/cgroup begins with 0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_is_taken_from_the_top() {
        let group = Cgroup::at(Path::new("/docker/abc")).unwrap();
        assert_eq!(group.directory(), Path::new("/sys/fs/cgroup/docker/abc"));
    }

    #[test]
    fn paths_that_leave_the_hierarchy_or_name_its_top_are_refused() {
        for path in ["/", "/..", "/a/../../etc", "/a/.."] {
            assert!(matches!(Cgroup::at(Path::new(path)), Err(CgroupError::BadPath(_))), "{path}");
        }
    }

    #[test]
    fn a_group_that_is_gone_is_removed_without_error() {
        Cgroup::known(PathBuf::from("/sys/fs/cgroup/husk-no-such-group")).remove().unwrap();
    }
}
