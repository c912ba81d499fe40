//! A batch of which the last record is not whole: what a fork shows of the record within which it leaves its source.

use std::num::NonZeroU32;

use bytes::Bytes;

use super::{Batch, NewRecord, RecordView, StoredBatch};
use crate::error::Result;

impl StoredBatch {
    /// The same batch with only the first bytes of the payload of its last record. What is kept is shared, not copied.
    ///
    /// # Errors
    /// Never, of a batch that was checked when it was made.
    pub(crate) fn with_last_cut(&self, bytes: NonZeroU32) -> Result<Self> {
        let last = self.records().last().expect("a batch has at least one record");
        let bytes = bytes.get() as usize;
        if last.payload.len() <= bytes {
            return Ok(self.clone());
        }
        let RecordView { offset, key, content_type, headers, ttl_ms, payload } = last;
        let record = NewRecord { key, content_type, headers, ttl_ms, payload: payload.slice(..bytes) };
        let cut = Batch::of([&record])?;
        let mut chunks: Vec<Bytes> =
            if offset > self.base { self.part(self.base, offset).batch.chunks } else { Vec::new() };
        chunks.extend(cut.chunks);
        let batch = Batch::of_chunks(self.batch.count, chunks, self.batch.shortest_ttl);
        Ok(Self { base: self.base, timestamp: self.timestamp, batch })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{Offset, Timestamp};

    fn record(number: usize, bytes: usize) -> NewRecord {
        NewRecord {
            key: Some(Bytes::from(format!("k{number}"))),
            content_type: Bytes::from_static(b"text/plain"),
            headers: vec![(Bytes::from_static(b"a"), Bytes::from(format!("{number}")))],
            ttl_ms: None,
            payload: Bytes::from(vec![b'x'; bytes]),
        }
    }

    proptest! {
        // Fails when another record is touched, or anything of the last one but its payload.
        #[test]
        fn only_the_payload_of_the_last_record_is_cut(sizes in prop::collection::vec(0..1500usize, 1..5), cut in 1..2000u32) {
            let mut records: Vec<NewRecord> = sizes.iter().enumerate().map(|(number, bytes)| record(number, *bytes)).collect();
            let stored = StoredBatch { base: Offset(7), timestamp: Timestamp(3), batch: Batch::of(&records).expect("a batch") };
            let shown = stored.with_last_cut(NonZeroU32::new(cut).expect("not zero")).expect("a batch");
            let last = records.last_mut().expect("one");
            last.payload.truncate(cut as usize);
            let whole = Batch::of(&records).expect("a batch");
            prop_assert_eq!(shown.batch.chunks().concat(), whole.chunks().concat());
            prop_assert_eq!((shown.batch.crc(), shown.batch.len(), shown.next()), (whole.crc(), whole.len(), stored.next()));
        }
    }
}
