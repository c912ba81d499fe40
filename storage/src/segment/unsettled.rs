//! Which segments of this session may still be linked: those are not deleted although nothing refers to them yet.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::SegmentId;

/// Segments from before they are created until all their links are committed. One whose links may or may not be committed
/// stays for ever. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unsettled {
    segments: Arc<Mutex<HashSet<SegmentId>>>,
}

impl Unsettled {
    /// The segment is about to be created.
    pub(crate) fn begin(&self, segment: SegmentId) {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner).insert(segment);
    }

    /// No link of the segment will be committed any more.
    pub(crate) fn settle(&self, segment: SegmentId) {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner).remove(&segment);
    }

    /// Those that may still be linked.
    pub(crate) fn all(&self) -> HashSet<SegmentId> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
