//! Coming back after a ticket: the token by which a client that redeemed one may open its live connections again.
//!
//! A browser repeats the address of a broken `EventSource`, where the ticket is spent. The token names the ticket's
//! caller and an end, and needs no memory: it holds over a restart and the loss of a disk. It counts only beside a
//! ticket of the same caller, while the caller's key lives, and for reading alone. Knows nothing of cookies.
//!
//! Base64url without padding of: version u8 · the tenant's id 16 bytes · the end, milliseconds since the Unix epoch,
//! u64 little-endian · the API key's id · the keyed BLAKE3 of a `T` and all of that. Version 2, of a key that was rotated, has
//! the number of the caller's secret before the id, u32 little-endian; it ends with that secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::RECONNECT_TTL_MS;
use plinth_storage::ids::{TenantId, Timestamp};
use ulid::Ulid;

use super::caller::{Caller, Denied};
use super::secret::{self, SecretHash};
use super::{Auth, Miss};
use crate::broker::cursor::CursorKey;

const VERSION: u8 = 1;
const VERSION_ROTATED: u8 = 2;
const MAC_BYTES: usize = 32;
const TENANT_BYTES: usize = 16;
const END_BYTES: usize = 8;
const SECRET_BYTES: usize = 4;
/// What the key is derived for; never change it.
const PURPOSE: &str = "plinth 2026-11-24 reconnect token";

/// What a client that redeemed a ticket may come back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The token.
    pub token: String,
    /// How long it is good from now on.
    pub ttl_ms: u64,
}

/// The cluster's key for the MACs of tokens and of the tags in tickets.
#[derive(Clone, Copy)]
pub(super) struct ReconnectKey([u8; 32]);

/// What a token says.
#[derive(Debug, PartialEq, Eq)]
struct Claims {
    tenant: TenantId,
    key: String,
    /// Which of the key's secrets the caller had: how many there were before.
    secret: u32,
    ends_at: Timestamp,
}

impl Auth {
    /// The token for who has just redeemed a ticket as `caller`. None for the root key: what it may do does not stay
    /// behind in a browser.
    #[must_use]
    pub fn reconnect_token(&self, caller: &Caller) -> Option<Reconnect> {
        let (tenant, key) = (caller.tenant()?.id(), caller.key_ref()?);
        let now = self.0.log.now();
        let ends_at = Timestamp(now.0.saturating_add(RECONNECT_TTL_MS));
        let ends_at = caller.expires_at().map_or(ends_at, |end| end.min(ends_at));
        let claims = Claims { tenant, key: key.id.to_string(), secret: key.secret, ends_at };
        let token = self.0.reconnect.write(&claims);
        Some(Reconnect { token, ttl_ms: ends_at.0.saturating_sub(now.0) })
    }

    /// The caller of `token`, which was given for a ticket with the same tag as `ticket`, spent or not; reading only.
    pub(super) fn reconnect(&self, ticket: &str, token: &str) -> Result<Caller, Denied> {
        let refused = |why: &str| {
            Denied::Unauthenticated(format!(
                "the ticket is spent or unknown, and what it left to come back with is refused: {why}"
            ))
        };
        let keys = || std::iter::once(&self.0.reconnect).chain(&self.0.previous_reconnect);
        let claims = keys().find_map(|key| key.read(token)).ok_or_else(|| refused("this server has not given it"))?;
        if self.0.log.now() >= claims.ends_at {
            return Err(refused("its time is over"));
        }
        let known = self.known_key(&claims.key).map_err(|miss| match miss {
            Miss::Absent => refused("its API key has ended"),
            Miss::Failed(error) => Denied::Unavailable(format!("the credential cannot be checked now: {error}")),
        })?;
        let caller = known.holder(claims.secret).ok_or_else(|| refused("the secret of its API key was replaced"))?;
        let same_tenant = caller.tenant().is_some_and(|tenant| tenant.id() == claims.tenant);
        let tag = secret::ticket_tag(ticket);
        if !same_tenant || !keys().any(|key| tag == Some(key.tag(caller).as_str())) {
            return Err(refused("the ticket is of another caller"));
        }
        caller.check_suspended()?;
        if !self.is_live(caller) {
            return Err(refused("its API key has ended"));
        }
        caller.reading().ok_or_else(|| refused("it was the root key's"))
    }
}

impl ReconnectKey {
    /// Made of two secrets. The root key is not in the bucket when the operator gives it, and then who reads the bucket
    /// cannot make tokens; another root key ends all tokens, unless the one before is given beside it.
    pub(super) fn new(cursors: &CursorKey, root: &SecretHash) -> Self {
        Self(cursors.derive(PURPOSE, root))
    }

