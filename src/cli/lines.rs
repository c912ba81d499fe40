//! Reads stdin line by line on a thread of its own and hands it over in pieces.
//!
//! A read of stdin cannot be cancelled, so the thread is not joined: it ends with its input, with its reader, or with
//! the process. At most [`PIECES_MAX`] pieces of about [`BUFFER_BYTES`] wait, whatever the length of the input.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::mpsc;

/// Pieces that may wait.
const PIECES_MAX: usize = 4;
/// Bytes that one read may fetch.
const BUFFER_BYTES: usize = 1 << 20;

/// One line, without its line feed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
}

/// The lines of one input that have been read but not taken.
#[derive(Debug)]
pub(super) struct Lines {
    pieces: mpsc::Receiver<anyhow::Result<Vec<Line>>>,
    waiting: std::vec::IntoIter<Line>,
    back: Option<Line>,
}

impl Lines {
    /// Reads `input` to its end; a line longer than `line_bytes_max` is an error that names it.
    pub(super) fn open(input: impl Read + Send + 'static, line_bytes_max: usize) -> anyhow::Result<Self> {
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let reader = Reader { input: BufReader::with_capacity(BUFFER_BYTES, input), line_bytes_max, number: 0 };
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || reader.run(&sender))?;
        Ok(Self { pieces, waiting: Vec::new().into_iter(), back: None })
    }

    /// The next line, waiting for it; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            if let Some(line) = self.ready() {
                return Ok(Some(line));
            }
            match self.pieces.recv().await {
                Some(piece) => self.waiting = piece?.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// The next line if it can be had without waiting.
    pub(super) fn next_now(&mut self) -> anyhow::Result<Option<Line>> {
        if let Some(line) = self.ready() {
            return Ok(Some(line));
        }
        match self.pieces.try_recv() {
            Ok(piece) => self.waiting = piece?.into_iter(),
            Err(mpsc::error::TryRecvError::Empty | mpsc::error::TryRecvError::Disconnected) => return Ok(None),
        }
        Ok(self.ready())
    }

    /// Gives a line back; it is the next one.
    pub(super) fn put_back(&mut self, line: Line) {
        self.back = Some(line);
    }

    fn ready(&mut self) -> Option<Line> {
        self.back.take().or_else(|| self.waiting.next())
    }
}

struct Reader<R> {
    input: BufReader<R>,
    line_bytes_max: usize,
    number: u64,
}

impl<R: Read> Reader<R> {
    fn run(mut self, sender: &mpsc::Sender<anyhow::Result<Vec<Line>>>) {
        loop {
            let mut lines = Vec::new();
            let result = self.piece(&mut lines);
            let end = lines.is_empty();
            // The lines before a bad one are good.
            if !end && sender.blocking_send(Ok(lines)).is_err() {
                return;
            }
            if let Err(error) = result {
                let _ = sender.blocking_send(Err(error));
                return;
            }
            if end {
                return;
            }
        }
    }

    /// At least one line, and those after it that are complete in the buffer; none at the end of the input.
    fn piece(&mut self, lines: &mut Vec<Line>) -> anyhow::Result<()> {
        while lines.is_empty() || self.input.buffer().contains(&b'\n') {
            let mut bytes = Vec::new();
            let most = self.line_bytes_max as u64 + 1;
            if self.input.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            self.number += 1;
            if bytes.last() == Some(&b'\n') {
                bytes.pop();
            }
            anyhow::ensure!(
                bytes.len() <= self.line_bytes_max,
                "line {} is longer than the limit of {} bytes",
                self.number,
                self.line_bytes_max
            );
            lines.push(Line { number: self.number, bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &'static [u8], limit: usize) -> (Vec<Vec<u8>>, Option<String>) {
        let mut lines = Lines::open(input, limit).expect("a thread");
        let mut seen = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => {
                    assert_eq!(line.number, seen.len() as u64 + 1);
                    seen.push(line.bytes);
                }
                Ok(None) => return (seen, None),
                Err(error) => return (seen, Some(error.to_string())),
            }
        }
    }

    #[tokio::test]
    async fn lines_keep_every_byte_but_the_line_feed() {
        let (lines, error) = all(b"one\r\n\n\xff\x00\nlast", 10).await;
        assert_eq!(lines, [b"one\r".to_vec(), vec![], vec![0xff, 0], b"last".to_vec()]);
        assert_eq!(error, None);
        assert_eq!(all(b"", 10).await, (vec![], None));
    }

    #[tokio::test]
    async fn a_line_at_the_limit_passes_and_a_longer_one_is_named() {
        assert_eq!(all(b"0123456789\n", 10).await.0.len(), 1);
        let (lines, error) = all(b"a\n0123456789x\n", 10).await;
        assert_eq!(lines, [b"a".to_vec()]);
        assert_eq!(error.as_deref(), Some("line 2 is longer than the limit of 10 bytes"));
    }
}
