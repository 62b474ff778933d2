//! The machine process's log: JSON lines in the file that `--log` named, as callers read them.
//!
//! Callers show the last line of level `error` to their user, and some read the file as a single object, so a machine
//! writes errors that nobody else will report, and nothing more unless it is told to debug.

use std::fmt;
use std::fs::File;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};
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
        line.insert("time".into(), rfc3339(SystemTime::now()).into());
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

/// A time as RFC 3339 has it, in UTC, to the microsecond.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let part = |by: i64, of: i64| of_day.div_euclid(by).rem_euclid(of);
    let micros = since.subsec_micros();
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z",
        part(3600, 24),
        part(60, 60),
        part(1, 60)
    )
}

/// Year, month and day of a day counted from 1970-01-01, by counting in years that begin in March.
#[expect(clippy::arithmetic_side_effects)] // on days since 1970, far from any limit
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(1_735_689_599), "2024-12-31T23:59:59.000000Z");
    }

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
