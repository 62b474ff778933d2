//! `manual` (hidden): writes the manual pages, from the same definitions as the help. For `make install`.

use super::CliError;
use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Write the manual pages into a directory
#[derive(Debug, Args)]
pub struct Manual {
    /// A directory that exists
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

impl Manual {
    /// Acts.
    pub fn act(self, command: &Command) -> Result<u8, CliError> {
        let whole = Man::new(command.clone());
        let mut page = self.page(&whole)?;
        whole.render(&mut page)?;
        closing(command).to_writer(&mut page)?;
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        {
            let man = Man::new(verb.clone());
            man.render(&mut self.page(&man)?)?;
        }
        Ok(0)
    }

    fn page(&self, man: &Man) -> Result<impl Write, CliError> {
        let path: &Path = &self.directory.join(man.get_filename());
        File::create(path)
            .map(std::io::BufWriter::new)
            .map_err(|error| CliError::Message(format!("create {}: {error}", path.display())))
    }
}

/// What the definitions do not say.
fn closing(command: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]).text([
        roman("Of "),
        bold("run"),
        roman(" and "),
        bold("exec"),
        roman(": that of the process inside, or 128 and its number if a signal ended it. Of every verb: 1 if it failed; "),
        bold("exec"),
        roman(" then exits with 255."),
    ]);
    roff.control("SH", ["FILES"]);
    for (path, what) in FILES {
        roff.control("TP", []).text([bold(*path)]).text([roman(*what)]);
    }
    roff.control("SH", ["SEE ALSO"]);
    let pages = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
    let names: Vec<String> =
        pages.map(|verb| format!("{}-{}(1)", command.get_name(), verb.get_name())).collect();
    roff.text([roman(names.join(", "))]);
    roff
}

const FILES: &[(&str, &str)] = &[
    (
        "/etc/husk/config.toml",
        "The operator's configuration, if there is any; config.toml.sample beside it tells every setting.",
    ),
    ("/run/husk", "The states of containers, unless --root names another directory."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_verb_that_is_shown_has_a_page_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut command = super::super::Cli::command();
        command.build();
        Manual { directory: directory.path().to_owned() }.act(&command).unwrap();
        let pages: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help");
        assert_eq!(pages.len(), shown.count() + 1);
        assert!(pages.contains(&"husk-run.1".to_owned()) && !pages.contains(&"husk-manual.1".to_owned()));
        let run = std::fs::read_to_string(directory.path().join("husk-run.1")).unwrap();
        assert!(run.contains("husk run") && run.contains("bundle"), "{run}");
        let husk = std::fs::read_to_string(directory.path().join("husk.1")).unwrap();
        assert!(husk.contains("EXIT STATUS") && husk.contains("/etc/husk/config.toml"), "{husk}");
    }
}
