//! startContainer hooks: programs of the container's file system, run by its first process when `start` has been asked
//! for, before it becomes the container's program. They are what that program will be: in its namespaces, its user,
//! under its limits and its filter.
//!
//! What they do is the container's own affair; nothing of it is believed here. The file with the state is made before a
//! filter is in force, since a filter need not know memfd_create(2).

use crate::sys::{self, process as kernel};
use husk_protocol::Hook;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// As much of what a hook prints is shown when it fails, in bytes.
const MOST_OUTPUT: usize = 1024;
/// How often a hook that prints nothing is looked at, in milliseconds.
const GLANCE: u8 = 5;

/// A hook failed, in runc's words.
#[derive(Debug, thiserror::Error)]
#[error("error running startContainer hook #{index}: {reason}")]
pub struct HookError {
    index: usize,
    reason: String,
}

/// Hooks, and the state that they are told.
pub struct StartHooks<'a> {
    hooks: &'a [Hook],
    /// `None` when there is no hook.
    state: Option<File>,
}

impl<'a> StartHooks<'a> {
    /// Writes down the state, in the process that the state is of.
    pub fn prepare(given: &'a husk_protocol::StartHooks) -> Result<Self, HookError> {
        if given.hooks.is_empty() {
            return Ok(Self { hooks: &[], state: None });
        }
        let text = format!("{}{}{}", given.state_head, std::process::id(), given.state_tail);
        let write = || -> sys::Result<File> {
            let mut file = File::from(memfd_create("hook-state", MFdFlags::MFD_CLOEXEC)?);
            file.write_all(text.as_bytes())?;
            Ok(file)
        };
        let state = write().map_err(|error| HookError { index: 0, reason: error.to_string() })?;
        Ok(Self { hooks: &given.hooks, state: Some(state) })
    }

    /// Runs them in order; the first that fails ends it. Whether there were any.
    pub fn run(&self) -> Result<bool, HookError> {
        let Some(state) = &self.state else { return Ok(false) };
        for (index, hook) in self.hooks.iter().enumerate() {
            one(hook, state).map_err(|reason| HookError { index, reason })?;
        }
        Ok(true)
    }
}

fn one(hook: &Hook, state: &File) -> Result<(), String> {
    let plain = |error: io::Error| sys::Error::from(error).to_string();
    let mut command = Command::new(&hook.path);
    // The first argument is the name that the hook sees, as for execve(2).
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.env_clear();
    for entry in &hook.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !name.is_empty() {
            command.env(name, value);
        }
    }
    kernel::in_own_group(&mut command);
    let mut input = state.try_clone().map_err(plain)?;
    input.rewind().map_err(plain)?;
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("fork/exec {}: {}", hook.path, plain(error)))?;
    let timeout = hook.timeout.map(Duration::from_millis);
    let mut output = Output::of(&mut child).map_err(plain)?;
    let ended = output.follow(&mut child, timeout).map_err(plain)?;
    let Some(status) = ended else {
        let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = child.wait(); // it was told to end, and what it says of that is of no use
        let seconds = timeout.unwrap_or_default().as_secs_f64();
        return Err(format!("hook ran past specified timeout of {seconds:.1}s"));
    };
    if status.success() { Ok(()) } else { Err(format!("{}, {}", how(status), output.shown())) }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or(0)),
    }
}

/// What a hook prints: everything is read, the beginning is kept.
struct Output {
    pipes: [(Option<File>, Vec<u8>); 2],
}

impl Output {
    fn of(child: &mut Child) -> io::Result<Self> {
        let out = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let err = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        for pipe in [&out, &err].into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { pipes: [(out, Vec::new()), (err, Vec::new())] })
    }

    /// Reads until the hook has ended (a child that it left behind may hold its pipes); `None` if its time was over first.
    fn follow(&mut self, child: &mut Child, timeout: Option<Duration>) -> io::Result<Option<ExitStatus>> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let ended = child.try_wait()?;
            self.read();
            if ended.is_some() || until.is_some_and(|until| Instant::now() >= until) {
                return Ok(ended);
            }
            let open = self.pipes.iter().filter_map(|(pipe, _)| pipe.as_ref());
            let mut waiting: Vec<PollFd<'_>> =
                open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut waiting, PollTimeout::from(GLANCE)); // whatever it says, we look again
        }
    }

    fn read(&mut self) {
        let mut piece = [0; 4096];
        for (pipe, kept) in &mut self.pipes {
            while let Some(open) = pipe {
                match open.read(&mut piece) {
                    Ok(0) => *pipe = None,
                    Ok(length) => {
                        let room = MOST_OUTPUT.saturating_sub(kept.len());
                        kept.extend(piece.iter().take(length.min(room)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break, // nothing more for now
                }
            }
        }
    }

    fn shown(&self) -> String {
        let [(_, out), (_, err)] = &self.pipes;
        let line = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().replace('\n', " ");
        format!("stdout: {}, stderr: {}", line(out), line(err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, timeout: Option<u64>) -> Result<(), String> {
        let hook = Hook {
            path: "/bin/sh".to_owned(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/usr/bin:/bin".to_owned(), "GIVEN=yes".to_owned()],
            timeout,
        };
        let given = husk_protocol::StartHooks {
            hooks: vec![hook.clone(), hook],
            state_head: "{\"pid\":".to_owned(),
            state_tail: "}".to_owned(),
        };
        StartHooks::prepare(&given).unwrap().run().map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn each_gets_the_whole_state_and_its_own_environment() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("seen");
        run(&format!("cat >> {0}; env | grep -E '^(GIVEN|CARGO)' >> {0}", to.display()), None).unwrap();
        let once = format!("{{\"pid\":{}}}GIVEN=yes\n", std::process::id());
        assert_eq!(std::fs::read_to_string(to).unwrap(), once.repeat(2));
    }

    #[test]
    fn failures_have_runcs_words() {
        for (script, timeout, words) in [
            ("echo out; echo err >&2; exit 3", None, "exit status 3, stdout: out, stderr: err"),
            ("kill -9 $$", None, "signal: 9, stdout: , stderr: "),
            ("sleep 100 & sleep 100", Some(100), "hook ran past specified timeout of 0.1s"),
        ] {
            assert_eq!(
                run(script, timeout).unwrap_err(),
                format!("error running startContainer hook #0: {words}")
            );
        }
    }

    #[test]
    fn a_child_left_behind_and_endless_output_do_not_hold_us() {
        let began = Instant::now();
        run("sleep 20 & head -c 10000000 /dev/zero", None).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
