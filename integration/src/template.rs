//! Templates of a test's own.

use crate::{
    bundle::{Bundle, Image},
    outside::Outside,
    runtime::{Output, Runtime},
    scenario::fresh_id,
};
use std::{fs, path::PathBuf};

/// A directory for templates, and an operator's configuration that names it. Small machines: those are soon made.
pub struct Templates {
    /// Where they are, with the configuration and the log of the last start.
    pub outside: Outside,
}

impl Templates {
    /// None are made yet; containers without a limit have 256 MiB.
    pub fn new(name: &str) -> Templates {
        let templates = Templates { outside: Outside::new(name) };
        templates.configure(256);
        templates
    }

    /// Gives containers without a limit so much.
    pub fn configure(&self, memory_mib: u32) {
        self.configure_with(memory_mib, "");
    }

    /// The same, with more lines for the machine.
    pub fn configure_with(&self, memory_mib: u32, lines: &str) {
        let directory = self.directory();
        let text =
            format!("[machine]\nmemory_mib = {memory_mib}\ntemplate_directory = {directory:?}\n{lines}\n");
        fs::write(self.config(), text).expect("a file");
    }

    /// Where they are.
    pub fn directory(&self) -> PathBuf {
        self.outside.0.join("templates")
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.outside.0.join("config.toml")
    }

    /// `husk template VERB`
    pub fn call(&self, verb: &str) -> Output {
        self.call_with(verb, &[])
    }

    /// `husk template VERB OPTIONS`
    pub fn call_with(&self, verb: &str, options: &[&str]) -> Output {
        let config = self.config();
        let words = ["--config".as_ref(), config.as_os_str(), "template".as_ref(), verb.as_ref()];
        Runtime::Husk.call(words.into_iter().chain(options.iter().map(AsRef::as_ref)))
    }

    /// What is there, by name.
    pub fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.directory()) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The file whose name ends so.
    pub fn file(&self, end: &str) -> PathBuf {
        let name = self.files().into_iter().find(|name| name.ends_with(end)).expect("it is there");
        self.directory().join(name)
    }

    /// Runs a script in a container; what it printed, and the start's log.
    pub fn run(&self, script: &str) -> (Output, String) {
        self.run_bundle(Bundle::new(Image::Busybox, &["sh", "-c", script]))
    }

    /// The same, of a bundle.
    pub fn run_bundle(&self, bundle: Bundle) -> (Output, String) {
        let (log, config) = (self.outside.0.join("log"), self.config());
        let _ = fs::remove_file(&log);
        let id = fresh_id();
        let path = bundle.write().to_owned();
        let output = Runtime::Husk.call([
            "--config".as_ref(),
            config.as_os_str(),
            "--debug".as_ref(),
            "--log".as_ref(),
            log.as_os_str(),
            "run".as_ref(),
            "-b".as_ref(),
            path.as_os_str(),
            id.as_ref(),
        ]);
        (output, fs::read_to_string(&log).expect("a log"))
    }
}

/// Whether a start with this log was made from a template.
pub fn is_copy(log: &str) -> bool {
    log.contains("memory mapped")
}
