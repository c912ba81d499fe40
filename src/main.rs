//! The program `plinth`: one binary for the node and for its command line.
//!
//! Nothing but the way in: [`plinth::cli`] parses and dispatches. Exit codes are listed there.

use std::process::ExitCode;

fn main() -> ExitCode {
    plinth::cli::run()
}
