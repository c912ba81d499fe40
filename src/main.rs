//! The program `plinth`: one binary for the node and for its command line.
//!
//! Nothing but the way in: [`plinth::cli`] parses and dispatches. Exit codes are listed there.

use std::process::ExitCode;

/// A fifth of the time of a busy node went into the system's allocator; ADR 35 says why it is this one.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    plinth::cli::run()
}
