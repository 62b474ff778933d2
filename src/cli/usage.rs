//! Command lines that cannot be understood: runc's words, help on standard output, the error on standard error.

use clap::Command;
use clap::error::ErrorKind;
use std::ffi::OsStr;
use std::io::Write;

/// What is wrong with a command line.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    message: String,
    /// Whose help to show.
    verb: Option<String>,
    code: u8,
}

impl UsageError {
    /// No such verb. runc exits with 3.
    pub fn no_such_verb(word: &OsStr) -> UsageError {
        UsageError { message: format!("No help topic for '{}'", word.to_string_lossy()), verb: None, code: 3 }
    }

    /// No such option.
    pub fn unknown_option(verb: &str, name: &str) -> UsageError {
        Self::of(verb, format!("flag provided but not defined: -{name}"))
    }

    /// An option's value is missing.
    pub fn missing_value(verb: &str, name: &str) -> UsageError {
        Self::of(verb, format!("flag needs an argument: -{name}"))
    }

    /// A switch's value is none.
    pub fn bad_switch(verb: &str, name: &str, value: &str) -> UsageError {
        Self::of(verb, format!("invalid boolean value {value:?} for -{name}: parse error"))
    }

    /// A verb's operands are too many or too few.
    fn operands(verb: &str, how_many: &str) -> UsageError {
        let program = std::env::args_os().next().unwrap_or_else(|| "husk".into());
        Self::of(verb, format!("{}: {verb:?} requires {how_many} argument(s)", program.to_string_lossy()))
    }

    fn of(verb: &str, message: String) -> UsageError {
        UsageError { message, verb: Some(verb.to_owned()), code: 1 }
    }

    /// What the command exits with.
    pub fn code(&self) -> u8 {
        self.code
    }
}

/// Shows the help that belongs to an error, and gives the error back to be reported.
pub fn explained(command: &Command, error: UsageError) -> UsageError {
    let mut command = command.clone().bin_name("husk");
    command.build();
    let mut out = std::io::stdout();
    match error.verb.as_deref() {
        Some("husk") => {
            let _ = writeln!(out, "Incorrect Usage. {error}\n");
            let _ = command.print_help();
        }
        Some(verb) => {
            let _ = writeln!(out, "Incorrect Usage: {error}\n");
            if let Some(verb) = command.find_subcommand_mut(verb) {
                let _ = verb.print_help();
            }
        }
        None => {}
    }
    error
}

/// What our parser found wrong, or that it was asked for help.
pub fn of_clap(command: &Command, error: &clap::Error) -> Result<(), super::CliError> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.print()?),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            let message = line.strip_prefix("error: ").unwrap_or(line).to_owned();
            let error = UsageError { message, verb: Some("husk".into()), code: 1 };
            Err(explained(command, error).into())
        }
    }
}

/// The one operand of a verb.
pub fn one<'a>(verb: &str, operands: &'a [String]) -> Result<&'a str, UsageError> {
    match operands {
        [one] => Ok(one),
        _ => Err(wrong_operands(verb, "exactly 1")),
    }
}

/// No operand at all.
pub fn none(verb: &str, operands: &[String]) -> Result<(), UsageError> {
    if operands.is_empty() { Ok(()) } else { Err(wrong_operands(verb, "exactly 0")) }
}

/// One operand and perhaps another.
pub fn one_or_two<'a>(verb: &str, operands: &'a [String]) -> Result<(&'a str, Option<&'a str>), UsageError> {
    match operands {
        [one] => Ok((one, None)),
        [one, two] => Ok((one, Some(two))),
        [] => Err(wrong_operands(verb, "a minimum of 1")),
        _ => Err(wrong_operands(verb, "a maximum of 2")),
    }
}

/// One operand and the rest.
pub fn first<'a>(verb: &str, operands: &'a [String]) -> Result<(&'a str, &'a [String]), UsageError> {
    match operands.split_first() {
        Some((first, rest)) => Ok((first, rest)),
        None => Err(wrong_operands(verb, "a minimum of 1")),
    }
}

fn wrong_operands(verb: &str, how_many: &str) -> UsageError {
    explained(&<super::Cli as clap::CommandFactory>::command(), UsageError::operands(verb, how_many))
}
