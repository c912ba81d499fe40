//! Cursors: a resumable position over any set of partitions of one tenant, opaque to clients.
//!
//! Base64url without padding of: version u8 · per topic { id 16 bytes · number of partitions u16 · per partition
//! { index LEB128 · next offset LEB128 } } · the first 16 bytes of the keyed BLAKE3 of the tenant's id and all of that.
//! The topic's id names one incarnation, so that a cursor never fits a topic that was deleted and made again. The key is
//! the cluster's, the tenant's id is under the MAC: a foreign or changed cursor is refused before it is read.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_storage::ids::{Offset, Partition, PartitionIndex, TenantId, TopicId};
use subtle::ConstantTimeEq;
use ulid::Ulid;

use super::error::Error;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 16;
const TOPIC_BYTES: usize = 16;

/// The cluster's key for the MAC of cursors.
#[derive(Clone, Copy)]
pub(crate) struct CursorKey(pub(crate) [u8; 32]);

/// Where reading goes on, per partition.
pub(crate) type Positions = HashMap<Partition, Offset>;

impl CursorKey {
    /// The cursor at `positions`, in which the partitions of a topic follow one another.
    pub(crate) fn write(&self, tenant: TenantId, positions: impl IntoIterator<Item = (Partition, Offset)>) -> String {
        let mut body = Vec::with_capacity(64);
        body.push(VERSION);
        let mut group: Option<(TopicId, usize, u16)> = None;
        for (partition, next) in positions {
            let (count_at, count) = match group {
                Some((topic, at, count)) if topic == partition.topic && count < u16::MAX => (at, count + 1),
                Some(_) | None => {
                    body.extend_from_slice(&partition.topic.0.to_bytes());
                    body.extend_from_slice(&[0, 0]);
                    (body.len() - 2, 1)
                }
            };
            body[count_at..count_at + 2].copy_from_slice(&count.to_le_bytes());
            group = Some((partition.topic, count_at, count));
            push_varint(&mut body, u64::from(partition.index.0));
            push_varint(&mut body, next.0);
        }
        let mac = self.mac(tenant, &body);
        body.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(body)
    }

    /// The positions in a cursor that was written for `tenant`.
    ///
    /// # Errors
    /// `InvalidCursor`.
    pub(crate) fn read(&self, tenant: TenantId, cursor: &str) -> Result<Positions, Error> {
        let refused = || Error::InvalidCursor("the cursor is not one that this server has given to this tenant".into());
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let split = bytes.len().checked_sub(MAC_BYTES).ok_or_else(refused)?;
        let (body, mac) = bytes.split_at(split);
        let genuine: bool = self.mac(tenant, body).as_slice().ct_eq(mac).into();
        if !genuine {
            return Err(refused());
        }
        parse(body)
            .ok_or_else(|| Error::InvalidCursor("the cursor is of a version that this server cannot read".into()))
    }

    /// A key for another `purpose`, made of this one and a second secret, that tells nothing about either.
    pub(crate) fn derive(&self, purpose: &'static str, with: &[u8]) -> [u8; 32] {
        *blake3::Hasher::new_derive_key(purpose).update(&self.0).update(with).finalize().as_bytes()
    }

    fn mac(&self, tenant: TenantId, body: &[u8]) -> [u8; MAC_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&tenant.0.to_bytes()).update(body);
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&hasher.finalize().as_bytes()[..MAC_BYTES]);
        mac
    }
}

