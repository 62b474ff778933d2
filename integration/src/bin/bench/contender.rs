//! Who is measured, and how one of them is run.

use husk_integration::{
    bundle::{Bundle, Image},
    outside::Outside,
    runtime::{Runtime, run},
    scenario::fresh_id,
};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A runtime, with a configuration of its own or the host's.
#[derive(Debug, Clone)]
pub struct Contender {
    /// As tables call it.
    pub name: &'static str,
    /// Which.
    pub runtime: Runtime,
    config: Option<PathBuf>,
}

/// What all others are compared with.
pub const RUNC: Contender = Contender { name: "runc", runtime: Runtime::Runc, config: None };
/// A second one of its kind.
pub const CRUN: Contender = Contender { name: "crun", runtime: Runtime::Crun, config: None };

impl Contender {
    /// husk with a configuration.
    pub fn husk(name: &'static str, config: &Path) -> Contender {
        Contender { name, runtime: Runtime::Husk, config: Some(config.to_owned()) }
    }

    /// A command of it.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let config = self.config.iter().flat_map(|config| ["--config".as_ref(), config.as_os_str()]);
        let mut command = self.runtime.command(config);
        command.args(args);
        command
    }

    /// `run` of a bundle, whole: create, start, exit, delete.
    pub fn run(&self, bundle: &Bundle) -> Duration {
        time(self.command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), fresh_id().as_ref()]))
    }

    /// A container that is there and does nothing.
    pub fn idle(&self) -> Idle {
        self.idle_with(Bundle::new(Image::Busybox, &["sleep", "100000"]))
    }

    /// The same, of a bundle.
    pub fn idle_with(&self, bundle: Bundle) -> Idle {
        let (id, pid_file) = (fresh_id(), bundle.path.join("pid"));
        let path = bundle.write().as_os_str();
        let status = self
            .command(["run".as_ref(), "-d".as_ref(), "--pid-file".as_ref(), pid_file.as_os_str()])
            .args(["-b".as_ref(), path, id.as_ref()])
            // It keeps what it is given: a pipe would never end.
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .expect("it can be run");
        assert!(status.success(), "{} cannot run a container", self.name);
        let pid = std::fs::read_to_string(pid_file).expect("it was written");
        Idle { runtime: self.runtime, id, pid: pid.trim().parse().expect("a number"), bundle }
    }
}

/// A container that runs for itself. Deleted on drop.
pub struct Idle {
    runtime: Runtime,
    /// Its name.
    pub id: String,
    /// Its first process, or its machine's.
    pub pid: i32,
    /// Its bundle.
    pub bundle: Bundle,
}

impl Idle {
    /// Runs a program in it; what that printed.
    pub fn exec(&self, words: &[&str]) -> String {
        self.runtime.call(["exec", &self.id].iter().chain(words)).ok().stdout
    }

    /// How long that takes.
    pub fn time(&self, words: &[&str]) -> Duration {
        time(self.runtime.command(["exec", &self.id].iter().chain(words)))
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.runtime.call(["delete", "--force", &self.id]);
    }
}

/// husk, by booting a guest and by copying a template. The template is of this program's own, and goes with it.
pub struct Ways {
    directory: Outside,
    /// A guest is booted.
    pub cold: Contender,
    /// A template is copied.
    pub copy: Contender,
}

impl Ways {
    /// Makes the template.
    pub fn new() -> Ways {
        let directory = Outside::new("ways");
        let cold = configuration(&directory, "cold", "templates = \"never\"");
        let templates = directory.0.join("templates");
        let copy = configuration(&directory, "copy", &format!("template_directory = {templates:?}"));
        let (cold, copy) =
            (Contender::husk("husk, cold", &cold), Contender::husk("husk, from a template", &copy));
        eprint!("{}", run(copy.command(["template", "create"])).ok().stdout);
        Ways { directory, cold, copy }
    }

    /// A guest is booted, of another size than usual.
    pub fn sized(&self, memory_mib: u32, vcpus: u32) -> Contender {
        let lines = format!("templates = \"never\"\nmemory_mib = {memory_mib}\nvcpus = {vcpus}");
        let path = configuration(&self.directory, &format!("{memory_mib}-{vcpus}"), &lines);
        Contender::husk("husk, cold", &path)
    }
}

fn configuration(directory: &Outside, name: &str, lines: &str) -> PathBuf {
    let path = directory.0.join(name);
    std::fs::write(&path, format!("[machine]\n{lines}\n")).expect("a file");
    path
}

/// A container in the background of a `run` that waits for it.
pub struct Background {
    /// Whose it is.
    pub runtime: Runtime,
    /// Its name.
    pub id: String,
    child: std::process::Child,
    _bundle: Bundle,
}

impl Background {
    /// Starts it and waits until it runs.
    pub fn start(runtime: Runtime, bundle: Bundle) -> Background {
        let id = fresh_id();
        let child = runtime
            .command(["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), id.as_ref()])
            .stdout(Stdio::null())
            .spawn()
            .expect("it can be run");
        while !runtime.call(["state", &id]).stdout.contains("running") {
            std::thread::sleep(Duration::from_millis(50));
        }
        Background { runtime, id, child, _bundle: bundle }
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.runtime.call(["kill", &self.id, "KILL"]).ok();
        let _ = self.child.wait();
    }
}

/// How long a command takes, which must not fail.
pub fn time(command: Command) -> Duration {
    let started = Instant::now();
    run(command).ok();
    started.elapsed()
}
