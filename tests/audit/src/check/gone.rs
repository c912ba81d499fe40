//! What may be gone of a partition: what is below a start that may have moved there, and, of a class weaker than `object`,
//! what is told to be lost after a death.

use std::collections::{BTreeMap, HashMap};

use crate::history::{Class, Place};

/// What may be gone.
#[derive(Default)]
pub(super) struct Gone {
    /// Up to where starts may have moved; above every offset where a topic keeps only so much.
    allowed: HashMap<Place, u64>,
    /// Up to where they have: no later start is below.
    starts: HashMap<Place, u64>,
    /// Told to be lost: from, to.
    lost: HashMap<Place, BTreeMap<u64, u64>>,
    lives: Lives,
}

/// How many ends of the process there were before a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lives {
    deaths: u64,
    wipes: u64,
}

impl Gone {
    pub(super) fn lives(&self) -> Lives {
        self.lives
    }

    pub(super) fn died(&mut self, wiped: bool) {
        self.lives.deaths += 1;
        self.lives.wipes += u64::from(wiped);
    }

    /// Whether a record of a class that was acknowledged, or shown, in some life may be lost by now.
    pub(super) fn may_lose(&self, class: Class, since: Lives) -> bool {
        match class {
            Class::Object => false,
            Class::Local => self.lives.wipes > since.wipes,
            Class::Memory => self.lives.deaths > since.deaths,
        }
    }

    pub(super) fn may_trim(&mut self, place: &Place, before: Option<u64>) {
        let allowed = self.allowed.entry(place.clone()).or_default();
        *allowed = before.unwrap_or(u64::MAX).max(*allowed);
    }

    pub(super) fn allowed(&self, place: &Place) -> u64 {
        self.allowed.get(place).copied().unwrap_or(0)
    }

    pub(super) fn start(&self, place: &Place) -> u64 {
        self.starts.get(place).copied().unwrap_or(0)
    }

    pub(super) fn moved(&mut self, place: &Place, start: u64) {
        let highest = self.starts.entry(place.clone()).or_default();
        *highest = start.max(*highest);
    }

    pub(super) fn told_lost(&mut self, place: &Place, from: u64, to: u64) {
        let end = self.lost.entry(place.clone()).or_default().entry(from).or_default();
        *end = to.max(*end);
    }

    /// Whether an offset is told to be lost.
    pub(super) fn is_lost(&self, place: &Place, offset: u64) -> bool {
        let before = self.lost.get(place).and_then(|lost| lost.range(..=offset).next_back());
        before.is_some_and(|(_, to)| offset < *to)
    }
}
