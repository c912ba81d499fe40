//! `plinth publish`: stdin becomes records, line by line or as one body.
//!
//! One request is in flight at a time, so that the order of the input is the order of the partition. A request that may
//! succeed later is sent again, also when its outcome is unknown: each run is a producer of its own, or has an
//! idempotency key, so the node stores it once.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use indicatif::{ProgressBar, ProgressStyle};
use plinth_api::error::PublishOutcome;
use plinth_api::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX};
use plinth_api::records::Receipt;
use plinth_storage::env::{Rng, SystemRng};
use reqwest::Method;
use serde::Serialize;
use serde_json::value::RawValue;

use super::class::Class;
use super::client::{Client, Connect, Fault, Patience, segment, send};
use super::interrupt::{Interrupted, Interrupts};
use super::lines::{Line, Lines};
use super::output;
use crate::parse;

/// The media type of a batch.
const BATCH: &str = "application/vnd.plinth.batch+json";
/// Bytes of `{"records":[` and `]}`.
const BATCH_FRAME_BYTES: usize = 14;
/// How long an answer may take before the outcome counts as unknown.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// The topic; created with the defaults if the key may manage it
    topic: String,
    /// What a line of stdin is
    #[arg(long, value_enum, default_value_t = Format::Lines, conflicts_with = "body")]
    format: Format,
    /// Publish the whole of stdin as one record
    #[arg(long)]
    body: bool,
    /// The media type of the records [default: text/plain, or application/json with --format ndjson, or
    /// application/octet-stream with --body]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// The key of every record: records with the same key are in the same partition
    #[arg(long, value_name = "KEY")]
    record_key: Option<String>,
    /// A header of every record, `name: value`; may be repeated
    #[arg(long = "record-header", visible_alias = "header", value_name = "NAME: VALUE", value_parser = header)]
    record_headers: Vec<(String, String)>,
    /// How long every record is delivered, such as `1h`: 1s to 10y [default: as long as it is kept]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<String>,
    /// The partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// The least durability class to wait for; not a weaker one than the topic's [default: the topic's]
    #[arg(long, value_enum)]
    durability: Option<Class>,
    /// With --body: names this publish, so that a second run with the same key and body stores nothing [default: a new one]
    #[arg(long, value_name = "KEY", requires = "body")]
    idempotency_key: Option<String>,
    /// How long to go on trying while the node does not store
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Each line is the text of one record; an empty line is an empty record
    Lines,
    /// Each line is the JSON value of one record; empty lines are skipped
    Ndjson,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Client::new(&args.connect)?;
    if args.body { body(&client, &args).await } else { lines(&client, &args).await }
}

async fn body(client: &Client, args: &Args) -> anyhow::Result<()> {
    let read = || {
        let mut body = Vec::new();
        std::io::stdin().lock().take(BATCH_BYTES_MAX as u64 + 1).read_to_end(&mut body).map(|_| body)
    };
    let body = bytes::Bytes::from(tokio::task::spawn_blocking(read).await?.context("stdin cannot be read")?);
    anyhow::ensure!(body.len() <= BATCH_BYTES_MAX, "stdin is larger than the limit of {BATCH_BYTES_MAX} bytes");
    let content_type = args.content_type.as_deref().unwrap_or("application/octet-stream");
    let key = args.idempotency_key.clone().unwrap_or_else(new_name);
    let mut patience = Patience::new(args.retry_for);
    let mut unknown = 0;
    loop {
        let mut request = request(client, args, content_type).header("idempotency-key", &key).body(body.clone());
        if let Some(key) = &args.record_key {
            request = request.header("record-key", key);
        }
        if let Some(ttl) = &args.ttl {
            request = request.header("record-ttl", ttl);
        }
        for (name, value) in &args.record_headers {
            request = request.header(format!("record-header-{name}"), value);
        }
        match send(request).await {
            Ok(answer) => return output::line(&answer.json::<serde_json::Value>().await?),
            Err(fault) => {
                if fault.outcome() == PublishOutcome::Unknown {
                    unknown = 1;
                }
                if fault.may_pass() {
                    patience.announce(&fault);
                }
                if !fault.may_pass() || !patience.pause(fault.retry_after()).await {
                    return Err(fault).context(outcome_text(0, unknown));
                }
            }
        }
    }
}

