//! Forks in the kill loop: streams that begin with what an earlier one of the same writer holds, up to its end, to where an append ended,
//! or to a message within one. Earlier ones are deleted, whether they have forks or not; in the end all are, and then nothing says 410.

use plinth_audit::history::{Event, Place};
use rand::Rng;
use rand::seq::IndexedRandom;
use reqwest::{Method, RequestBuilder};

use super::Page;
use super::streams::{Stream, StreamWriter, path};
use crate::client::{Client, answer, records_path};

pub(super) const START: &str = "0000000000000000_0000000000000000";
/// Forks are made of the later streams, so that chains become long.
const SOURCES: usize = 6;

/// Where a fork leaves its source.
pub(super) struct Origin {
    source: String,
    /// As it is asked for; none: at the end.
    offset: Option<String>,
    sub: u64,
    at: u64,
    ends: Vec<(u64, Option<String>)>,
}

impl Origin {
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn ask(&self, request: RequestBuilder) -> RequestBuilder {
        let mut request = request.header("Stream-Forked-From", path(&self.source));
        if let Some(offset) = &self.offset {
            request = request.header("Stream-Fork-Offset", offset);
        }
        if self.sub > 0 {
            request = request.header("Stream-Fork-Sub-Offset", self.sub);
        }
        request
    }

    /// The source, and where the appends ended that the fork begins with.
    pub(super) fn inherited(self) -> (Option<String>, Vec<(u64, Option<String>)>) {
        (Some(self.source), self.ends)
    }
}

impl StreamWriter {
    /// What the next stream is a fork of, which is about to be made; none: it is no fork.
    pub(super) fn origin(&mut self, name: &str) -> Option<Origin> {
        let alive: Vec<&Stream> = self.known.iter().filter(|stream| !stream.deleted).collect();
        let source = *alive[alive.len().saturating_sub(SOURCES)..].choose(&mut self.random)?;
        if self.random.random_bool(0.3) {
            return None;
        }
        let named: Vec<usize> = (0..source.ends.len()).filter(|at| source.ends[*at].1.is_some()).collect();
        let chosen = named.choose(&mut self.random).copied().filter(|_| self.random.random_bool(0.7));
        let (offset, anchor, sub) = match chosen {
            None => (None, source.tail, 0),
            Some(chosen) => {
                let (anchor, token) = source.ends[chosen].clone();
                let next = source.ends.get(chosen + 1).map_or(anchor, |(end, _)| *end);
                let sub = if self.random.random() { 0 } else { self.random.random_range(0..=next - anchor) };
                (token, anchor, sub)
            }
        };
        let at = anchor + sub;
        let mut ends: Vec<_> = source.ends.iter().filter(|(end, _)| *end <= at).cloned().collect();
        if ends.last().is_none_or(|(end, _)| *end < at) {
            ends.push((at, None));
        }
        let source = source.name.clone();
        let (place, of) = (Place::new(name, 0), Place::new(source.clone(), 0));
        self.run.history.log(Event::Fork { place, source: of, at, cut: None });
        Some(Origin { source, offset, sub, at, ends })
    }

    /// Deletes one of the streams at times.
    pub(super) async fn tend(&mut self) {
        let alive: Vec<usize> = (0..self.known.len()).filter(|at| !self.known[*at].deleted).collect();
        let Some(chosen) = alive.choose(&mut self.random).copied().filter(|_| self.random.random_bool(0.4)) else {
            return;
        };
        let path = path(&self.known[chosen].name);
        let (deleted, tried) = self.settle(|client| client.delete(&path)).await;
        self.known[chosen].deleted = true;
        let gone = status_of(&self.known, &self.known[chosen]);
        assert!(deleted.status == 204 || (tried && deleted.status == gone), "{path} {}", deleted.text());
        let (looked, _) = self.settle(|client| client.request(Method::HEAD, &path)).await;
        assert_eq!(looked.status, gone, "{path}");
    }

    /// Reads a stream from its first record to its end.
    pub(super) async fn read_whole(&mut self, stream: &Stream) {
        let (read, place) = (self.run.history.fresh_id(), Place::new(stream.name.clone(), 0));
        self.run.history.log(Event::ReadInvoke { read, place: place.clone() });
        let (mut records, mut next) = (Vec::new(), 0);
        while next < stream.tail {
            let page = format!("{}?from=offset:{next}&limit=1000", records_path(&stream.name));
            let (page, _) = self.settle(|client| client.get(&page)).await;
            assert_eq!(page.status, 200, "{}", page.text());
            let page = Page::of(&page.parse(), next);
            assert!(page.next > next, "{} has nothing at {next}", stream.name);
            records.extend(page.records);
            next = page.next;
        }
        assert_eq!(next, stream.tail, "{}", stream.name);
        self.run.history.log(Event::Read { read, place, from: 0, records, lost: Vec::new(), caught_up: true });
    }
}

/// What a stream answers that was deleted: 410 while it has forks, or is kept for forks of forks.
fn status_of(all: &[Stream], stream: &Stream) -> u16 {
    if is_needed(all, stream) { 410 } else { 404 }
}

fn is_needed(all: &[Stream], stream: &Stream) -> bool {
    let mut forks = all.iter().filter(|fork| fork.source.as_ref() == Some(&stream.name));
    forks.any(|fork| !fork.deleted || is_needed(all, fork))
}

/// What was deleted says so; then all is deleted, in the order in which it was made, and nothing is left that says 410.
pub(super) async fn end(client: &Client, streams: &[Stream]) {
    let look = |stream: &Stream| answer(client.request(Method::HEAD, &path(&stream.name)));
    for stream in streams.iter().filter(|stream| stream.deleted) {
        assert_eq!(look(stream).await.status, status_of(streams, stream), "{}", stream.name);
    }
    for stream in streams.iter().filter(|stream| !stream.deleted) {
        let deleted = answer(client.delete(&path(&stream.name))).await;
        assert_eq!(deleted.status, 204, "{}", deleted.text());
    }
    for stream in streams {
        assert_eq!(look(stream).await.status, 404, "{}", stream.name);
    }
}
