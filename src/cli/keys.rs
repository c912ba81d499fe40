//! `plinth keys`: list, view, create, change, rotate and delete the API keys of a tenant.

use plinth_api::keys::{Key, KeyPatch, KeyRequest, KeyRotation, NewKey};
use plinth_api::quotas::Quotas;
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
    /// Every key of the tenant with the time of its last use, without its secret, one JSON object per line
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// One key
    #[command(visible_alias = "show")]
    Get {
        #[command(flatten)]
        connect: Connect,
        /// The id of the key
        id: String,
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
        /// What it may use at most, within what its tenant may, such as requests_per_second=50; may be repeated
        #[arg(long = "quota", value_name = "NAME=NUMBER")]
        quotas: Vec<String>,
    },
    /// Change the name and quotas of a key; what is not named stays
    Update {
        #[command(flatten)]
        connect: Connect,
        /// The id of the key
        id: String,
        /// A name for people
        #[arg(long)]
        name: Option<String>,
        /// What it may use at most, such as connections=10, or connections=none for no limit; may be repeated
        #[arg(long = "quota", value_name = "NAME=NUMBER")]
        quotas: Vec<String>,
    },
    /// Give a key a new secret, which is printed this once; id, scopes and end stay
    ///
    /// Without --overlap the old secret ends at once, with the connections that it has opened.
    Rotate {
        #[command(flatten)]
        connect: Connect,
        /// The id of the key
        id: String,
        /// How long the old secret is accepted, too, such as 1h; at most 30d
        #[arg(long, value_name = "TIME")]
        overlap: Option<String>,
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
        Command::Create { connect, name, scopes, expires_in, quotas } => {
            let quotas = Some(with_quotas(&Quotas::default(), &quotas)?);
            let body = KeyRequest { name, scopes, expires_in, quotas };
            let request = Client::new(&connect)?.request(Method::POST, "/v1/keys").json(&body);
            output::object(&send(request).await?.json::<NewKey>().await?)
        }
        Command::Get { connect, id } => {
            let request = Client::new(&connect)?.request(Method::GET, &path(&id));
            output::object(&send(request).await?.json::<Key>().await?)
        }
        Command::Update { connect, id, name, quotas } => {
            let client = Client::new(&connect)?;
            let quotas = if quotas.is_empty() {
                None
            } else {
                let before: Key = send(client.request(Method::GET, &path(&id))).await?.json().await?;
                Some(with_quotas(&before.quotas, &quotas)?)
            };
            if name.is_none() && quotas.is_none() {
                return Err(Usage("there is nothing to change: give --name or --quota".to_owned()).into());
            }
            let request = client.request(Method::PATCH, &path(&id)).json(&KeyPatch { name, quotas });
            output::object(&send(request).await?.json::<Key>().await?)
        }
        Command::Rotate { connect, id, overlap } => {
            let request = Client::new(&connect)?.request(Method::POST, &format!("{}/rotate", path(&id)));
            output::object(&send(request.json(&KeyRotation { overlap })).await?.json::<NewKey>().await?)
        }
        Command::Delete { connect, id } => {
            send(Client::new(&connect)?.request(Method::DELETE, &path(&id))).await?;
            Ok(())
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/keys/{}", segment(id))
}
