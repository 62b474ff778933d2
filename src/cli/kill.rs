//! `kill`: sends a signal.

use super::context::Context;
use super::{CliError, usage};
use crate::container::ContainerError;
use clap::Args;
use nix::sys::signal::Signal;

/// Send a signal to a container
#[derive(Debug, Args)]
pub struct Kill {
    /// To all its processes; no error if it has stopped
    #[arg(short, long)]
    all: bool,
    /// The container and the signal, by name or number [default: TERM]
    #[arg(value_name = "CONTAINER [SIGNAL]", required = false)]
    operands: Vec<String>,
}

impl Kill {
    /// Acts.
    pub fn act(self, context: &Context) -> Result<u8, CliError> {
        let (id, signal) = usage::one_or_two("kill", &self.operands)?;
        let container = context.container(id)?;
        let signal = number(signal.filter(|text| !text.is_empty()).unwrap_or("TERM"))?;
        match container.signal(signal, self.all) {
            Err(ContainerError::NotRunning) if self.all => Ok(0),
            other => Ok(other.map(|()| 0)?),
        }
    }
}

fn number(text: &str) -> Result<i32, CliError> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    match name.as_str() {
        "SIGIOT" => Ok(libc::SIGABRT),
        "SIGCLD" => Ok(libc::SIGCHLD),
        "SIGPOLL" => Ok(libc::SIGIO),
        other => other
            .parse::<Signal>()
            .map(|signal| signal as i32)
            .map_err(|_| CliError::Message(format!("unknown signal {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_number_or_a_name_in_any_case_with_or_without_sig() {
        for (text, expected) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("Usr1", 10),
            ("winch", 28),
            ("37", 37),
        ] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
        assert_eq!(number("BAD").unwrap_err().to_string(), "unknown signal \"BAD\"");
    }
}
