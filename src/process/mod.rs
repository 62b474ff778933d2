//! A container's processes as their caller sees them: streams, terminal, signals, exit status; and the process of ours
//! that stands for each on the host.
//!
//! ```text
//!   caller's descriptors --stdio--> vsock streams <--> the process in the guest
//!   caller's signals --> machine process  --conductor--> agent --> the container's first process
//!                    --> stand-in --control socket--> conductor --> agent --> an exec'd process
//!   exit status of the process in the guest --> exit status of the process that stands for it, after its last byte
//! ```
//! - [`conductor`]: in the machine process: joins the machine, the agent and the control socket.
//! - [`stand_in`]: for an exec. - [`foreground`]: `husk run` beside its machine.
//! - [`stdio`], [`terminal`], [`signal`], [`exit`]: what they are made of.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod conductor;
pub mod exit;
pub mod foreground;
pub mod log;
#[allow(unsafe_code)] // the signal mask of a child between fork and exec
pub mod signal;
#[allow(unsafe_code)] // what a child does between fork and exec
pub mod spawn;
#[cfg_attr(test, allow(unsafe_code))] // its tests start it as a process
pub mod stand_in;
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
