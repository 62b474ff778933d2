//! `completion`: prints a script that completes husk's words in a shell.

use super::CliError;
use clap::Args;

/// Print a completion script for a shell
#[derive(Debug, Args)]
pub struct Completion {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

impl Completion {
    /// Acts.
    pub fn act(self, mut command: clap::Command) -> Result<u8, CliError> {
        clap_complete::generate(self.shell, &mut command, "husk", &mut std::io::stdout());
        Ok(0)
    }
}