async fn lines(client: &Client, args: &Args) -> anyhow::Result<()> {
    let encoder = Encoder {
        format: args.format,
        key: args.record_key.as_deref(),
        headers: args.record_headers.iter().cloned().collect(),
        content_type: args.content_type.as_deref(),
        ttl: args.ttl.as_deref(),
    };
    let mut input = Lines::open(std::io::stdin(), RECORD_BYTES_MAX)?;
    let mut run = Run {
        client,
        args,
        progress: progress(),
        patience: Patience::new(args.retry_for),
        producer: new_name(),
        seq: 0,
        summary: Summary { topic: &args.topic, stored: 0, unknown: 0, stored_to_line: 0, last: None },
    };
    let result = store_all(&mut run, &mut input, &encoder, &mut Interrupts::open()?).await;
    run.progress.finish_and_clear();
    output::line(&run.summary)?;
    result.with_context(|| outcome_text(run.summary.stored, run.summary.unknown))
}

/// Stores the input, to its end or until Ctrl-C. A batch that is on its way then is waited for, so that the summary says
/// what became of it; a second Ctrl-C leaves it.
async fn store_all(
    run: &mut Run<'_>,
    input: &mut Lines,
    encoder: &Encoder<'_>,
    interrupts: &mut Interrupts,
) -> anyhow::Result<()> {
    loop {
        let (batch, bad) = tokio::select! {
            gathered = gather(input, encoder) => gathered,
            () = interrupts.next() => return Err(Interrupted.into()),
        };
        let end = batch.is_empty();
        if !end {
            run.store(batch, interrupts).await?;
        }
        match bad {
            Some(error) => return Err(error),
            None if end => return Ok(()),
            None if interrupts.seen() => return Err(Interrupted.into()),
            None => {}
        }
    }
}

/// What was done, on stdout at the end, whether it went well or not.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    topic: &'a str,
    /// Records that the node has acknowledged.
    stored: u64,
    /// Records of the last batch, when its outcome is not known.
    unknown: u64,
    /// Every line up to this one is stored.
    stored_to_line: u64,
    /// The last receipt.
    last: Option<Receipt>,
}

struct Run<'a> {
    client: &'a Client,
    args: &'a Args,
    progress: ProgressBar,
    patience: Patience,
    /// The id of this run as a producer, and how many batches it has stored.
    producer: String,
    seq: u64,
    summary: Summary<'a>,
}

/// One encoded record.
#[derive(Debug)]
struct Item {
    line: u64,
    input_bytes: usize,
    json: String,
}

