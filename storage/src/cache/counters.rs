//! What the page cache does, as metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts of the page cache. Clones share them.
#[derive(Clone, Debug)]
pub struct CacheCounters {
    hits: Family<Layer, Counter>,
    bytes: Family<Layer, Gauge>,
    /// Pages found in memory, or got from another reader's fetch.
    pub(super) hits_memory: Counter,
    /// Pages found on the SSD.
    pub(super) hits_disk: Counter,
    /// Pages fetched from the object store, or tried to.
    pub(super) misses: Counter,
    /// Bytes fetched from the object store.
    pub(super) bytes_fetched: Counter,
    bytes_memory: Gauge,
    bytes_disk: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Layer {
    layer: &'static str,
}

const MEMORY: Layer = Layer { layer: "memory" };
const DISK: Layer = Layer { layer: "disk" };

impl Default for CacheCounters {
    fn default() -> Self {
        let (hits, bytes) = (Family::<Layer, Counter>::default(), Family::<Layer, Gauge>::default());
        Self {
            hits_memory: hits.get_or_create_owned(&MEMORY),
            hits_disk: hits.get_or_create_owned(&DISK),
            misses: Counter::default(),
            bytes_fetched: Counter::default(),
            bytes_memory: bytes.get_or_create_owned(&MEMORY),
            bytes_disk: bytes.get_or_create_owned(&DISK),
            hits,
            bytes,
        }
    }
}

impl CacheCounters {
    /// Notes how many bytes the layers hold.
    pub(super) fn holds(&self, memory: u64, disk: u64) {
        self.bytes_memory.set(i64::try_from(memory).unwrap_or(i64::MAX));
        self.bytes_disk.set(i64::try_from(disk).unwrap_or(i64::MAX));
    }

    /// Adds all of them to a registry. The hit ratio is hits by hits and misses.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("plinth_page_cache_hits", "Pages found in a layer of the page cache", self.hits.clone());
        r.register("plinth_page_cache_misses", "Pages fetched from the object store", self.misses.clone());
        r.register("plinth_page_cache_bytes", "Bytes that a layer of the page cache holds", self.bytes.clone());
        let fetched = "Bytes that the page cache fetched from the object store";
        r.register("plinth_page_cache_fetched_bytes", fetched, self.bytes_fetched.clone());
    }
}
