//! The `husk` command: parse, log, dispatch, exit code. All of it in [`husk::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    husk::cli::main()
}
