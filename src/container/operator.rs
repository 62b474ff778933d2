//! Reads the operator's configuration.

use super::ContainerError;
use crate::config::operator::Operator;
use crate::error::{chain, plain};
use crate::host::file;
use std::path::Path;

/// Where it is, unless another file is named.
pub const FILE: &str = "/etc/husk/config.toml";
/// The longest one, in bytes.
const LONGEST: u64 = 1 << 20;

/// The configuration in the file that was `named`, or in the usual one. A usual one that is not there means the defaults.
pub fn read(named: Option<&Path>) -> Result<Operator, ContainerError> {
    let path = named.unwrap_or(Path::new(FILE));
    let failed = |reason: &str| ContainerError::BadRequest(format!("{}: {reason}", path.display()));
    match file::read_bounded(path, LONGEST) {
        Ok(bytes) => {
            let text = String::from_utf8(bytes).map_err(|_| failed("is not valid UTF-8"))?;
            Operator::parse(&text).map_err(|error| failed(&chain(&error)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            Ok(Operator::default())
        }
        Err(error) => Err(failed(&plain(&error))),
    }
}
