//! Reads page by page; at the tail a request waits for the next record (long-poll).

use async_stream::try_stream;
use futures::stream::StreamExt;
use plinth_api::records::Gap;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Args, Incoming, Position, Stream, records_path};
use crate::cli::client::{Client, Fault, send};

/// How long a request waits at the tail.
const WAIT: &str = "20s";

/// A page whose records keep their bytes.
#[derive(Deserialize)]
struct Page {
    records: Vec<Box<RawValue>>,
    next: String,
    caught_up: bool,
    #[serde(default)]
    gaps: Vec<Gap>,
}

/// Where a record is.
#[derive(Deserialize)]
struct Place {
    partition: u32,
    offset: u64,
}

pub(super) fn open(client: &Client, args: &Args, position: &Position) -> Stream {
    let (client, path, partition) = (client.clone(), records_path(&args.topics[0]), args.partition);
    let mut from = position.from();
    // A command that stops at the tail has nothing to wait for there.
    let wait = (!args.until_caught_up).then_some(("wait", WAIT));
    try_stream! {
        loop {
            let mut request = client.request(Method::GET, &path).query(&[("from", &from)]).query(wait.as_slice());
            if let Some(partition) = partition {
                request = request.query(&[("partition", partition)]);
            }
            let request = request.header("accept", "application/json");
            let mut page: Page = send(request).await?.json().await.map_err(Fault::of)?;
            for record in page.records {
                for gap in before(&mut page.gaps, record.get()) {
                    yield Incoming::Gap(gap);
                }
                yield Incoming::Record(record.get().to_owned());
            }
            for gap in page.gaps {
                yield Incoming::Gap(gap);
            }
            from = format!("cursor:{}", page.next);
            yield Incoming::Cursor(page.next);
            if page.caught_up {
                yield Incoming::CaughtUp;
            }
        }
    }
    .boxed()
}

/// Takes out the gaps that are to be told before a record.
fn before(gaps: &mut Vec<Gap>, record: &str) -> Vec<Gap> {
    let Some(place) = (!gaps.is_empty()).then(|| serde_json::from_str::<Place>(record).ok()).flatten() else {
        return Vec::new();
    };
    gaps.extract_if(.., |gap| gap.partition == place.partition && gap.resumed_at <= place.offset).collect()
}
