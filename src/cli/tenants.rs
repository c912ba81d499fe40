//! `plinth tenants`: list, view, create, change, suspend, resume and delete tenants, with the root key.

use plinth_api::quotas::Quotas;
use plinth_api::tenants::{Tenant, TenantPatch, TenantRequest};
use reqwest::Method;

use super::client::{Client, Connect, segment, send};
use super::quotas::with_quotas;
use super::{Usage, output};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every tenant, one JSON object per line
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// One tenant
    Get {
        #[command(flatten)]
        connect: Connect,
        /// The tenant
        name: String,
    },
    /// Create a tenant
    Create {
        #[command(flatten)]
        connect: Connect,
        /// 1 to 63 of a-z, 0-9 and -
        name: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change quotas and origins of a tenant; what is not named stays
    Update {
        #[command(flatten)]
        connect: Connect,
        /// The tenant
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Allow no origin
        #[arg(long, conflicts_with = "origins")]
        no_origins: bool,
    },
    /// Refuse all credentials of a tenant, on open connections, too; its records stay
    Suspend {
        #[command(flatten)]
        connect: Connect,
        /// The tenant
        name: String,
    },
    /// Accept the credentials of a suspended tenant again
    Resume {
        #[command(flatten)]
        connect: Connect,
        /// The tenant
        name: String,
    },
    /// Delete a tenant with its topics, records and keys
    Delete {
        #[command(flatten)]
        connect: Connect,
        /// The tenant
        name: String,
    },
}

/// What may be set for a tenant.
#[derive(Debug, clap::Args)]
struct Settings {
    /// What it may use at most, such as topics=1000, or topics=none for no limit; may be repeated
    ///
    /// Names: requests_per_second, publish_bytes_per_second, publish_records_per_second, delivered_bytes_per_second,
    /// delivered_records_per_second, connections, followers, topics, storage_bytes.
    #[arg(long = "quota", value_name = "NAME=NUMBER")]
    quotas: Vec<String>,
    /// The pages whose scripts may use the API, such as https://app.example.com, in place of all before; may be repeated
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { connect } => {
            let tenants: Vec<Tenant> = Client::new(&connect)?.list("/v1/tenants", &[]).await?;
            tenants.iter().try_for_each(output::line)
        }
        Command::Get { connect, name } => {
            let request = Client::new(&connect)?.request(Method::GET, &path(&name));
            output::object(&send(request).await?.json::<Tenant>().await?)
        }
        Command::Create { connect, name, settings } => {
            let quotas = with_quotas(&Quotas::default(), &settings.quotas)?;
            let body = TenantRequest { name, quotas: Some(quotas), allowed_origins: Some(settings.origins) };
            let request = Client::new(&connect)?.request(Method::POST, "/v1/tenants").json(&body);
            output::object(&send(request).await?.json::<Tenant>().await?)
        }
        Command::Update { connect, name, settings, no_origins } => {
            let client = Client::new(&connect)?;
            let quotas = if settings.quotas.is_empty() {
                None
            } else {
                let before: Tenant = send(client.request(Method::GET, &path(&name))).await?.json().await?;
                Some(with_quotas(&before.quotas, &settings.quotas)?)
            };
            let allowed_origins = (no_origins || !settings.origins.is_empty()).then_some(settings.origins);
            if quotas.is_none() && allowed_origins.is_none() {
                return Err(
                    Usage("there is nothing to change: give --quota, --origin or --no-origins".to_owned()).into()
                );
            }
            change(&client, &name, &TenantPatch { suspended: None, quotas, allowed_origins }).await
        }
        Command::Suspend { connect, name } => {
            let patch = TenantPatch { suspended: Some(true), ..TenantPatch::default() };
            change(&Client::new(&connect)?, &name, &patch).await
        }
        Command::Resume { connect, name } => {
            let patch = TenantPatch { suspended: Some(false), ..TenantPatch::default() };
            change(&Client::new(&connect)?, &name, &patch).await
        }
        Command::Delete { connect, name } => {
            send(Client::new(&connect)?.request(Method::DELETE, &path(&name))).await?;
            Ok(())
        }
    }
}

async fn change(client: &Client, name: &str, patch: &TenantPatch) -> anyhow::Result<()> {
    let request = client.request(Method::PATCH, &path(name)).json(patch);
    output::object(&send(request).await?.json::<Tenant>().await?)
}

fn path(name: &str) -> String {
    format!("/v1/tenants/{}", segment(name))
}
