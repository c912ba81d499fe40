//! `plinth subscribe`: follows topics over one of four transports and prints their records.
//!
//! Connections may end at any time; the command goes on from the last position and drops what it has already printed.
//! So each record is printed once, in order within its partition, and where records are missing stderr says so.

mod ndjson;
mod poll;
mod position;
mod socket;
mod sse;

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use futures::future::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use plinth_api::error::{ErrorCode, PublishOutcome};
use plinth_api::records::{Gap, Record};

use self::position::{Place, Position};
use super::client::{Client, Connect, Fault, Patience, pause};
use super::{Usage, output};

/// Longest wait that a node may ask for before we connect again.
const GOAWAY_WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// The topics, or patterns: `*` is any run without `.` or `/`, `**` anything
    #[arg(required = true)]
    topics: Vec<String>,
    /// How to follow
    #[arg(long, value_enum, default_value_t = Transport::Sse)]
    transport: Transport,
    /// Where to begin: earliest, latest, offset:N, -N (the last N), time:<RFC 3339> or cursor:<token>
    #[arg(long, value_name = "FROM", default_value = "latest", allow_hyphen_values = true)]
    from: String,
    /// Only this partition of the topic
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// What to print for a record
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Stop at the tail
    #[arg(long)]
    until_caught_up: bool,
    /// How long to go on trying when the node cannot be reached
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Transport {
    /// Server-sent events
    Sse,
    /// One line per record
    Ndjson,
    /// WebSocket
    Ws,
    /// Pages, waiting at the tail (long-poll); one topic
    Poll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The record with its topic, partition, offset, time, key and headers, one JSON object per line
    Json,
    /// The payload alone, and a line feed
    Value,
}

/// What a transport brings.
#[derive(Debug)]
enum Incoming {
    /// A record, as the node wrote it.
    Record(String),
    /// Everything up to here has been brought.
    Cursor(String),
    /// The tail is reached.
    CaughtUp,
    /// Records are missing.
    Gap(Gap),
    /// The node ends the connection.
    Goaway { wait: Duration, reason: String },
    /// A topic is a closed stream, and everything in it has been brought.
    Closed { topic: String },
    /// A topic was deleted.
    End { topic: String },
}

type Stream = BoxStream<'static, Result<Incoming, Fault>>;

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    if args.transport == Transport::Poll && !single(&args) {
        return Err(Usage(
            "--transport poll reads one topic; use sse, ndjson or ws for several or a pattern".to_owned(),
        )
        .into());
    }
    if args.partition.is_some() && (!single(&args) || args.transport == Transport::Ws) {
        return Err(Usage("--partition needs one topic, and sse, ndjson or poll".to_owned()).into());
    }
    if args.limit == Some(0) {
        return Ok(());
    }
    let client = Client::new(&args.connect)?;
    let mut follow = Follow {
        position: Position::new(&args.from),
        patience: Patience::new(args.retry_for),
        printer: Printer { out: std::io::BufWriter::new(std::io::stdout()), format: args.format },
        left: args.limit,
        args: &args,
    };
    loop {
        let stream = open(&client, &args, &follow.position);
        let result = follow.drain(stream).await;
        follow.printer.flush()?;
        let (wait, reason) = match result? {
            Next::Done => return Ok(()),
            Next::Again { wait, reason } => (wait, reason),
        };
        match wait {
            Wait::Asked(time) => {
                output::say(&format!("{reason}; going on in {time:?}"));
                pause(time).await;
            }
            Wait::Backoff(asked) => {
                output::say(&format!("{reason}; trying again"));
                anyhow::ensure!(follow.patience.pause(asked).await, "gave up after {:?}: {reason}", args.retry_for);
            }
        }
    }
}

/// One topic by its name, so that the topic's own route can be used.
fn single(args: &Args) -> bool {
    args.topics.len() == 1 && !args.topics[0].contains('*')
}

fn open(client: &Client, args: &Args, position: &Position) -> Stream {
    match args.transport {
        Transport::Sse => sse::open(client, args, position),
        Transport::Ndjson => ndjson::open(client, args, position),
        Transport::Ws => socket::open(client, args, position),
        Transport::Poll => poll::open(client, args, position),
    }
}

/// The path and query of a live HTTP stream.
fn live_target(args: &Args) -> (String, Vec<(&'static str, String)>) {
    if single(args) {
        let partition = args.partition.map(|partition| ("partition", partition.to_string()));
        (records_path(&args.topics[0]), partition.into_iter().collect())
    } else {
        ("/v1/stream".to_owned(), args.topics.iter().map(|topic| ("topic", topic.clone())).collect())
    }
}

fn records_path(topic: &str) -> String {
    format!("/v1/topics/{}/records", super::client::segment(topic))
}

enum Next {
    Done,
    Again { wait: Wait, reason: String },
}

enum Wait {
    /// What the node asked for when it ended the connection in good order.
    Asked(Duration),
    /// After a failure; at least what the node asked for.
    Backoff(Option<Duration>),
}

struct Follow<'a> {
    args: &'a Args,
    position: Position,
    patience: Patience,
    printer: Printer,
    left: Option<u64>,
}

