//! Reads a topic from its beginning, by NDJSON or as stored batches, and checks that every offset comes once and in order.

use std::time::{Duration, Instant};

use anyhow::Context;
use plinth_api::batch::{FrameHead, HEAD_BYTES, MEDIA_TYPE};
use tokio::time::timeout;

use super::node::Node;
use super::wire::{Pieces, Wire, number_after};

/// How long one piece may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(30);
/// A record's offset is near the beginning of its line: behind the topic and the partition.
const OFFSET_WITHIN: usize = 400;
/// Most bytes of a line that has not ended.
const LINE_BYTES_MAX: usize = 16 << 20;

/// Reads `records` records from the start of a topic of one partition; returns how long that took.
pub(super) async fn run(node: &Node, path: &str, records: u64) -> anyhow::Result<Duration> {
    let wire = Wire::connect(&node.target).await?;
    let start = Instant::now();
    let mut pieces = wire.stream(&format!("{path}?from=earliest"), "application/x-ndjson").await?;
    let mut lines = Lines { rest: Vec::new(), expected: 0 };
    while lines.expected < records {
        let piece = timeout(PIECE_TIMEOUT, pieces.next()).await.context("the stream stands still")??;
        lines.take(&piece.context("the stream ended early")?)?;
    }
    let time = start.elapsed();
    anyhow::ensure!(lines.expected == records, "{} records came, there are {records}", lines.expected);
    Ok(time)
}

/// The same as pages of stored batches. Where the next page begins stands in the head of an answer, so it is asked for
/// while this one is read, on a connection of its own. The checksums are looked at.
pub(super) async fn run_batches(node: &Node, path: &str, records: u64) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut batches = Batches::default();
    let mut page = ask(node, path, "earliest").await?;
    while batches.expected < records {
        let next = page.header("plinth-next").context("a page without a next cursor")?;
        let (next, more) = (format!("cursor:{next}"), page.header("plinth-caught-up") == Some("false"));
        let read = async {
            while let Some(piece) = timeout(PIECE_TIMEOUT, page.next()).await.context("a page stands still")?? {
                batches.take(&piece)?;
            }
            anyhow::Ok(())
        };
        let ahead = async { if more { ask(node, path, &next).await.map(Some) } else { Ok(None) } };
        let ((), next) = tokio::try_join!(read, ahead)?;
        match next {
            Some(next) => page = next,
            None => break,
        }
    }
    let (time, came) = (start.elapsed(), batches.expected);
    anyhow::ensure!(came == records, "{came} records came, there are {records}");
    Ok(time)
}

async fn ask(node: &Node, path: &str, from: &str) -> anyhow::Result<Pieces> {
    let wire = Wire::connect(&node.target).await?;
    wire.stream(&format!("{path}?from={from}&limit=10000"), MEDIA_TYPE).await
}

/// Batches that come in pieces of any size.
#[derive(Default)]
struct Batches {
    /// The beginning of a head whose end has not come.
    rest: Vec<u8>,
    /// The batch that is coming, how much of its body has not come, and the checksum of what has.
    coming: Option<(FrameHead, usize, u32)>,
    expected: u64,
}

impl Batches {
    fn take(&mut self, mut piece: &[u8]) -> anyhow::Result<()> {
        while !piece.is_empty() {
            let Some((head, left, crc)) = self.coming else {
                let (taken, after) = piece.split_at(piece.len().min(HEAD_BYTES - self.rest.len()));
                self.rest.extend_from_slice(taken);
                piece = after;
                if self.rest.len() == HEAD_BYTES {
                    let head = FrameHead::decode(&self.rest, 0)?;
                    anyhow::ensure!(head.offset == self.expected, "{} came, {} was next", head.offset, self.expected);
                    self.rest.clear();
                    self.coming = Some((head, head.body_bytes as usize, 0));
                }
                continue;
            };
            let (taken, after) = piece.split_at(piece.len().min(left));
            let (left, crc) = (left - taken.len(), crc32c::crc32c_append(crc, taken));
            piece = after;
            self.coming = (left > 0).then_some((head, left, crc));
            if left == 0 {
                anyhow::ensure!(crc == head.body_crc, "the batch at {} does not have its checksum", head.offset);
                self.expected += u64::from(head.count);
            }
        }
        Ok(())
    }
}

struct Lines {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    expected: u64,
}

impl Lines {
    fn take(&mut self, mut piece: &[u8]) -> anyhow::Result<()> {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            if self.rest.is_empty() {
                self.line(&piece[..end])?;
            } else {
                let mut line = std::mem::take(&mut self.rest);
                line.extend_from_slice(&piece[..end]);
                self.line(&line)?;
            }
            piece = &piece[end + 1..];
        }
        self.rest.extend_from_slice(piece);
        anyhow::ensure!(self.rest.len() <= LINE_BYTES_MAX, "a line is longer than {LINE_BYTES_MAX} bytes");
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.is_empty() || line.starts_with(b"{\"control\"") {
            return Ok(());
        }
        let head = &line[..line.len().min(OFFSET_WITHIN)];
        let offset = number_after(head, b"\"offset\":").context("a line without an offset")?;
        anyhow::ensure!(offset == self.expected, "offset {offset} came when {} was next", self.expected);
        self.expected += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_across_pieces_and_what_is_wrong_is_noticed() {
        let frame = |offset: u64, body: &[u8]| {
            let (body_bytes, body_crc) = (u32::try_from(body.len()).expect("short"), crc32c::crc32c(body));
            let head = FrameHead { offset, count: 5, body_bytes, body_crc, ..FrameHead::default() };
            [&head.encode(), body].concat()
        };
        let both = [frame(0, b"one"), frame(5, b"and two")].concat();
        for size in 1..both.len() {
            let mut batches = Batches::default();
            both.chunks(size).try_for_each(|piece| batches.take(piece)).expect("in order");
            assert_eq!(batches.expected, 10, "pieces of {size}");
        }
        assert!(Batches::default().take(&frame(5, b"x")).is_err());
        let mut damaged = frame(0, b"x");
        *damaged.last_mut().expect("a byte") = b'y';
        assert!(Batches::default().take(&damaged).is_err());
    }

    #[test]
    fn lines_are_counted_across_pieces_and_a_wrong_offset_is_noticed() {
        let mut lines = Lines { rest: Vec::new(), expected: 0 };
        lines.take(b"{\"offset\":0}\n{\"off").expect("in order");
        lines.take(b"set\":1}\n{\"control\":\"caught_up\"}\n").expect("in order");
        assert_eq!(lines.expected, 2);
        assert!(lines.take(b"{\"offset\":3}\n").is_err());
    }
}
