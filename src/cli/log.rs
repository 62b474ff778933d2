//! Errors and debugging lines: to the file that `--log` names, and to standard error.
//!
//! Callers read the file: the last line with level `error` is what their users see, and some read the whole file as one
//! JSON object. So a command writes one line when it fails and none when it does not, unless `--debug` is given.

use crate::container::create::MachineLog;
use crate::error::plain;
use crate::log::{Form, Lines, line, tell};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

/// Where lines go. Unset until the command line was understood: then standard error, as text.
static LOG: OnceLock<Log> = OnceLock::new();

/// A handle that lives as long as [`LOG`].
static STDERR: OnceLock<std::io::Stderr> = OnceLock::new();

/// Where lines go, and in which form.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    form: Form,
}

/// Opens the log for the rest of this process.
pub fn open(path: Option<&Path>, form: Form, debug: bool) -> Result<&'static Log, String> {
    let append = |path: &Path| {
        File::options()
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .map_err(|error| format!("open {}: {}", path.display(), plain(&error)))
    };
    let file = path.map(append).transpose()?;
    let log = LOG.get_or_init(|| Log { file, form });
    if debug {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .event_format(Lines(form))
            .with_writer(|| Output(LOG.get().and_then(|log| log.file.as_ref())))
            .finish();
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    Ok(log)
}

impl Log {
    /// The file, if there is one.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Where a machine writes. Our standard error only while we stay: it would be held open for as long as the
    /// container lives, and who started us would wait for its end.
    pub fn of_machine(&self, stay: bool) -> Option<MachineLog<'_>> {
        let to = match &self.file {
            Some(file) => file.as_fd(),
            None if stay => STDERR.get_or_init(std::io::stderr).as_fd(),
            None => return None,
        };
        Some(MachineLog { to, form: self.form })
    }
}

/// Tells why the command fails. Called once.
pub fn report(message: &str) {
    let form = LOG.get().map_or(Form::Text, |log| log.form);
    let line = line("error", message, form);
    match LOG.get().and_then(Log::file) {
        // One write: lines of several processes do not mix.
        Some(mut file) => {
            let _ = file.write_all(format!("{line}\n").as_bytes());
            tell(message);
        }
        None => tell(&line),
    }
}

/// A panic is an error like any other to the caller: one line, and exit code 1 instead of a core dump.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("(no message)");
        let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line()));
        report(&format!("husk panicked{}: {text}", place.unwrap_or_default()));
        std::process::exit(1);
    }));
}

/// The log file, or standard error.
struct Output(Option<&'static File>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.0 {
            Some(file) => file.write(bytes),
            None => std::io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
