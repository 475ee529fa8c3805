//! The command regard.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    regard_cli::main()
}
