//! `state`: tells a container's state.

use super::context::Context;
use super::{CliError, usage};
use crate::container::state::OCI_VERSION;
use crate::container::{Container, Status};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Print a container's state
#[derive(Debug, Args)]
pub struct State {
    /// The container
    #[arg(value_name = "CONTAINER", required = false)]
    operands: Vec<String>,
}

/// A container as `state` and `list` show it; callers match the order of the keys.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    oci_version: &'static str,
    /// Its name.
    pub id: String,
    /// The machine process, 0 when it has stopped.
    pub pid: i32,
    /// Its status.
    pub status: String,
    /// Its bundle.
    pub bundle: PathBuf,
    rootfs: PathBuf,
    /// When it was created.
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    /// Whose directory its state is in.
    pub owner: String,
}

impl Shown {
    /// A container now.
    pub fn of(container: Container, owner: String) -> Shown {
        let status = container.status();
        let state = container.state;
        Shown {
            oci_version: OCI_VERSION,
            id: state.id,
            pid: if status == Status::Stopped { 0 } else { state.pid },
            status: status.to_string(),
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: state.created,
            annotations: state.annotations,
            owner,
        }
    }
}

impl State {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let container = context.container(usage::one("state", &self.operands)?)?;
        let text = serde_json::to_string_pretty(&Shown::of(container, String::new()))
            .map_err(std::io::Error::from)?;
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(0)
    }
}
