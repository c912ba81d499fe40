//! Reads a topic from its beginning by NDJSON and checks that every offset comes once and in order.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::time::timeout;

use super::node::Node;
use super::wire::{Wire, number_after};

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
    fn lines_are_counted_across_pieces_and_a_wrong_offset_is_noticed() {
        let mut lines = Lines { rest: Vec::new(), expected: 0 };
        lines.take(b"{\"offset\":0}\n{\"off").expect("in order");
        lines.take(b"set\":1}\n{\"control\":\"caught_up\"}\n").expect("in order");
        assert_eq!(lines.expected, 2);
        assert!(lines.take(b"{\"offset\":3}\n").is_err());
    }
}
