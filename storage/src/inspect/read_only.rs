//! A store that refuses to be changed: whoever looks at a bucket through it cannot write to it, whatever he calls.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::ObjectStores;

/// A store that only reads.
#[derive(Debug)]
struct ReadOnly(Arc<dyn ObjectStore>);

/// The same stores, which refuse every change.
pub(super) fn read_only(stores: &ObjectStores) -> ObjectStores {
    let read: Arc<dyn ObjectStore> = Arc::new(ReadOnly(Arc::clone(&stores.read)));
    let ObjectStores { local, url, .. } = stores.clone();
    ObjectStores { write: Arc::clone(&read), write_large: Arc::clone(&read), read, local, url }
}

fn refused() -> Error {
    Error::NotSupported { source: "this store is only looked at".into() }
}

impl fmt::Display for ReadOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for ReadOnly {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(refused())
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(refused())
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(path, ranges).await
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { Err(refused()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    // Fails when one of the clients is that of the store.
    #[tokio::test]
    async fn whichever_client_is_asked_nothing_is_put() {
        let store = Arc::new(InMemory::new());
        let stores = read_only(&ObjectStores::of(Arc::clone(&store) as Arc<dyn ObjectStore>, true));
        for client in [&stores.read, &stores.write, &stores.write_large] {
            client.put(&Path::from("a"), "b".into()).await.expect_err("refused");
        }
        assert!(store.list(None).next().await.is_none());
    }
}
