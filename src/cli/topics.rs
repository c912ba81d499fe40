//! `plinth topics`: list, view, create, change and delete topics.

use plinth_api::topics::{Topic, TopicPatch, TopicRequest};
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
    },
    /// Change a topic's settings
    Update {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
        /// Largest payload of a record from now on, in bytes
        #[arg(long, required_unless_present = "durability")]
        max_record_bytes: Option<u32>,
        /// Where records are when a publish is acknowledged from now on
        #[arg(long, value_enum)]
        durability: Option<Class>,
    },
    /// Delete a topic with all its records
    Delete {
        #[command(flatten)]
        connect: Connect,
        /// The topic
        topic: String,
    },
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
        Command::Create { connect, topic, partitions, max_record_bytes, durability } => {
            let durability = durability.map(Into::into);
            let body = TopicRequest { partitions, max_record_bytes, durability };
            let request = Client::new(&connect)?.request(Method::PUT, &path(&topic)).json(&body);
            output::object(&send(request).await?.json::<Topic>().await?)
        }
        Command::Update { connect, topic, max_record_bytes, durability } => {
            let body = TopicPatch { max_record_bytes, durability: durability.map(Into::into) };
            let request = Client::new(&connect)?.request(Method::PATCH, &path(&topic)).json(&body);
            output::object(&send(request).await?.json::<Topic>().await?)
        }
        Command::Delete { connect, topic } => {
            send(Client::new(&connect)?.request(Method::DELETE, &path(&topic))).await?;
            Ok(())
        }
    }
}

fn path(topic: &str) -> String {
    format!("/v1/topics/{}", segment(topic))
}
