//! Who is measured, and how one of them is run.

use husk_integration::{
    bundle::Bundle,
    runtime::{Runtime, run},
    scenario::fresh_id,
};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Those that do the same as husk; the second is what the others are compared with.
pub const CONTENDERS: [Runtime; 3] = [Runtime::Husk, Runtime::Runc, Runtime::Crun];

/// A container in the background.
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
