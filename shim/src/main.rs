//! `containerd-shim-husk-v2`: what containerd starts for each container of runtime type `io.containerd.husk.v2`.
//!
//! ```text
//!   containerd --"start"--> shim (prints an address, ends)
//!                             \--> shim (the server: lives as long as its containers)
//!   containerd <--- ttrpc: task service v2 and v3 ---> service -> tasks -> task -> husk::container
//!   containerd <--- ttrpc: sandbox service ------- sandbox: pods without a pause image
//!   containerd <--- ttrpc: events, in order --------- events
//!   containerd --"delete"--> shim (removes what a server that was killed has left)
//! ```
//! It calls the same library as the `husk` command, on the same store (`--root` of that command), so that the two cannot
//! disagree about a container. A container's machine is a child of the server; its streams are the very FIFOs that
//! containerd named, so that not a byte of them passes through here.
//!
//! What is absent on purpose: an asynchronous runtime (a shim waits, and a waiting thread is a few KiB), relays between
//! descriptors, and processes that stand for exec'd ones: the server itself holds their connections.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        // They panic where nobody reads.
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod action;
mod address;
mod bootstrap;
mod events;
mod exec;
mod exit;
mod failure;
mod flags;
mod info;
mod log;
#[allow(unsafe_code)] // what a child does between fork and exec
mod logger;
#[allow(unsafe_code)] // how memory is allotted has no safe wrapper
mod memory;
mod options;
mod pause;
mod pod_bundle;
mod pod_config;
mod rootfs;
mod sandbox;
mod server;
mod service;
mod stats;
mod stdio;
mod task;

use std::process::ExitCode;

fn main() -> ExitCode {
    // No descriptor that we inherited reaches a process that we start.
    let _ = husk::host::descriptor::close_on_exec_from(3);
    let done = flags::Flags::parse(std::env::args_os().skip(1)).and_then(|flags| match flags.action() {
        flags::Action::Version => action::version(),
        flags::Action::Info => info::print(),
        flags::Action::Start => action::start(&flags),
        flags::Action::Delete => action::delete(&flags),
        flags::Action::Pause => pause::pause(),
        flags::Action::Serve => server::serve(&flags),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // containerd shows what stands here to its user.
            husk::log::tell(&format!("containerd-shim-husk-v2: {}", failure.message));
            ExitCode::FAILURE
        }
    }
}
