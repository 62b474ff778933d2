//! husk: an OCI container runtime that boots each container in a KVM guest of its own.
//!
//! The flow is five words, and the source tree follows it: **bundle -> config -> machine -> agent -> process**.
//!
//! - [`bundle`]: what we were given. Opens it, reads `config.json`, refuses early.
//! - [`config`]: what we decided. No I/O.
//! - [`machine`]: a running guest: memory, vcpus, [`device`]s, and the control socket.
//! - [`agent`]: the host's end of the conversation with PID 1 in the guest.
//! - [`process`]: its streams, signals and exit, for the caller.
//!
//! [`container`] is the OCI object that conducts them for the verbs in [`cli`]; [`host`] wraps the host kernel.
//!
//! What is absent on purpose: nothing here writes into a root filesystem by path; no daemon; no disk image; nothing
//! that a guest says is used before it was checked; and nothing that anybody sends can make a process of ours panic:
//! the lints below hold outside of tests.
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

pub mod agent;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod container;
pub mod device;
pub mod error;
#[cfg(fuzzing)]
#[allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a fuzzer ends by panicking")]
pub mod fuzzing;
pub mod host;
pub mod log;
pub mod machine;
pub mod process;
