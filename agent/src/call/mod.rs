//! What the host can ask for: one file a call.
//!
//! A call either answers at once (it touches only what is the kernel's or the agent's), or leaves the answer to what it
//! started: a child ([`create`], [`exec`], [`start`]), a helper ([`crate::job`]), an event ([`freeze`]).

mod clock;
mod create;
mod delete;
mod device;
mod exec;
mod forward;
pub mod freeze;
pub mod memory;
mod network;
mod plug;
mod processes;
mod relay;
mod renew;
mod resize;
mod signal;
mod start;
mod stats;
mod stdio;
mod update;

use crate::agent::Agent;
use husk_protocol::{Answer, Call, ContainerKey, Failure, FailureKind, ProcessKey, Request};

/// Serves one request.
pub fn handle(agent: &mut Agent, Request { id, call }: Request) {
    let answer = match call {
        Call::Create(container) => create::call(agent, id, &container),
        Call::Start { container } => start::call(agent, id, container),
        Call::Exec(exec) => exec::call(agent, id, &exec),
        Call::Signal { target, signal } => signal::call(agent, id, target, signal),
        Call::Resize { process, size } => resize::call(agent, process, size),
        Call::Processes { container } => processes::call(agent, id, container),
        Call::Stats { container } => stats::call(agent, container),
        Call::Freeze { container, frozen } => freeze::call(agent, id, container, frozen),
        Call::Update { container, resources } => update::call(agent, id, container, &resources),
        Call::Delete { container } => delete::call(agent, id, container),
        Call::AttachDevice { slot } => device::attach(agent, id, slot),
        Call::TakeMemory { slot, bytes } => plug::call(agent, id, slot, bytes),
        Call::AttachInterfaces { slots } => network::attach(agent, id, slots),
        Call::DetachInterface { slot } => network::detach(agent, id, slot),
        Call::ConfigureNetwork(requests) => network::configure(agent, id, requests),
        Call::ServeNames { port } => network::serve_names(agent, port),
        Call::Relay { port } => relay::call(agent, port),
        Call::Forward { port, to } => forward::call(agent, port, to),
        Call::Renew { seed } => renew::call(&seed),
        Call::SetClock { nanoseconds } => clock::call(agent, nanoseconds),
    };
    match answer {
        Ok(Some(answer)) => agent.reply(id, Ok(answer)),
        Ok(None) => {} // whatever was started will answer
        Err(failure) => agent.reply(id, Err(failure)),
    }
}

/// A call's outcome; `None`: the answer comes later.
type Outcome = Result<Option<Answer>, Failure>;

/// A failure.
pub fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// The guest refused.
fn refused(what: &str, error: impl std::fmt::Display) -> Failure {
    failure(FailureKind::Guest, format!("{what}: {error}"))
}

fn no_container(key: ContainerKey) -> Failure {
    failure(FailureKind::NotFound, format!("no container {} in this machine", key.0))
}

fn no_process(key: ProcessKey) -> Failure {
    failure(FailureKind::NotFound, format!("no such process: {}", key.0))
}
