//! Whether this host runs guests at all: boots one, with nothing shared and no container, until its agent greets.
//!
//! That /dev/kvm opens, and even that a machine can be made, says little: some hosts' KVM runs nothing but kernels that
//! were made for it.

use crate::device::vsock::Endpoint;
use crate::error::plain;
use crate::machine::order::MachineConfig;
use crate::machine::{Machine, Parts};
use husk_protocol::{CONTROL_PORT, FromAgent, VERSION, frame};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Finds what a guest would boot from, and says where it is.
pub fn parts(config: &MachineConfig) -> Result<(Parts, String), String> {
    let parts = Parts::find(config).map_err(|error| crate::error::chain(&error))?;
    let told = format!(
        "kernel {} ({} KiB), agent {} ({} KiB)",
        parts.kernel.name(),
        parts.kernel.length() / 1024,
        parts.initrd.name(),
        parts.initrd.length() / 1024
    );
    Ok((parts, told))
}

/// Boots a guest and waits up to `limit` for its agent. The guest ends with this process. How long it took.
pub fn boot(config: &MachineConfig, parts: &Parts, limit: Duration) -> Result<Duration, String> {
    let told = |what: &'static str| move |error: std::io::Error| format!("{what}: {}", plain(&error));
    let machine = Machine::assemble(config, parts).map_err(|error| crate::error::chain(&error))?;
    let kernel_log = machine.kernel_log();
    let (ours, theirs) = UnixStream::pair().map_err(told("socketpair"))?;
    let both = Endpoint {
        from_guest: Some(theirs.try_clone().map_err(told("socketpair"))?.into()),
        to_guest: Some(theirs.into()),
    };
    machine.switchboard().offer_at(CONTROL_PORT, both).map_err(|error| crate::error::chain(&error))?;
    let began = Instant::now();
    let running = machine.run().map_err(|error| crate::error::chain(&error))?;
    match greeting(ours, limit) {
        Ok(VERSION) => Ok(began.elapsed()),
        Ok(version) => Err(format!("the agent speaks version {version} of the protocol, husk {VERSION}")),
        Err(why) => {
            let end = running.ended().map(|end| format!(" ({end})")).unwrap_or_default();
            Err(format!("{why}{end}; {}", kernel_log.last_words()))
        }
    }
}

/// Waits for the agent's first message. Its version of the protocol.
fn greeting(mut agent: UnixStream, limit: Duration) -> Result<u32, String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!(
                "a guest did not reach its agent within {} s: this host's KVM may not run ordinary guests",
                limit.as_secs()
            )
        }
        _ => format!("the agent went away before it greeted: {}", plain(&error)),
    };
    agent.set_read_timeout(Some(limit)).map_err(failed)?;
    let mut prefix = [0; 4];
    agent.read_exact(&mut prefix).map_err(failed)?;
    let length = frame::length(prefix).map_err(|error| crate::error::chain(&error))?;
    let mut message = vec![0; length];
    agent.read_exact(&mut message).map_err(failed)?;
    match frame::decode::<FromAgent>(&message) {
        Ok(FromAgent::Ready(ready)) => Ok(ready.version),
        Ok(_) => Err("the agent's first message is no greeting".into()),
        Err(error) => Err(crate::error::chain(&error)),
    }
}
