//! `plinth tenants`: list, view, create and delete tenants, with the root key.

use plinth_api::tenants::{Tenant, TenantRequest};
use reqwest::Method;

use super::client::{Client, Connect, segment, send};
use super::output;

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
    },
    /// Delete a tenant with its topics, records and keys
    Delete {
        #[command(flatten)]
        connect: Connect,
        /// The tenant
        name: String,
    },
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
        Command::Create { connect, name } => {
            let request = Client::new(&connect)?.request(Method::POST, "/v1/tenants").json(&TenantRequest {
                name,
                quotas: None,
                allowed_origins: None,
            });
            output::object(&send(request).await?.json::<Tenant>().await?)
        }
        Command::Delete { connect, name } => {
            send(Client::new(&connect)?.request(Method::DELETE, &path(&name))).await?;
            Ok(())
        }
    }
}

fn path(name: &str) -> String {
    format!("/v1/tenants/{}", segment(name))
}
