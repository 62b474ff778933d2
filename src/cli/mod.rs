//! One file per verb: its arguments on top, its action below. The actions are thin: they turn words into a request and
//! call [`crate::container`].
//!
//! The command line is runc's: options, exit codes, what is printed and where, and the words of errors that callers
//! search for. What runc can do and husk cannot is there too, and refused in words.
//!
//! `machine` and `stand-in` are hidden verbs: processes that husk starts for itself. They are told what to do over
//! descriptor 3, and are dispatched before anything here looks at descriptors, logs or signals.

mod arguments;
mod check;
mod checkpoint;
mod completion;
mod context;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod log;
pub mod machine;
mod manual;
mod pause;
mod ps;
mod run;
mod spec;
pub mod stand_in;
mod start;
mod state;
mod template;
mod template_maker;
mod update;
mod usage;
mod version;

use crate::container::ContainerError;
use crate::error::chain;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use context::{Context, Global};
use std::process::ExitCode;

/// Runs containers from OCI bundles, each in a KVM guest of its own.
///
/// The commands and options are those of runc. A bundle is a directory with a specification, config.json, and a root
/// filesystem.
#[derive(Debug, Parser)]
#[command(
    name = "husk",
    disable_version_flag = true,
    args_override_self = true,
    subcommand_value_name = "COMMAND"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Checkpoint(checkpoint::Checkpoint),
    Check(check::Check),
    Completion(completion::Completion),
    Create(create::Create),
    Delete(delete::Delete),
    Events(events::Events),
    Exec(exec::Exec),
    Features(features::Features),
    Kill(kill::Kill),
    List(list::List),
    #[command(hide = true)]
    Manual(manual::Manual),
    Pause(pause::Pause),
    Ps(ps::Ps),
    Restore(checkpoint::Restore),
    Resume(pause::Resume),
    Run(run::Run),
    Spec(spec::Spec),
    Start(start::Start),
    State(state::State),
    Template(template::Template),
    Update(update::Update),
}

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// The words could not be understood.
    #[error(transparent)]
    Usage(#[from] usage::UsageError),
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Same, by a verb that names itself first, as runc's do.
    #[error("{verb} failed")]
    Failed {
        /// `husk create`, `exec`, ...
        verb: &'static str,
        /// Why.
        #[source]
        source: Box<CliError>,
        /// What we exit with.
        code: u8,
    },
    /// Something on the way.
    #[error("{0}")]
    Message(String),
    /// Output could not be written.
    #[error("write stdout")]
    Output(#[from] std::io::Error),
}

impl CliError {
    /// What the command exits with.
    fn code(&self) -> u8 {
        match self {
            CliError::Usage(error) => error.code(),
            CliError::Failed { code, .. } => *code,
            _ => 1,
        }
    }
}

/// The whole command.
pub fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(verb) if verb == "machine" => return machine::run(),
        Some(verb) if verb == "stand-in" => return stand_in::run(),
        Some(verb) if verb == template_maker::VERB => return template_maker::run(),
        _ => {}
    }
    log::install_panic_hook();
    // Before anything of ours is opened: no descriptor that we inherited reaches a process that we start.
    let _ = crate::host::descriptor::close_on_exec_from(3);
    match act() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            log::report(&chain(&error));
            ExitCode::from(error.code())
        }
    }
}

fn act() -> Result<u8, CliError> {
    let mut command = Cli::command();
    command.build();
    let words = arguments::normalise(&command, std::env::args_os())
        .map_err(|error| usage::explained(&command, error))?;
    let parsed = command.try_get_matches_from_mut(words);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return usage::of_clap(&command, &error).map(|()| 0),
    };
    if cli.version {
        return version::print().map(|()| 0);
    }
    let Some(verb) = cli.verb else {
        command.print_help()?;
        return Ok(0);
    };
    let context = Context::new(cli.global)?;
    match verb {
        Verb::Checkpoint(verb) => verb.act(),
        Verb::Check(verb) => verb.act(&context),
        Verb::Completion(verb) => verb.act(command),
        Verb::Create(verb) => verb.act(&context),
        Verb::Delete(verb) => verb.act(&context),
        Verb::Events(verb) => verb.act(&context),
        Verb::Exec(verb) => verb.act(&context),
        Verb::Features(verb) => verb.act(&context),
        Verb::Kill(verb) => verb.act(&context),
        Verb::List(verb) => verb.act(&context),
        Verb::Manual(verb) => verb.act(&command),
        Verb::Pause(verb) => verb.act(&context),
        Verb::Ps(verb) => verb.act(&context),
        Verb::Restore(verb) => verb.act(),
        Verb::Resume(verb) => verb.act(&context),
        Verb::Run(verb) => verb.act(&context),
        Verb::Spec(verb) => verb.act(),
        Verb::Start(verb) => verb.act(&context),
        Verb::State(verb) => verb.act(&context),
        Verb::Template(verb) => verb.act(&context),
        Verb::Update(verb) => verb.act(&context),
    }
}
