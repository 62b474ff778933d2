//! A container whose `create`, `start` and `delete` belong to the test.

use crate::{
    bundle::Bundle,
    runtime::{Output, Runtime},
    scenario::fresh_id,
};
use serde_json::Value;
use std::{ffi::OsStr, fs, fs::File, path::Path, time::Duration};

/// A created container; what its process prints goes to files in its bundle.
pub struct Created {
    /// Its id.
    pub id: String,
    /// Its bundle.
    pub bundle: Bundle,
    runtime: Runtime,
}

impl Created {
    /// Creates it from `bundle`. The test process takes in what `create` leaves, as containerd's shim and conmon do.
    #[track_caller]
    pub fn new(runtime: Runtime, bundle: Bundle) -> Created {
        let (created, output) = Created::attempt(runtime, bundle);
        assert_eq!(output.code, 0, "create failed: {}", output.stderr);
        created
    }

    /// Creates it and starts it.
    #[track_caller]
    pub fn started(runtime: Runtime, bundle: Bundle) -> Created {
        let created = Created::new(runtime, bundle);
        created.call("start", &[]).ok();
        created
    }

    /// Creates it with husk, with an operator's configuration of its own.
    #[track_caller]
    pub fn configured(bundle: Bundle, config: &Path) -> Created {
        let (created, output) =
            Created::make(Runtime::Husk, bundle, &["--config".as_ref(), config.as_os_str()]);
        assert_eq!(output.code, 0, "create failed: {}", output.stderr);
        created
    }

    /// Creates it with systemd making its control group.
    #[track_caller]
    pub fn under_systemd(runtime: Runtime, bundle: Bundle) -> Created {
        let (created, output) = Created::make(runtime, bundle, &["--systemd-cgroup".as_ref()]);
        assert_eq!(output.code, 0, "create failed: {}", output.stderr);
        created
    }

    /// Tries to create it. `stderr` is of `create`.
    pub fn attempt(runtime: Runtime, bundle: Bundle) -> (Created, Output) {
        Created::make(runtime, bundle, &[])
    }

    fn make(runtime: Runtime, bundle: Bundle, options: &[&OsStr]) -> (Created, Output) {
        nix::sys::prctl::set_child_subreaper(true).expect("prctl works");
        let id = fresh_id();
        let path = bundle.write().to_owned();
        // What the container inherits must not be our pipes, or their end would never come.
        let out = File::create(path.join("stdout")).expect("a file");
        let err = File::create(path.join("stderr")).expect("a file");
        let pid_file = path.join("pid");
        let create = [
            "create".as_ref(),
            "--bundle".as_ref(),
            path.as_os_str(),
            "--pid-file".as_ref(),
            pid_file.as_os_str(),
            id.as_ref(),
        ];
        let mut command = runtime.command([options, &create].concat());
        let status = command.stdout(out).stderr(err).status().expect("the runtime can be run");
        let stderr = fs::read_to_string(path.join("stderr")).expect("the file is there");
        let output = Output { code: crate::runtime::code(status), stdout: String::new(), stderr };
        (Created { id, bundle, runtime }, output)
    }

    /// `RUNTIME VERB ID WORDS`
    #[track_caller]
    pub fn call(&self, verb: &str, words: &[&str]) -> Output {
        self.runtime.call([&[verb, &self.id], words].concat())
    }

    /// `RUNTIME VERB OPTIONS ID WORDS`
    #[track_caller]
    pub fn call_with(&self, verb: &str, options: &[&str], words: &[&str]) -> Output {
        self.runtime.call([&[verb], options, &[&self.id], words].concat())
    }

    /// Runs a shell script in it.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Output {
        self.call("exec", &["sh", "-c", script])
    }

    /// What its process has printed so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(self.bundle.path.join("stdout")).expect("the file is there")
    }

    /// Its `state`.
    #[track_caller]
    pub fn state(&self) -> Value {
        serde_json::from_str(&self.call("state", &[]).ok().stdout).expect("state is JSON")
    }

    /// Its pid, as `create` wrote it.
    pub fn pid(&self) -> i32 {
        fs::read_to_string(self.bundle.path.join("pid"))
            .expect("the file is there")
            .parse()
            .expect("a number")
    }

    /// Waits until it has this status.
    #[track_caller]
    pub fn wait_for(&self, status: &str) {
        for _ in 0..300 {
            if self.state()["status"] == status {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{} does not become {status}: {}", self.id, self.state());
    }

    /// Waits until its process has printed `text`.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        for _ in 0..300 {
            if self.stdout().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{text:?} was not printed: {:?}", self.stdout());
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        let pid =
            fs::read_to_string(self.bundle.path.join("pid")).ok().and_then(|pid| pid.parse::<i32>().ok());
        let _ = self.runtime.call(["delete", "--force", &self.id]);
        if let Some(pid) = pid {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        }
    }
}