    /// By what a ticket shows whose it is, to us alone: 16 hexadecimal digits.
    pub(super) fn tag(&self, caller: &Caller) -> String {
        let tenant = caller.tenant().map_or([0; TENANT_BYTES], |tenant| tenant.id().0.to_bytes());
        let mac = self.mac(b'C', &[&tenant[..], caller.id().as_bytes()].concat());
        mac.to_hex()[..16].to_owned()
    }

    fn write(&self, claims: &Claims) -> String {
        let rotated = (claims.secret > 0).then(|| claims.secret.to_le_bytes());
        let mut body = vec![if rotated.is_some() { VERSION_ROTATED } else { VERSION }];
        body.extend_from_slice(&claims.tenant.0.to_bytes());
        body.extend_from_slice(&claims.ends_at.0.to_le_bytes());
        body.extend(rotated.into_iter().flatten());
        body.extend_from_slice(claims.key.as_bytes());
        let mac = self.mac(b'T', &body);
        body.extend_from_slice(mac.as_bytes());
        URL_SAFE_NO_PAD.encode(body)
    }

    fn read(&self, token: &str) -> Option<Claims> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, mac) = bytes.split_at_checked(bytes.len().checked_sub(MAC_BYTES)?)?;
        // The comparison of a `blake3::Hash` takes the same time wherever they differ.
        if self.mac(b'T', body) != *<&[u8; MAC_BYTES]>::try_from(mac).ok()? {
            return None;
        }
        let (&version, rest) = body.split_first()?;
        let (tenant, rest) = rest.split_first_chunk::<TENANT_BYTES>()?;
        let (ends_at, rest) = rest.split_first_chunk::<END_BYTES>()?;
        let (secret, key) = match version {
            VERSION => (0, rest),
            VERSION_ROTATED => {
                let (secret, key) = rest.split_first_chunk::<SECRET_BYTES>()?;
                (u32::from_le_bytes(*secret), key)
            }
            _ => return None,
        };
        let key = String::from_utf8(key.to_vec()).ok()?;
        let (tenant, ends_at) = (TenantId(Ulid::from_bytes(*tenant)), Timestamp(u64::from_le_bytes(*ends_at)));
        Some(Claims { tenant, key, secret, ends_at })
    }

    fn mac(&self, what: u8, body: &[u8]) -> blake3::Hash {
        blake3::Hasher::new_keyed(&self.0).update(&[what]).update(body).finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ReconnectKey {
        ReconnectKey::new(&CursorKey([7; 32]), &[1; 32])
    }

    fn claims() -> Claims {
        let tenant = TenantId(Ulid::from_parts(1, 1));
        let ends_at = Timestamp(1_700_000_000_000);
        Claims { tenant, key: "01arz3ndektsv4rrffq69g5fav".into(), secret: 0, ends_at }
    }

    /// A token as the first version wrote it. Browsers hold it over an update of the node; never change it.
    #[test]
    fn a_token_of_version_1_is_read() {
        assert_eq!(key().write(&claims()), GOLDEN);
        assert_eq!(key().read(GOLDEN), Some(claims()));
    }

    const GOLDEN: &str = "AQAAAAAAAQAAAAAAAAAAAAEAaOXPiwEAADAxYXJ6M25kZWt0c3Y0cnJmZnE2OWc1ZmF2D90B6qgPUg6tFAop45EewwhjAQPWORCNH--Odo55eTQ";

    #[test]
    fn a_token_of_a_rotated_key_names_the_secret() {
        let claims = Claims { secret: 7, ..claims() };
        let token = key().write(&claims);
        assert_eq!((key().read(&token), token.starts_with("Ag")), (Some(claims), true));
    }

    #[test]
    fn a_token_can_stand_in_a_cookie() {
        let token = key().write(&claims());
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{token}");
    }

    #[test]
    fn any_changed_character_and_any_other_secret_is_refused() {
        let token = key().write(&claims());
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'Q' } else { b'A' };
            assert_eq!(key().read(&String::from_utf8(changed).expect("ascii")), None, "changed at {place}");
        }
        for other in
            [ReconnectKey::new(&CursorKey([8; 32]), &[1; 32]), ReconnectKey::new(&CursorKey([7; 32]), &[2; 32])]
        {
            assert_eq!(other.read(&token), None);
        }
        for garbage in ["", "x", "####", &token[..token.len() - 1], &format!("{token}A"), &"A".repeat(10_000)] {
            assert_eq!(key().read(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn what_is_under_one_mac_is_not_under_the_other() {
        assert_ne!(key().mac(b'T', b"x"), key().mac(b'C', b"x"));
    }
}
