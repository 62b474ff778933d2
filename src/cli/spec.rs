//! `spec`: writes a specification to begin with.

use super::{CliError, usage};
use crate::bundle::CONFIG;
use crate::error::plain;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Write a config.json to begin with
#[derive(Debug, Args)]
pub struct Spec {
    /// The bundle's directory
    #[arg(short, long, value_name = "DIRECTORY", default_value = ".")]
    bundle: PathBuf,
    /// For a user other than root: without limits, which need rights over control groups
    #[arg(long)]
    rootless: bool,
    /// (none)
    #[arg(hide = true)]
    operands: Vec<String>,
}

/// runc's, with the host name husk.
pub(super) const EXAMPLE: &str = include_str!("spec.json");
/// What of it a user other than root cannot have.
const LIMITS: &str = include_str!("spec-limits.json");

impl Spec {
    /// Acts.
    pub fn act(self) -> Result<u8, CliError> {
        usage::none("spec", &self.operands)?;
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                CliError::Message(format!("File {CONFIG} exists. Remove it first"))
            }
            _ => CliError::Message(format!("chdir {}: {}", self.bundle.display(), plain(&error))),
        };
        let text = if self.rootless { EXAMPLE.replace(LIMITS, "") } else { EXAMPLE.to_owned() };
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(self.bundle.join(CONFIG));
        opened.and_then(|mut file| file.write_all(text.trim_end().as_bytes())).map_err(failed)?;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::spec::parse;

    #[test]
    fn both_forms_are_specifications_and_the_rootless_one_has_no_limits() {
        let full = parse(EXAMPLE.as_bytes()).unwrap();
        assert!(full.linux().as_ref().unwrap().resources().is_some());
        let rootless = parse(EXAMPLE.replace(LIMITS, "").as_bytes()).unwrap();
        assert!(rootless.linux().as_ref().unwrap().resources().is_none());
        assert_eq!(full.process(), rootless.process());
    }
}