impl Run<'_> {
    /// Sends a batch until it is stored, or until that is hopeless.
    async fn store(&mut self, batch: Vec<Item>, interrupts: &mut Interrupts) -> anyhow::Result<()> {
        let body = bytes::Bytes::from(encode(&batch));
        loop {
            let Some(answer) = self.attempt_unless_left(body.clone(), interrupts).await else {
                self.summary.unknown = batch.len() as u64;
                return Err(Interrupted.into());
            };
            let fault = match answer {
                Ok(receipt) => {
                    self.count(&batch);
                    self.summary.stored_to_line = batch.last().map_or(0, |item| item.line);
                    self.summary.unknown = 0;
                    self.summary.last = Some(receipt);
                    self.seq += 1;
                    self.patience.renew();
                    return Ok(());
                }
                Err(fault) => fault,
            };
            if fault.outcome() == PublishOutcome::Unknown {
                self.summary.unknown = batch.len() as u64;
            }
            if !fault.may_pass() {
                return Err(fault.into());
            }
            self.progress.suspend(|| self.patience.announce(&fault));
            let goes_on = tokio::select! {
                goes_on = self.patience.pause(fault.retry_after()) => goes_on,
                () = interrupts.next() => false,
            };
            if !goes_on || interrupts.seen() {
                return Err(fault.into());
            }
        }
    }

    /// One request; none when the user does not wait for its answer.
    async fn attempt_unless_left(
        &self,
        body: bytes::Bytes,
        interrupts: &mut Interrupts,
    ) -> Option<Result<Receipt, Fault>> {
        let mut attempt = pin!(self.attempt(body));
        tokio::select! {
            done = &mut attempt => return Some(done),
            () = interrupts.next() => {}
        }
        self.progress.suspend(|| output::say("waiting for the answer to what was sent; Ctrl-C again leaves it"));
        tokio::select! {
            done = attempt => Some(done),
            () = interrupts.next() => None,
        }
    }

    async fn attempt(&self, body: bytes::Bytes) -> Result<Receipt, Fault> {
        let request = request(self.client, self.args, BATCH).header("producer-id", &self.producer);
        let request = request.header("producer-epoch", 0).header("producer-seq", self.seq);
        send(request.body(body)).await?.json::<Receipt>().await.map_err(Fault::of)
    }

    fn count(&mut self, stored: &[Item]) {
        self.summary.stored += stored.len() as u64;
        self.progress.inc(stored.iter().map(|item| item.input_bytes as u64).sum());
        self.progress.set_message(format!("{} records", self.summary.stored));
    }
}

/// The next batch: at least one record, and then what is at hand without waiting, up to the limits of a request. The
/// error, if there is one, comes after the records of the batch.
async fn gather(input: &mut Lines, encoder: &Encoder<'_>) -> (Vec<Item>, Option<anyhow::Error>) {
    let mut batch: Vec<Item> = Vec::new();
    let mut bytes = BATCH_FRAME_BYTES;
    while batch.len() < BATCH_RECORDS_MAX {
        let next = if batch.is_empty() { input.next().await } else { input.next_now() };
        let line = match next {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => return (batch, Some(error)),
        };
        let json = match encoder.encode(&line) {
            Ok(Some(json)) => json,
            Ok(None) => continue,
            Err(error) => return (batch, Some(error)),
        };
        if bytes + json.len() + 1 > BATCH_BYTES_MAX && !batch.is_empty() {
            input.put_back(line);
            break;
        }
        bytes += json.len() + 1;
        batch.push(Item { line: line.number, input_bytes: line.bytes.len() + 1, json });
    }
    (batch, None)
}

/// Turns lines into records.
struct Encoder<'a> {
    format: Format,
    key: Option<&'a str>,
    headers: BTreeMap<String, String>,
    content_type: Option<&'a str>,
    ttl: Option<&'a str>,
}

#[derive(Serialize)]
struct Encoded<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Encoder<'_> {
    /// The record of a line; none for an empty line of NDJSON. A line that is not UTF-8 travels in base64.
    fn encode(&self, line: &Line) -> anyhow::Result<Option<String>> {
        let mut record = Encoded {
            key: self.key,
            headers: &self.headers,
            content_type: self.content_type,
            ttl: self.ttl,
            value: None,
            text: None,
            base64: None,
        };
        match self.format {
            Format::Lines => match std::str::from_utf8(&line.bytes) {
                Ok(text) => record.text = Some(text),
                Err(_) => record.base64 = Some(base64::engine::general_purpose::STANDARD.encode(&line.bytes)),
            },
            Format::Ndjson if line.bytes.trim_ascii().is_empty() => return Ok(None),
            Format::Ndjson => {
                let value = serde_json::from_slice(&line.bytes)
                    .with_context(|| format!("line {} is not a JSON value", line.number))?;
                record.value = Some(value);
            }
        }
        Ok(Some(serde_json::to_string(&record)?))
    }
}

fn encode(batch: &[Item]) -> String {
    let bytes = batch.iter().map(|item| item.json.len() + 1).sum::<usize>();
    let mut body = String::with_capacity(bytes + BATCH_FRAME_BYTES);
    body.push_str("{\"records\":[");
    for (i, item) in batch.iter().enumerate() {
        if i > 0 {
            body.push(',');
        }
        body.push_str(&item.json);
    }
    body.push_str("]}");
    body
}

