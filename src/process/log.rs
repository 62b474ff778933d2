//! The machine process's log: JSON lines in the file that `--log` named, as callers read them.
//!
//! Callers show the last line of level `error` to their user, and some read the file as a single object, so a machine
//! writes errors that nobody else will report, and nothing more unless it is told to debug.

use std::fmt;
use std::fs::File;
use std::sync::Mutex;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Sends events to `file`, which is open for append.
pub fn begin(file: File, debug: bool) {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(Line)
        .with_writer(Mutex::new(file))
        .finish();
    // Only the first counts; there is no second.
    let _ = tracing::subscriber::set_global_default(subscriber);
    // Nobody sees our standard error. What follows is the abort that the build asks for.
    std::panic::set_hook(Box::new(|panic| tracing::error!("the machine process panicked: {panic}")));
}

/// One line: `{"level":...,"msg":...,"time":...}` and the event's fields.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(serde_json::Map::new());
        event.record(&mut fields);
        let mut line = fields.0;
        line.insert("level".into(), event.metadata().level().as_str().to_lowercase().into());
        line.insert("time".into(), humantime::format_rfc3339_micros(SystemTime::now()).to_string().into());
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

struct Fields(serde_json::Map<String, serde_json::Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: serde_json::Value) {
        let name = match field.name() {
            "message" => "msg",
            name => name,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_json_line_and_debugging_is_silent_unless_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let subscriber = |debug| {
            let level = if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR };
            let writer = Mutex::new(file.reopen().unwrap());
            tracing_subscriber::fmt().with_max_level(level).event_format(Line).with_writer(writer).finish()
        };
        tracing::subscriber::with_default(subscriber(false), || {
            tracing::debug!("not this");
            tracing::error!(count = 3, "two\nlines");
        });
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["level"], &line["msg"], &line["count"]),
            (&"error".into(), &"two\nlines".into(), &3.into())
        );
    }
}
