//! A container that runs in the foreground of a `husk run` while the test looks at it.

use crate::{
    bundle::Bundle,
    runtime::{Runtime, code, wait},
    scenario::fresh_id,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde_json::Value;
use std::{
    ffi::OsStr,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

/// A running container.
pub struct Running {
    /// Its id.
    pub id: String,
    /// Its machine's pid.
    pub pid: i32,
    /// The `husk run`.
    pub child: Child,
    /// Its bundle.
    pub bundle: Bundle,
}

impl Running {
    /// Starts `bundle` with its stdout and stderr as given and waits until it is running.
    #[track_caller]
    pub fn new(bundle: Bundle, stdout: Stdio, stderr: Stdio) -> Running {
        Running::begin(bundle, &[], stdout, stderr)
    }

    /// The same with an operator's configuration of its own; what it prints goes nowhere.
    #[track_caller]
    pub fn configured(bundle: Bundle, config: &Path) -> Running {
        Running::begin(bundle, &["--config".as_ref(), config.as_os_str()], Stdio::null(), Stdio::inherit())
    }

    #[track_caller]
    fn begin(bundle: Bundle, options: &[&OsStr], stdout: Stdio, stderr: Stdio) -> Running {
        let id = fresh_id();
        let run = ["run".as_ref(), "-b".as_ref(), bundle.write().as_os_str(), id.as_ref()];
        let mut child = Runtime::Husk
            .command([options, &run].concat())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("husk can be run");
        for _ in 0..300 {
            let state: Value =
                serde_json::from_str(&Runtime::Husk.call(["state", &id]).stdout).unwrap_or_default();
            if state["status"] == "running" {
                let pid = i32::try_from(state["pid"].as_i64().expect("a pid")).expect("a pid");
                return Running { id, pid, child, bundle };
            }
            if let Some(status) = child.try_wait().expect("it is our child") {
                panic!("husk run ended with {status} before it ran");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("{id} does not run")
    }

    /// Waits for the end of `husk run`; its status.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        code(wait(&mut self.child, Duration::from_secs(30)).expect("husk run ends"))
    }
}

/// Sends a signal to a process.
#[track_caller]
pub fn kill(pid: i32, signal: i32) {
    let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("the process is there");
}

/// Takes leave of those that have become ours (this process must be a subreaper) and have ended.
pub fn reap() {
    let until = Instant::now() + Duration::from_secs(2);
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            if Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
