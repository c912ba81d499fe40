//! `plinth-audit <file>`: judges a history that was written as JSON lines; the exit code is 1 when a promise was broken.

use std::fs::File;
use std::io::{BufReader, Write};
use std::process::ExitCode;

use anyhow::Context;
use plinth_audit::history::read_events;

fn main() -> anyhow::Result<ExitCode> {
    let path = std::env::args_os().nth(1).context("usage: plinth-audit <history.jsonl>")?;
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let events = read_events(BufReader::new(file)).with_context(|| format!("cannot read {}", path.display()))?;
    let violations = plinth_audit::check(&events);
    let mut out = std::io::stdout().lock();
    for violation in &violations {
        writeln!(out, "{violation}")?;
    }
    writeln!(out, "{} events, {} violations", events.len(), violations.len())?;
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
