//! An S3 server for tests: one inside the process, with real HTTP on a free port of the loopback, real signatures, and
//! objects in a directory that vanishes with it; or the one that the environment names, so that the same tests run against
//! a server that others wrote.
//!
//! The server below checks `If-None-Match: *` and then writes, two steps between which another create may pass, so that
//! two racing creates can both succeed. S3 promises one winner. A thin layer therefore lets conditional puts of the
//! server through one at a time; the check below then holds until the write is done.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use object_store::aws::AmazonS3Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::{
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, GetObjectInput, GetObjectOutput,
    HeadObjectInput, HeadObjectOutput, ListObjectsV2Input, ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use url::Url;

use crate::env::{SystemClock, SystemRng, new_ulid};
use crate::error::Result;
use crate::store::{ObjectStores, s3};

const ACCESS_KEY: &str = "PLINTHTESTKEY";
const SECRET_KEY: &str = "plinth-test-secret";
const REGION: &str = "us-east-1";
const BUCKET: &str = "plinth-test";

/// Names the server to test with, instead of one inside the process.
const ENDPOINT_VARIABLE: &str = "PLINTH_TEST_S3_ENDPOINT";
/// Its bucket.
const BUCKET_VARIABLE: &str = "PLINTH_TEST_S3_BUCKET";

/// A server with a place for objects that is this test's own. One inside the process stops when it is dropped, and what
/// it stored is gone.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    /// The URL of this test's place, with a `/` at its end.
    place: String,
    access_key: String,
    secret_key: String,
    _inside: Option<Inside>,
}

/// What a server inside the process is made of.
#[derive(Debug)]
struct Inside {
    /// Owns the accept loop, which owns the connections.
    _serving: JoinSet<()>,
    _objects: TempDir,
}

impl S3Server {
    /// The server that `PLINTH_TEST_S3_ENDPOINT` names, with the bucket of `PLINTH_TEST_S3_BUCKET` and the usual `AWS_*`
    /// credentials; or one inside the process, on the current runtime.
    ///
    /// # Errors
    /// When the directory or the port cannot be had, or when a variable is missing beside the endpoint.
    pub async fn start() -> io::Result<Self> {
        match std::env::var(ENDPOINT_VARIABLE) {
            Ok(endpoint) => Self::named(endpoint),
            Err(_) => Self::inside().await,
        }
    }

    fn named(endpoint: String) -> io::Result<Self> {
        let variable =
            |name: &str| std::env::var(name).map_err(|error| io::Error::other(format!("variable {name}: {error}")));
        let run = new_ulid(&SystemClock, &SystemRng);
        Ok(Self {
            place: format!("s3://{}/plinth-tests/{run}/", variable(BUCKET_VARIABLE)?),
            access_key: variable("AWS_ACCESS_KEY_ID")?,
            secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
            endpoint,
            _inside: None,
        })
    }

    async fn inside() -> io::Result<Self> {
        let objects = TempDir::new()?;
        std::fs::create_dir(objects.path().join(BUCKET))?;
        let files = FileSystem::new(objects.path()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(OneCreateAtATime { files, create: Mutex::new(()) });
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, service.build()));
        Ok(Self {
            endpoint,
            place: format!("s3://{BUCKET}/"),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            _inside: Some(Inside { _serving: serving, _objects: objects }),
        })
    }

    /// Where the server listens: `http://host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The store URL of `prefix` in this test's place. Different prefixes are different stores.
    #[must_use]
    pub fn url(&self, prefix: &str) -> String {
        format!("{}{prefix}", self.place)
    }

    /// What a process that opens [`S3Server::url`] needs in its environment.
    #[must_use]
    pub fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", REGION.to_owned()),
        ]
    }

    /// Clients for the log, as [`crate::store::open`] would make them, without a look at the environment.
    ///
    /// # Errors
    /// `Invalid` when `prefix` is no prefix of object names.
    pub fn stores(&self, prefix: &str) -> Result<ObjectStores> {
        self.stores_with_secret(prefix, &self.secret_key)
    }

    /// The same with a secret key that the server does not know: it refuses every request.
    ///
    /// # Errors
    /// As [`S3Server::stores`].
    pub fn stores_with_wrong_key(&self, prefix: &str) -> Result<ObjectStores> {
        self.stores_with_secret(prefix, "another secret")
    }

    fn stores_with_secret(&self, prefix: &str, secret: &str) -> Result<ObjectStores> {
        let builder = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(secret)
            .with_region(REGION);
        s3(builder, &Url::parse(&self.url(prefix)).expect("a bucket and a prefix make a URL"))
    }
}

async fn accept(listener: TcpListener, service: S3Service) {
    let mut connections = JoinSet::new();
    let server = Arc::new(auto::Builder::new(TokioExecutor::new()).http1_only());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted.expect("the test machine has a descriptor left for a connection");
                let (server, service) = (Arc::clone(&server), service.clone());
                connections.spawn(async move {
                    // A client that hangs up in the middle is no concern of the server.
                    let _hung_up = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
            Some(_ended) = connections.join_next() => {}
        }
    }
}

/// The operations that the log uses; conditional puts one at a time.
struct OneCreateAtATime {
    files: FileSystem,
    create: Mutex<()>,
}

#[async_trait]
impl S3 for OneCreateAtATime {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let _one = match &request.input.if_none_match {
            Some(_) => Some(self.create.lock().await),
            None => None,
        };
        self.files.put_object(request).await
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.files.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.files.delete_object(request).await
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        self.files.delete_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }
}
