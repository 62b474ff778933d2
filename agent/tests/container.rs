//! Containers made by the real agent on the kernel at hand. See `stand` for what is needed.

mod stand;

use husk_protocol::*;
use stand::{Stand, container, shell};

/// Not a test of itself: the agent's side of every other one.
#[test]
#[ignore = "started by the other tests"]
fn serve_as_agent() {
    stand::serve_as_agent();
}

#[test]
fn a_container_runs_and_its_status_and_bytes_come_back() {
    let Some(mut stand) = Stand::open("run") else { return };
    let run = stand.run(container("echo hello; echo problem >&2; exit 7"));
    assert_eq!(run.status, ProcessStatus::Code(7));
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("hello\n", "problem\n"));
    stand.ask(Call::Delete { container: ContainerKey(0) }).unwrap();
    assert!(!stand.cgroup().exists());
    assert!(stand.untaken().is_empty(), "{:?}", stand.untaken());
}
