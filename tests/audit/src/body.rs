//! The body of an audited record: it names its writer and carries a checksum, so that any copy of it can be judged
//! alone. It is JSON text, because that is what every transport can carry unchanged.

use serde::{Deserialize, Serialize};

/// Who wrote a record: never used for two records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Writer {
    /// The run, so that leftovers of another one are recognised.
    pub run: u64,
    /// The producer within the run.
    pub producer: u64,
    /// Grows after every outcome that was not known: what came before and after is then told apart.
    pub epoch: u64,
    /// Rises by one with each record of the producer's epoch.
    pub sequence: u64,
}

/// A record body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Who wrote it.
    #[serde(flatten)]
    pub writer: Writer,
    /// Bytes of `pad`.
    pub length: usize,
    /// CRC32C of the writer and the pad.
    pub checksum: u32,
    /// Filling, to give the record a size.
    pub pad: String,
}

impl Body {
    /// A body of `length` bytes of filling.
    #[must_use]
    pub fn new(writer: Writer, length: usize) -> Self {
        let seed = writer.sequence.wrapping_mul(31).wrapping_add(writer.producer);
        let letter = |place: usize| {
            let shift = seed.wrapping_add(place as u64) % 26;
            char::from(b'a' + u8::try_from(shift).expect("a remainder of 26 fits"))
        };
        let pad: String = (0..length).map(letter).collect();
        Self { writer, length, checksum: checksum(writer, &pad), pad }
    }

    /// The text that is published.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings have a JSON form")
    }

    /// Reads a body back; `None` when it is not one, or its length or checksum is wrong.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let body: Self = serde_json::from_slice(bytes).ok()?;
        (body.length == body.pad.len() && body.checksum == checksum(body.writer, &body.pad)).then_some(body)
    }
}

/// What stands for the bytes of a record in a history: their CRC32C and length.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    (u64::from(crc32c::crc32c(bytes)) << 32) | (bytes.len() as u64 & 0xffff_ffff)
}

fn checksum(writer: Writer, pad: &str) -> u32 {
    let mut head = Vec::with_capacity(32);
    for number in [writer.run, writer.producer, writer.epoch, writer.sequence] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    crc32c::crc32c_append(crc32c::crc32c(&head), pad.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_back_and_a_changed_byte_is_noticed() {
        let writer = Writer { run: 7, producer: 3, epoch: 1, sequence: 42 };
        let text = Body::new(writer, 100).encode();
        assert_eq!(Body::parse(text.as_bytes()).map(|body| body.writer), Some(writer));
        let changed = text.replace("\"sequence\":42", "\"sequence\":43");
        assert_ne!(text, changed);
        assert_eq!(Body::parse(changed.as_bytes()), None);
        assert_eq!(Body::parse(b"hello"), None);
    }

    #[test]
    fn equal_bytes_have_equal_digests_and_others_do_not() {
        assert_eq!(digest(b"abc"), digest(b"abc"));
        assert_ne!(digest(b"abc"), digest(b"abd"));
        assert_ne!(digest(b""), digest(b"a"));
    }
}
