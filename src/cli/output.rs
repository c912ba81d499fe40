//! What the commands write: JSON on stdout, sentences on stderr.
//!
//! A reader that has gone away (`plinth subscribe … | head`) ends a command without an error.

use std::io::{self, Write};

use serde::Serialize;

/// Writes one JSON object on its own line.
///
/// # Errors
/// Stdout cannot be written, other than by a reader that has gone away.
pub(super) fn line(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    Ok(closed_is_fine(write(&text))?)
}

/// Writes one JSON object with indents.
///
/// # Errors
/// As for [`line`].
pub(super) fn object(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(closed_is_fine(write(&text))?)
}

/// Writes a result that is not JSON; the line ends are in it.
///
/// # Errors
/// As for [`line`].
pub(super) fn text(text: &str) -> anyhow::Result<()> {
    Ok(closed_is_fine(write(text))?)
}

/// Says something to people. A stderr that cannot be written is no reason to fail.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says something on stdout that is not a result, such as the start-up lines of a node.
pub(super) fn tell(text: &str) {
    let _ = write(&format!("{text}\n"));
}

/// Turns a reader that has gone away into success.
pub(super) fn closed_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
