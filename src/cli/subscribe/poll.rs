//! Reads page by page; at the tail a request waits for the next record (long-poll).

use async_stream::try_stream;
use futures::stream::StreamExt;
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
            let page: Page = send(request).await?.json().await.map_err(Fault::of)?;
            for record in page.records {
                yield Incoming::Record(record.get().to_owned());
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
