//! `plinth inspect`: what is in a bucket, and about what it costs.

mod cost;
mod lines;

use std::collections::{BTreeMap, BTreeSet};

use plinth_storage::ids::SessionId;
use plinth_storage::inspect::{Bucket, ClaimView, Overview, SessionStatus, SessionView, State};
use plinth_storage::log::TopicBounds;

use self::cost::Cost;
use self::lines::{Line, TopicLine};
use super::bucket::{Opened, Source, interruptible, rfc3339};
use super::output;
use super::table::Table;
use crate::broker::{NamedTopic, named_topics};

/// Sessions that are shown to people; the newest ones.
const SESSIONS_SHOWN: usize = 20;
/// Topics that are shown to people when none are named.
const TOPICS_SHOWN: usize = 100;

/// Shows what is in a bucket: sessions, shards and their owners, objects, topics with their records and bytes, and about
/// what it costs.
///
/// The bucket is only read, also while a node runs on it. The state is restored as a start would do it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Only these topics, with their partitions [default: all]
    topics: Vec<String>,
    /// Only topics of this tenant
    #[arg(long, value_name = "TENANT")]
    of_tenant: Option<String>,
    /// One JSON object per line: `kind` is `cluster`, `objects`, `session`, `shard`, `topic` or `cost`
    #[arg(long)]
    json: bool,
}

