//! The machine process's log: lines in the file that `--log` named, as callers read them, or on the standard error of a
//! command that stays.
//!
//! Callers show the last line of level `error` to their user, and some read the file as a single object, so a machine
//! writes errors that nobody else will report, and nothing more unless it is told to debug.

use crate::log::{Form, Lines, line};
use std::fs::File;
use std::io::Write;
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;

/// One line that is there whatever is logged otherwise.
pub fn warn(mut file: &File, form: Form, message: &str) {
    // Who cannot be told is not told.
    let _ = file.write_all(format!("{}\n", line("warning", message, form)).as_bytes());
}

/// Sends events to `file`, which is open for append.
pub fn begin(file: File, form: Form, debug: bool) {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::ERROR };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .event_format(Lines(form))
        .with_writer(Mutex::new(file))
        .finish();
    // Only the first counts; there is no second.
    let _ = tracing::subscriber::set_global_default(subscriber);
    // Nobody sees our standard error. What follows is the abort that the build asks for.
    std::panic::set_hook(Box::new(|panic| tracing::error!("the machine process panicked: {panic}")));
}
