//! Issuers and tokens in memory: what is looked up when a token comes, and how long what was found out counts.

use std::sync::Arc;

use plinth_storage::ids::{ClusterId, TenantId, Timestamp};
use quick_cache::sync::Cache;

use super::algorithm::Algorithm;
use super::claims::Terms;
use super::key::{Fingerprint, KeySet, VerifyingKey};
use super::mint::Minter;
use super::remote::Remote;
use super::seal::SealKey;
use super::template::Template;
use crate::auth::secret::SecretHash;
use crate::auth::{Caller, Miss};
use crate::broker::Error;
use crate::broker::cursor::CursorKey;
use crate::broker::documents::{self, IssuerDoc, IssuerKeysDoc};
use crate::egress::Egress;

/// Issuers held in memory.
const ISSUERS_HELD_MAX: usize = 10_000;
/// Verified tokens held in memory, about 1 KB each.
const TOKENS_HELD_MAX: usize = 50_000;
/// A verified token counts so long without another look at its signature.
const VERIFIED_MS: u64 = 10 * 60 * 1000;

/// What the tokens of the cluster need in memory.
pub(in crate::auth) struct Jwt {
    issuers: Cache<String, Arc<Issuer>>,
    tokens: Cache<SecretHash, Arc<Verified>>,
    /// None when the server made the root key itself: then the bucket would hold all that opens a seal.
    seal: Option<SealKey>,
    /// What asks for keys at addresses.
    pub(super) egress: Egress,
    minter: Minter,
    /// Of the root key from before, for the tokens that are still about.
    previous_minter: Option<Minter>,
}

/// A token whose signature and claims were good.
struct Verified {
    caller: Caller,
    until: Timestamp,
}

/// An issuer as its document says it is.
pub(in crate::auth) struct Issuer {
    pub(super) name: Box<str>,
    pub(super) terms: Terms,
    /// Changes with all that is trusted of it but its keys.
    pub(super) terms_id: Fingerprint,
    pub(super) keys: Keys,
}

/// Where the keys of an issuer are.
pub(super) enum Keys {
    /// Here.
    Fixed(KeySet),
    /// At an address.
    Remote(Remote),
}

impl Keys {
    /// Whether there is such a key.
    pub(super) fn has(&self, key: &Fingerprint, now: Timestamp) -> bool {
        match self {
            Self::Fixed(keys) => keys.has(key),
            Self::Remote(remote) => remote.has(key, now),
        }
    }

    /// Whether they are to be fetched again before they are relied on.
    pub(super) fn are_due(&self, now: Timestamp) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Remote(remote) => remote.is_due(now),
        }
    }
}

impl Jwt {
    /// `given`: whether the operator gave the root key whose hash is `root`.
    pub(in crate::auth) fn new(
        cursors: &CursorKey,
        root: &SecretHash,
        given: bool,
        (cluster, egress): (ClusterId, Egress),
    ) -> Self {
        Self {
            issuers: Cache::new(ISSUERS_HELD_MAX),
            tokens: Cache::new(TOKENS_HELD_MAX),
            seal: given.then(|| SealKey::new(cursors, root)),
            egress,
            minter: Minter::new(cursors, root, cluster),
            previous_minter: None,
        }
    }

    /// With the root key from before, whose tokens are good as well.
    pub(in crate::auth) fn with_previous(
        self,
        cursors: &CursorKey,
        root: Option<&SecretHash>,
        cluster: ClusterId,
    ) -> Self {
        Self { previous_minter: root.map(|root| Minter::new(cursors, root, cluster)), ..self }
    }

    /// What has minted or mints tokens, the newest first.
    pub(super) fn minters(&self) -> impl Iterator<Item = &Minter> {
        std::iter::once(&self.minter).chain(&self.previous_minter)
    }

    /// What mints tokens.
    pub(super) fn minter(&self) -> &Minter {
        &self.minter
    }

