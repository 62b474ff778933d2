//! Makes a template.

use super::state::{Identity, MadeFrom, MemoryFile, State};
use super::{EXTENSION, Touched, path, stem, stretches};
use crate::host::deadline::{self, poll};
use crate::host::lock::DirectoryLock;
use crate::machine::kvm::{Kvm, SavedChips};
use crate::machine::order::{MachineConfig, SystemCalls};
use crate::machine::parts::PartsError;
use crate::machine::{Machine, MachineError, Parts, Running};
use nix::poll::{PollFd, PollFlags};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What was made.
#[derive(Debug)]
pub struct Made {
    /// Where its state is.
    pub path: PathBuf,
    /// How many bytes its memory takes.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Boots a guest and saves it where its agent waits, to `directory`. An older template of that size is replaced at the last
/// moment; starts that are under way keep what they have. The guest ends with this process.
pub fn make(directory: &Path, config: &MachineConfig) -> Result<Made, MakeError> {
    let began = Instant::now();
    let host = |what| move |source| MakeError::Host { what, source };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(host("make its directory"))?;
    let lock = DirectoryLock::take(directory, Duration::ZERO).map_err(host("lock its directory"))?;
    let _lock = lock.ok_or(MakeError::Busy)?;
    let parts = Parts::find(config)?;
    // Before anything runs: what is changed from here on makes a template that does not fit.
    let made_from = MadeFrom::of(config, &parts).map_err(host("look at what it is made from"))?;
    let msrs = Kvm::open().and_then(|kvm| kvm.msrs()).map_err(MachineError::Kvm)?;

    // Nothing of a stranger's is in this guest, and its vcpus' threads have to take their states.
    let own = MachineConfig { system_calls: SystemCalls::Allow, ..config.clone() };
    let running = Machine::assemble(&own, &parts)?.run_unanswered()?;
    await_call(&running, Duration::from_millis(config.boot_timeout_ms))?;
    let vcpus = running.save_vcpus(msrs)?;
    let registers = running.windows().iter().map(|window| window.suspend()).collect();
    let chips = SavedChips::of(running.vm()).map_err(MachineError::Kvm)?;

    let held = stretches::filled(running.memory()).map_err(host("look at its memory"))?;
    let bytes = held.last().map_or(0, |last| last.offset.saturating_add(last.length));
    let memory = NewFile::create(directory, config).map_err(host("create the file for its memory"))?;
    let written = stretches::write_out(running.memory(), &held, &memory.file);
    written.and_then(|()| memory.file.sync_all()).map_err(host("write its memory"))?;
    let metadata = memory.file.metadata().map_err(host("write its memory"))?;
    let memory_file =
        MemoryFile { name: memory.name.clone(), identity: Identity::of(&metadata), stretches: held };
    let touched = Touched::default();
    let state = State { made_from, memory: memory_file, registers, chips, vcpus, touched };
    let path = path(directory, config);
    state.write(&path).map_err(host("write its state"))?;
    memory.keep_alone(directory, config);
    Ok(Made { path, bytes, took: began.elapsed() })
}

/// Waits until the agent has called the host, and the guest then has nothing more to do.
fn await_call(running: &Running, patience: Duration) -> Result<(), MakeError> {
    let until = deadline::after(patience);
    let lost = || MakeError::Guest(running.kernel_log().last_words());
    let called = running.windows().first().and_then(|vsock| vsock.kicks().get(VSOCK_FROM_GUEST));
    let called = called.ok_or_else(lost)?;
    // SAFETY: the window keeps it open, and `running` the window.
    #[allow(unsafe_code)]
    let called = unsafe { BorrowedFd::borrow_raw(called.as_raw_fd()) };
    let mut watched =
        [PollFd::new(called, PollFlags::POLLIN), PollFd::new(running.end_event(), PollFlags::POLLIN)];
    loop {
        let _ = poll(&mut watched, deadline::poll_timeout(Some(until)));
        let [called, ended] = [&watched[0], &watched[1]].map(|fd| fd.any().unwrap_or(false));
        match (called, ended) {
            (_, true) => return Err(lost()),
            (true, false) => break,
            _ if Instant::now() >= until => return Err(lost()),
            _ => {}
        }
    }
    // It goes on furnishing its guest. Stopped too early, every copy would do that again: slower, and no worse.
    let mut quiet = 0;
    while quiet < QUIET_LOOKS && Instant::now() < until {
        std::thread::sleep(BETWEEN_LOOKS);
        quiet = if vcpus_sleep() { quiet.saturating_add(1) } else { 0 };
    }
    Ok(())
}

/// Whether all vcpus' threads wait in KVM for an interrupt.
fn vcpus_sleep() -> bool {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return false };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // "123 (vcpu 0) S 1 ..."
        let Some((name, rest)) = stat.rsplit_once(") ") else { return true };
        !name.contains("(vcpu ") || rest.starts_with('S')
    })
}

/// A file that is removed again unless it is kept.
struct NewFile {
    path: PathBuf,
    name: String,
    file: File,
    kept: bool,
}

impl NewFile {
    fn create(directory: &Path, config: &MachineConfig) -> io::Result<NewFile> {
        let number = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}{MEMORY}", stem(config), number.as_nanos());
        let path = directory.join(&name);
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(NewFile { path, name, file, kept: false })
    }

    /// The state names it now; those of earlier templates of that size, and of makers that were killed, go.
    fn keep_alone(mut self, directory: &Path, config: &MachineConfig) {
        self.kept = true;
        let begin = format!("{}-", stem(config));
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&begin) && name.ends_with(MEMORY) && name != self.name {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes all templates in `directory`, and files whose names end with `notes`; how many templates there were. What else
/// lies there stays.
pub fn remove_all(directory: &Path, notes: &str) -> io::Result<usize> {
    let mut states = 0_usize;
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let is_state = path.extension().is_some_and(|extension| extension == EXTENSION);
        let name = path.to_string_lossy();
        if is_state || name.ends_with(MEMORY) || name.ends_with(notes) {
            std::fs::remove_file(&path)?;
            states = states.saturating_add(usize::from(is_state));
        }
    }
    Ok(states)
}

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Somebody else is at it.
    #[error("another template is being made in that directory")]
    Busy,
    /// No kernel or agent.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// No machine.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The guest did not get so far.
    #[error("the guest did not get to where its agent waits; {0}")]
    Guest(String),
    /// The host.
    #[error("cannot {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

const MEMORY: &str = ".memory";
/// Virtio 1.2, 5.10.2: the queue that the driver sends from.
const VSOCK_FROM_GUEST: usize = 1;
/// A guest that slept at each of so many looks has nothing more to do.
const QUIET_LOOKS: u32 = 5;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
