//! A process's streams: what containerd names, opened, and handed to the machine as they are.
//!
//! ```text
//!   client --write--> FIFO --read--> machine        the shim holds a write end until CloseIO: who detaches ends nothing
//!   machine --write--> FIFO --read--> client        the shim holds a read end until the process is deleted: a client that
//!                                                   comes late, or goes and comes back, has lost nothing
//! ```
//! Both ends of a FIFO are opened here at once, so that nothing waits for a client that never comes.

use crate::failure::Failure;
use crate::logger::Logger;
use containerd_shim_protos::api::StateResponse;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What containerd named. Empty: /dev/null.
#[derive(Debug, Default, Clone)]
pub struct Names {
    /// Whether it is a terminal.
    pub terminal: bool,
    /// A FIFO.
    pub stdin: String,
    /// A FIFO, `file://` or `binary://`.
    pub stdout: String,
    /// The same; a terminal has none.
    pub stderr: String,
}

impl Names {
    /// As a state tells them.
    pub fn tell(&self, response: &mut StateResponse) {
        response.terminal = self.terminal;
        response.stdin.clone_from(&self.stdin);
        response.stdout.clone_from(&self.stdout);
        response.stderr.clone_from(&self.stderr);
    }
}

/// The descriptors that the machine gets. Dropped when it has them.
pub struct Given([OwnedFd; 3]);

impl Given {
    /// To be handed over.
    pub fn borrow(&self) -> [BorrowedFd<'_>; 3] {
        self.0.each_ref().map(AsFd::as_fd)
    }
}

/// What the shim holds while the process is known.
#[derive(Default)]
pub struct Held {
    terminal: bool,
    /// The end of stdin that keeps it open.
    stdin: Mutex<Option<OwnedFd>>,
    /// The ends of stdout and stderr that keep them open.
    _outputs: Vec<OwnedFd>,
    _logger: Option<Logger>,
}

