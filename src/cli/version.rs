//! `--version`.

use super::CliError;
use crate::container::state::OCI_VERSION;
use std::io::Write;

/// husk's own.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit it was built from, or `unknown`.
pub const COMMIT: &str = env!("HUSK_COMMIT");

/// Prints it in the form of runc, whose first line callers parse.
pub fn print() -> Result<(), CliError> {
    let mut out = std::io::stdout();
    writeln!(out, "husk version {VERSION}\ncommit: {COMMIT}\nspec: {OCI_VERSION}")?;
    if let Ok(library) = libseccomp::ScmpVersion::current() {
        writeln!(out, "libseccomp: {library}")?;
    }
    Ok(())
}