impl Args {
    fn is_of_tenant(&self, topic: &NamedTopic) -> bool {
        self.of_tenant.as_ref().is_none_or(|tenant| *tenant == topic.tenant)
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let opened = args.source.open()?;
    interruptible(show(&opened, &args)).await
}

async fn show(opened: &Opened, args: &Args) -> anyhow::Result<()> {
    let bucket = Bucket::open(&opened.stores, opened.in_flight).await?;
    let overview = bucket.overview().await?;
    let state = bucket.state(&opened.scratch).await?;
    check_named(&state, args)?;
    let cost = Cost::of(&overview, state.newest_record()?);
    if args.json {
        json(&opened.stores.url, &overview, &state, &cost, args)
    } else {
        text(&opened.stores.url, &overview, &state, &cost, args)
    }
}

fn json(store: &str, overview: &Overview, state: &State, cost: &Cost, args: &Args) -> anyhow::Result<()> {
    output::line(&Line::cluster(store, overview))?;
    for (purpose, usage) in &overview.usage {
        output::line(&Line::objects(purpose, usage))?;
    }
    overview.sessions.iter().try_for_each(|session| output::line(&Line::session(session)))?;
    overview.claims.iter().try_for_each(|(shard, claims)| output::line(&Line::shard(shard.0, claims)))?;
    output::line(&Line::Cost(*cost))?;
    each_topic(state, args, |topic, partitions| output::line(&Line::Topic(TopicLine::of(topic, partitions))))
}

/// Gives the topics that were asked for to `take`, with the bounds of their partitions.
fn each_topic(
    state: &State,
    args: &Args,
    mut take: impl FnMut(&NamedTopic, &TopicBounds) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    named_topics(state, |topic| {
        if !(args.is_of_tenant(&topic) && (args.topics.is_empty() || args.topics.contains(&topic.name))) {
            return Ok(());
        }
        take(&topic, &state.topic_bounds(topic.id, topic.partitions)?)
    })
}

/// What is named must be there.
fn check_named(state: &State, args: &Args) -> anyhow::Result<()> {
    let mut absent: BTreeSet<&str> = args.topics.iter().map(String::as_str).collect();
    named_topics(state, |topic| {
        if args.is_of_tenant(&topic) {
            absent.remove(&*topic.name);
        }
        anyhow::Ok(())
    })?;
    let Some(first) = absent.first() else { return Ok(()) };
    let tenant = args.of_tenant.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
    anyhow::bail!("there is no topic {first}{tenant} in the bucket")
}

fn text(store: &str, overview: &Overview, state: &State, cost: &Cost, args: &Args) -> anyhow::Result<()> {
    let mut text = format!("cluster  {}, {} shards, in {store}\n", overview.cluster, overview.shards);
    text.push_str(&format!("objects  {}\n", usages(overview)));
    text.push_str(&format!("cost     {}\n\n", cost.text()));
    text.push_str(&sessions(&overview.sessions));
    text.push_str(&format!("\n{}\n", shards(overview)));
    output::text(&text)?;
    topics(state, args)
}

fn usages(overview: &Overview) -> String {
    let parts =
        overview.usage.iter().map(|(purpose, usage)| format!("{purpose} {} ({})", usage.objects, bytes(usage.bytes)));
    parts.collect::<Vec<_>>().join(", ")
}

fn sessions(sessions: &[SessionView]) -> String {
    let mut table = Table::new(&["SESSION", "NODE", "STARTED", "SLOTS", "BYTES", "CHECKPOINTS", "NEWEST", "LOG"]);
    let older = sessions.len().saturating_sub(SESSIONS_SHOWN);
    for session in sessions.iter().skip(older) {
        let meta = session.meta.as_ref();
        let newest =
            session.newest_checkpoint.map(|newest| format!("before slot {}, {}", newest.next, bytes(newest.bytes)));
        table.row(vec![
            session.session.to_string(),
            meta.map_or_else(|| "?".to_owned(), |meta| meta.node.clone()),
            meta.map_or_else(|| "?".to_owned(), |meta| rfc3339(meta.started_at.0)),
            session.slots.objects.to_string(),
            bytes(session.slots.bytes),
            session.checkpoints.objects.to_string(),
            newest.unwrap_or_else(|| "-".to_owned()),
            status(session),
        ]);
    }
    let more = if older > 0 { format!("and {older} older ones: --json shows all\n") } else { String::new() };
    format!("{}{more}", table.text())
}

fn status(session: &SessionView) -> String {
    let loose = if session.loose.objects > 0 {
        format!(", {} slots above its end", session.loose.objects)
    } else {
        String::new()
    };
    match session.status {
        SessionStatus::Open => format!("open{loose}"),
        SessionStatus::Ended { at, by } => format!("ended at slot {at} by {by}{loose}"),
        SessionStatus::Unused => format!("never owned a shard{loose}"),
    }
}

/// Shards whose owners were the same, together.
fn shards(overview: &Overview) -> String {
    let mut alike: BTreeMap<Vec<SessionId>, Vec<u16>> = BTreeMap::new();
    for (shard, claims) in &overview.claims {
        alike.entry(claims.iter().map(|ClaimView { owner, .. }| *owner).collect()).or_default().push(shard.0);
    }
    let mut table = Table::new(&["SHARDS", "OWNER", "EPOCH", "OWNERS BEFORE"]);
    for (owners, shards) in alike {
        let Some((owner, before)) = owners.split_last() else { continue };
        let skipped = before.len().saturating_sub(3);
        let named = before.iter().skip(skipped).rev().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let more = if skipped > 0 { format!(" and {skipped} more") } else { String::new() };
        table.row(vec![ranges(&shards), owner.to_string(), owners.len().to_string(), format!("{named}{more}")]);
    }
    table.text()
}

/// `0-3, 7`.
fn ranges(numbers: &[u16]) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            Some(_) | None => ranges.push((number, number)),
        }
    }
    let text = |(first, last): &(u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn topics(state: &State, args: &Args) -> anyhow::Result<()> {
    let named = !args.topics.is_empty();
    let mut table = Table::new(&["TENANT", "TOPIC", "PARTITIONS", "RECORDS", "BYTES", "NEWEST", "ID"]);
    let mut partitions = Table::new(&["TOPIC", "PARTITION", "START", "TAIL", "BYTES", "NEWEST"]);
    let mut left_out = 0_u64;
    each_topic(state, args, |topic, bounds| {
        let line = TopicLine::of(topic, bounds);
        if !named && table.len() >= TOPICS_SHOWN {
            left_out += 1;
            return Ok(());
        }
        let newest = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), rfc3339);
        for bounds in line.bounds.iter().filter(|_| named) {
            let numbers = [u64::from(bounds.partition), bounds.start, bounds.tail].map(|number| number.to_string());
            let rest = [bytes(bounds.bytes), newest(bounds.newest_at_ms)];
            partitions.row([vec![topic.name.clone()], numbers.to_vec(), rest.to_vec()].concat());
        }
        table.row(vec![
            topic.tenant.clone(),
            topic.name.clone(),
            topic.partitions.to_string(),
            line.records.to_string(),
            bytes(line.bytes),
            newest(line.newest_at_ms),
            topic.id.to_string(),
        ]);
        Ok(())
    })?;
    output::text(&table.text())?;
    if left_out > 0 {
        output::text(&format!("and {left_out} more: name them, or --json for all\n"))?;
    }
    if named { output::text(&format!("\n{}", partitions.text())) } else { Ok(()) }
}

fn bytes(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_in_a_row_are_one_range() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9-10");
        assert_eq!(ranges(&[]), "");
    }
}