fn parse(body: &[u8]) -> Option<Positions> {
    let (&version, mut rest) = body.split_first()?;
    if version != VERSION {
        return None;
    }
    let mut positions = Positions::new();
    while !rest.is_empty() {
        let (topic, after) = rest.split_first_chunk::<TOPIC_BYTES>()?;
        let (count, after) = after.split_first_chunk::<2>()?;
        rest = after;
        for _ in 0..u16::from_le_bytes(*count) {
            let index = PartitionIndex(u32::try_from(take_varint(&mut rest)?).ok()?);
            let next = Offset(take_varint(&mut rest)?);
            positions.insert(Partition { topic: TopicId(Ulid::from_bytes(*topic)), index }, next);
        }
    }
    Some(positions)
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use plinth_api::limits::PARTITIONS_MAX;

    use super::*;

    const KEY: CursorKey = CursorKey([7; 32]);
    const TENANT: TenantId = TenantId(Ulid::from_parts(1, 1));

    fn partition(topic: u128, index: u32) -> Partition {
        Partition { topic: TopicId(Ulid::from_parts(9, topic)), index: PartitionIndex(index) }
    }

    #[test]
    fn positions_over_any_partitions_come_back() {
        for positions in [
            vec![],
            vec![(partition(1, 0), Offset(0))],
            vec![
                (partition(1, 0), Offset(127)),
                (partition(1, 1023), Offset(128)),
                (partition(2, 3), Offset(u64::MAX)),
            ],
            (0..1024).map(|index| (partition(5, index), Offset(u64::from(index) << 40))).collect(),
        ] {
            let read = KEY.read(TENANT, &KEY.write(TENANT, positions.clone())).expect("our own cursor");
            assert_eq!(read, positions.into_iter().collect());
        }
    }

    #[test]
    fn a_cursor_is_safe_in_a_url_and_short() {
        let cursor = KEY.write(TENANT, [(partition(1, 0), Offset(1_000_000))]);
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{cursor}");
        assert!(cursor.len() <= 60, "{cursor}");
    }

    // Fails when the longest cursor of one topic grows: it travels in a header and in a URL, whose bounds are 64 KiB here
    // and often less elsewhere. The document says how long it may be.
    #[test]
    fn the_longest_cursor_of_one_topic_has_a_bound() {
        let farthest = |index| (partition(1, index), Offset(u64::MAX));
        let cursor = KEY.write(TENANT, (0..PARTITIONS_MAX).map(farthest));
        assert!((15 * 1024..=16 * 1024).contains(&cursor.len()), "{}", cursor.len());
        let common = KEY.write(TENANT, (0..PARTITIONS_MAX).map(|index| (partition(1, index), Offset(1_000_000))));
        assert!(common.len() <= 7 * 1024, "{}", common.len());
    }

    /// Cursors as the first version wrote them. Later builds read them; never change them.
    #[test]
    fn a_cursor_of_version_1_is_read() {
        let cursor = KEY.write(TENANT, [(partition(1, 2), Offset(300))]);
        assert_eq!(cursor, GOLDEN);
        assert_eq!(KEY.read(TENANT, GOLDEN).expect("golden"), Positions::from([(partition(1, 2), Offset(300))]));
    }

    const GOLDEN: &str = "AQAAAAAACQAAAAAAAAAAAAEBAAKsAve4BwN962hUO1Diz7N6YR8";

    #[test]
    fn any_changed_character_is_refused() {
        let cursor = KEY.write(TENANT, [(partition(1, 0), Offset(5))]);
        for place in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ascii");
            assert!(matches!(KEY.read(TENANT, &changed), Err(Error::InvalidCursor(_))), "changed at {place}");
        }
    }

    #[test]
    fn foreign_and_broken_cursors_are_refused() {
        let cursor = KEY.write(TENANT, [(partition(1, 0), Offset(5))]);
        let other_tenant = TenantId(Ulid::from_parts(1, 2));
        assert!(matches!(KEY.read(other_tenant, &cursor), Err(Error::InvalidCursor(_))));
        assert!(matches!(CursorKey([8; 32]).read(TENANT, &cursor), Err(Error::InvalidCursor(_))));
        for broken in ["", "x", "AQ", "####", &cursor[..cursor.len() - 1], &format!("{cursor}A"), &format!("{cursor}=")]
        {
            assert!(matches!(KEY.read(TENANT, broken), Err(Error::InvalidCursor(_))), "{broken}");
        }
    }
}
