//! The node under test, seen through its API: topics, their tails, and what it asked of the object store.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use plinth_api::keys::{KeyRequest, NewKey};
use plinth_api::quotas::Quotas;
use plinth_api::tenants::TenantRequest;
use plinth_api::topics::Topic;
use plinth_storage::env::{Rng, SystemRng};
use reqwest::Method;

use super::child::Server;
use super::wire::Target;
use crate::cli::client::{Client, Connect, send};

/// A node and a key for it.
pub(super) struct Node {
    client: Client,
    operator: Client,
    /// Of a node of our own: where it is, and its root key.
    root: Option<(url::Url, String)>,
    /// Where load is sent.
    pub(super) target: Target,
}

/// Requests to the object store up to now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StoreCalls {
    pub(super) puts: f64,
    pub(super) gets: f64,
    pub(super) deleted: f64,
    pub(super) put_bytes: f64,
    /// Stored bytes of the records that were published.
    pub(super) record_bytes: f64,
}

/// A node of our own on `store`, with its cache in `dir`.
pub(super) async fn own(dir: &Path, store: &str) -> anyhow::Result<(Server, Node)> {
    own_with(dir, store, []).await
}

/// The same with variables in its environment.
pub(super) async fn own_with(
    dir: &Path,
    store: &str,
    env: impl IntoIterator<Item = (&'static str, String)>,
) -> anyhow::Result<(Server, Node)> {
    let root_key = root_key();
    let server = Server::node(dir, (store, &root_key), env).await?;
    let node = Node::of(&server, &root_key).await?;
    Ok((server, node))
}

/// The same with a drain time, and the root key to start it again with.
pub(super) async fn own_draining(dir: &Path, store: &str, drain: Duration) -> anyhow::Result<(Server, Node, String)> {
    let root_key = root_key();
    let server = Server::node_at(dir, (store, &root_key), ("127.0.0.1:0", drain), []).await?;
    let node = Node::of(&server, &root_key).await?;
    Ok((server, node, root_key))
}

fn root_key() -> String {
    SystemRng.bytes().into_iter().chain(SystemRng.bytes()).map(|byte| format!("{byte:02x}")).collect()
}

impl Node {
    /// A node at `url` with an API key that may do everything in its tenant.
    pub(super) async fn with_key(url: &url::Url, key: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(url.scheme() == "http", "bench speaks plain http, not {}", url.scheme());
        let (host, port) = (url.host_str().context("the URL has no host")?, url.port_or_known_default().unwrap_or(80));
        let address = tokio::net::lookup_host((host, port)).await?.next().context("the host has no address")?;
        anyhow::ensure!(address.ip().is_loopback(), "bench loads only nodes of this machine, {address} is not");
        let client = client(url, key, None)?;
        let target = Target { address, key: Some(key.to_owned()), header: None };
        Ok(Self { operator: client.clone(), client, root: None, target })
    }

    async fn of(server: &Server, root_key: &str) -> anyhow::Result<Self> {
        Self::with_root(&url::Url::parse(&format!("http://{}", server.address))?, root_key).await
    }

    /// How many streams and subscriptions the node has.
    pub(super) async fn followers(&self) -> anyhow::Result<u64> {
        let text = send(self.operator.request(Method::GET, "/metrics")).await?.text().await?;
        let open = text.lines().filter(|line| line.starts_with("plinth_followers_open{"));
        Ok(open.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// A node of our own, whose root key we know; makes a key in the tenant `default`.
    async fn with_root(url: &url::Url, root_key: &str) -> anyhow::Result<Self> {
        let root = Some((url.clone(), root_key.to_owned()));
        let node = Self::with_key(url, &make_key(url, root_key, "default").await?).await?;
        Ok(Self { operator: client(url, root_key, None)?, root, ..node })
    }

    /// The same node, seen by a new tenant with quotas.
    pub(super) async fn tenant(&self, name: &str, quotas: Quotas) -> anyhow::Result<Self> {
        let (url, root_key) = self.root.as_ref().context("tenants are made on a node of our own")?;
        let body = TenantRequest { name: name.to_owned(), quotas: Some(quotas), allowed_origins: None };
        send(self.operator.request(Method::POST, "/v1/tenants").json(&body)).await?;
        Self::with_key(url, &make_key(url, root_key, name).await?).await
    }

    /// Makes a topic and returns the path of its records.
    pub(super) async fn topic(&self, name: &str) -> anyhow::Result<String> {
        self.topic_with(name, serde_json::json!({})).await
    }

    /// Makes a topic with settings and returns the path of its records.
    pub(super) async fn topic_with(&self, name: &str, settings: serde_json::Value) -> anyhow::Result<String> {
        let request = self.client.request(Method::PUT, &format!("/v1/topics/{name}")).json(&settings);
        send(request).await.with_context(|| format!("topic {name}"))?;
        Ok(format!("/v1/topics/{name}/records"))
    }

    /// The next offset of a topic of one partition.
    pub(super) async fn tail(&self, name: &str) -> anyhow::Result<u64> {
        let request = self.client.request(Method::GET, &format!("/v1/topics/{name}"));
        let topic: Topic = send(request).await?.json().await?;
        Ok(topic.partition_bounds.first().with_context(|| format!("topic {name} shows no partition"))?.tail)
    }

    /// Deletes a topic that is no longer needed.
    pub(super) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        send(self.client.request(Method::DELETE, &format!("/v1/topics/{name}"))).await?;
        Ok(())
    }

    /// What the node asked of the object store so far; `None` where its metrics may not be read.
    pub(super) async fn store_calls(&self) -> Option<StoreCalls> {
        let text = send(self.operator.request(Method::GET, "/metrics")).await.ok()?.text().await.ok()?;
        let sum = |metric: &str, label: &str| {
            text.lines()
                .filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(['{', ' '])))
                .filter(|line| line.contains(label))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        Some(StoreCalls {
            puts: sum("plinth_object_store_requests_total", "operation=\"put\""),
            gets: sum("plinth_object_store_requests_total", "operation=\"get\""),
            deleted: sum("plinth_deleted_objects_total", ""),
            put_bytes: sum("plinth_object_store_bytes_total", "operation=\"put\""),
            record_bytes: sum("plinth_wal_record_bytes_total", ""),
        })
    }
}

/// A key that may do everything in a tenant.
async fn make_key(url: &url::Url, root_key: &str, tenant: &str) -> anyhow::Result<String> {
    let scopes = ["publish:**", "subscribe:**", "manage:**"].map(str::to_owned).to_vec();
    let body = KeyRequest { name: "bench".to_owned(), scopes, expires_in: Some("1d".to_owned()), quotas: None };
    let root = client(url, root_key, Some(tenant))?;
    let key: NewKey = send(root.request(Method::POST, "/v1/keys").json(&body)).await?.json().await?;
    Ok(key.key)
}

fn client(url: &url::Url, key: &str, tenant: Option<&str>) -> anyhow::Result<Client> {
    Client::new(&Connect {
        url: url.clone(),
        key: Some(key.to_owned()),
        tenant: tenant.map(str::to_owned),
        ca_cert: None,
    })
}
