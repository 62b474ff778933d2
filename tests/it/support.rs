//! What the tests share: a directory of their own, and the built command.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with a root for states, an operator's file and a bundle.
pub struct Place {
    directory: tempfile::TempDir,
}

/// What came of a command.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Place {
        let place = Place { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(place.bundle().join("rootfs")).unwrap();
        std::fs::create_dir(place.root()).unwrap();
        std::fs::write(place.path("operator.toml"), "").unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("state")
    }

    pub fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    pub fn write_config(&self, config: impl AsRef<[u8]>) {
        std::fs::write(self.bundle().join("config.json"), config).unwrap();
    }

    /// `husk --config OPERATOR --root ROOT WORDS`, in the bundle's directory.
    pub fn husk(&self, words: &[&str]) -> Ran {
        let (root, operator) = (self.root(), self.path("operator.toml"));
        let mut all = vec!["--config", operator.to_str().unwrap(), "--root", root.to_str().unwrap()];
        all.extend(words);
        self.husk_alone(&all)
    }

    /// `husk WORDS`, in the bundle's directory.
    pub fn husk_alone(&self, words: &[&str]) -> Ran {
        let output =
            Command::new(env!("CARGO_BIN_EXE_husk")).args(words).current_dir(self.bundle()).output().unwrap();
        Ran::of(&output)
    }

    /// What is left of containers.
    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Ran {
    fn of(output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The message of the error line on standard error.
    pub fn message(&self) -> String {
        let Some((_, message)) = self.err.rsplit_once("level=error msg=") else { return self.err.clone() };
        serde_json::from_str(message.trim_end()).unwrap_or_else(|_| message.to_owned())
    }
}

/// A specification that is fine, without a terminal.
pub fn config() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]},
    })
}

/// `config()` with the value at a JSON pointer changed; objects on the way are made.
pub fn config_with(pointer: &str, value: Value) -> Value {
    let mut config = config();
    let mut at = &mut config;
    for key in pointer.split('/').skip(1) {
        at = match key.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[key],
        };
    }
    *at = value;
    config
}

/// All Rust sources below a directory of the package.
pub fn sources(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(below)];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
