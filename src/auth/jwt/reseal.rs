//! When the root key is replaced, secrets that were sealed under the one before are sealed anew, at the start that is given
//! both: after it the one before opens nothing that is needed.

use bytes::Bytes;
use plinth_storage::Log;
use plinth_storage::log::{Change, DocOp, Guard};

use super::seal::SealKey;
use crate::auth::secret::SecretHash;
use crate::broker::Error;
use crate::broker::cursor::CursorKey;
use crate::broker::documents::{self, IssuerDoc, IssuerKeysDoc};

/// Documents that are looked at in one step.
const STEP: usize = 200;

/// Seals under `root` what was sealed under `previous`.
///
/// # Errors
/// Those of the log.
pub(in crate::auth) async fn reseal(
    log: &Log,
    cursors: &CursorKey,
    (root, previous): (&SecretHash, &SecretHash),
) -> Result<(), Error> {
    let (newest, previous) = (SealKey::new(cursors, root), SealKey::new(cursors, previous));
    let mut after: Option<Bytes> = None;
    loop {
        let rows = log.scan(documents::ISSUERS, after.as_deref(), STEP)?;
        let mut change = Change::default();
        for (key, stored) in &rows {
            let doc: IssuerDoc = documents::decode(key, stored)?;
            let IssuerKeysDoc::Sealed(sealed) = &doc.keys else { continue };
            let secret = previous.open(key, sealed).and_then(|secret| String::from_utf8(secret).ok());
            let Some(secret) = secret else { continue };
            let keys = IssuerKeysDoc::Sealed(newest.seal(key, &secret));
            change.guards.push(Guard::Equals(key.clone(), stored.clone()));
            change.docs.push(DocOp::Put(key.clone(), documents::encode(&IssuerDoc { keys, ..doc })));
        }
        if !change.docs.is_empty() {
            let secrets = change.docs.len();
            log.commit(change).await?;
            tracing::info!(secrets, "secrets of issuers are sealed under the new root key");
        }
        match rows.last() {
            Some((last, _)) => after = Some(last.clone()),
            None => return Ok(()),
        }
    }
}
