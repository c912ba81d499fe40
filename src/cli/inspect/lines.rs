//! The lines of `plinth inspect --json`. Names of fields stay as they are: scripts read them.

use plinth_storage::inspect::{ClaimView, Overview, SessionStatus, SessionView, Usage};
use plinth_storage::log::TopicBounds;
use serde::Serialize;

use super::cost::Cost;
use crate::broker::NamedTopic;

/// One line.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Cluster { store: &'a str, cluster: String, shards: u16 },
    Objects { purpose: &'a str, objects: u64, bytes: u64 },
    Session(SessionLine<'a>),
    Shard { shard: u16, owner: String, epoch: u64, owners: Vec<OwnerLine> },
    Topic(TopicLine<'a>),
    Cost(Cost),
}

#[derive(Serialize)]
pub(super) struct SessionLine<'a> {
    session: String,
    node: Option<&'a str>,
    started_at_ms: Option<u64>,
    /// `open`, `ended` or `unused`.
    log: &'static str,
    ended_at_slot: Option<u64>,
    ended_by: Option<String>,
    slots: u64,
    bytes: u64,
    slots_above_end: u64,
    checkpoints: u64,
    checkpoint_bytes: u64,
    newest_checkpoint: Option<CheckpointLine>,
}

#[derive(Serialize)]
struct CheckpointLine {
    number: u64,
    next_slot: u64,
    bytes: u64,
}

#[derive(Serialize)]
pub(super) struct OwnerLine {
    epoch: u64,
    session: String,
}

/// A topic with its partitions.
#[derive(Serialize)]
pub(super) struct TopicLine<'a> {
    tenant: &'a str,
    topic: &'a str,
    id: String,
    created_at_ms: u64,
    partitions: u32,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) newest_at_ms: Option<u64>,
    pub(super) bounds: Vec<PartitionLine>,
}

#[derive(Serialize)]
pub(super) struct PartitionLine {
    pub(super) partition: u32,
    pub(super) start: u64,
    pub(super) tail: u64,
    pub(super) bytes: u64,
    pub(super) newest_at_ms: Option<u64>,
}

impl<'a> Line<'a> {
    pub(super) fn cluster(store: &'a str, overview: &Overview) -> Self {
        Self::Cluster { store, cluster: overview.cluster.to_string(), shards: overview.shards }
    }

    pub(super) fn objects(purpose: &'a str, usage: &Usage) -> Self {
        Self::Objects { purpose, objects: usage.objects, bytes: usage.bytes }
    }

    pub(super) fn session(view: &'a SessionView) -> Self {
        let (log, end) = match view.status {
            SessionStatus::Open => ("open", None),
            SessionStatus::Ended { at, by } => ("ended", Some((at.0, by.to_string()))),
            SessionStatus::Unused => ("unused", None),
        };
        let newest = view.newest_checkpoint;
        Self::Session(SessionLine {
            session: view.session.to_string(),
            node: view.meta.as_ref().map(|meta| meta.node.as_str()),
            started_at_ms: view.meta.as_ref().map(|meta| meta.started_at.0),
            log,
            ended_at_slot: end.as_ref().map(|(at, _)| *at),
            ended_by: end.map(|(_, by)| by),
            slots: view.slots.objects,
            bytes: view.slots.bytes,
            slots_above_end: view.loose.objects,
            checkpoints: view.checkpoints.objects,
            checkpoint_bytes: view.checkpoints.bytes,
            newest_checkpoint: newest.map(|newest| CheckpointLine {
                number: newest.number.0,
                next_slot: newest.next.0,
                bytes: newest.bytes,
            }),
        })
    }

    pub(super) fn shard(shard: u16, claims: &[ClaimView]) -> Self {
        let owners = claims.iter().map(|claim| OwnerLine { epoch: claim.epoch.0, session: claim.owner.to_string() });
        let newest = claims.last();
        Self::Shard {
            shard,
            owner: newest.map(|claim| claim.owner.to_string()).unwrap_or_default(),
            epoch: newest.map_or(0, |claim| claim.epoch.0),
            owners: owners.collect(),
        }
    }
}

impl<'a> TopicLine<'a> {
    pub(super) fn of(topic: &'a NamedTopic, bounds: &TopicBounds) -> Self {
        let lines = bounds.partitions.iter().zip(0..).map(|(bounds, partition)| PartitionLine {
            partition,
            start: bounds.start.0,
            tail: bounds.tail.0,
            bytes: bounds.bytes,
            newest_at_ms: (bounds.tail.0 > 0).then_some(bounds.last_timestamp.0),
        });
        let lines: Vec<_> = lines.collect();
        Self {
            tenant: &topic.tenant,
            topic: &topic.name,
            id: topic.id.to_string(),
            created_at_ms: topic.created_at.0,
            partitions: topic.partitions,
            records: bounds.records(),
            bytes: bounds.bytes(),
            newest_at_ms: lines.iter().filter_map(|line| line.newest_at_ms).max(),
            bounds: lines,
        }
    }
}
