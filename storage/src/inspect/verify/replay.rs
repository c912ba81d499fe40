//! The state that the logs lead to, and where every run of batches really stands.

use crate::error::{Chain, Result};
use crate::ids::{ClusterId, ObjectHash, TopicId};
use crate::inspect::scratch::{Scratch, ScratchState};
use crate::inspect::verify::runs::Runs;
use crate::layout;
use crate::shard::changes::Entry;
use crate::shard::fork::Forks;
use crate::shard::machine::{self, SlotSummary};
use crate::shard::stream::stream_row;
use crate::shard::{gaps, trim};
use crate::state::StateOp;

/// The state so far.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) state: ScratchState,
    /// Every run that was read, also where the state is not known.
    pub(super) runs: Runs,
    known: bool,
    cluster: ClusterId,
    applied: u64,
}

/// So many slots are applied until what they changed is dropped: no checkpoint is made of it here.
const DIRTY_MAX: u64 = 1024;

impl Replay {
    /// An empty state.
    ///
    /// # Errors
    /// `Invalid` when the scratch directory cannot be used.
    pub(super) fn new(scratch: &Scratch, cluster: ClusterId) -> Result<Self> {
        Ok(Self { state: scratch.state()?, runs: Runs::new(scratch)?, known: true, cluster, applied: 0 })
    }

    /// Whether the state is that of the log: nothing before was lost.
    pub(super) fn is_known(&self) -> bool {
        self.known
    }

    /// Something of the log is lost: the state is not known from here on.
    pub(super) fn lose(&mut self) {
        self.known = false;
    }

    /// Goes on from another state.
    pub(super) fn adopt(&mut self, state: ScratchState) {
        self.state = state;
        self.known = true;
    }

    /// Applies a slot, and tells what is wrong with it.
    ///
    /// # Errors
    /// `Corrupt` when the scratch directory is broken.
    pub(super) fn apply(&mut self, slot: &SlotSummary, hash: ObjectHash) -> Result<Vec<String>> {
        if !self.known {
            return Ok(Vec::new());
        }
        let mut faults = self.faults(slot)?;
        if faults.is_empty()
            && let Err(error) = machine::apply(&*self.state, slot, &[], (self.cluster, hash))
        {
            // A scratch place that takes nothing is no fault of the bucket.
            self.forget_dirty()?;
            faults.push(format!("does not continue the state: {}", Chain(&error)));
        }
        if !faults.is_empty() {
            self.lose();
            return Ok(faults);
        }
        self.applied += 1;
        if self.applied.is_multiple_of(DIRTY_MAX) {
            self.forget_dirty()?;
        }
        Ok(faults)
    }

    fn forget_dirty(&self) -> Result<()> {
        self.state.write(&[StateOp::DeleteRange(layout::dirty_key(0), layout::dirty_key(u64::MAX))])
    }

    fn faults(&self, slot: &SlotSummary) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let mut partitions = Vec::with_capacity(slot.runs.len());
        let gaps = gaps::by_place(&slot.entries);
        let forks = Forks::of(&*self.state, &slot.entries, &trim::starts(&slot.entries))?;
        for run in &slot.runs {
            let partition = run.partition;
            partitions.push(partition);
            let made = slot.entries.iter().find_map(|entry| partitions_made(entry, partition.topic));
            let stored = machine::topic_row(&*self.state, partition.topic)?.map(|topic| topic.partitions);
            if made.or(stored).is_none_or(|partitions| partition.index.0 >= partitions) {
                faults.push(format!("holds records of partition {partition}, which is not there"));
                continue;
            }
            let row = match forks.begun(partition) {
                Some(begun) => begun,
                None => machine::partition_row(&*self.state, partition)?.unwrap_or_default(),
            };
            let tail = gaps.get(&(partition, row.tail)).map_or(row.tail, |gap| gap.to);
            if tail != run.base {
                faults.push(format!("puts offset {} after {tail} of partition {partition}", run.base));
            }
            if stream_row(&*self.state, partition)?.closed.is_some() {
                faults
                    .push(format!("puts offset {} behind the end of partition {partition}, which is closed", run.base));
            }
            if run.first_timestamp < row.last_timestamp {
                faults.push(format!("goes back in time in partition {partition}"));
            }
        }
        for link in
            slot.entries.iter().filter_map(|entry| if let Entry::Link(link) = entry { Some(link) } else { None })
        {
            for run in &link.runs {
                if self.runs.loses(&*self.state, link, run)? {
                    let text =
                        format!("links segment {}, which holds other batches of {}", link.segment, run.partition);
                    faults.push(format!("{text} from offset {} on", run.base));
                }
            }
        }
        partitions.sort_unstable();
        if let Some(twice) = partitions.windows(2).find(|pair| pair[0] == pair[1]) {
            faults.push(format!("has two runs of partition {}", twice[0]));
        }
        Ok(faults)
    }
}

/// How many partitions a topic has, if the entry makes it.
fn partitions_made(entry: &Entry, made: TopicId) -> Option<u32> {
    if let Entry::CreateTopic { topic, partitions } = entry {
        return (*topic == made).then_some(*partitions);
    }
    matches!(entry, Entry::ForkTopic { topic, .. } if *topic == made).then_some(1)
}
