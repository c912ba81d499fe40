//! What is left of a batch when records are taken out of it.

use bytes::{Bytes, BytesMut};

use super::{Batch, Reader, RecordRef, StoredBatch};

impl StoredBatch {
    /// The batches that are left when only the records stay for which `keep` holds: those that stand side by side make one.
    /// Their bytes are copied, so that they do not hold on to what is gone.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&RecordRef<'_>) -> bool) -> Vec<StoredBatch> {
        let ends = self.batch.ends();
        let body = self.batch.body();
        let (mut left, mut from) = (Vec::new(), None);
        for (index, record) in self.record_refs().enumerate() {
            if keep(&record) {
                from.get_or_insert(index);
            } else if let Some(from) = from.take() {
                left.push(self.copied(&body, &ends, from..index));
            }
        }
        left.extend(from.map(|from| self.copied(&body, &ends, from..ends.len())));
        left
    }

    fn copied(&self, body: &Bytes, ends: &[usize], records: std::ops::Range<usize>) -> Self {
        let begin = records.start.checked_sub(1).map_or(0, |before| ends[before]);
        let bytes = Bytes::copy_from_slice(&body[begin..ends[records.end - 1]]);
        let count = |records: usize| u32::try_from(records).expect("a batch has at most 65,536 records");
        let (len, crc) = (bytes.len(), crc32c::crc32c(&bytes));
        let shortest_ttl = self.batch.shortest_ttl;
        let batch = Batch { count: count(records.len()), len, crc, chunks: vec![bytes], shortest_ttl };
        Self { base: self.base.plus(count(records.start)), timestamp: self.timestamp, batch }
    }
}

impl Batch {
    /// Where each record ends in the stored form.
    fn ends(&self) -> Vec<usize> {
        let mut reader = Reader::new(self);
        let mut end = 0;
        let ends = (0..self.count).map(|_| {
            end += reader.skip().expect("the form was checked when the batch was made").0;
            end
        });
        ends.collect()
    }

    /// The stored form in one piece.
    fn body(&self) -> Bytes {
        if let [chunk] = &self.chunks[..] {
            return chunk.clone();
        }
        let mut all = BytesMut::with_capacity(self.len);
        self.chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
        all.freeze()
    }
}
