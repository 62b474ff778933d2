//! Runs hooks: programs of the bundle's author, on the host, with the caller's rights and nothing more of ours.

use super::OciState;
use super::error::ContainerError;
use crate::config::hook::Hook;
use crate::error::plain;
use crate::host::pidfd::PidFd;
use crate::host::{deadline, spawn};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// As much of what a hook prints is shown when it fails, in bytes.
const MOST_OUTPUT: usize = 4096;

/// Runs the hooks of one kind in order; the first that fails ends it. `network`: the process in whose network namespace
/// they run, if not in ours.
pub fn run(
    kind: &'static str,
    hooks: &[Hook],
    state: &OciState<'_>,
    network: Option<i32>,
) -> Result<(), ContainerError> {
    for (index, hook) in hooks.iter().enumerate() {
        one(hook, state, network).map_err(|reason| ContainerError::Hook { kind, index, reason })?;
    }
    Ok(())
}

/// Runs all hooks of one kind, as the spec has it for those that clean up: one that fails is told, and changes nothing.
pub fn run_all(kind: &'static str, hooks: &[Hook], state: &OciState<'_>) {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(reason) = one(hook, state, None) {
            // For the person: in the log callers look for errors, and there is none.
            crate::log::tell(&format!("WARNING: {}", ContainerError::Hook { kind, index, reason }));
        }
    }
}

fn one(hook: &Hook, state: &OciState<'_>, network: Option<i32>) -> Result<(), String> {
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
    let input = state_file(state).map_err(|error| plain(&error))?;
    command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = spawn::in_own_group(&mut command, network);
    let mut child = child.map_err(|error| format!("fork/exec {}: {}", hook.path, plain(&error)))?;
    let mut output = Output::of(&mut child).map_err(|error| plain(&error))?;
    let ended = output.follow(&child, hook.timeout).map_err(|error| plain(&error))?;
    if !ended {
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let _ = killpg(group, Signal::SIGKILL);
    }
    let status = child.wait().map_err(|error| plain(&error))?;
    match hook.timeout {
        Some(timeout) if !ended => {
            Err(format!("hook ran past specified timeout of {:.1}s", timeout.as_secs_f64()))
        }
        _ if status.success() => Ok(()),
        _ => Err(format!("{}, {}", how(status), output.shown())),
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or(0)),
    }
}

/// The state as a file in memory: a hook that does not read it cannot make us wait, as it could with a pipe.
fn state_file(state: &OciState<'_>) -> io::Result<File> {
    let memory = memfd_create("hook-state", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(memory);
    serde_json::to_writer(&file, state)?;
    file.rewind()?;
    Ok(file)
}

/// What a hook prints, for the message if it fails. Everything is read, so that it never waits for us; the beginning is
/// kept.
struct Output {
    pipes: [(Option<File>, Vec<u8>); 2],
}

impl Output {
    fn of(child: &mut Child) -> io::Result<Output> {
        let out = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let err = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        for pipe in [&out, &err].into_iter().flatten() {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Output { pipes: [(out, Vec::new()), (err, Vec::new())] })
    }

    /// Reads until the hook has ended (not until its pipes have: a child that it left behind may hold them), or its time
    /// is over. Whether it has ended.
    fn follow(&mut self, child: &Child, timeout: Option<Duration>) -> io::Result<bool> {
        let held = PidFd::open(i32::try_from(child.id()).unwrap_or(i32::MAX))?;
        let until = timeout.map(deadline::after);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let timeout = left
                .map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
            let mut waiting = vec![PollFd::new(held.as_fd(), PollFlags::POLLIN)];
            let open = self.pipes.iter().filter_map(|(pipe, _)| pipe.as_ref());
            waiting.extend(open.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waiting, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let ended = waiting.first().is_some_and(|hook| hook.any().unwrap_or(false));
            self.read();
            if ended {
                return Ok(true);
            }
        }
    }

    /// Reads what is there.
    fn read(&mut self) {
        let mut piece = [0; 16 << 10];
        for (pipe, kept) in &mut self.pipes {
            while let Some(open) = pipe {
                match open.read(&mut piece) {
                    Ok(0) => *pipe = None,
                    Ok(length) => {
                        let room = MOST_OUTPUT.saturating_sub(kept.len());
                        kept.extend(piece.iter().take(length.min(room)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Nothing more for now; or it is broken, and then the end of the hook is what we wait for.
                    Err(_) => break,
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
    use crate::container::Status;
    use crate::container::state::tests::example;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/usr/bin:/bin".into(), "GIVEN=yes".into()],
            timeout: timeout.map(Duration::from_secs),
        }
    }

    fn run_all(hooks: &[Hook]) -> Result<(), String> {
        let state = example("one");
        run("prestart", hooks, &OciState::of(&state, Status::Creating), None)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_hook_gets_the_state_and_its_own_environment_alone() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("seen");
        run_all(&[shell(&format!("{{ cat; env; }} > {}", to.display()), None)]).unwrap();
        let seen = std::fs::read_to_string(to).unwrap();
        assert!(seen.starts_with(r#"{"ociVersion":""#) && seen.contains(r#""status":"creating""#), "{seen}");
        assert!(seen.contains("GIVEN=yes") && !seen.contains("CARGO"), "{seen}");
    }

    #[test]
    fn the_first_hook_that_fails_is_named_with_what_it_printed() {
        let error = run_all(&[
            shell("exit 0", None),
            shell("echo out; echo err >&2; exit 3", None),
            shell("false", None),
        ]);
        assert_eq!(
            error.unwrap_err(),
            "error running prestart hook #1: exit status 3, stdout: out, stderr: err"
        );
    }

    #[test]
    fn a_hook_that_is_not_there_is_told_in_the_kernels_words() {
        let missing = Hook { path: "/no/such/hook".into(), args: vec![], env: vec![], timeout: None };
        let error = run_all(&[missing]).unwrap_err();
        assert_eq!(
            error,
            "error running prestart hook #0: fork/exec /no/such/hook: no such file or directory"
        );
    }

    #[test]
    fn a_hook_that_hangs_is_killed_with_its_children_when_its_time_is_over() {
        let began = Instant::now();
        let error = run_all(&[shell("sleep 100 & sleep 100", Some(1))]).unwrap_err();
        assert_eq!(error, "error running prestart hook #0: hook ran past specified timeout of 1.0s");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_child_that_a_hook_leaves_behind_and_endless_output_do_not_hold_us() {
        let began = Instant::now();
        run_all(&[shell("sleep 20 & exit 0", None), shell("head -c 10000000 /dev/zero; exit 0", None)])
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
