//! `plinth revocations`: list what is revoked, and revoke a key, a token, or the tokens of a subject.

use plinth_api::revocations::{Revocation, RevocationRequest};
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
    /// Every revocation that still matters, one JSON object per line
    List {
        #[command(flatten)]
        connect: Connect,
    },
    /// Revoke a key, a token or the tokens of a subject; what they have opened ends
    ///
    /// plinth revocations create --subject ada
    Create {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        what: What,
        /// With --subject: only the tokens that were issued before this time, such as 2026-11-27T08:00:00Z [default: now]
        #[arg(long, value_name = "TIME", requires = "subject", conflicts_with_all = ["key_id", "token_id"])]
        issued_before: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// An API key: it is deleted, and the tokens that were minted with it end
    #[arg(long, value_name = "ID")]
    key_id: Option<String>,
    /// A token, by its id (jti)
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
    /// The tokens of a subject
    #[arg(long, value_name = "NAME")]
    subject: Option<String>,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { connect } => {
            let revocations: Vec<Revocation> = Client::new(&connect)?.list("/v1/revocations", &[]).await?;
            revocations.iter().try_for_each(output::line)
        }
        Command::Create { connect, what: What { key_id, token_id, subject }, issued_before } => {
            let body = RevocationRequest { key_id, token_id, subject, issued_before };
            let request = Client::new(&connect)?.request(Method::POST, "/v1/revocations").json(&body);
            output::object(&send(request).await?.json::<Revocation>().await?)
        }
    }
}
