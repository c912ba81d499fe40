//! `plinth topics`: list, view, create, change and delete topics, and delete old records of one.

use clap::ArgGroup;
use plinth_api::topics::{ByteCount, Cleanup, Retention, RetentionPatch, Topic, TopicPatch, TopicRequest, Trimmed};
use reqwest::Method;

use super::class::Class;
use super::client::{Client, Connect, segment, send};
use super::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every topic that the key may see, one JSON object per line
    List {
        #[command(flatten)]
        connect: Connect,
        /// Only names that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
    },
    /// One topic with the bounds of its partitions
    Get {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
    },
    /// Create a topic, or make sure that it has these settings
    Create {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
        /// How many partitions, 1 to 1024; cannot be changed later
        #[arg(long)]
        partitions: Option<u32>,
        /// Largest payload of a record, in bytes
        #[arg(long)]
        max_record_bytes: Option<u32>,
        /// Where records are when a publish is acknowledged [default: object]
        #[arg(long, value_enum)]
        durability: Option<Class>,
        /// Records that are older go, such as 7d; without it none does
        #[arg(long, value_name = "TIME")]
        retention_age: Option<String>,
        /// When a partition holds more, its oldest records go, such as 10GiB
        #[arg(long, value_name = "BYTES")]
        retention_bytes: Option<String>,
        /// What happens to records besides [default: delete]
        #[arg(long, value_enum)]
        cleanup: Option<Cleaning>,
    },
    /// Change a topic's settings; what is not given stays as it is
    #[command(group = ArgGroup::new("change").required(true).multiple(true)
        .args(["max_record_bytes", "durability", "retention_age", "retention_bytes", "cleanup"]))]
    Update {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
        /// Largest payload of a record from now on, in bytes
        #[arg(long)]
        max_record_bytes: Option<u32>,
        /// Where records are when a publish is acknowledged from now on
        #[arg(long, value_enum)]
        durability: Option<Class>,
        /// Records that are older go, such as 7d; none takes the limit away
        #[arg(long, value_name = "TIME|none")]
        retention_age: Option<String>,
        /// When a partition holds more, its oldest records go, such as 10GiB; none takes the limit away
        #[arg(long, value_name = "BYTES|none")]
        retention_bytes: Option<String>,
        /// What happens to records besides, from now on
        #[arg(long, value_enum)]
        cleanup: Option<Cleaning>,
    },
    /// Delete the records before a place, for ever
    Trim {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
        /// The first record that stays: an offset, time:<RFC 3339>, or latest for none
        #[arg(long)]
        before: String,
        /// Only this partition; an offset needs one if the topic has several
        #[arg(long)]
        partition: Option<u32>,
    },
    /// Delete a topic with all its records
    Delete {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
    },
}

/// What happens to the records of a topic besides retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Cleaning {
    /// Nothing
    Delete,
    /// Only the last record of each key stays; one with an empty payload deletes its key
    Compact,
}

impl From<Cleaning> for Cleanup {
    fn from(cleaning: Cleaning) -> Self {
        match cleaning {
            Cleaning::Delete => Self::Delete,
            Cleaning::Compact => Self::Compact,
        }
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { connect, prefix } => {
            let query: &[(&str, &str)] = if prefix.is_empty() { &[] } else { &[("prefix", &prefix)] };
            let topics: Vec<Topic> = Client::new(&connect)?.list("/v1/topics", query).await?;
            topics.iter().try_for_each(output::line)
        }
        Command::Get { connect, topic } => {
            let request = Client::new(&connect)?.request(Method::GET, &path(&topic));
            output::object(&send(request).await?.json::<Topic>().await?)
        }
        Command::Create {
            connect,
            topic,
            partitions,
            max_record_bytes,
            durability,
            retention_age,
            retention_bytes,
            cleanup,
        } => {
            let durability = durability.map(Into::into);
            let bytes = retention_bytes.map(ByteCount::Text);
            let retention = Retention { age: retention_age, bytes };
            let retention = (retention != Retention::default()).then_some(retention);
            let cleanup = cleanup.map(Into::into);
            let body = TopicRequest { partitions, max_record_bytes, durability, retention, cleanup };
            let request = Client::new(&connect)?.request(Method::PUT, &path(&topic)).json(&body);
            output::object(&send(request).await?.json::<Topic>().await?)
        }
        Command::Update { connect, topic, max_record_bytes, durability, retention_age, retention_bytes, cleanup } => {
            let durability = durability.map(Into::into);
            let bytes = retention_bytes.map(|given| unless_none(given).map(ByteCount::Text));
            let retention = RetentionPatch { age: retention_age.map(unless_none), bytes };
            let retention = (retention != RetentionPatch::default()).then_some(Some(retention));
            let cleanup = cleanup.map(Into::into);
            let body = TopicPatch { max_record_bytes, durability, retention, cleanup };
            let request = Client::new(&connect)?.request(Method::PATCH, &path(&topic)).json(&body);
            output::object(&send(request).await?.json::<Topic>().await?)
        }
        Command::Trim { connect, topic, before, partition } => {
            let request = Client::new(&connect)?.request(Method::DELETE, &format!("{}/records", path(&topic)));
            let request = request.query(&[("before", before)]).query(&partition.map(|index| [("partition", index)]));
            output::object(&send(request).await?.json::<Trimmed>().await?)
        }
        Command::Delete { connect, topic } => {
            send(Client::new(&connect)?.request(Method::DELETE, &path(&topic))).await?;
            Ok(())
        }
    }
}

/// `none` takes a limit away.
fn unless_none(given: String) -> Option<String> {
    (given != "none").then_some(given)
}

fn path(topic: &str) -> String {
    format!("/v1/topics/{}", segment(topic))
}
