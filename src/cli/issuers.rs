//! `plinth issuers`: list, view, trust and forget the issuers of a tenant's tokens.

use std::io::Read;

use plinth_api::issuers::{Issuer, IssuerRequest};
use reqwest::Method;

use super::client::{Client, Connect, segment, send};
use super::{Usage, output};

/// Longest description of an issuer: its keys have a limit below that.
const BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Every issuer that the tenant trusts, without its secret, one JSON object per line
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// One issuer
    #[command(visible_alias = "show")]
    Get {
        #[command(flatten)]
        connect: Connect,
        /// The name of the issuer
        name: String,
    },
    /// Trust an issuer, or change what is known of it; what it is comes on stdin, as JSON
    ///
    /// echo '{"issuer": "https://id.example.com", "algorithms": ["ES256"], "jwks_url": "https://id.example.com/keys"}' | plinth issuers set login
    Set {
        #[command(flatten)]
        connect: Connect,
        /// Its name in the tenant
        name: String,
    },
    /// Trust an issuer no more; what its tokens have opened ends
    Delete {
        #[command(flatten)]
        connect: Connect,
        /// The name of the issuer
        name: String,
    },
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { connect } => {
            let issuers: Vec<Issuer> = Client::new(&connect)?.list("/v1/issuers", &[]).await?;
            issuers.iter().try_for_each(output::line)
        }
        Command::Get { connect, name } => {
            let request = Client::new(&connect)?.request(Method::GET, &path(&name));
            output::object(&send(request).await?.json::<Issuer>().await?)
        }
        Command::Set { connect, name } => {
            let client = Client::new(&connect)?;
            let request = client.request(Method::PUT, &path(&name)).json(&described()?);
            output::object(&send(request).await?.json::<Issuer>().await?)
        }
        Command::Delete { connect, name } => {
            send(Client::new(&connect)?.request(Method::DELETE, &path(&name))).await?;
            Ok(())
        }
    }
}

/// What stdin says. An error tells where it is, and nothing of what is there: that may be a secret.
fn described() -> anyhow::Result<IssuerRequest> {
    let mut text = Vec::new();
    std::io::stdin().lock().take(BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(Usage(format!("what comes on stdin exceeds {BYTES_MAX} bytes")).into());
    }
    serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Usage(format!("stdin is not the description of an issuer in JSON: line {line}, column {column}")).into()
    })
}

fn path(name: &str) -> String {
    format!("/v1/issuers/{}", segment(name))
}
