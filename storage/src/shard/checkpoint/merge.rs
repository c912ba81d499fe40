//! Layers of a state, each over those before it, and several of them as one. It knows nothing of stores.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::state::{StateOp, StateRow};

/// A key with its new value, or with none when it is gone.
pub(crate) type RowChange = (Bytes, Option<Bytes>);

/// Changes in the order of their keys.
pub(crate) type RowChanges = Box<dyn Iterator<Item = Result<RowChange>> + Send>;

/// What one checkpoint changes: first whole ranges go, then single rows are set and removed.
pub(crate) struct Layer {
    pub(crate) ranges: Ranges,
    pub(crate) rows: RowChanges,
}

/// Ranges of keys in order, none of which touches another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(Bytes, Bytes)>);

impl Ranges {
    pub(crate) fn of(mut ranges: Vec<(Bytes, Bytes)>) -> Self {
        ranges.sort_unstable();
        let mut out: Vec<(Bytes, Bytes)> = Vec::with_capacity(ranges.len());
        for (from, to) in ranges.into_iter().filter(|(from, to)| from < to) {
            match out.last_mut().filter(|(_, end)| *end >= from) {
                Some((_, end)) if *end < to => *end = to,
                Some(_) => {}
                None => out.push((from, to)),
            }
        }
        Self(out)
    }

    pub(crate) fn into_ops(self) -> impl Iterator<Item = StateOp> {
        self.0.into_iter().map(|(from, to)| StateOp::DeleteRange(from, to))
    }
}

impl Layer {
    /// Layers as one, the oldest first.
    ///
    /// # Errors
    /// As the first row of each.
    pub(crate) fn merged(layers: Vec<Self>) -> Result<Self> {
        let ranges = layers.iter().flat_map(|layer| layer.ranges.0.iter().cloned()).collect();
        Ok(Self { ranges: Ranges::of(ranges), rows: Box::new(Merged::of(layers)?) })
    }

    /// All that is left when the layers, the oldest first, lie over nothing.
    ///
    /// # Errors
    /// As the first row of each.
    pub(crate) fn flattened(layers: Vec<Self>) -> Result<impl Iterator<Item = Result<StateRow>> + Send> {
        let rows = Merged::of(layers)?;
        Ok(rows.filter_map(|row| row.map(|(key, value)| value.map(|value| (key, value))).transpose()))
    }

    /// The changes in the order of their stored form.
    pub(crate) fn into_ops(self) -> impl Iterator<Item = Result<StateOp>> {
        let rows = self.rows.map(|row| {
            row.map(|(key, value)| match value {
                Some(value) => StateOp::Put(key, value),
                None => StateOp::Delete(key),
            })
        });
        self.ranges.into_ops().map(Ok).chain(rows)
    }
}

/// The rows of several layers: of each key the newest change, unless a range of a newer layer took it.
struct Merged {
    layers: Vec<Source>,
    next: BinaryHeap<Reverse<First>>,
    failed: Option<Error>,
}

struct Source {
    rows: RowChanges,
    ranges: Vec<(Bytes, Bytes)>,
    /// The first range that does not end before the keys that are looked at.
    at: usize,
    last: Option<Bytes>,
}

/// The next change of a layer. Of one key the newest layer comes first.
#[derive(PartialEq, Eq)]
struct First {
    key: Bytes,
    layer: usize,
    value: Option<Bytes>,
}

impl Ord for First {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then_with(|| other.layer.cmp(&self.layer))
    }
}

impl PartialOrd for First {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Source {
    fn next(&mut self) -> Result<Option<RowChange>> {
        let Some(row) = self.rows.next() else { return Ok(None) };
        let (key, value) = row?;
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(Error::new(Kind::Corrupt, "rows of a checkpoint are not in order"));
        }
        self.last = Some(key.clone());
        Ok(Some((key, value)))
    }

    /// Whether a range of this layer takes `key`. Keys come in ascending order.
    fn takes(&mut self, key: &Bytes) -> bool {
        while self.ranges.get(self.at).is_some_and(|(_, to)| to <= key) {
            self.at += 1;
        }
        self.ranges.get(self.at).is_some_and(|(from, _)| from <= key)
    }
}

impl Merged {
    fn of(layers: Vec<Layer>) -> Result<Self> {
        let source = |layer: Layer| Source { rows: layer.rows, ranges: layer.ranges.0, at: 0, last: None };
        let layers: Vec<Source> = layers.into_iter().map(source).collect();
        let count = layers.len();
        let mut merged = Self { layers, next: BinaryHeap::with_capacity(count), failed: None };
        (0..count).try_for_each(|layer| merged.advance(layer))?;
        Ok(merged)
    }

    fn advance(&mut self, layer: usize) -> Result<()> {
        if let Some((key, value)) = self.layers[layer].next()? {
            self.next.push(Reverse(First { key, layer, value }));
        }
        Ok(())
    }

    /// Takes the smallest key with its newest change; a failure is told at the next call.
    fn pop(&mut self) -> Option<First> {
        let Reverse(first) = self.next.pop()?;
        let mut advanced = self.advance(first.layer);
        while self.next.peek().is_some_and(|Reverse(older)| older.key == first.key) {
            let Some(Reverse(older)) = self.next.pop() else { break };
            advanced = advanced.and(self.advance(older.layer));
        }
        self.failed = advanced.err();
        Some(first)
    }
}

impl Iterator for Merged {
    type Item = Result<RowChange>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(error) = self.failed.take() {
                self.next.clear();
                return Some(Err(error));
            }
            let First { key, layer, value } = self.pop()?;
            if !self.layers.iter_mut().skip(layer + 1).any(|newer| newer.takes(&key)) {
                return Some(Ok((key, value)));
            }
        }
    }
}