fn request(client: &Client, args: &Args, content_type: &str) -> reqwest::RequestBuilder {
    let request = client
        .request(Method::POST, &format!("/v1/topics/{}/records", segment(&args.topic)))
        .header("content-type", content_type)
        .timeout(ANSWER_TIMEOUT);
    let request = match args.durability {
        Some(class) => request.header("durability", class.as_str()),
        None => request,
    };
    match args.partition {
        Some(partition) => request.query(&[("partition", partition)]),
        None => request,
    }
}

/// A name that no other run has.
fn new_name() -> String {
    SystemRng.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A bar when stdin is a file, a spinner when it is a pipe, nothing when stderr is not a terminal.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let file = std::io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let length = file.and_then(|file| file.metadata()).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{bar:30} {bytes}/{total_bytes} {msg} {bytes_per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {msg} {bytes_per_sec} {elapsed}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the templates are right"))
}

fn outcome_text(stored: u64, unknown: u64) -> String {
    if unknown > 0 {
        format!(
            "stopped: {stored} records are stored; whether the {unknown} after them are is unknown, look before you repeat them"
        )
    } else if stored == 0 {
        "nothing was stored".to_owned()
    } else {
        format!("stopped: {stored} records are stored, nothing after them is")
    }
}

fn ttl(text: &str) -> Result<String, String> {
    parse::ttl("it", text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write a header as `name: value`")?;
    if name.is_empty() {
        return Err("the name of a header is empty".to_owned());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoder(format: Format) -> Encoder<'static> {
        Encoder {
            format,
            key: Some("k"),
            headers: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            content_type: None,
            ttl: None,
        }
    }

    fn line(text: &[u8]) -> Line {
        Line { number: 37, bytes: text.to_vec() }
    }

    #[test]
    fn a_line_of_json_keeps_its_bytes() {
        let json =
            encoder(Format::Ndjson).encode(&line(br#" {"a":1.50e1, "b":"x"} "#)).expect("JSON").expect("a record");
        assert_eq!(json, r#"{"key":"k","headers":{"a":"b"},"value":{"a":1.50e1, "b":"x"}}"#);
        assert!(encoder(Format::Ndjson).encode(&line(b"  \r")).expect("blank").is_none());
    }

    #[test]
    fn broken_json_is_named_by_its_line() {
        let error = encoder(Format::Ndjson).encode(&line(b"{")).expect_err("broken").to_string();
        assert_eq!(error, "line 37 is not a JSON value");
    }

    #[test]
    fn a_line_that_is_not_utf_8_travels_in_base64() {
        let json = encoder(Format::Lines).encode(&line(b"\xff")).expect("fine").expect("a record");
        assert!(json.ends_with(r#""base64":"/w=="}"#), "{json}");
    }

    #[tokio::test]
    async fn batches_hold_to_the_limits_of_a_request() {
        let text: Vec<u8> = (0..2500).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let mut input = Lines::open(std::io::Cursor::new(text), RECORD_BYTES_MAX).expect("a thread");
        let (mut records, mut batches) = (0, 0);
        loop {
            let (batch, bad) = gather(&mut input, &encoder(Format::Lines)).await;
            assert!(bad.is_none() && batch.len() <= BATCH_RECORDS_MAX);
            if batch.is_empty() {
                break;
            }
            records += batch.len();
            batches += 1;
            assert!(encode(&batch).len() <= BATCH_BYTES_MAX);
        }
        assert_eq!((records, batches >= 3), (2500, true));
    }

    #[tokio::test]
    async fn what_is_good_before_a_bad_line_is_still_a_batch() {
        let mut input = Lines::open(&b"1\n2\n{\n4\n"[..], RECORD_BYTES_MAX).expect("a thread");
        let (batch, bad) = gather(&mut input, &encoder(Format::Ndjson)).await;
        assert_eq!(batch.len(), 2);
        assert!(bad.is_some_and(|error| error.to_string().contains("line 3")));
    }
}
