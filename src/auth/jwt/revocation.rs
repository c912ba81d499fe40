//! Revocations: tokens that are good no more before their time, by id, by subject, or with the API key that minted them.
//!
//! A revocation is durable, and acts on remembered tokens and live connections before it is answered: it moves a number
//! of its tenant, and every token that was looked at under another number is looked at again. It lasts as long as a token of the kind
//! could, and is then forgotten.

use std::sync::atomic::Ordering;

use plinth_api::limits::{
    REVOCATIONS_MAX, TOKEN_LEEWAY_MS_MAX, TOKEN_LIFETIME_MS_MAX, TOKEN_SUBJECT_BYTES_MAX, TOKEN_TTL_MS_MAX,
};
use plinth_storage::Kind;
use plinth_storage::ids::{TenantId, Timestamp};
use plinth_storage::log::{Change, DocOp, Guard};

use crate::auth::caller::{Admin, Token};
use crate::auth::{Auth, TenantRef};
use crate::broker::Error;
use crate::broker::documents::{self, RevocationDoc, RevokedDoc};

/// Rows of one look at the revocations of a tenant.
const STEP: usize = 500;

/// What is to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revoked {
    /// An API key, by id: it is deleted, and the tokens that it minted end with it.
    Key(String),
    /// A token, by its `jti`.
    Token(String),
    /// Every token of a subject that was issued before a time; without one, before now.
    Subject(String, Option<Timestamp>),
}

/// A revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationView {
    /// Its id.
    pub id: String,
    /// What is revoked; a subject with the time.
    pub of: Revoked,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is forgotten, as no such token can be good any more.
    pub expires_at: Timestamp,
}

impl Auth {
    /// Revokes; from the answer on none of these tokens is good, and what they opened ends. Cancel safe: a caller that
    /// stops waiting does not undo it.
    ///
    /// # Errors
    /// `Unprocessable` for what cannot be a token's, and when the tenant has too many; `NotFound` for a key that is not.
    pub async fn revoke(&self, admin: &Admin, of: Revoked) -> Result<RevocationView, Error> {
        let now = self.0.log.now();
        check(&of, now).map_err(Error::Unprocessable)?;
        let (auth, admin) = (self.clone(), admin.clone());
        self.0.changes.run(async move { auth.store_revocation(&admin, of, now).await }).await
    }

