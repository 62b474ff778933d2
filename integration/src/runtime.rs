//! A runtime under test, called as a caller calls it.

use std::{
    ffi::OsStr,
    io::Read,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// How long one command may take in the emulated machine before a test calls it hung.
/// Whole-sized tests (`HUSK_FULL`) take up to an hour there.
static HUNG: LazyLock<Duration> =
    LazyLock::new(|| Duration::from_secs(if std::env::var_os("HUSK_FULL").is_some() { 3600 } else { 400 }));

/// husk, or another runtime to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The one under test.
    Husk,
    /// The same, made with points at which it stops when it is told to (`HUSK_FAULT_POINT`).
    Stopping,
    /// The oracle.
    Runc,
    /// For comparison in benchmarks.
    Crun,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status, or 128 + the signal that ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Panics with everything that was printed unless the status was 0.
    #[track_caller]
    pub fn ok(self) -> Output {
        assert_eq!(self.code, 0, "the command failed: {self:#?}");
        self
    }
}

impl Runtime {
    /// The program.
    pub fn program(self) -> PathBuf {
        match self {
            Runtime::Husk => named_by("HUSK"),
            Runtime::Stopping => named_by("HUSK_STOPPING"),
            Runtime::Runc => "runc".into(),
            Runtime::Crun => "crun".into(),
        }
    }

    /// A command to be completed and spawned by the test.
    pub fn command<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.program());
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, with nothing on stdin.
    #[track_caller]
    pub fn call<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Output {
        run(self.command(args))
    }
}

fn named_by(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{variable} is not set: run `make test`"))
}

/// Runs a command to its end and collects what it printed. Panics if it hangs.
#[track_caller]
pub fn run(mut command: Command) -> Output {
    let described = format!("{command:?}");
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be run");
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let status = wait(&mut child, *HUNG).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("no end after {:?}: {described}", *HUNG)
    });
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("the reader ends")).into_owned()
    };
    Output { code: code(status), stdout: text(stdout), stderr: text(stderr) }
}

/// Waits for a child's end, for `limit` at most.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A status as a shell shows it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn collect(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}
