//! The program `plinth`: one binary for the node and for its command line.
//!
//! Nothing but the way in: [`plinth::cli`] parses and dispatches. Exit codes are listed there.

use std::process::ExitCode;

/// A fifth of the time of a busy node went into the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    plinth::cli::run()
}
