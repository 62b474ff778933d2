//! Errors and debugging lines: to the file that `--log` names, and to standard error.
//!
//! Callers read the file: the last line with level `error` is what their users see, and some read the whole file as one
//! JSON object. So a command writes one line when it fails and none when it does not, unless `--debug` is given.

use crate::error::plain;
use serde::Serialize;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Where lines go. Unset until the command line was understood: then standard error, as text.
static LOG: OnceLock<Log> = OnceLock::new();

/// Where lines go, and in which form.
#[derive(Debug)]
pub struct Log {
    file: Option<File>,
    form: Form,
}

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `time="..." level=error msg="..."`
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
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
}

/// Tells why the command fails. Called once.
pub fn report(message: &str) {
    let form = LOG.get().map_or(Form::Text, |log| log.form);
    let mut line = line("error", message, form);
    line.push('\n');
    match LOG.get().and_then(Log::file) {
        // One write: lines of several processes do not mix.
        Some(mut file) => {
            let _ = file.write_all(line.as_bytes());
            eprintln!("{message}");
        }
        None => eprint!("{line}"),
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

fn line(level: &str, message: &str, form: Form) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        level: &'a str,
        msg: &'a str,
        time: &'a str,
    }
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    match form {
        Form::Json => serde_json::to_string(&Line { level, msg: message, time: &time }).unwrap_or_default(),
        Form::Text => format!("time={time:?} level={level} msg={message:?}"),
    }
}

/// Debugging lines in the same form.
struct Lines(Form);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> std::fmt::Result {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        writeln!(writer, "{}", line(&level, fields.0.trim_end(), self.0))
    }
}

/// The fields of an event as one text: the message, then `name=value`.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
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
