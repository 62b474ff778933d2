//! PID 1 of a husk guest: makes containers and serves the host.
//!
//! The flow: [`start`] greets the host and furnishes the guest; [`agent`] waits; a request goes to [`call`]; [`child`] is
//! what runs between clone and execve; [`settle`] answers when the child has come far enough; [`stream`]s carry its
//! bytes; [`reap`] sees its end, which is reported once.
//!
//! What is absent on purpose: no thread, no runtime, no lock; no call in PID 1 that waits for something a container
//! controls; no path of a container's resolved outside of a child; no way out of [`serve`] but the host's leaving.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout
    )
)]

pub mod agent;
mod call;
mod cgroup;
mod channel;
mod child;
mod clock;
mod container;
mod control;
mod job;
pub mod log;
pub mod machine;
mod names;
mod poll;
mod process;
mod reap;
mod redirect;
mod relay;
mod settle;
mod start;
mod stream;
pub mod sys;
mod words;

use agent::Agent;
use machine::{Guest, Machine};

/// Serves as PID 1 of a guest, from the kernel's hand-over on.
pub fn serve() -> ! {
    let served = start::greet(&Guest).map_err(|error| words::chain(&error)).and_then(|control| {
        start::furnish().map_err(|error| words::chain(&error))?;
        Agent::open(Box::new(Guest), control).map_err(|error| words::chain(&error))
    });
    match served {
        Ok(mut agent) => agent.serve(),
        Err(text) => log::error(&text),
    }
    Guest.leave()
}

/// Serves in a machine of a test's making, whose file systems the caller has furnished, until the host leaves.
pub fn serve_in(machine: Box<dyn Machine>) -> Result<(), String> {
    let control = start::greet(&*machine).map_err(|error| words::chain(&error))?;
    start::serve_as_init();
    Agent::open(machine, control).map_err(|error| words::chain(&error))?.serve();
    Ok(())
}
