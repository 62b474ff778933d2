//! A program that takes a process's output, as `binary://` names it.

use crate::failure::Failure;
use husk::process::signal;
use nix::fcntl::{FcntlArg, fcntl};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long it may take until it is ready.
const TO_BE_READY: Duration = Duration::from_secs(12);
/// How long it may take to end after the last byte.
const TO_END: Duration = Duration::from_secs(10);
/// Where it finds its descriptors.
const FIRST: RawFd = 3;
/// Above all of them.
const OUT_OF_THE_WAY: RawFd = 10;

/// A program that takes the output: its descriptors 3 and 4 are stdout and stderr, and it closes 5 when it is ready.
pub struct Logger(Child);

impl Logger {
    /// `uri`: the program's path, and its arguments as a query.
    pub fn start(uri: &str, namespace: &str, id: &str) -> Result<(Logger, (OwnedFd, OwnedFd)), Failure> {
        let pipe = || std::io::pipe().map_err(|error| Failure::host("make a pipe", &error));
        let ((stdout, to_stdout), (stderr, to_stderr), (mut ready, to_ready)) = (pipe()?, pipe()?, pipe()?);
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let path = decoded(path)?;
        let mut command = Command::new(&path);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            command.args([decoded(name)?, decoded(value)?]);
        }
        command.env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        place(&mut command, [stdout.into(), stderr.into(), to_ready.into()])?;
        let child = signal::unblock_in(&mut command)
            .spawn()
            .map_err(|error| Failure::host(&format!("start the logging program {path}"), &error))?;
        // With it our copies of its descriptors go, so that the end of one is seen.
        drop(command);
        let logger = Logger(child);
        if !heard(&mut ready) {
            return Err(Failure::new(
                ttrpc::Code::DEADLINE_EXCEEDED,
                format!("the logging program {path} did not get ready in {} s", TO_BE_READY.as_secs()),
            ));
        }
        Ok((logger, (to_stdout.into(), to_stderr.into())))
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        // It ends by itself when it has read everything.
        let held = i32::try_from(self.0.id()).ok().and_then(|pid| husk::host::pidfd::PidFd::open(pid).ok());
        if !held.is_some_and(|held| held.wait(TO_END).unwrap_or(false)) {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// Has `command` find these at 3, 4 and 5.
fn place(command: &mut Command, descriptors: [OwnedFd; 3]) -> Result<(), Failure> {
    let failed = |error: nix::Error| Failure::host("place a descriptor", &error.into());
    let mut places = Vec::with_capacity(descriptors.len());
    for (number, descriptor) in (FIRST..).zip(descriptors) {
        // Out of the way of the numbers where they are to be.
        let away = fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(OUT_OF_THE_WAY)).map_err(failed)?;
        // SAFETY: the kernel has just made this descriptor for us.
        places.push((number, unsafe { OwnedFd::from_raw_fd(away) }));
    }
    let place = move || {
        for (number, descriptor) in &places {
            // SAFETY: dup2 takes two numbers and is async-signal-safe.
            if unsafe { libc::dup2(descriptor.as_raw_fd(), *number) } == -1 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: `place` makes no others.
    unsafe { command.pre_exec(place) };
    Ok(())
}

/// Waits for a byte or the end.
fn heard(ready: &mut std::io::PipeReader) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let limit = PollTimeout::try_from(TO_BE_READY).unwrap_or(PollTimeout::MAX);
    let heard = poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], limit);
    matches!(heard, Ok(1..)) && ready.read(&mut [0; 1]).is_ok()
}

/// `%41` is `A`.
fn decoded(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::invalid(format!("{text:?} is not a URI's part"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().ok_or_else(wrong)?, rest.next().ok_or_else(wrong)?];
                let digits = std::str::from_utf8(&digits).map_err(|_| wrong())?;
                u8::from_str_radix(digits, 16).map_err(|_| wrong())?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_logging_program_gets_both_streams_its_arguments_and_the_containers_name() {
        let directory = tempfile::tempdir().unwrap();
        let (program, log) = (directory.path().join("logger"), directory.path().join("log"));
        let script = "#!/bin/sh\nexec 5>&-\n{ echo \"$1 $2 $CONTAINER_NAMESPACE/$CONTAINER_ID\"; cat <&3; cat <&4; } >\"$2\"\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let uri = format!("{}?--to={}", program.display(), log.display().to_string().replace('/', "%2F"));
        let (logger, (stdout, stderr)) = Logger::start(&uri, "default", "one").unwrap();
        File::from(stdout).write_all(b"out\n").unwrap();
        File::from(stderr).write_all(b"err\n").unwrap();
        drop(logger);
        let seen = std::fs::read_to_string(&log).unwrap();
        assert_eq!(seen, format!("--to {} default/one\nout\nerr\n", log.display()));
    }

    #[test]
    fn a_program_that_is_not_there_is_told_by_its_name() {
        let failure = Logger::start("/nonexistent/logger", "default", "one").err().unwrap();
        assert!(failure.message.contains("/nonexistent/logger"), "{failure}");
    }
}
