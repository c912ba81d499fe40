//! The program `plinth`: one binary for the node and for its command line.
//!
//! Nothing but the way in: [`plinth::cli`] parses and dispatches. Exit codes are listed there.

use std::process::ExitCode;

/// A fifth of the time of a busy node went into the system's allocator. Without huge pages (`no_thp`): a few live blocks
/// would hold 2 MiB each, which was two thirds of a busy node's memory, and clearing them a sixth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    plinth::cli::run()
}
