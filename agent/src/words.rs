//! Errors as one line of text.

use std::error::Error;
use std::fmt::Write;

/// An error and what lies below it, outermost first: `attempted: why`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        let _ = write!(text, ": {error}"); // a String takes everything
        inner = error.source();
    }
    text
}
