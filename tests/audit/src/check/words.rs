//! Violations in words.

use std::fmt;

use super::Violation;
use crate::history::Place;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { place, offset, writer } => write!(f, "lost: {place} at {offset}, acknowledged, {writer:?}"),
            Self::Phantom { place, offset, writer } => {
                write!(f, "phantom: {place} at {offset} was answered not_stored, {writer:?}")
            }
            Self::Foreign { place, offset } => write!(f, "foreign: {place} at {offset} was not published so"),
            Self::Duplicate { writer, first, second } => {
                write!(f, "duplicate: {writer:?} is at {} {} and at {} {}", first.0, first.1, second.0, second.1)
            }
            Self::Disordered { place, earlier, later } => {
                write!(f, "disordered: {place} has {later:?} before {earlier:?}")
            }
            Self::Hole { place, expected, found } => {
                write!(f, "hole: {place} goes on at {found} instead of {expected}")
            }
            Self::Changed { place, offset } => write!(f, "changed: {place} at {offset} had two records"),
            Self::WentBack { place, offset, floor } => {
                write!(f, "went back: {place} gave {offset} after {floor} was acknowledged")
            }
            Self::Stale { place, end, floor } => {
                write!(f, "stale: a read of {place} ended at {end} with {floor} acknowledged or shown before")
            }
            Self::Skipped { connection, place, expected, found } => {
                write!(f, "skipped: connection {connection} of {place} got {found} instead of {expected}, no gap event")
            }
            Self::Vanished { place, offset } => write!(f, "vanished: {place} at {offset} was shown and is gone"),
            Self::Overtrimmed { place, start, allowed } => {
                write!(f, "overtrimmed: {place} begins at {start}, nobody asked for more than {allowed}")
            }
            Self::StartWentBack { place, start, floor } => {
                write!(f, "start went back: {place} begins at {start} after it began at {floor}")
            }
            Self::Revived { place, offset } => write!(f, "revived: {place} at {offset} was gone and is shown"),
            Self::Torn { place, offset, first, count } => {
                write!(f, "torn: {place} at {offset} has a part of the batch of {count} from {first:?}")
            }
            Self::Closed { place, end } => write!(f, "closed: {place} ends at {end}, and nobody had asked for it"),
            Self::Reopened { place, end } => write!(f, "reopened: {place} was closed at {end} and is open"),
            Self::EndMoved { place, end, found } => write!(f, "end moved: {place} ended at {end} and ends at {found}"),
            Self::BehindTheEnd { place, offset, end } => {
                write!(f, "behind the end: {place} at {offset} has a record, and the stream ends at {end}")
            }
            Self::ForkDiffers { place, offset } => {
                write!(f, "fork differs: {place} at {offset} has not the record of its source")
            }
            Self::BadHistory(why) => write!(f, "bad history: {why}"),
        }
    }
}
