//! The kinds of error that callers tell apart. Each module has its own error enum and maps it to one of these; the
//! command line maps the kind to an exit status, the shim to a gRPC code, once each.

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// There is no such container, process or file.
    NotFound,
    /// It exists already.
    AlreadyExists,
    /// It is not in the state that the request needs.
    InvalidState,
    /// The request, the bundle or the configuration is wrong.
    InvalidArgument,
    /// husk cannot do this.
    Unsupported,
    /// The host failed us.
    Host,
    /// The guest failed us.
    Guest,
}

/// An error that knows its kind.
pub trait Kind: std::error::Error {
    /// The kind.
    fn kind(&self) -> ErrorKind;
}

/// An error and its sources in one line, joined by `: `, as runc prints them. What the kernel says stands in it in the
/// words that callers search for: its text alone, in lower case.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = plain(error);
    let mut next = error.source();
    while let Some(source) = next {
        line.push_str(": ");
        line.push_str(&plain(source));
        next = source.source();
    }
    line
}

/// One error without its sources. `No such file or directory (os error 2)` (of the standard library) and
/// `ENOENT: No such file or directory` (of nix) become `no such file or directory`.
pub fn plain(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    if let Some((words, number)) = text.rsplit_once(" (os error ")
        && number.strip_suffix(')').is_some_and(|number| number.parse::<u32>().is_ok())
    {
        return lower_first(words);
    }
    match text.split_once(": ") {
        Some((name, words)) if is_errno(name) => lower_first(words),
        _ => text,
    }
}

fn is_errno(name: &str) -> bool {
    name.len() > 2
        && name.starts_with('E')
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// A stranger's words, fit for one line of a message or a terminal: at most so many characters, and none that does something
/// there instead of being shown.
pub fn harmless(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Neither a control character nor one that changes the direction of the text around it.
pub fn is_printable(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !(c.is_control() || turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_words_do_nothing_and_end() {
        assert_eq!(
            harmless("\x1b[2Ja\r\nb\t\u{202e}c\0ü", 100),
            "\u{fffd}[2Ja\u{fffd}\u{fffd}b\u{fffd}\u{fffd}c\u{fffd}ü"
        );
        assert_eq!(harmless("üüü", 2), "üü");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn kernel_errors_are_told_in_the_words_that_callers_search_for() {
        let of = std::io::Error::from_raw_os_error;
        assert_eq!(plain(&of(libc::ENOENT)), "no such file or directory");
        assert_eq!(plain(&of(libc::EACCES)), "permission denied");
        assert_eq!(plain(&of(libc::ENOTDIR)), "not a directory");
        assert_eq!(plain(&of(libc::EISDIR)), "is a directory");
        assert_eq!(plain(&of(libc::ESRCH)), "no such process");
        assert_eq!(chain(&nix::errno::Errno::EPERM), "operation not permitted");
        assert_eq!(plain(&std::io::Error::other("EH: what")), "EH: what");
        assert_eq!(chain(&Outer(of(libc::ENOENT))), "cannot open the door: no such file or directory");
    }
}
