//! `template`: makes, tries and removes the guests that starts are copies of. runc has no such verb.

use super::context::Context;
use super::{CliError, spec, usage};
use crate::container::template;
use clap::{Args, Subcommand};
use std::io::Write;

/// Make, show or remove templates: guests booted once, of which later starts are copies
#[derive(Debug, Args)]
pub struct Template {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the template for machines of a size, in place of an older one
    Create(Size),
    /// Tell whether starts of a size are made from a template, and if not, why
    Status(Size),
    /// Remove all templates
    Remove {
        /// (none)
        #[arg(hide = true)]
        operands: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Size {
    /// Vcpus [default: those of a container without limits]
    #[arg(long, value_name = "NUMBER")]
    vcpus: Option<u8>,
    /// Memory of the machine in MiB [default: that of a container without limits]
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// (none)
    #[arg(hide = true)]
    operands: Vec<String>,
}

impl Template {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let operator = context.operator()?;
        let directory = &operator.machine.template_directory;
        let failed = |reason: String| CliError::Message(format!("template: {reason}"));
        let mut out = std::io::stdout();
        match self.verb {
            Verb::Create(Size { vcpus, memory, operands }) => {
                usage::none("template create", &operands)?;
                let config = template::machine(&operator, vcpus, memory);
                let made = template::create(directory, &config, spec::EXAMPLE).map_err(failed)?;
                writeln!(out, "{}", made.told)?;
                if let Some(reason) = made.not_tried {
                    tracing::warn!("starts from the template are slower than they could be: {reason}");
                }
            }
            Verb::Status(Size { vcpus, memory, operands }) => {
                usage::none("template status", &operands)?;
                let config = template::machine(&operator, vcpus, memory);
                if let Err(reason) = template::status(directory, &config) {
                    writeln!(out, "starts are cold: {reason}")?;
                    return Ok(1);
                }
                writeln!(out, "starts are made from a template")?;
            }
            Verb::Remove { operands } => {
                usage::none("template remove", &operands)?;
                writeln!(out, "{} removed", template::remove(directory).map_err(failed)?)?;
            }
        }
        Ok(0)
    }
}
