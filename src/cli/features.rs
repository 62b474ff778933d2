//! `features`: tells what husk can do, in the form of the OCI runtime spec. Only what works is named.

use super::context::Context;
use super::version::{COMMIT, VERSION};
use super::{CliError, usage};
use crate::config::operator::Operator;
use crate::config::{annotation, capability, hook, mount_option, namespace, seccomp, unit};
use crate::container::state::OCI_VERSION;
use clap::Args;
use serde_json::{Value, json};
use std::io::Write;

/// Print what husk can do
#[derive(Debug, Args)]
pub struct Features {
    /// (none)
    #[arg(hide = true)]
    operands: Vec<String>,
}

impl Features {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        usage::none("features", &self.operands)?;
        let text =
            serde_json::to_string_pretty(&features(&context.operator()?)).map_err(std::io::Error::from)?;
        writeln!(std::io::stdout(), "{text}")?;
        Ok(0)
    }
}

/// Those by which a bundle's author may change what is around the container; one is a prefix.
fn unsafe_annotations() -> Vec<&'static str> {
    annotation::KNOWN.into_iter().chain([unit::ANNOTATION]).collect()
}

fn features(operator: &Operator) -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": hook::KINDS,
        "mountOptions": mount_option::names(),
        "linux": {
            "namespaces": namespace::NAMES,
            "capabilities": capability::names().collect::<Vec<_>>(),
            "cgroup": {"v1": false, "v2": true, "systemd": true, "systemdUser": false, "rdma": false},
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
                "knownFlags": seccomp::FLAGS,
                "supportedFlags": seccomp::FLAGS,
            },
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
            "intelRdt": {"enabled": false},
            "mountExtensions": {"idmap": {"enabled": false}},
            "netDevices": {"enabled": false},
        },
        "annotations": {
            "io.husk.version": VERSION,
            "io.husk.commit": COMMIT,
            // Of the machine process's own threads, as the operator has it.
            "io.husk.system_calls": operator.host.system_calls,
        },
        "potentiallyUnsafeConfigAnnotations": unsafe_annotations(),
    })
}
