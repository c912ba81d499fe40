//! A session's write-ahead log: the form of its objects, the writer that commits them, and the ends of dead ones.

pub(crate) mod blocks;
pub(crate) mod buffer;
pub(crate) mod fence;
pub(crate) mod format;
pub(crate) mod journal;
pub(crate) mod pipeline;
pub(crate) mod reader;
pub(crate) mod recover;
pub(crate) mod writer;
