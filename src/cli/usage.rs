//! `plinth quotas`: limits and use of now. `plinth usage`: what a tenant used by minute or hour.

use plinth_api::quotas::QuotaReport;
use plinth_api::system::UsageReport;
use reqwest::Method;

use super::client::{Client, Connect, send};
use super::output;

#[derive(Debug, clap::Args)]
pub(super) struct QuotasArgs {
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run_quotas(args: QuotasArgs) -> anyhow::Result<()> {
    let request = Client::new(&args.connect)?.request(Method::GET, "/v1/quotas");
    output::object(&send(request).await?.json::<QuotaReport>().await?)
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    /// Where the span begins, such as 2026-11-27T08:00:00Z [default: an hour before its end]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Where it ends [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// How finely it is told: by minute for at most a day, by hour for at most 31 days
    #[arg(long, value_parser = ["minute", "hour"], default_value = "minute")]
    granularity: String,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let asked = [("from", args.from.as_deref()), ("to", args.to.as_deref()), ("granularity", Some(&*args.granularity))];
    let asked: Vec<_> = asked.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
    let request = Client::new(&args.connect)?.request(Method::GET, "/v1/usage").query(&asked);
    output::object(&send(request).await?.json::<UsageReport>().await?)
}
