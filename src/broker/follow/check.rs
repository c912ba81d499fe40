//! Whether what is to be followed can be.

use std::sync::Arc;

use plinth_api::limits::STREAM_TOPICS_MAX;
use plinth_storage::ids::Partition;

use super::FollowRequest;
use crate::auth::{Account, Action};
use crate::broker::catalog::Topic;
use crate::broker::error::Error;
use crate::broker::from::{From, Origin};
use crate::broker::page::{check_cursor, one_partition_only};
use crate::broker::proved;

/// Checks what can be checked without the log; gives the account.
pub(super) fn check(request: &FollowRequest) -> Result<&Account, Error> {
    let Some(first) = request.topics.first() else { return Err(Error::Invalid("no topic is named".into())) };
    let count = request.topics.len();
    if count > STREAM_TOPICS_MAX {
        return Err(Error::Unprocessable(format!("{count} topics exceed the limit of {STREAM_TOPICS_MAX} per stream")));
    }
    for topic in &request.topics {
        proved(topic.action(), Action::Subscribe)?;
        if topic.tenant() != first.tenant() {
            return Err(Error::defect("one stream was asked for topics of two tenants"));
        }
    }
    let one = count == 1 && first.is_literal();
    if request.partition.is_some() && !one {
        return Err(Error::Invalid("a partition can be named for one topic only".into()));
    }
    if matches!(request.from, From::Offset(_)) && !one {
        return Err(Error::Invalid("from offset:N is for one topic only".into()));
    }
    Ok(first.account())
}

/// Checks that the beginning fits the topics.
pub(super) fn check_origin(origin: &Origin, topics: &[Arc<Topic>], partition: Option<u32>) -> Result<(), Error> {
    if let [topic] = topics {
        let chosen = topic.chosen(partition)?;
        if matches!(origin, Origin::Offset(_)) && chosen.len() > 1 {
            return Err(one_partition_only());
        }
        let partitions: Vec<Partition> = chosen.map(|index| topic.partition(index)).collect();
        return check_cursor(origin, topic, &partitions);
    }
    if let Origin::Cursor(positions) = origin
        && !positions.keys().any(|at| topics.iter().any(|topic| topic.id == at.topic))
    {
        return Err(Error::InvalidCursor("the cursor is of none of these topics as they are now".into()));
    }
    Ok(())
}
