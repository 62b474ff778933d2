//! `list`: tells of all containers below the root.

use super::context::Context;
use super::state::Shown;
use super::{CliError, usage};
use crate::container::{Container, ContainerId};
use crate::error::{chain, plain};
use crate::host::user;
use clap::Args;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;

/// List containers
#[derive(Debug, Args)]
pub struct List {
    /// table or json
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
    /// (none)
    #[arg(hide = true)]
    operands: Vec<String>,
}

/// The table's columns are at least so wide, and so far apart.
const NARROWEST: usize = 12;
const APART: usize = 3;

impl List {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        usage::none("list", &self.operands)?;
        let containers = containers(context)?;
        let mut out = std::io::stdout().lock();
        if self.quiet {
            containers.iter().try_for_each(|container| writeln!(out, "{}", container.id))?;
            return Ok(0);
        }
        match self.format.as_str() {
            "table" => out.write_all(table(&containers).as_bytes())?,
            "json" => {
                let containers = (!containers.is_empty()).then_some(containers);
                writeln!(out, "{}", serde_json::to_string(&containers).map_err(std::io::Error::from)?)?;
            }
            _ => return Err(CliError::Message("invalid format option".into())),
        }
        Ok(0)
    }
}

/// All containers that can be read; what is wrong with others goes to standard error, and the list goes on.
fn containers(context: &Context) -> Result<Vec<Shown>, CliError> {
    let root = context.store.root();
    let ids = match context.store.list() {
        Ok(ids) => ids,
        Err(error) if error.kind() == ErrorKind::NotFound && !context.root_was_given => Vec::new(),
        Err(error) => return Err(CliError::Message(format!("open {}: {}", root.display(), plain(&error)))),
    };
    let load = |id: &ContainerId| match Container::load(&context.store, id) {
        Ok(container) => {
            let owner = std::fs::metadata(&container.directory).map_or(u32::MAX, |metadata| metadata.uid());
            Some(Shown::of(container, user::name(owner)))
        }
        // Deleted meanwhile, or not yet written.
        Err(crate::container::ContainerError::NotFound) => None,
        Err(error) => {
            crate::log::tell(&format!("load container {id}: {}", chain(&error)));
            None
        }
    };
    Ok(ids.iter().filter_map(load).collect())
}

fn table(containers: &[Shown]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |shown: &Shown| {
        let bundle = shown.bundle.display().to_string();
        [
            shown.id.clone(),
            shown.pid.to_string(),
            shown.status.clone(),
            bundle,
            shown.created.clone(),
            shown.owner.clone(),
        ]
    };
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(containers.iter().map(row)).collect();
    let width = |column: usize| {
        let widest = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).saturating_add(APART).max(NARROWEST)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells
            .map(|(column, (cell, width))| if column < 5 { format!("{cell:width$}") } else { cell.clone() });
        cells.collect::<String>() + "\n"
    };
    rows.iter().map(line).collect()
}
