//! What a start does before there is a log: find or make the cluster, write the session down, take the cache directory,
//! bring the local state up to date. A cache that cannot be used makes the start slower, never wrong and never fail.

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::env::new_ulid;
use crate::error::{Chain, Error, Kind, Result};
use crate::ids::{ClusterId, SessionId};
use crate::layout::{self, ObjectName};
use crate::log::{LogOptions, SHARDS_MAX};
use crate::metrics::{Health, StorageMetrics};
use crate::shard::takeover::{Plan, Restored, Starter};
use crate::slot::{self, Created, Object, read_object, unreadable};
use crate::state::StateStore;
use crate::state::failover::FailoverState;
use crate::state::memory::MemoryState;
use crate::state::rocks::RocksState;
use crate::wal::format::{Header, ObjectKind, get_ulid};

const START_GIVE_UP_AFTER: Duration = Duration::from_secs(60);
/// How long a start waits for the process whose session it ended to let go of the cache directory.
const CACHE_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the cluster object or creates it.
pub(crate) async fn open_cluster(
    options: &LogOptions,
    health: &Health,
    session: SessionId,
) -> Result<(ClusterId, u16)> {
    if !(1..=SHARDS_MAX).contains(&options.shards) {
        let text = format!("{} shards asked for, a cluster has 1 to {SHARDS_MAX}", options.shards);
        return Err(Error::new(Kind::Invalid, text));
    }
    if let Some(object) = read_object(&options.stores, &layout::cluster()).await? {
        return parse_cluster(&object);
    }
    if let Some(found) = objects_without_cluster(options).await? {
        // A start beside this one may have been faster.
        return match read_object(&options.stores, &layout::cluster()).await? {
            Some(object) => parse_cluster(&object),
            None => Err(Error::new(
                Kind::Invalid,
                format!("the store holds {found}, but no cluster: a restore into it did not finish; run it again"),
            )),
        };
    }
    let cluster = ClusterId(new_ulid(&*options.clock, &*options.rng));
    let mut body = BytesMut::with_capacity(18);
    body.put_slice(&cluster.0.to_bytes());
    body.put_u16_le(options.shards);
    let header = Header::new(ObjectKind::Cluster, session, 0);
    let object = Object::new(layout::cluster(), header, vec![body.freeze()]);
    match slot::create(&options.stores, &object, health, Some(START_GIVE_UP_AFTER)).await? {
        Created::Ours => Ok((cluster, options.shards)),
        Created::Taken(_) => {
            let object = read_object(&options.stores, &layout::cluster()).await?;
            parse_cluster(&object.ok_or_else(|| Error::new(Kind::Corrupt, "the cluster object has vanished"))?)
        }
    }
}

/// An object of a log in a store that is no cluster. Probes do not count: a start beside this one makes them, too.
async fn objects_without_cluster(options: &LogOptions) -> Result<Option<Path>> {
    for prefix in [layout::sessions_prefix(), layout::shards_prefix()] {
        let mut listed = options.stores.read.list(Some(&prefix));
        while let Some(object) = listed.try_next().await.map_err(|error| unreadable(&prefix, error))? {
            if !matches!(ObjectName::parse(&object.location), None | Some(ObjectName::Probe(_))) {
                return Ok(Some(object.location));
            }
        }
    }
    Ok(None)
}

/// The cluster's id and its number of shards.
///
/// # Errors
/// `Invalid` when it is of another form.
pub(crate) fn parse_cluster(object: &Bytes) -> Result<(ClusterId, u16)> {
    let foreign = || Error::new(Kind::Invalid, "the store holds a cluster object that this build cannot read");
    let (header, body) = Header::parse_object(object).map_err(|error| foreign().with_source(error))?;
    cluster_of(body).filter(|_| header.kind == ObjectKind::Cluster).ok_or_else(foreign)
}

/// The cluster's id and its number of shards, from the body of its object.
pub(crate) fn cluster_of(mut body: Bytes) -> Option<(ClusterId, u16)> {
    (body.len() == 18).then(|| (ClusterId(get_ulid(&mut body)), body.get_u16_le()))
}