    /// Seals a secret for the document at `place`.
    ///
    /// # Errors
    /// When there is nothing to seal with.
    pub(super) fn seal(&self, place: &[u8], secret: &str) -> Result<String, String> {
        let sealed = self.seal.as_ref().map(|key| key.seal(place, secret));
        sealed.ok_or_else(|| {
            "a secret is only taken when the operator has given the root key (PLINTH_ROOT_KEY): the one that the server \
             made is in the store as a hash, and would open it"
                .to_owned()
        })
    }

    /// The caller of a token that was verified before and may still be taken for good.
    pub(in crate::auth) fn verified(&self, token: &SecretHash, now: Timestamp) -> Option<Caller> {
        let known = self.tokens.get(token)?;
        let ends = known.caller.expires_at().map_or(known.until, |end| end.min(known.until));
        (now < ends).then(|| known.caller.clone())
    }

    /// Remembers a token that was verified.
    pub(super) fn remember(&self, token: SecretHash, caller: Caller, now: Timestamp) {
        self.tokens.insert(token, Arc::new(Verified { caller, until: Timestamp(now.0.saturating_add(VERIFIED_MS)) }));
    }

    /// Forgets an issuer after a change of it. One that is being read meanwhile is not kept.
    pub(super) fn forget(&self, tenant: TenantId, name: &str) {
        self.issuers.remove(&place(tenant, name));
    }

    /// The issuer, from memory or as `load` finds its document.
    pub(super) fn issuer(
        &self,
        tenant: TenantId,
        name: &str,
        load: impl FnOnce() -> Result<Option<IssuerDoc>, Error>,
    ) -> Result<Arc<Issuer>, Miss> {
        self.issuers.get_or_insert_with(place(tenant, name).as_str(), || {
            let doc = load().map_err(Miss::Failed)?.ok_or(Miss::Absent)?;
            Ok(Arc::new(Issuer::new(tenant, name, &doc, self.seal.as_ref())))
        })
    }
}

fn place(tenant: TenantId, name: &str) -> String {
    format!("{}/{name}", tenant.0)
}

impl Issuer {
    /// What this build cannot read of a document allows nothing.
    fn new(tenant: TenantId, name: &str, doc: &IssuerDoc, seal: Option<&SealKey>) -> Self {
        let keys = match &doc.keys {
            IssuerKeysDoc::Given(keys) => Keys::Fixed(KeySet::of_stored(keys)),
            IssuerKeysDoc::Published(url) => Keys::Remote(Remote::new(url)),
            IssuerKeysDoc::Sealed(sealed) => {
                let secret = seal.and_then(|key| key.open(&documents::issuer(tenant, name), sealed));
                if secret.is_none() {
                    tracing::warn!(
                        issuer = name,
                        "the secret of an issuer cannot be opened: it was sealed with another root key"
                    );
                }
                let keys = secret.map_or_else(KeySet::empty, |secret| KeySet::of(VerifyingKey::secret(&secret)));
                Keys::Fixed(keys)
            }
        };
        let terms = Terms {
            algorithms: doc.algorithms.iter().filter_map(|name| Algorithm::parse(name)).collect(),
            scope_claim: doc.scope_claim.clone(),
            subject_claim: doc.subject_claim.clone(),
            default_scopes: doc.default_scopes.iter().filter_map(|text| Template::parse(text).ok()).collect(),
            lifetime_ms_max: doc.lifetime_ms_max,
            leeway_ms: doc.leeway_ms,
        };
        let bare = IssuerDoc { keys: kind_of(&doc.keys), ..doc.clone() };
        let terms_id = *blake3::hash(&documents::encode(&bare)).as_bytes();
        Self { name: name.into(), terms, terms_id, keys }
    }
}

/// Where keys are, without the keys: a key may come and go, another place is another trust.
fn kind_of(keys: &IssuerKeysDoc) -> IssuerKeysDoc {
    match keys {
        IssuerKeysDoc::Given(_) | IssuerKeysDoc::Sealed(_) => IssuerKeysDoc::Given(vec![]),
        IssuerKeysDoc::Published(url) => IssuerKeysDoc::Published(url.clone()),
    }
}
