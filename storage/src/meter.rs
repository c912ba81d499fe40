//! Counts every request and byte that goes to the object store, by operation and purpose: the cost meter.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use tokio::time::Instant;

use crate::layout;
use crate::metrics::{Latency, OperationLabels, RequestLabels, StorageMetrics};
use crate::store::ObjectStores;

/// A store that counts.
#[derive(Debug)]
struct Metered {
    inner: Arc<dyn ObjectStore>,
    metrics: StorageMetrics,
}

/// The same stores, counted.
pub(crate) fn metered(stores: &ObjectStores, metrics: &StorageMetrics) -> ObjectStores {
    let wrap = |inner: &Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
        Arc::new(Metered { inner: Arc::clone(inner), metrics: metrics.clone() })
    };
    ObjectStores {
        write: wrap(&stores.write),
        write_large: wrap(&stores.write_large),
        read: wrap(&stores.read),
        ..stores.clone()
    }
}

impl Metered {
    fn count(&self, operation: &'static str, path: &str, bytes: u64) {
        let labels = RequestLabels { operation, purpose: layout::purpose(path) };
        self.metrics.requests.get_or_create(&labels).inc();
        if bytes > 0 {
            self.metrics.bytes.get_or_create(&labels).inc_by(bytes);
        }
    }

    fn took(&self, operation: &'static str) -> Took {
        let labels = OperationLabels { operation };
        Took { latency: self.metrics.store_latency.get_or_create_owned(&labels), began: Instant::now() }
    }
}

/// Notes at its end how long a request took, also one that was given up.
struct Took {
    latency: Latency,
    began: Instant,
}

impl Drop for Took {
    fn drop(&mut self) {
        self.latency.since(self.began);
    }
}

/// The same stream, which holds `took` until it is dropped.
fn until_end<T: Send + 'static>(stream: BoxStream<'static, T>, took: Took) -> BoxStream<'static, T> {
    let held = move |_: &T| {
        let _until = &took;
    };
    stream.inspect(held).boxed()
}

impl fmt::Display for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.count("put", path.as_ref(), payload.content_length() as u64);
        let _took = self.took("put");
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.count("put", path.as_ref(), 0);
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let took = self.took("get");
        let result = self.inner.get_opts(path, options).await;
        drop(took);
        let bytes = result.as_ref().map_or(0, |result| if head { 0 } else { result.range.end - result.range.start });
        self.count("get", path.as_ref(), bytes);
        result
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.count("get", path.as_ref(), ranges.iter().map(|range| range.end - range.start).sum());
        let _took = self.took("get");
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (metrics, took) = (self.metrics.clone(), self.took("delete"));
        let counted = paths.inspect(move |path| {
            let purpose = path.as_ref().map_or("cluster", |path| layout::purpose(path.as_ref()));
            metrics.requests.get_or_create(&RequestLabels { operation: "delete", purpose }).inc();
        });
        until_end(self.inner.delete_stream(counted.boxed()), took)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("list", prefix.map_or("", AsRef::as_ref), 0);
        until_end(self.inner.list(prefix), self.took("list"))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count("list", prefix.map_or("", AsRef::as_ref), 0);
        until_end(self.inner.list_with_offset(prefix, offset), self.took("list"))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count("list", prefix.map_or("", AsRef::as_ref), 0);
        let _took = self.took("list");
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.count("put", to.as_ref(), 0);
        self.inner.copy_opts(from, to, options).await
    }
}
