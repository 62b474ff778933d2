//! A line of a log, in the two forms that callers read: what is the same in the command and in the machine process.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// `time="..." level=error msg="..."`
    Text,
    /// `{"level":"error","msg":"...","time":"..."}`
    Json,
}

/// One line, without its end, of this moment to the second: what runc writes.
pub fn line(level: &str, message: &str, form: Form) -> String {
    stamped(&humantime::format_rfc3339_seconds(SystemTime::now()).to_string(), level, message, form)
}

fn stamped(time: &str, level: &str, message: &str, form: Form) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        level: &'a str,
        msg: &'a str,
        time: &'a str,
    }
    match form {
        Form::Json => serde_json::to_string(&Line { level, msg: message, time }).unwrap_or_default(),
        Form::Text => format!("time={time:?} level={level} msg={message:?}"),
    }
}

/// Tells the person at standard error, in one write. That nobody is there, or the disk behind it full, changes nothing
/// of what is done.
pub fn tell(text: &str) {
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Events as such lines.
#[derive(Debug, Clone, Copy)]
pub struct Lines(pub Form);

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
    ) -> fmt::Result {
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        // To the microsecond: from these lines a start's timeline is made.
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        writeln!(writer, "{}", stamped(&time, &level, fields.0.trim_end(), self.0))
    }
}

/// The fields of an event as one text: the message, then `name=value`.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn said(form: Form) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Mutex::new(file.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt().event_format(Lines(form)).with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, || tracing::error!(count = 3, "two\nlines"));
        std::fs::read_to_string(file.path()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_in_either_form_with_its_message_first() {
        let json = said(Form::Json);
        assert_eq!(json.lines().count(), 1, "{json}");
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&line["level"], &line["msg"]), (&"error".into(), &"two\nlines count=3".into()));
        assert_eq!(line["time"].as_str().map(str::len), Some("2026-01-02T03:04:05.678901Z".len()));
        let text = said(Form::Text);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with("level=error msg=\"two\\nlines count=3\"\n"), "{text}");
    }
}
