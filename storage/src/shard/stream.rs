//! What a partition remembers as a stream: the last sequence of its appends, and that it is closed, and by whom.
//!
//! ```text
//! step     flags u8 (1 sequence, 2 closed, 4 closed by a producer)
//!          [sequence length u16 · sequence] [epoch u64 · sequence u64 · id]        (little endian)
//! row      version u8 = 1 · step
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::{Error, Kind, Result};
use crate::ids::{Partition, ProducerEpoch, ProducerSeq};
use crate::layout;
use crate::state::StateStore;
use crate::terms::{PRODUCER_ID_BYTES_MAX, Producer, STREAM_SEQ_BYTES_MAX};

const VERSION: u8 = 1;
const SEQ: u8 = 1;
const CLOSED: u8 = 2;
const PRODUCER: u8 = 4;

/// What one append of a stream changed, and all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamRow {
    /// The sequence.
    pub(crate) seq: Option<Bytes>,
    /// Whether nothing comes after it.
    pub(crate) closed: Option<Closing>,
}

/// What closed a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// An append without a producer.
    Nobody,
    /// This one: it may be repeated.
    Producer(Producer),
}

impl StreamRow {
    /// The row after one more step. Sequences only grow, in whichever order steps stand in a slot.
    pub(crate) fn after(self, step: &Self) -> Self {
        Self { seq: self.seq.max(step.seq.clone()), closed: self.closed.or_else(|| step.closed.clone()) }
    }

    pub(crate) fn write(&self, out: &mut BytesMut) {
        let closed = match &self.closed {
            None => 0,
            Some(Closing::Nobody) => CLOSED,
            Some(Closing::Producer(_)) => CLOSED | PRODUCER,
        };
        out.put_u8(if self.seq.is_some() { SEQ } else { 0 } | closed);
        if let Some(seq) = &self.seq {
            out.put_u16_le(u16::try_from(seq.len()).expect("a sequence is checked to be short"));
            out.put_slice(seq);
        }
        if let Some(Closing::Producer(Producer { id, epoch, seq })) = &self.closed {
            out.put_u64_le(epoch.0);
            out.put_u64_le(seq.0);
            out.put_slice(id);
        }
    }

    pub(crate) fn read(mut bytes: Bytes) -> Option<Self> {
        let flags = bytes.try_get_u8().ok()?;
        let mut seq = None;
        if flags & SEQ != 0 {
            let len = usize::from(bytes.try_get_u16_le().ok()?);
            let fits = (1..=STREAM_SEQ_BYTES_MAX.min(bytes.len())).contains(&len);
            seq = Some(fits.then(|| bytes.split_to(len))?);
        }
        let closed = match flags & !SEQ {
            0 => None,
            CLOSED => Some(Closing::Nobody),
            flags if flags == CLOSED | PRODUCER => {
                let epoch = ProducerEpoch(bytes.try_get_u64_le().ok()?);
                let seq = ProducerSeq(bytes.try_get_u64_le().ok()?);
                let id = bytes.split_off(0);
                let fits = (1..=PRODUCER_ID_BYTES_MAX).contains(&id.len());
                Some(Closing::Producer(fits.then_some(Producer { id, epoch, seq })?))
            }
            _ => return None,
        };
        bytes.is_empty().then_some(Self { seq, closed })
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        self.write(&mut out);
        out.freeze()
    }

    fn parse(mut bytes: Bytes) -> Result<Self> {
        let row = (bytes.try_get_u8().ok() == Some(VERSION)).then(|| Self::read(bytes)).flatten();
        row.ok_or_else(|| Error::new(Kind::Corrupt, "stream row in the state store is broken"))
    }
}

/// What a partition remembers as a stream.
///
/// # Errors
/// `Corrupt` when the state store is broken.
pub(crate) fn stream_row(state: &dyn StateStore, partition: Partition) -> Result<StreamRow> {
    Ok(state.get(&layout::stream_key(partition))?.map(StreamRow::parse).transpose()?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use ulid::Ulid;

    use super::*;
    use crate::ids::{PartitionIndex, TopicId};

    /// As the first version wrote them. Later builds read these bytes; never change them.
    #[test]
    fn steps_and_rows_of_version_1_are_read() {
        let producer = Producer { id: Bytes::from_static(b"p"), epoch: ProducerEpoch(2), seq: ProducerSeq(3) };
        let seq = Some(Bytes::from_static(b"ab"));
        let rows: [(StreamRow, &[u8]); 3] = [
            (StreamRow { seq: seq.clone(), closed: None }, b"\x01\x02\x00ab"),
            (StreamRow { seq: None, closed: Some(Closing::Nobody) }, b"\x02"),
            (
                StreamRow { seq, closed: Some(Closing::Producer(producer)) },
                b"\x07\x02\x00ab\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0p",
            ),
        ];
        for (row, bytes) in rows {
            let mut step = BytesMut::new();
            row.write(&mut step);
            assert_eq!(&step[..], bytes);
            assert_eq!(StreamRow::read(step.freeze()), Some(row.clone()));
            assert_eq!(row.encode()[..], [&[1], bytes].concat());
            assert_eq!(StreamRow::parse(row.encode()).expect("a row"), row);
            for cut in 0..bytes.len().min(5) {
                assert!(StreamRow::read(Bytes::copy_from_slice(&bytes[..cut])).is_none());
            }
        }
        let nobody = b"\x06\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0";
        for broken in [&b"\x02x"[..], b"\x01\0\0", nobody] {
            assert!(StreamRow::read(Bytes::from_static(broken)).is_none(), "{broken:?}");
        }
        assert!(StreamRow::read(Bytes::from_static(b"\x04")).is_none());
    }

    #[test]
    fn the_key_of_version_1_is_what_it_was() {
        let partition = Partition { topic: TopicId(Ulid(7)), index: PartitionIndex(3) };
        let golden = [&[20][..], &[0; 15], &[7, 0, 0, 0, 3]].concat();
        assert_eq!(layout::stream_key(partition)[..], golden);
    }

    #[test]
    fn a_row_keeps_the_highest_sequence_and_the_first_closing() {
        let step = |seq: &'static str| StreamRow { seq: Some(seq.into()), closed: None };
        let closed = StreamRow { seq: None, closed: Some(Closing::Nobody) };
        let row = step("b").after(&step("a")).after(&closed);
        assert_eq!(row, StreamRow { seq: Some("b".into()), closed: Some(Closing::Nobody) });
    }
}
