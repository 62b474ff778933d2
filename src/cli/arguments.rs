//! Words as callers write them, to words as our parser wants them.
//!
//! runc's parser is that of Go: `-name` and `--name` are the same, an option's value follows in a word of its own or
//! after `=`, and a switch may have one too (`--force=false`). For `exec` and `ps` whatever follows the container's name
//! is no option. All values are joined to their options here, so that one that begins with `-` stays a value.

use super::usage::UsageError;
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};

/// The verbs after whose first operand nothing is an option any more.
const TAKES_THE_REST: [&str; 2] = ["exec", "ps"];
/// The verbs that are refused whatever follows them.
const TAKES_ALL: [&str; 2] = ["checkpoint", "restore"];

/// Rewrites the words of a command line, the program's name first.
pub fn normalise(
    command: &Command,
    words: impl IntoIterator<Item = OsString>,
) -> Result<Vec<OsString>, UsageError> {
    let mut words = words.into_iter();
    let mut normal: Vec<OsString> = words.next().into_iter().collect();
    let mut current = command;
    while let Some(word) = words.next() {
        let Some(option) =
            word.to_str().and_then(|text| text.strip_prefix('-')).filter(|text| !text.is_empty())
        else {
            let at_top = current.get_name() == command.get_name();
            if at_top {
                current = command.find_subcommand(&word).ok_or_else(|| UsageError::no_such_verb(&word))?;
            } else if let Some(of_verb) = current.find_subcommand(&word) {
                // One of husk's own: runc's verbs have none.
                current = of_verb;
            }
            let verb = current.get_name();
            let rest = TAKES_ALL.contains(&verb) || (!at_top && TAKES_THE_REST.contains(&verb));
            normal.push(word);
            if rest {
                normal.extend(words);
                break;
            }
            continue;
        };
        let option = option.strip_prefix('-').unwrap_or(option);
        if option.is_empty() {
            normal.push(word);
            normal.extend(words);
            break;
        }
        let (name, value) =
            option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let verb = current.get_name().to_owned();
        let known = find(current, name).ok_or_else(|| UsageError::unknown_option(&verb, name))?;
        let value = match (takes_value(known), value) {
            (true, Some(value)) => Some(OsString::from(value)),
            (true, None) => Some(words.next().ok_or_else(|| UsageError::missing_value(&verb, name))?),
            (false, None) => None,
            (false, Some(value)) => match switch(value) {
                Some(true) => None,
                Some(false) => continue,
                None => return Err(UsageError::bad_switch(&verb, name, value)),
            },
        };
        // For Go an empty value is the same as none.
        if value.as_deref() != Some(OsStr::new("")) {
            normal.push(written(known, value));
        }
    }
    Ok(normal)
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name) || (letter.is_some() && arg.get_short() == letter))
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn written(arg: &Arg, value: Option<OsString>) -> OsString {
    let mut word = match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("--{long}"),
        (None, letter) => format!("-{}", letter.unwrap_or_default()),
    };
    match value {
        None => word.into(),
        Some(value) => {
            word.push('=');
            let mut word = OsString::from(word);
            word.push(value);
            word
        }
    }
}

/// Go's `strconv.ParseBool`.
pub fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let switch = |long: &'static str| Arg::new(long).long(long).action(ArgAction::SetTrue);
        let option = |long: &'static str| Arg::new(long).long(long).action(ArgAction::Set);
        let mut command = Command::new("husk")
            .arg(option("root"))
            .arg(switch("debug"))
            .subcommand(Command::new("delete").arg(switch("force").short('f')).arg(Arg::new("id")))
            .subcommand(Command::new("exec").arg(option("process").short('p')).arg(Arg::new("id")))
            .subcommand(Command::new("template").subcommand(Command::new("create").arg(option("memory"))));
        command.build();
        command
    }

    fn normal(words: &[&str]) -> Result<Vec<String>, String> {
        let words = std::iter::once("husk").chain(words.iter().copied()).map(OsString::from);
        let normal = normalise(&command(), words).map_err(|error| error.to_string())?;
        Ok(normal.into_iter().skip(1).map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn all_forms_of_an_option_mean_the_same() {
        for words in [["--root", "/r"], ["-root", "/r"]] {
            assert_eq!(normal(&words).unwrap(), ["--root=/r"]);
        }
        assert_eq!(normal(&["--root=/r", "-root=/s"]).unwrap(), ["--root=/r", "--root=/s"]);
        for words in [["delete", "-f"], ["delete", "--f"], ["delete", "-force"], ["delete", "--force=true"]] {
            assert_eq!(normal(&words).unwrap(), ["delete", "--force"]);
        }
        assert_eq!(normal(&["delete", "-force=0", "id"]).unwrap(), ["delete", "id"]);
    }

    #[test]
    fn options_may_follow_the_operand_but_not_for_exec() {
        assert_eq!(normal(&["delete", "id", "-f"]).unwrap(), ["delete", "id", "--force"]);
        assert_eq!(
            normal(&["exec", "-p", "-x", "id", "ls", "-p", "--l"]).unwrap(),
            ["exec", "--process=-x", "id", "ls", "-p", "--l"]
        );
    }

    #[test]
    fn a_verb_of_a_verb_has_options_of_its_own() {
        assert_eq!(
            normal(&["template", "create", "-memory", "256"]).unwrap(),
            ["template", "create", "--memory=256"]
        );
        assert!(normal(&["template", "--memory", "256", "create"]).is_err());
        assert_eq!(normal(&["delete", "create"]).unwrap(), ["delete", "create"], "an operand");
    }

    #[test]
    fn what_cannot_be_understood_is_told_in_gos_words() {
        let table: [(&[&str], &str); 5] = [
            (&["frobnicate"], "No help topic for 'frobnicate'"),
            (&["--no-such"], "flag provided but not defined: -no-such"),
            (&["delete", "-x"], "flag provided but not defined: -x"),
            (&["exec", "--process"], "flag needs an argument: -process"),
            (&["delete", "--force=maybe"], "invalid boolean value \"maybe\" for -force: parse error"),
        ];
        for (words, message) in table {
            assert_eq!(normal(words).unwrap_err(), message);
        }
    }

    #[test]
    fn an_empty_value_is_none_and_a_double_dash_ends_the_options() {
        assert_eq!(normal(&["--root=", "--root", "", "delete"]).unwrap(), ["delete"]);
        assert_eq!(normal(&["delete", "--", "-f"]).unwrap(), ["delete", "--", "-f"]);
    }
}