    /// Up to `limit` revocations of the administrator's tenant that still count, by id, after the id `after`.
    ///
    /// # Errors
    /// Those of the log.
    pub fn list_revocations(
        &self,
        admin: &Admin,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RevocationView>, Error> {
        let (tenant, now) = (admin.tenant().id(), self.0.log.now());
        let prefix = documents::revocations(tenant);
        let mut after = after.map(|id| documents::revocation(tenant, id));
        let mut found = Vec::new();
        while found.len() < limit {
            let rows = self.0.log.scan(&prefix, after.as_deref(), limit)?;
            for (row, stored) in &rows {
                let doc: RevocationDoc = documents::decode(row, stored)?;
                let id = String::from_utf8_lossy(&row[prefix.len()..]);
                found.extend((doc.ends_at > now.0).then(|| view(&id, doc)));
            }
            match rows.last() {
                Some((last, _)) if rows.len() == limit => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Whether a token was revoked; looked up once per revocation in its tenant, and from memory in between.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) fn is_revoked(&self, tenant: &TenantRef, token: &Token) -> Result<bool, Error> {
        let version = tenant.revocations().load(Ordering::Acquire) + 1;
        if token.checked.load(Ordering::Relaxed) == version {
            return Ok(false);
        }
        let by_id = token.token_id.clone().map(RevokedDoc::Token);
        for of in by_id.into_iter().chain([RevokedDoc::Subject(token.subject.clone())]) {
            let key = documents::revocation(tenant.id(), &id_of(&of));
            let doc: Option<RevocationDoc> = documents::load(&self.0.log, &key)?;
            let issued_at = token.issued_at.0.saturating_sub(token.leeway_ms);
            if doc.is_some_and(|doc| issued_at < doc.issued_before) {
                return Ok(true);
            }
        }
        token.checked.store(version, Ordering::Relaxed);
        Ok(false)
    }

    async fn store_revocation(&self, admin: &Admin, of: Revoked, now: Timestamp) -> Result<RevocationView, Error> {
        let tenant = admin.tenant().id();
        // Issued by a clock that is ahead, and ended by one that is behind.
        let longest = TOKEN_LIFETIME_MS_MAX + 2 * TOKEN_LEEWAY_MS_MAX;
        let (of, issued_before, lasts) = match of {
            Revoked::Key(id) => (RevokedDoc::Key(id), now.0, TOKEN_TTL_MS_MAX),
            // Whenever it says it was issued: the id is its own.
            Revoked::Token(id) => (RevokedDoc::Token(id), u64::MAX, longest),
            Revoked::Subject(subject, before) => {
                (RevokedDoc::Subject(subject), before.map_or(now.0 + 1, |before| before.0), longest)
            }
        };
        let id = id_of(&of);
        let key = documents::revocation(tenant, &id);
        let before: Option<RevocationDoc> = documents::load(&self.0.log, &key)?;
        let mut docs = self.forget_expired_revocations(tenant, now, before.is_some())?;
        if let RevokedDoc::Key(id) = &of {
            self.delete_key(admin, id).await?;
        }
        let doc = RevocationDoc {
            v: documents::VERSION,
            of,
            issued_before: before.map_or(issued_before, |before| before.issued_before.max(issued_before)),
            created_at: now.0,
            ends_at: now.0.saturating_add(lasts),
        };
        docs.push(DocOp::Put(key, documents::encode(&doc)));
        let guards = vec![Guard::Present(documents::tenant(tenant))];
        let (of_tenant, change) = (admin.tenant().clone(), Change { guards, docs, topics: vec![] });
        let follow = move |_: &Self| {
            of_tenant.revocations().fetch_add(1, Ordering::AcqRel);
            of_tenant.announce_revocation();
        };
        let committed = self.commit_followed(change, follow).await;
        let gone = || Error::NotFound(format!("there is no tenant {:?}", admin.tenant().name()));
        committed.map_err(|error| if error.kind() == Kind::Conflict { gone() } else { error.into() })?;
        Ok(view(&id, doc))
    }

    /// What removes the revocations whose time is over, as far as one change may; and whether there is room for one more.
    fn forget_expired_revocations(&self, tenant: TenantId, now: Timestamp, again: bool) -> Result<Vec<DocOp>, Error> {
        let prefix = documents::revocations(tenant);
        let (mut docs, mut live, mut after) = (Vec::new(), 0, None);
        loop {
            let rows = self.0.log.scan(&prefix, after.as_deref(), STEP)?;
            for (row, stored) in &rows {
                let doc: RevocationDoc = documents::decode(row, stored)?;
                if doc.ends_at > now.0 {
                    live += 1;
                } else if docs.len() < STEP {
                    docs.push(DocOp::Delete(row.clone()));
                }
            }
            match rows.last() {
                Some((last, _)) if rows.len() == STEP => after = Some(last.clone()),
                Some(_) | None => break,
            }
        }
        if live < REVOCATIONS_MAX || again {
            return Ok(docs);
        }
        Err(Error::Unprocessable(format!("the tenant has its limit of {REVOCATIONS_MAX} revocations")))
    }
}

fn check(of: &Revoked, now: Timestamp) -> Result<(), String> {
    let text = match of {
        Revoked::Key(text) | Revoked::Token(text) | Revoked::Subject(text, _) => text,
    };
    if text.is_empty() || text.len() > TOKEN_SUBJECT_BYTES_MAX {
        return Err(format!("what is revoked has {} bytes, not 1 to {TOKEN_SUBJECT_BYTES_MAX}", text.len()));
    }
    match of {
        Revoked::Subject(_, Some(before)) if before.0 > now.0 => {
            Err("issued_before is in the future: tokens that are not issued yet cannot be revoked".to_owned())
        }
        Revoked::Subject(..) | Revoked::Key(_) | Revoked::Token(_) => Ok(()),
    }
}

/// The same for the same thing: what is revoked again takes its own place.
fn id_of(of: &RevokedDoc) -> String {
    let (kind, text) = match of {
        RevokedDoc::Key(text) => ("key", text),
        RevokedDoc::Token(text) => ("token", text),
        RevokedDoc::Subject(text) => ("subject", text),
    };
    format!("{kind}-{}", &blake3::hash(text.as_bytes()).to_hex()[..32])
}

fn view(id: &str, doc: RevocationDoc) -> RevocationView {
    let of = match doc.of {
        RevokedDoc::Key(id) => Revoked::Key(id),
        RevokedDoc::Token(id) => Revoked::Token(id),
        RevokedDoc::Subject(subject) => Revoked::Subject(subject, Some(Timestamp(doc.issued_before))),
    };
    RevocationView { id: id.to_owned(), of, created_at: Timestamp(doc.created_at), expires_at: Timestamp(doc.ends_at) }
}
