//! Where streams end: closed if somebody asked for it, and then for ever at one offset.

use std::collections::{BTreeMap, HashSet};

use super::Violation;
use crate::history::Place;

/// What is known of the ends of streams.
#[derive(Default)]
pub(super) struct Ends {
    asked: HashSet<Place>,
    ends: BTreeMap<Place, u64>,
}

impl Ends {
    pub(super) fn may_close(&mut self, place: &Place) {
        self.asked.insert(place.clone());
    }

    /// Somebody is told where a stream ends; what is wrong with it.
    pub(super) fn shown(&mut self, place: &Place, tail: u64, closed: bool) -> Option<Violation> {
        let place = place.clone();
        match self.ends.get(&place).copied() {
            Some(end) if !closed => Some(Violation::Reopened { place, end }),
            Some(end) if end != tail => Some(Violation::EndMoved { place, end, found: tail }),
            Some(_) => None,
            None if closed => {
                self.ends.insert(place.clone(), tail);
                let asked = self.asked.contains(&place);
                (!asked).then_some(Violation::Closed { place, end: tail })
            }
            None => None,
        }
    }

    /// The streams that are closed, and where they end.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Place, u64)> {
        self.ends.iter().map(|(place, end)| (place, *end))
    }
}
