//! A process as its caller on the host sees it: descriptors, terminal, signals, exit status, log.
//!
//! What is not here: who stands for which process of the guest, and how the two are joined
//! ([`crate::container::conductor`], [`crate::container::stand_in`]).

pub mod exit;
pub mod log;
#[allow(unsafe_code)] // the signal mask of a child between fork and exec
pub mod signal;
#[allow(unsafe_code)] // what a child does between fork and exec
pub mod spawn;
#[allow(unsafe_code)] // descriptors 0, 1 and 2 have no owner in Rust's eyes
pub mod stdio;
#[allow(unsafe_code)] // terminal ioctls that no crate wraps
pub mod terminal;

use std::path::Path;

/// Shows in `ps` for whom a process of ours stands: `husk:` and as much of the container's id as fits in 15 bytes.
pub fn name_process(id: &str) {
    let name: String = format!("husk:{id}").chars().filter(char::is_ascii).take(15).collect();
    if let Ok(name) = std::ffi::CString::new(name) {
        // Only a name: nothing depends on it.
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Moves this process into the cgroup at `directory`.
pub fn join_cgroup(directory: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(directory.join("cgroup.procs")).and_then(|mut procs| {
        use std::io::Write;
        // 0 stands for who writes it.
        procs.write_all(b"0")
    })
}
