//! The `husk` command: parse, log, dispatch, exit code.
fn main() {}
