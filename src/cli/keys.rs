//! `plinth keys`: list, create and delete the API keys of a tenant.

use plinth_api::keys::{Key, KeyRequest, NewKey};
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
    /// Every key of the tenant, without its secret, one JSON object per line
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Create a key; its secret is printed this once
    Create {
        #[command(flatten)]
        connect: Connect,
        /// A name for people
        #[arg(long, default_value = "")]
        name: String,
        /// What it may do: publish:<pattern>, subscribe:<pattern>, manage:<pattern>, admin; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// How long it lives, such as 30d; without it the key has no end
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
    },
    /// Delete a key; connections that use it are closed
    Delete {
        #[command(flatten)]
        connect: Connect,
        /// The id of the key
        id: String,
    },
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { connect } => {
            let keys: Vec<Key> = Client::new(&connect)?.list("/v1/keys", &[]).await?;
            keys.iter().try_for_each(output::line)
        }
        Command::Create { connect, name, scopes, expires_in } => {
            let body = KeyRequest { name, scopes, expires_in };
            let request = Client::new(&connect)?.request(Method::POST, "/v1/keys").json(&body);
            output::object(&send(request).await?.json::<NewKey>().await?)
        }
        Command::Delete { connect, id } => {
            send(Client::new(&connect)?.request(Method::DELETE, &format!("/v1/keys/{}", segment(&id)))).await?;
            Ok(())
        }
    }
}
