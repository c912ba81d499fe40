//! Segments: what the WAL holds, rewritten once so that it is sorted and compressed (ADR 14).

pub(crate) mod build;
mod clean;
pub(crate) mod cleaned;
mod cleaner;
pub(crate) mod compaction;
pub(crate) mod conserve;
pub(crate) mod format;
mod frames;
pub(crate) mod gather;
pub(crate) mod link;
mod merge;
pub(crate) mod read;
pub(crate) mod run;
pub(crate) mod unsettled;

#[cfg(test)]
mod tests;