impl Held {
    /// Nobody writes to its stdin any more, but for clients that have it open. A terminal has no end of input.
    pub fn close_stdin(&self) {
        if !self.terminal {
            self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// Opens what is named, for process `id` in `namespace`.
pub fn open(names: &Names, namespace: &str, id: &str) -> Result<(Given, Held), Failure> {
    let mut held = Held { terminal: names.terminal, ..Default::default() };
    let stdin = held.input(names)?;
    let (stdout, stderr) = match scheme(&names.stdout) {
        ("binary", uri) => {
            let (logger, outputs) = Logger::start(uri, namespace, id)?;
            held._logger = Some(logger);
            outputs
        }
        _ => {
            let stdout = held.output(&names.stdout)?;
            let stderr = if names.terminal { null()? } else { held.output(&names.stderr)? };
            (stdout, stderr)
        }
    };
    Ok((Given([stdin, stdout, stderr]), held))
}

impl Held {
    fn input(&mut self, names: &Names) -> Result<OwnedFd, Failure> {
        match (names.stdin.as_str(), names.terminal) {
            ("", false) => null(),
            // A terminal at which nobody will ever type is not one that was hung up.
            ("", true) => {
                let (read, write) = std::io::pipe().map_err(|error| Failure::host("make a pipe", &error))?;
                self.stdin = Mutex::new(Some(write.into()));
                Ok(read.into())
            }
            (name, _) => {
                let path = Path::new(name);
                let read = opened(path, File::options().read(true).custom_flags(libc::O_NONBLOCK))?;
                if is_fifo(&read) {
                    let write = opened(path, File::options().write(true).custom_flags(libc::O_NONBLOCK))?;
                    self.stdin = Mutex::new(Some(write.into()));
                }
                blocking(&read)?;
                Ok(read.into())
            }
        }
    }

    fn output(&mut self, name: &str) -> Result<OwnedFd, Failure> {
        match scheme(name) {
            (_, "") => null(),
            ("file", path) => {
                let path = Path::new(path);
                if let Some(directory) = path.parent() {
                    // If it cannot be made, opening says why.
                    let _ = std::fs::create_dir_all(directory);
                }
                Ok(opened(path, File::options().append(true).create(true).mode(0o644))?.into())
            }
            ("" | "fifo", path) => {
                let path = Path::new(path);
                // First, for without a reader the other cannot be opened.
                let read = opened(path, File::options().read(true).custom_flags(libc::O_NONBLOCK))?;
                if !is_fifo(&read) {
                    return Ok(opened(path, File::options().append(true))?.into());
                }
                self._outputs.push(read.into());
                let write = opened(path, File::options().write(true).custom_flags(libc::O_NONBLOCK))?;
                blocking(&write)?;
                Ok(write.into())
            }
            (scheme, _) => Err(Failure::invalid(format!("unknown STDIO scheme {scheme:?} in {name:?}"))),
        }
    }
}

/// `scheme://rest`; without one the whole is a path.
fn scheme(name: &str) -> (&str, &str) {
    name.split_once("://").unwrap_or(("", name))
}

fn opened(path: &Path, options: &std::fs::OpenOptions) -> Result<File, Failure> {
    options.open(path).map_err(|error| Failure::host(&format!("open {}", path.display()), &error))
}

fn null() -> Result<OwnedFd, Failure> {
    Ok(opened(Path::new("/dev/null"), File::options().read(true).write(true))?.into())
}

fn is_fifo(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.file_type().is_fifo())
}

/// As a process expects it: it must not find out how it was opened.
fn blocking(file: &File) -> Result<(), Failure> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_SETFL(OFlag::empty()))
        .map(drop)
        .map_err(|error| Failure::host("make a FIFO blocking", &error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::io::{Read, Write};

    struct Stage {
        directory: tempfile::TempDir,
        names: Names,
    }

    fn stage(terminal: bool) -> Stage {
        let directory = tempfile::tempdir().unwrap();
        let fifo = |name: &str| {
            let path = directory.path().join(name);
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let stderr = if terminal { String::new() } else { fifo("stderr") };
        let names = Names { terminal, stdin: fifo("stdin"), stdout: fifo("stdout"), stderr };
        Stage { directory, names }
    }

    #[test]
    fn fifos_are_opened_without_a_client_and_what_was_written_waits_for_a_late_one() {
        let stage = stage(false);
        let (given, held) = open(&stage.names, "default", "one").unwrap();
        let Given([stdin, stdout, _]) = given;
        File::from(stdout).write_all(b"early").unwrap();
        let mut seen = String::new();
        let mut late = File::options();
        // The writer has gone: to wait for one is not what is shown here.
        let late = late.read(true).custom_flags(libc::O_NONBLOCK).open(&stage.names.stdout);
        late.unwrap().read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "early");
        // A client that leaves ends nothing; CloseIO does.
        File::options().write(true).open(&stage.names.stdin).unwrap().write_all(b"typed").unwrap();
        let mut stdin = File::from(stdin);
        let mut typed = [0; 5];
        stdin.read_exact(&mut typed).unwrap();
        nix::fcntl::fcntl(&stdin, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        assert_eq!(stdin.read(&mut typed).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        held.close_stdin();
        assert_eq!(stdin.read(&mut typed).unwrap(), 0);
    }

    #[test]
    fn the_input_of_a_terminal_has_no_end() {
        let stage = stage(true);
        let (Given([stdin, ..]), held) = open(&stage.names, "default", "one").unwrap();
        held.close_stdin();
        nix::fcntl::fcntl(&stdin, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let error = File::from(stdin).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_file_is_appended_to_and_made_with_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/log");
        let uri = format!("file://{}", path.display());
        let names = Names { stdout: uri.clone(), stderr: uri, ..Default::default() };
        let (Given([_, stdout, stderr]), _held) = open(&names, "default", "one").unwrap();
        File::from(stdout).write_all(b"out ").unwrap();
        File::from(stderr).write_all(b"err").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "out err");
    }

    #[test]
    fn a_fifo_that_is_not_there_and_a_scheme_that_nobody_knows_are_refused() {
        let stage = stage(false);
        let missing =
            Names { stdout: stage.directory.path().join("no").display().to_string(), ..Default::default() };
        assert_eq!(open(&missing, "default", "one").err().unwrap().code, ttrpc::Code::NOT_FOUND);
        let strange = Names { stdout: "ftp://x/y".into(), ..Default::default() };
        assert_eq!(open(&strange, "default", "one").err().unwrap().code, ttrpc::Code::INVALID_ARGUMENT);
    }
}
