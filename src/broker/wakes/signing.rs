//! The key that webhooks are signed with: derived, so nothing of it is stored, and with a public half that anybody may read.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_storage::ids::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What ids of keys begin with.
const KEY_ID_PREFIX: &str = "ds_";

/// The keys, the first of which signs.
pub(super) struct Signers(Vec<Signer>);

struct Signer {
    pair: Ed25519KeyPair,
    id: String,
}

impl Signers {
    /// Keys of these seeds.
    pub(super) fn new(seeds: &[[u8; 32]]) -> Self {
        Self(seeds.iter().map(Signer::new).collect())
    }

    /// The id of the one that signs.
    pub(super) fn key_id(&self) -> &str {
        self.0.first().map(|signer| &*signer.id).unwrap_or_default()
    }

    /// The value of the header `Webhook-Signature` for a body that is sent now.
    pub(super) fn sign(&self, body: &[u8], now: Timestamp) -> String {
        let (seconds, id) = (now.0 / 1_000, self.key_id());
        let signed = [format!("{seconds}.").as_bytes(), body].concat();
        let signature = self.0.first().map(|signer| URL_SAFE_NO_PAD.encode(signer.pair.sign(&signed)));
        format!("t={seconds},kid={id},ed25519={}", signature.unwrap_or_default())
    }

    /// The public halves, as a JSON Web Key Set (RFC 7517, RFC 8037).
    pub(super) fn published(&self) -> Value {
        let keys: Vec<Value> = self.0.iter().map(Signer::published).collect();
        json!({ "keys": keys })
    }
}

impl Signer {
    fn new(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed of Ed25519");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        // The thumbprint of RFC 7638: the members that make the key, in order and without spaces.
        let print = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        Self { pair, id: format!("{KEY_ID_PREFIX}{}", URL_SAFE_NO_PAD.encode(print)) }
    }

    fn published(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.id, "x": x})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair and the thumbprint of RFC 8037, appendices A.1 and A.3.
    #[test]
    fn the_id_of_a_key_is_its_thumbprint() {
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").expect("base64");
        let signers = Signers::new(&[seed.try_into().expect("32 bytes")]);
        assert_eq!(signers.key_id(), "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let key = &signers.published()["keys"][0];
        assert_eq!(key["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(signers.sign(b"{}", Timestamp(1_999)), signers.sign(b"{}", Timestamp(1_001)));
        assert!(signers.sign(b"{}", Timestamp(1_999)).starts_with("t=1,kid=ds_kPrK"));
    }
}
