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

/// An error and its sources in one line, joined by `: `, as runc prints them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        line.push_str(": ");
        line.push_str(&source.to_string());
        next = source.source();
    }
    line
}
