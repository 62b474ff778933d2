//! `check`: tells in a line each what this host offers, and fails when a container could not run.

use super::context::Context;
use super::{CliError, usage};
use crate::config::machine;
use crate::config::operator::{Operator, SystemCalls};
use crate::container::probe;
use crate::host::cgroup::{self, Mode};
use crate::host::{seccomp, systemd};
use clap::Args;
use std::io::Write;
use std::time::Duration;

/// How long the guest may take. One that takes longer does not really run.
const LIMIT: Duration = Duration::from_secs(10);

/// Check whether this host can run containers
#[derive(Debug, Args)]
pub struct Check {
    /// (none)
    #[arg(hide = true)]
    operands: Vec<String>,
}

/// One thing that was looked at.
struct Finding {
    what: &'static str,
    /// Whether containers cannot run without it.
    needed: bool,
    /// What is there, or what is wrong.
    found: Result<String, String>,
}

impl Check {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        usage::none("check", &self.operands)?;
        let mut out = std::io::stdout();
        let mut failed = false;
        for finding in findings(context)? {
            let Finding { what, needed, found } = finding;
            let (word, text) = match (&found, needed) {
                (Ok(text), _) => ("ok", text),
                (Err(text), true) => ("MISSING", text),
                (Err(text), false) => ("absent", text),
            };
            failed |= needed && found.is_err();
            writeln!(out, "{what:<16} {word:<8} {text}")?;
        }
        Ok(u8::from(failed))
    }
}

fn findings(context: &Context) -> Result<Vec<Finding>, CliError> {
    let operator = context.operator()?;
    let config = machine::unlimited(&operator);
    let device = open_device("/dev/kvm");
    let (parts, guest) = match probe::parts(&config) {
        Ok((parts, told)) => (Some(parts), Ok(told)),
        Err(error) => (None, Err(error)),
    };
    let runs = match (&device, &parts) {
        (Ok(_), Some(parts)) => probe::boot(&config, parts, LIMIT)
            .map(|took| format!("boots a guest to its agent in {} ms", took.as_millis())),
        (Err(_), _) => Err("no /dev/kvm to run a guest with".into()),
        (_, None) => Err("no guest to run".into()),
    };
    let walled = operator.host.system_calls != SystemCalls::Allow;
    Ok(vec![
        Finding { what: "/dev/kvm", needed: true, found: device },
        Finding { what: "guest", needed: true, found: guest },
        Finding { what: "kvm", needed: true, found: runs },
        Finding { what: "/dev/net/tun", needed: false, found: open_device("/dev/net/tun") },
        Finding { what: "cgroup", needed: false, found: control_groups() },
        Finding { what: "seccomp", needed: walled, found: system_calls(&operator) },
        Finding { what: "landlock", needed: false, found: landlock() },
    ])
}

fn open_device(path: &str) -> Result<String, String> {
    match std::fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Ok("opens".into()),
        Err(error) => Err(crate::error::plain(&error)),
    }
}

fn control_groups() -> Result<String, String> {
    match cgroup::mode() {
        Mode::Unified if systemd::is_running() => Ok("version 2, and systemd to make them".into()),
        Mode::Unified => Ok("version 2".into()),
        Mode::Hybrid => {
            Err("version 1 with a version 2 tree beside it: limits hold inside machines alone".into())
        }
        Mode::Legacy => Err("version 1: limits hold inside machines alone".into()),
        Mode::None => Err("none mounted: limits hold inside machines alone".into()),
    }
}

/// Whether the machine's threads are held to their system calls.
fn system_calls(operator: &Operator) -> Result<String, String> {
    match operator.host.system_calls {
        SystemCalls::Enforce if seccomp::is_there() => {
            Ok("each thread of a machine has its system calls".into())
        }
        SystemCalls::Enforce => Err("not in this kernel".into()),
        SystemCalls::Log if seccomp::is_there() => Ok("WEAKENED by host.system_calls: only logs".into()),
        SystemCalls::Log => Err("not in this kernel".into()),
        SystemCalls::Allow => Err("SWITCHED OFF by host.system_calls".into()),
    }
}

fn landlock() -> Result<String, String> {
    crate::host::landlock::version()
        .map(|version| match version {
            6.. => {
                format!("ABI {version}: no TCP but to a resolver, no abstract sockets, no signals to others")
            }
            4..6 => format!("ABI {version}: no TCP but to a resolver"),
            _ => format!("ABI {version}: too old to be of use"),
        })
        .ok_or_else(|| "not in this kernel".into())
}
