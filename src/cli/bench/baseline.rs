//! The yardstick: a bare handler that reads the body and answers 201, served as the axum manual does it.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;

use crate::cli::output;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {}

pub(in crate::cli) async fn run(_: Args) -> anyhow::Result<()> {
    let listener = crate::server::bind(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))?;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    output::tell(&format!("listening on http://{}", listener.local_addr()?));
    let handler = |body: Bytes| async move {
        std::hint::black_box(body.len());
        StatusCode::CREATED
    };
    axum::serve(listener, Router::new().route("/", post(handler))).await?;
    Ok(())
}
