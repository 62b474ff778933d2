//! What exists on the machine, counted before and after: equality means that nothing was left behind.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// How long what a runtime left may take to go away after its last command has returned.
const SETTLE: Duration = Duration::from_secs(5);

/// Everything that a container runtime could leave behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    processes: BTreeSet<String>,
    mounts: BTreeSet<String>,
    links: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    sockets: BTreeSet<String>,
    state: BTreeSet<String>,
    descriptors: usize,
}

impl Census {
    /// Counts now.
    pub fn take() -> Census {
        Census {
            processes: processes(),
            mounts: mounts(),
            links: names("/sys/class/net"),
            cgroups: tree("/sys/fs/cgroup"),
            sockets: unix_sockets(),
            state: ["/run/husk", "/run/runc"].into_iter().flat_map(tree).collect(),
            descriptors: names("/proc/self/fd").len(),
        }
    }

    /// Panics with the difference if, after a moment to settle, things are not as they were.
    pub fn assert_unchanged(&self) {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = Census::take();
            if &now == self {
                return;
            }
            if Instant::now() > deadline {
                panic!("something was left behind:\n{}", self.difference(&now));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn difference(&self, now: &Census) -> String {
        let sets = [
            ("process", &self.processes, &now.processes),
            ("mount", &self.mounts, &now.mounts),
            ("link", &self.links, &now.links),
            ("cgroup", &self.cgroups, &now.cgroups),
            ("socket", &self.sockets, &now.sockets),
            ("state", &self.state, &now.state),
        ];
        let mut lines: Vec<String> = Vec::new();
        for (what, before, after) in sets {
            lines.extend(after.difference(before).map(|name| format!("  new {what}: {name}")));
            lines.extend(before.difference(after).map(|name| format!("  gone {what}: {name}")));
        }
        if self.descriptors != now.descriptors {
            lines.push(format!(
                "  descriptors of the test: {} before, {} now",
                self.descriptors, now.descriptors
            ));
        }
        lines.join("\n")
    }
}

/// Every process but kernel threads (which come and go by themselves) and threads of this test.
fn processes() -> BTreeSet<String> {
    names("/proc")
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let zombie = stat.rsplit_once(')')?.1.trim_start().starts_with('Z');
            if line.is_empty() && !zombie {
                return None;
            }
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            Some(format!("{pid} {}{line}", if zombie { "(zombie) " } else { "" }))
        })
        .collect()
}

fn mounts() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().map(str::to_owned).collect()
}

fn unix_sockets() -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    table.lines().filter_map(|line| line.split_whitespace().nth(7)).map(str::to_owned).collect()
}

fn names(directory: impl AsRef<Path>) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Directories below `top`, and for state directories the files too. Not the cgroups of the emulated machine's own
/// command server, which come and go with its commands.
fn tree(top: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Path::new(top).to_path_buf()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            if is_directory && path != Path::new("/sys/fs/cgroup/run") {
                open.push(path.clone());
            }
            if is_directory || !top.starts_with("/sys") {
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    found
}
