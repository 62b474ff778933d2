//! The last stretch of a child's way, the same for a container's first process and for an exec: from "in its namespaces"
//! to the program.
//!
//! The order is runc's: what needs privilege first, then the user, then what must be seen as that user (working
//! directory, program), and the system call filter as late as can be: after everything when no_new_privs allows loading it
//! without privilege, else just before privilege goes.

use super::environment;
use super::hooks::{HookError, StartHooks};
use super::identity::{self, IdentityError};
use super::lookup::{self, LookupError};
use crate::channel::{ChildEnd, Note, Order};
use crate::sys::{self, file, process as kernel};
use husk_protocol::Process;
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// stdin, stdout, stderr or the controlling terminal.
    #[error("set up stdio")]
    Stdio(#[source] sys::Error),
    /// See there.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The working directory.
    #[error("chdir to cwd ({cwd:?}) set in config.json failed")]
    WorkingDirectory {
        /// Which.
        cwd: String,
        /// Why.
        source: sys::Error,
    },
    /// It leads out.
    #[error(
        "current working directory is outside of container mount namespace root -- possible container breakout detected"
    )]
    Outside,
    /// See there.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// An argument holds a NUL byte.
    #[error("argument {0:?} cannot be passed to a program")]
    Argument(String),
    /// Descriptors.
    #[error("close descriptors")]
    Descriptors(#[source] sys::Error),
    /// The agent is gone or has given up.
    #[error("wait to start")]
    Wait(#[source] sys::Error),
    /// See there.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// execve(2).
    #[error("exec {program}")]
    Execute {
        /// What.
        program: String,
        /// Why.
        source: sys::Error,
    },
}

/// The process's ends of its streams.
pub struct Stdio {
    /// Descriptor 0.
    pub stdin: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
    /// They are a terminal, to be the controlling one.
    pub terminal: bool,
}

/// Becomes the process and executes the program. Returns only failures. A container's first process, which has `hooks`,
/// waits for the order to start before that, and then runs them.
pub fn run(
    process: &Process,
    personality: Option<u64>,
    stdio: &Stdio,
    channel: &ChildEnd,
    hooks: Option<&StartHooks<'_>>,
) -> ProgramError {
    match prepare(process, personality, stdio, channel) {
        Ok(program) => launch(program, channel, hooks).unwrap_or_else(|error| error),
        Err(error) => error,
    }
}

/// A program found and its environment.
struct Program {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

fn prepare(
    process: &Process,
    personality: Option<u64>,
    stdio: &Stdio,
    channel: &ChildEnd,
) -> Result<Program, ProgramError> {
    take_stdio(stdio, process.user.uid).map_err(ProgramError::Stdio)?;
    identity::set_scheduling(process, personality)?;
    identity::set_limits(&process.rlimits)?;
    identity::set_no_new_privileges(process.no_new_privileges)?;
    let root = file::open_at(file::here(), c"/", libc::O_PATH | libc::O_DIRECTORY, 0, 0)
        .map_err(ProgramError::Descriptors)?;
    let environment = environment::complete(&process.env, process.user.uid, root.as_fd());
    drop(root);
    // Before the filter, which may know close_range(2) as little as its writer did. What is opened later says so itself.
    file::close_all_on_exec().map_err(ProgramError::Descriptors)?;
    if !process.no_new_privileges {
        identity::load_filter(process)?;
    }
    identity::bound(&process.capabilities)?;
    let entered = enter_directory(&process.cwd, true)?;
    identity::become_user(&process.user)?;
    if !entered {
        enter_directory(&process.cwd, false)?;
    }
    identity::set_capabilities(&process.capabilities)?;
    kernel::working_directory().map_err(|_| ProgramError::Outside)?;
    let name = process.args.first().map_or("", String::as_str);
    let path = lookup::find(name, environment::search_path(&process.env))?;
    let arguments = process
        .args
        .iter()
        .map(|argument| CString::new(argument.as_str()).map_err(|_| ProgramError::Argument(argument.clone())))
        .collect::<Result<_, _>>()?;
    umask(Mode::from_bits_truncate(process.user.umask.unwrap_or(0o022)));
    if let Some((_, Some(last))) = &process.cpu_affinity {
        identity::set_affinity(last)?;
    }
    if process.no_new_privileges {
        identity::load_filter(process)?;
    }
    channel.tell(&Note::Prepared).map_err(ProgramError::Wait)?;
    Ok(Program { path, arguments, environment })
}

fn launch(
    program: Program,
    channel: &ChildEnd,
    hooks: Option<&StartHooks<'_>>,
) -> Result<ProgramError, ProgramError> {
    if let Some(hooks) = hooks {
        channel.wait(Order::Start).map_err(ProgramError::Wait)?;
        if hooks.run()? {
            channel.tell(&Note::Hooked).map_err(ProgramError::Wait)?;
        }
    }
    let source = kernel::execute(&program.path, &program.arguments, &program.environment);
    Ok(ProgramError::Execute { program: program.path.to_string_lossy().into_owned(), source })
}

/// Puts the streams at 0, 1 and 2, owned by the user so that /dev/stdout can be opened again.
fn take_stdio(stdio: &Stdio, uid: u32) -> sys::Result<()> {
    for stream in [&stdio.stdin, &stdio.stdout, &stdio.stderr] {
        let status = nix::sys::stat::fstat(stream)?;
        let device = status.st_mode & libc::S_IFMT == libc::S_IFCHR;
        let shared = device && !stdio.terminal; // /dev/null stays whose it is
        if !shared && status.st_uid != uid {
            match nix::unistd::fchown(stream, Some(uid.into()), None) {
                // An id without a mapping, or a read-only devpts: the process has the descriptor all the same.
                Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    nix::unistd::dup2_stdin(&stdio.stdin)?;
    nix::unistd::dup2_stdout(&stdio.stdout)?;
    nix::unistd::dup2_stderr(&stdio.stderr)?;
    if stdio.terminal { sys::terminal::take_control(&stdio.stdin) } else { Ok(()) }
}

/// Goes to the working directory. `false`: not allowed yet, to be tried again as the user.
fn enter_directory(cwd: &str, privileged: bool) -> Result<bool, ProgramError> {
    if cwd.is_empty() {
        return Ok(true);
    }
    match nix::unistd::chdir(cwd) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM | Errno::EACCES) if privileged => Ok(false),
        Err(errno) => Err(ProgramError::WorkingDirectory { cwd: cwd.to_owned(), source: errno.into() }),
    }
}
