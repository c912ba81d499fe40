//! `plinth verify`: reads a whole bucket and names every fault in it.

use indicatif::ProgressBar;
use plinth_storage::error::Chain;
use plinth_storage::inspect::{Event, Finding, Severity, Totals, VerifyOptions, verify};
use serde::Serialize;

use super::bucket::{Opened, Source, bar, interruptible};
use super::{FAILED, Unreadable, exit_code, output};

/// Reads a whole bucket and names every fault in it, one per line.
///
/// Every object is read: its header and its hashes, the chain of each log, every block, batch and offset, the claims, and
/// every checkpoint against the logs. A note is something that nothing depends on. The bucket is only read, also while a
/// node runs on it. Exit codes: 0 no fault, 1 faults, 2 the bucket could not be looked through.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// One JSON object per line: `kind` is `fault`, `note` or, at the end, `total`
    #[arg(long)]
    json: bool,
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Line<'a> {
    Fault { object: &'a str, what: &'a str },
    Note { object: &'a str, what: &'a str },
    Total(Sums),
}

#[derive(Serialize)]
struct Sums {
    objects: u64,
    bytes: u64,
    sessions: u64,
    claims: u64,
    slots: u64,
    batches: u64,
    records: u64,
    segments: u64,
    checkpoints: u64,
    compared: u64,
    unreplayed: u64,
    deleted: u64,
    faults: u64,
    notes: u64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let totals = look(&args).await.map_err(could_not_look)?;
    match totals.faults {
        0 => Ok(()),
        1 => anyhow::bail!("the bucket has a fault"),
        faults => anyhow::bail!("the bucket has {faults} faults"),
    }
}

async fn look(args: &Args) -> anyhow::Result<Totals> {
    let opened = args.source.open()?;
    let totals = interruptible(read(&opened, args.json)).await?;
    finish(&totals, args.json)?;
    Ok(totals)
}

async fn read(opened: &Opened, json: bool) -> anyhow::Result<Totals> {
    let options = VerifyOptions { scratch: opened.scratch.clone(), in_flight: opened.in_flight };
    let bar = bar("verify");
    let mut written = Ok(());
    let mut tell = |event| match event {
        Event::Listed { bytes, .. } => bar.set_length(bytes),
        Event::Read(bytes) => bar.inc(bytes),
        Event::Found(finding) if written.is_ok() => written = found(&bar, &finding, json),
        Event::Found(_) => {}
    };
    let totals = verify(&opened.stores, &options, &mut tell).await;
    bar.finish_and_clear();
    written?;
    Ok(totals?)
}

fn found(bar: &ProgressBar, finding: &Finding, json: bool) -> anyhow::Result<()> {
    let Finding { severity, object, what } = finding;
    let line = match severity {
        Severity::Fault => Line::Fault { object, what },
        Severity::Note => Line::Note { object, what },
    };
    let word = match severity {
        Severity::Fault => "fault",
        Severity::Note => "note ",
    };
    bar.suspend(|| if json { output::line(&line) } else { output::text(&format!("{word}  {object} {what}\n")) })
}

fn finish(totals: &Totals, json: bool) -> anyhow::Result<()> {
    let Totals { objects, bytes, sessions, claims, slots, batches, records, .. } = *totals;
    let Totals { segments, checkpoints, compared, unreplayed, deleted, faults, notes, .. } = *totals;
    if json {
        return output::line(&Line::Total(Sums {
            objects,
            bytes,
            sessions,
            claims,
            slots,
            batches,
            records,
            segments,
            checkpoints,
            compared,
            unreplayed,
            deleted,
            faults,
            notes,
        }));
    }
    let mut text = format!(
        "{objects} objects with {} read: {records} records in {batches} batches in {slots} slots of {sessions} sessions, \
         {claims} claims, {segments} segments, {checkpoints} checkpoints ({compared} compared with the logs)\n",
        indicatif::HumanBytes(bytes)
    );
    if unreplayed > 0 {
        text.push_str(&format!(
            "{unreplayed} slots were checked by themselves only: something before them is lost or deleted\n"
        ));
    }
    if deleted > 0 {
        text.push_str(&format!("{deleted} slots and checkpoints are deleted; later checkpoints make up for them\n"));
    }
    text.push_str(&format!("{faults} faults, {notes} notes\n"));
    output::text(&text)
}

/// The code of a failure is for faults alone: whatever else fails here kept us from looking.
fn could_not_look(error: anyhow::Error) -> anyhow::Error {
    if exit_code(&error) == FAILED { Unreadable(Chain(&*error).to_string()).into() } else { error }
}
