//! `plinth tokens`: mint a token. `plinth auth`: why a credential may or may not do a thing.

use plinth_api::tokens::{Explanation, Token, TokenRequest};
use reqwest::Method;

use super::client::{Client, Connect, send};
use super::output;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Mint a token, such as for a browser, which may do less than the key that it is minted with
    ///
    /// plinth tokens create --subject ada --scope 'subscribe:users/{sub}/**' --ttl 15m
    Create {
        #[command(flatten)]
        connect: Connect,
        /// What it may do, within one scope of the key: publish:<pattern>, subscribe:<pattern>, manage:<pattern>, with {sub}
        /// for the subject; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// How long it lives, 1s to 1d [default: 1h]
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        /// Who is to hold it [default: the key]
        #[arg(long, value_name = "NAME")]
        subject: Option<String>,
    },
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let Command::Create { connect, scopes, ttl, subject } = args.command;
    let body = TokenRequest { scopes, ttl, subject };
    let request = Client::new(&connect)?.request(Method::POST, "/v1/tokens").json(&body);
    output::object(&send(request).await?.json::<Token>().await?)
}

#[derive(Debug, clap::Args)]
pub(super) struct AuthArgs {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AuthCommand {
    /// Who the key or token of PLINTH_KEY is, and whether it may do a thing
    ///
    /// plinth auth explain publish orders.created
    Explain {
        #[command(flatten)]
        connect: Connect,
        /// What is to be done
        #[arg(value_parser = ["publish", "subscribe", "manage", "view"], requires = "topic")]
        action: Option<String>,
        /// The topic or pattern
        topic: Option<String>,
    },
}

pub(super) async fn run_auth(args: AuthArgs) -> anyhow::Result<()> {
    let AuthCommand::Explain { connect, action, topic } = args.command;
    let asked = [("action", action), ("topic", topic)];
    let asked: Vec<_> = asked.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
    let request = Client::new(&connect)?.request(Method::GET, "/v1/auth/explain").query(&asked);
    output::object(&send(request).await?.json::<Explanation>().await?)
}