impl Follow<'_> {
    /// Prints what one connection brings, to its end.
    async fn drain(&mut self, mut stream: Stream) -> anyhow::Result<Next> {
        loop {
            // Output is held back only while more is at hand.
            let incoming = match stream.next().now_or_never() {
                Some(incoming) => incoming,
                None => {
                    if !self.printer.flush()? {
                        return Ok(Next::Done);
                    }
                    stream.next().await
                }
            };
            match incoming {
                Some(Ok(incoming)) => {
                    self.patience.renew();
                    if let Some(next) = self.take(incoming)? {
                        return Ok(next);
                    }
                }
                Some(Err(fault)) if resumable(&fault) => {
                    let wait = Wait::Backoff(fault.retry_after());
                    return Ok(Next::Again { wait, reason: fault.to_string() });
                }
                Some(Err(fault)) => return Err(fault.into()),
                None => {
                    let reason = "the node ended the connection".to_owned();
                    return Ok(Next::Again { wait: Wait::Backoff(None), reason });
                }
            }
        }
    }

    fn take(&mut self, incoming: Incoming) -> anyhow::Result<Option<Next>> {
        match incoming {
            Incoming::Record(json) => return self.record(&json),
            Incoming::Cursor(cursor) => self.position.reached(cursor),
            Incoming::CaughtUp if self.args.until_caught_up => return Ok(Some(Next::Done)),
            Incoming::CaughtUp => {}
            Incoming::Gap(gap) => {
                output::say(&format!(
                    "gap: {}/{} goes on at offset {} instead of {} ({})",
                    gap.topic, gap.partition, gap.resumed_at, gap.requested, gap.reason
                ));
                self.position.skip_to(Place { topic: gap.topic, partition: gap.partition, offset: gap.resumed_at });
            }
            Incoming::Goaway { wait, reason } => {
                let wait = Wait::Asked(wait.min(GOAWAY_WAIT_MAX));
                return Ok(Some(Next::Again { wait, reason: format!("the node says goodbye: {reason}") }));
            }
            Incoming::Closed { topic } => {
                output::say(&format!("topic {topic} is closed"));
                return Ok(single(self.args).then_some(Next::Done));
            }
            Incoming::End { topic } => {
                output::say(&format!("topic {topic} was deleted"));
                self.position.forget(&topic);
                return Ok(single(self.args).then_some(Next::Done));
            }
        }
        Ok(None)
    }

    fn record(&mut self, json: &str) -> anyhow::Result<Option<Next>> {
        let place: Place = serde_json::from_str(json).with_context(|| format!("not a record: {json}"))?;
        match self.position.accept(&place) {
            position::Verdict::Seen => return Ok(None),
            position::Verdict::Next => {}
            position::Verdict::Jump { expected } => output::say(&format!(
                "gap: {}/{} goes on at offset {} instead of {expected}",
                place.topic, place.partition, place.offset
            )),
        }
        if !self.printer.print(json)? {
            return Ok(Some(Next::Done));
        }
        if let Some(left) = &mut self.left {
            *left -= 1;
            if *left == 0 {
                return Ok(Some(Next::Done));
            }
        }
        Ok(None)
    }
}

/// Whether another connection may go on where this one failed.
fn resumable(fault: &Fault) -> bool {
    fault.may_pass() && (fault.code() != Some(ErrorCode::Internal) || fault.outcome() == PublishOutcome::NotStored)
}

struct Printer {
    out: std::io::BufWriter<std::io::Stdout>,
    format: Format,
}

impl Printer {
    /// Prints one record; false when the reader of stdout has gone away.
    fn print(&mut self, json: &str) -> anyhow::Result<bool> {
        let result = match self.format {
            Format::Json => self.out.write_all(json.as_bytes()),
            Format::Value => self.out.write_all(&payload(json)?),
        };
        open_still(result.and_then(|()| self.out.write_all(b"\n")))
    }

    fn flush(&mut self) -> anyhow::Result<bool> {
        open_still(self.out.flush())
    }
}

fn open_still(result: std::io::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) => {
            output::closed_is_fine(Err(error))?;
            Ok(false)
        }
    }
}

fn payload(json: &str) -> anyhow::Result<Vec<u8>> {
    let record: Record = serde_json::from_str(json).with_context(|| format!("not a record: {json}"))?;
    if let Some(value) = record.value {
        return Ok(value.get().as_bytes().to_vec());
    }
    match (record.text, record.base64) {
        (Some(text), _) => Ok(text.into_bytes()),
        (None, Some(base64)) => Ok(base64::engine::general_purpose::STANDARD.decode(base64)?),
        (None, None) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_printed_byte_for_byte_in_each_of_its_forms() {
        let head = r#"{"topic":"t","partition":0,"offset":0,"timestamp":1"#;
        assert_eq!(payload(&format!(r#"{head},"value":{{"a": 1.0}}}}"#)).expect("fine"), br#"{"a": 1.0}"#);
        assert_eq!(payload(&format!(r#"{head},"text":"a\nb"}}"#)).expect("fine"), b"a\nb");
        assert_eq!(payload(&format!(r#"{head},"base64":"/w=="}}"#)).expect("fine"), [0xff]);
        assert_eq!(payload(&format!("{head}}}")).expect("fine"), b"");
    }
}