pub(crate) async fn write_session_meta(options: &LogOptions, health: &Health, session: SessionId) -> Result<()> {
    let mut body = BytesMut::new();
    body.put_u64_le(options.clock.now().0);
    body.put_slice(options.node.as_bytes());
    let header = Header::new(ObjectKind::SessionMeta, session, 0);
    let object = Object::new(layout::session_meta(session), header, vec![body.freeze()]);
    slot::create(&options.stores, &object, health, Some(START_GIVE_UP_AFTER)).await.map(|_| ())
}

/// Takes the cache directory for this process. Whoever held it was ended before and lets go when it notices.
pub(crate) async fn lock_cache(dir: Option<&FsPath>) -> Result<Option<std::fs::File>> {
    let Some(dir) = dir else { return Ok(None) };
    let path = dir.join("LOCK");
    let opened = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::File::options().create(true).truncate(false).write(true).open(&path));
    let file = match opened {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cache directory cannot be used, state is kept in memory");
            return Ok(None);
        }
    };
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    match tokio::time::timeout(CACHE_LOCK_TIMEOUT, locked).await {
        Ok(Ok(Ok(file))) => Ok(Some(file)),
        Ok(_) | Err(_) => {
            let text = format!("cache directory {} is in use by another process", dir.display());
            Err(Error::new(Kind::Busy, text))
        }
    }
}

/// Opens the local state and brings it up to date: what fits is kept, anything else is thrown away and rebuilt.
pub(crate) async fn restore_state(
    starter: &Starter<'_>,
    plan: &Plan,
    cache_dir: Option<&FsPath>,
    metrics: &StorageMetrics,
) -> Result<(Arc<dyn StateStore>, Restored)> {
    let dir = cache_dir.map(|dir| dir.join("state"));
    if let Some(dir) = &dir {
        match RocksState::open(dir) {
            Ok(state) => {
                let state = on_disk(state, metrics);
                if let Some(position) = starter.fits(plan, &*state).await? {
                    match starter.catch_up(plan, position, &state).await {
                        Ok(restored) => return Ok((state, restored)),
                        Err(error) if error.kind() != Kind::Corrupt => return Err(error),
                        Err(error) => {
                            tracing::warn!(error = %Chain(&error), "local state cannot be continued, it is rebuilt")
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(error = %Chain(&error), "local state cannot be opened, it is rebuilt"),
        }
    }
    rebuild(starter, plan, fresh_state(dir.as_deref(), metrics), metrics).await
}

/// Restores an empty state from the bucket, in memory where its disk does not take it.
async fn rebuild(
    starter: &Starter<'_>,
    plan: &Plan,
    state: Arc<dyn StateStore>,
    metrics: &StorageMetrics,
) -> Result<(Arc<dyn StateStore>, Restored)> {
    match starter.restore(plan, &state).await {
        // The disk may have no room for what is loaded; when it is the bucket that is broken, memory does not help either.
        Err(error) if error.kind() == Kind::Corrupt && metrics.state_on_disk.get() == 1 => {
            tracing::warn!(error = %Chain(&error), "state cannot be rebuilt on disk, it is kept in memory");
            let state = in_memory(metrics);
            let restored = starter.restore(plan, &state).await?;
            Ok((state, restored))
        }
        restored => Ok((state, restored?)),
    }
}

fn in_memory(metrics: &StorageMetrics) -> Arc<dyn StateStore> {
    metrics.state_on_disk.set(0);
    Arc::new(MemoryState::new())
}

/// The state in a directory, which goes on in memory when its disk refuses writes.
fn on_disk(state: RocksState, metrics: &StorageMetrics) -> Arc<dyn StateStore> {
    Arc::new(FailoverState::new(Arc::new(state), metrics.state_on_disk.clone()))
}

fn fresh_state(dir: Option<&FsPath>, metrics: &StorageMetrics) -> Arc<dyn StateStore> {
    let Some(dir) = dir else { return in_memory(metrics) };
    let removed = match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::fs::create_dir_all(dir),
    };
    let opened = removed
        .map_err(|error| Error::new(Kind::Corrupt, "cache directory cannot be cleared").with_source(error))
        .and_then(|()| RocksState::open(dir));
    match opened {
        Ok(state) => on_disk(state, metrics),
        Err(error) => {
            let error = Chain(&error);
            tracing::warn!(dir = %dir.display(), %error, "local state cannot be kept on disk, it is kept in memory");
            in_memory(metrics)
        }
    }
}

#[cfg(test)]
mod tests;
