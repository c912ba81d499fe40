//! How much a run explores. Every bound is small: what goes wrong in a log goes wrong with two or three of each.

/// The bounds of a run, and which parts of the log take part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope {
    /// Sessions; the first of them owns every shard at the beginning.
    pub sessions: u8,
    /// Shards, at most two.
    pub shards: u8,
    /// Records that clients send, at most three.
    pub records: u8,
    /// Slots of a session with data.
    pub slots: u8,
    /// Slots of a session in flight at a time.
    pub in_flight: usize,
    /// Checkpoints of a session.
    pub checkpoints: u8,
    /// Puts that are repeated while the one before is still under way, so that it may land when its author has gone on.
    pub late: u8,
    /// Sessions may begin without a shard, and shards be released and claimed.
    pub moves: bool,
    /// What is deleted.
    pub deletes: Deletes,
    /// Checkpoints may build on the one before.
    pub incremental: bool,
    /// The bytes of records count apart from the state: a slot that holds some is kept until they are elsewhere. Without
    /// this a checkpoint stands for all that it covers.
    pub payload: bool,
    /// Segments that are made; they need `payload`.
    pub segments: u8,
    /// Records may be retired; it needs `payload`.
    pub retention: bool,
    /// There is a reader who is sent to a place and comes there later; it needs `payload`.
    pub reader: bool,
}

/// What may be deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deletes {
    /// A session's own slots.
    pub slots: bool,
    /// A session's own checkpoints.
    pub checkpoints: bool,
    /// The logs and checkpoints of ended sessions.
    pub ended: bool,
}

impl Deletes {
    /// Whether anything is.
    #[must_use]
    pub fn any(self) -> bool {
        self.slots || self.checkpoints || self.ended
    }
}
