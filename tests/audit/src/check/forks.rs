//! Forks: which place holds what another one shows. A fork shows what its source held below an offset, of the last record perhaps a
//! part only, and from there on what is its own.

use std::collections::HashMap;

use super::gone::Lives;
use super::{Due, Judge, Op, Violation};
use crate::history::{Place, Seen};

/// What is known of forks.
#[derive(Default)]
pub(super) struct Forks(HashMap<Place, Fork>);

/// Where a fork leaves its source.
pub(super) struct Fork {
    pub(super) source: Place,
    pub(super) at: u64,
    /// The digest of what it has of the last record, when that is a part only.
    pub(super) cut: Option<u64>,
}

/// Who holds an offset of a place.
pub(super) enum Held {
    /// This place, the same one or another.
    By(Place),
    /// Nobody holds it so: it is the part of a record with this digest.
    Part(u64),
}

/// Offsets of a place that another one holds, or the place itself.
pub(super) struct Part {
    pub(super) holder: Place,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Forks {
    pub(super) fn insert(&mut self, place: &Place, fork: Fork) {
        self.0.insert(place.clone(), fork);
    }

    pub(super) fn holder(&self, place: &Place, offset: u64) -> Held {
        let mut at = place;
        while let Some(fork) = self.0.get(at).filter(|fork| offset < fork.at) {
            if let Some(digest) = fork.cut.filter(|_| offset + 1 == fork.at) {
                return Held::Part(digest);
            }
            at = &fork.source;
        }
        Held::By(at.clone())
    }

    pub(super) fn is_inherited(&self, place: &Place, offset: u64) -> bool {
        self.0.get(place).is_some_and(|fork| offset < fork.at)
    }

    /// Of what a place shows the parts that are held whole, and the offsets of the others with their digests.
    pub(super) fn parts(&self, place: &Place) -> (Vec<Part>, Vec<(u64, u64)>) {
        let (mut parts, mut cuts, mut holder) = (Vec::new(), Vec::new(), place);
        // Where all that is left ends, and what of it is whole.
        let (mut end, mut whole) = (u64::MAX, u64::MAX);
        while let Some(fork) = self.0.get(holder) {
            if fork.at <= end {
                if fork.at < whole {
                    parts.push(Part { holder: holder.clone(), from: fork.at, to: whole });
                }
                if fork.at < end {
                    whole = fork.at;
                }
                end = fork.at;
                if let Some(digest) = fork.cut.filter(|_| whole == end) {
                    whole = end - 1;
                    cuts.push((whole, digest));
                }
            }
            holder = &fork.source;
        }
        parts.push(Part { holder: holder.clone(), from: 0, to: whole });
        (parts, cuts)
    }

    /// How far the start of a fork may have been moved while it was its source's.
    pub(super) fn inherited_start(&self, place: &Place, allowed: impl Fn(&Place) -> u64) -> u64 {
        let (mut most, mut end, mut at) = (allowed(place), u64::MAX, place);
        while let Some(fork) = self.0.get(at) {
            end = fork.at.min(end);
            at = &fork.source;
            most = most.max(allowed(at).min(end));
        }
        most
    }
}

impl Judge {
    /// Whether a record that a place shows is one that it inherits, which is judged as one of those that hold it.
    pub(super) fn inherited(&mut self, place: &Place, record: &Seen, since: Lives) -> bool {
        if !self.forks.is_inherited(place, record.offset) {
            return false;
        }
        let wanted = match self.forks.holder(place, record.offset) {
            Held::Part(digest) => digest,
            Held::By(holder) => match self.known.get(&(holder.clone(), record.offset)) {
                Some(digest) => *digest,
                None => {
                    self.shown(&holder, std::slice::from_ref(record), since);
                    record.digest
                }
            },
        };
        if wanted != record.digest {
            self.found.push(Violation::ForkDiffers { place: place.clone(), offset: record.offset });
        }
        true
    }

    /// All offsets from a start on that a view of a place must show, by what is known of those that hold them.
    pub(super) fn all_due(&self, place: &Place, start: u64) -> Vec<(u64, Due)> {
        let (parts, cuts) = self.forks.parts(place);
        let mut all = Vec::new();
        for Part { holder, from, to } in parts {
            let range = from.max(start)..to.max(from.max(start));
            all.extend(
                self.due.get(&holder).into_iter().flat_map(|due| due.range(range.clone())).map(|(at, due)| (*at, *due)),
            );
        }
        let cut = |(at, digest): (u64, u64)| (at, Due { digest, ..Due::default() });
        all.extend(cuts.into_iter().filter(|(at, _)| *at >= start).map(cut));
        all
    }

    /// How many records of a batch a place shows that has the first of them at `begin`.
    pub(super) fn shown_of(&self, op: &Op, parts: &[Part], begin: u64) -> usize {
        let end = parts.iter().find(|part| part.from <= begin && begin < part.to).map_or(begin, |part| part.to);
        op.digests.len().min(usize::try_from(end - begin).unwrap_or(usize::MAX))
    }
}
