//! Containers, as the agent remembers them.

use crate::cgroup::Cgroup;
use crate::cgroup::events::Events;
use husk_protocol::{Container, ContainerKey, IdMap, Namespaces, ProcessKey, TimeOffset};
use std::collections::BTreeMap;
use std::time::Instant;

/// All containers, by number.
pub type Containers = BTreeMap<ContainerKey, ContainerState>;

/// One container.
pub struct ContainerState {
    /// Its id.
    pub id: String,
    /// Its first process.
    pub first: ProcessKey,
    /// Its cgroup.
    pub cgroup: Cgroup,
    /// Which namespaces it has that are not the guest's own.
    pub namespaces: Namespaces,
    /// Its pid namespace is its own: with its first process everything in it ends.
    pub own_pids: bool,
    /// What its child waits for when it has a user or time namespace.
    pub maps: Maps,
    /// personality(2) of its processes.
    pub personality: Option<u64>,
    /// Notices of the OOM killer; `None` without a memory controller.
    pub memory: Option<Events>,
    /// OOM kills that the host was told of.
    pub kills_told: u64,
    /// A freeze or thaw under way.
    pub freezing: Option<Freezing>,
}

/// What the agent writes for a child: from inside, it may not.
#[derive(Default)]
pub struct Maps {
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
    /// Clock offsets.
    pub clocks: Vec<TimeOffset>,
}

/// A freeze or thaw that the kernel has not confirmed yet.
pub struct Freezing {
    /// The request to answer.
    pub request: u32,
    /// Freeze, or thaw.
    pub frozen: bool,
    /// When it has failed.
    pub deadline: Instant,
    /// cgroup.events.
    pub events: Events,
}

impl ContainerState {
    /// What is to be remembered of a container that is being made.
    pub fn new(container: &Container, cgroup: Cgroup, memory: Option<Events>) -> Self {
        Self {
            id: container.id.clone(),
            first: container.process_key,
            cgroup,
            namespaces: container.namespaces.and(container.shared),
            own_pids: container.namespaces.pid,
            maps: Maps {
                uids: container.uid_map.clone(),
                gids: container.gid_map.clone(),
                clocks: container.time_offsets.clone(),
            },
            personality: container.personality,
            memory,
            kills_told: 0,
            freezing: None,
        }
    }
}

/// `CLONE_NEW*` that clone3 gives a first process (cgroup and time come later, see [`crate::child::first`]).
pub fn cloned_namespaces(namespaces: Namespaces) -> i32 {
    flags(namespaces) & !(libc::CLONE_NEWCGROUP | libc::CLONE_NEWTIME)
}

/// `CLONE_NEW*` of another container's that a first process joins by setns (it is born in the pid namespace).
pub fn shared_namespaces(container: &Container) -> i32 {
    joined_namespaces(Namespaces::default().and(container.shared))
}

/// `CLONE_NEW*` that an exec joins by setns (it is born in the pid namespace).
pub fn joined_namespaces(namespaces: Namespaces) -> i32 {
    flags(namespaces) & !libc::CLONE_NEWPID
}

fn flags(namespaces: Namespaces) -> i32 {
    [
        (namespaces.mount, libc::CLONE_NEWNS),
        (namespaces.pid, libc::CLONE_NEWPID),
        (namespaces.ipc, libc::CLONE_NEWIPC),
        (namespaces.uts, libc::CLONE_NEWUTS),
        (namespaces.user, libc::CLONE_NEWUSER),
        (namespaces.cgroup, libc::CLONE_NEWCGROUP),
        (namespaces.time, libc::CLONE_NEWTIME),
    ]
    .into_iter()
    .filter(|(wanted, _)| *wanted)
    .fold(0, |all, (_, flag)| all | flag)
}
