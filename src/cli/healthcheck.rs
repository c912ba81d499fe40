//! `plinth healthcheck`: asks the node of this machine whether it is alive, for images that have no curl.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the node accepts connections
    #[arg(long, env = "PLINTH_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,
    /// The node speaks TLS, with this certificate; it is not checked, since nothing secret is sent
    #[arg(long, env = "PLINTH_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Ask whether it takes requests (/readyz) instead of whether it is alive (/livez)
    #[arg(long)]
    ready: bool,
    /// How long to wait for the answer, in milliseconds
    #[arg(long, default_value_t = 3000)]
    timeout_ms: u64,
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let mut addresses =
        args.listen.to_socket_addrs().map_err(|error| super::Usage(format!("{}: {error}", args.listen)))?;
    let address = addresses.next().with_context(|| format!("{} has no address", args.listen))?;
    let path = if args.ready { "readyz" } else { "livez" };
    let scheme = if args.tls_cert.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}/{path}", reachable(address));
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(args.timeout_ms));
    // The certificate is for the name that clients use, and this is an address of the machine itself.
    let client = client.tls_danger_accept_invalid_certs(args.tls_cert.is_some()).build()?;
    let status = client.get(&url).send().await.with_context(|| format!("no answer from {url}"))?.status();
    anyhow::ensure!(status.is_success(), "{url} answers {status}");
    Ok(())
}

/// Where to connect to for a listener that may listen on every address.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}
