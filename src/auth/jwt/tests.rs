use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use futures::FutureExt;
use plinth_storage::Log;
use plinth_storage::env::Clock;
use plinth_storage::log::LogOptions;
use plinth_storage::store;
use serde_json::{Value, json};

use super::*;
use crate::auth::{
    Action, Admin, Credential, KeyRequest, Operator, Revocations, RootKeys, TenantChange, TenantSettings,
};

mod remote;
mod told;

const ROOT: &str = "a-root-key-of-the-test-0123456789";
const SECRET: &str = "a secret of the test that has sixty-four bytes, or a few more of them";
const ISS: &str = "https://id.example";
/// Noon of a day, in seconds.
const NOW: u64 = 1_700_000_000;

/// A clock that the test moves.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

struct World {
    clock: Arc<Hands>,
    log: Log,
    auth: Auth,
}

async fn world() -> World {
    let clock = Arc::new(Hands(AtomicU64::new(NOW * 1000)));
    let options = LogOptions::new(store::open("memory://").expect("a store"));
    let log = Log::open(LogOptions { clock: Arc::clone(&clock) as _, ..options }).await.expect("a log");
    let (auth, _) = Auth::open(log.clone(), Some(ROOT.into())).await.expect("credentials");
    World { clock, log, auth }
}

impl World {
    fn root(&self, tenant: &str) -> Caller {
        self.auth.authenticate(Credential::Bearer(ROOT), Some(tenant)).expect("the root key")
    }

    fn operator(&self) -> Operator {
        self.root("default").operator().expect("the root key")
    }

    fn admin(&self, tenant: &str) -> Admin {
        self.root(tenant).admin().expect("the root key")
    }

    async fn tenant(&self, name: &str) {
        self.auth.create_tenant(&self.operator(), name, TenantSettings::default()).await.expect("a tenant");
    }

    async fn trust(&self, tenant: &str, name: &str, request: IssuerRequest) -> IssuerView {
        self.auth.ensure_issuer(&self.admin(tenant), name, request).await.expect("trusted").0
    }

    async fn refusal(&self, request: IssuerRequest) -> Error {
        self.auth.ensure_issuer(&self.admin("default"), "x", request).await.expect_err("refused")
    }

    fn enter(&self, token: &str) -> Result<Caller, Denied> {
        self.auth.authenticate(Credential::Bearer(token), None)
    }

    fn fault(&self, token: &str) -> Fault {
        match self.enter(token) {
            Err(Denied::Token(fault)) => fault.fault,
            other => panic!("no fault of a token: {other:?}"),
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    async fn key(&self, scopes: &[&str], expires_in: Option<&str>) -> (String, Caller) {
        let scopes = scopes.iter().map(ToString::to_string).collect();
        let expires_in = expires_in.map(str::to_owned);
        let request = KeyRequest { name: "test".into(), scopes, expires_in, ..KeyRequest::default() };
        let made = self.auth.create_key(&self.admin("default"), request).await.expect("a key");
        (made.about.id, self.enter(&made.key).expect("a key"))
    }

    fn mint(&self, caller: &Caller, scopes: &[&str], ttl: &str, subject: Option<&str>) -> Result<MintedToken, Denied> {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let request = TokenRequest::parse(&scopes, Some(ttl), subject.map(str::to_owned)).expect("a request");
        self.auth.mint(caller, &request)
    }
}

/// Whoever signs tokens in a test.
enum Signer {
    Secret(&'static str),
    Rsa(Box<RsaKeyPair>),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"))
    }

    fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().expect("a key"))
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let rng = SystemRandom::new();
        match self {
            Self::Secret(secret) => {
                let hash = match alg {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret.as_bytes()), message).as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding: &dyn aws_lc_rs::signature::RsaEncoding = match alg {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                pair.sign(encoding, &rng, message, &mut signature).expect("signed");
                signature
            }
            Self::P256(pair) | Self::P384(pair) => pair.sign(&rng, message).expect("signed").as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// The public key of 2,048 bits as PKCS #1 writes it, without its first bytes: the modulus, and the exponent.
    fn rsa_parts(pair: &RsaKeyPair) -> (Vec<u8>, Vec<u8>) {
        let der = pair.public_key().as_ref();
        (der[9..265].to_vec(), der[der.len() - 3..].to_vec())
    }

    fn jwk(&self, kid: Option<&str>) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Secret(secret) => json!({"kty": "oct", "k": text(secret.as_bytes())}),
            Self::Rsa(pair) => {
                let (n, e) = Self::rsa_parts(pair);
                json!({"kty": "RSA", "n": text(&n), "e": text(&e), "use": "sig"})
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Self::P384(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-384", "x": text(&point[1..49]), "y": text(&point[49..])})
            }
            Self::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}),
        };
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    /// A token with this header and these claims.
    fn token(&self, header: &Value, claims: &Value) -> String {
        self.raw(header["alg"].as_str().unwrap_or("none"), &header.to_string(), &claims.to_string())
    }

    fn raw(&self, alg: &str, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(alg, signed.as_bytes())))
    }
}

/// Whether a live connection that listens is told to ask again.
fn is_told(revoked: &mut Revocations) -> bool {
    revoked.changed().now_or_never().is_some()
}

fn claims() -> Value {
    json!({
        "iss": ISS, "aud": "plinth:default", "sub": "u-7", "iat": NOW - 10, "exp": NOW + 600,
        "scope": "publish:in.* openid subscribe:out/**",
    })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

fn asymmetric(algorithms: &[&str], keys: &[Value]) -> IssuerRequest {
    IssuerRequest {
        issuer: ISS.into(),
        algorithms: algorithms.iter().map(ToString::to_string).collect(),
        jwks: Some(json!({ "keys": keys })),
        ..IssuerRequest::default()
    }
}

fn symmetric(algorithms: &[&str]) -> IssuerRequest {
    IssuerRequest { jwks: None, secret: Some(SECRET.into()), ..asymmetric(algorithms, &[]) }
}

const HS: Signer = Signer::Secret(SECRET);

fn hs(claims: &Value) -> String {
    HS.token(&json!({"alg": "HS256", "typ": "JWT"}), claims)
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_let_in_with_what_they_claim() {
    let world = world().await;
    let rsa = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let cases: [(Signer, &[&str]); 5] = [
        (Signer::rsa(), &rsa),
        (Signer::p256(), &["ES256"]),
        (Signer::p384(), &["ES384"]),
        (Signer::ed25519(), &["EdDSA"]),
        (HS, &["HS256", "HS384", "HS512"]),
    ];
    for (signer, algorithms) in &cases {
        let request = match signer {
            Signer::Secret(_) => symmetric(algorithms),
            Signer::Rsa(_) | Signer::P256(_) | Signer::P384(_) | Signer::Ed25519(_) => {
                asymmetric(algorithms, &[signer.jwk(Some("k"))])
            }
        };
        world.trust("default", "id", request).await;
        for alg in *algorithms {
            let token = signer.token(&json!({"alg": alg, "kid": "k"}), &claims());
            // The second time from memory.
            for _ in 0..2 {
                let caller = world.enter(&token).unwrap_or_else(|denied| panic!("{alg}: {denied:?}"));
                assert_eq!(caller.id(), "token:id:u-7");
                assert_eq!(caller.tenant().map(TenantRef::name), Some("default"));
                assert_eq!(caller.expires_at(), Some(Timestamp((NOW + 600) * 1000 + 30_000)));
                assert!(caller.may(Action::Publish, "in.a") && caller.may(Action::Subscribe, "out/a/b"));
                assert!(!caller.may(Action::Subscribe, "in.a") && caller.admin().is_err());
                assert!(world.auth.is_live(&caller));
            }
            assert!(
                world.auth.authenticate(Credential::Bearer(&token), Some("default")).is_err(),
                "the root key's header"
            );
        }
        world.auth.delete_issuer(&world.admin("default"), "id").await.expect("deleted");
    }
}

/// Every one of these is refused with this fault, and none ends the process. Fails where a check is taken out.
#[tokio::test]
async fn hostile_tokens_are_refused() {
    let world = world().await;
    world.trust("default", "id", symmetric(&["HS256"])).await;
    assert!(world.enter(&hs(&claims())).is_ok());
    let corpus = [of_algorithms(), of_headers(), of_claims(), of_times(), of_signatures(), of_spellings()];
    for (token, fault) in corpus.iter().flatten() {
        let shown: String = token.chars().take(300).collect();
        match world.enter(token) {
            Err(Denied::Token(found)) => assert_eq!(found.fault, *fault, "{shown}: {found:?}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
    assert!(world.enter(&hs(&claims())).is_ok());
}

type Cases = Vec<(String, Fault)>;

fn of_algorithms() -> Cases {
    let good = hs(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("dots");
    let (_, body) = signed.split_once('.').expect("dots");
    let unsigned = |alg: &str| {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        [format!("{header}.{body}."), format!("{header}.{body}"), format!("{header}.{body}.{signature}")]
    };
    let mut cases = Cases::new();
    for alg in ["none", "None", "NONE", "nOnE", "", " none", "null", "HS1", "hs256", "HS256 ", "RS1", "dir", "A256KW"] {
        let [empty, short, with] = unsigned(alg);
        cases.push((empty, Fault::Algorithm));
        cases.push((short, Fault::Malformed));
        cases.push((with, Fault::Algorithm));
    }
    for alg in ["HS384", "HS512", "RS256", "ES256", "EdDSA", "PS512"] {
        cases.push((HS.token(&json!({"alg": alg}), &claims()), Fault::Algorithm));
    }
    cases
}

fn of_headers() -> Cases {
    let (mut cases, long_kid) = (Cases::new(), "k".repeat(10_000));
    for header in [
        json!({}),
        json!([]),
        json!(["HS256"]),
        json!("HS256"),
        json!({"alg": null}),
        json!({"alg": 1}),
        json!({"alg": ["HS256"]}),
        json!({"alg": "HS256", "kid": 7}),
        json!({"alg": "HS256", "kid": long_kid}),
        json!({"alg": "HS256", "kid": ""}),
        json!({"alg": "HS256", "crit": ["exp"]}),
        json!({"alg": "HS256", "b64": false}),
        json!({"alg": "HS256", "zip": "DEF"}),
        json!({"alg": "HS256", "typ": "logout+jwt"}),
        json!({"alg": "HS256", "typ": 1}),
    ] {
        cases.push((HS.raw("HS256", &header.to_string(), &claims().to_string()), Fault::Malformed));
    }
    cases.push((HS.raw("HS256", r#"{"alg":"HS256","alg":"HS256"}"#, &claims().to_string()), Fault::Malformed));
    for body in ["", "x", "null", "[]", "7", "\"a\"", "{", "{}x", "\u{feff}{}", &"[".repeat(3000)] {
        cases.push((HS.raw("HS256", r#"{"alg":"HS256"}"#, body), Fault::Malformed));
    }
    let twice = claims().to_string().replacen('{', r#"{"sub":"admin","#, 1);
    cases.push((HS.raw("HS256", r#"{"alg":"HS256"}"#, &twice), Fault::Malformed));
    let deep = format!(r#"{{"iss":"{ISS}","x":{}}}"#, "[".repeat(500));
    cases.push((HS.raw("HS256", r#"{"alg":"HS256"}"#, &deep), Fault::Malformed));
    cases
}

fn of_claims() -> Cases {
    let mut cases = Cases::new();
    for exp in [
        json!(NOW as f64 + 600.5),
        json!(-1),
        json!((NOW + 600).to_string()),
        json!(true),
        json!({}),
        json!(u64::MAX),
        json!(1e300),
        Value::Null,
    ] {
        cases.push((hs(&with("exp", exp)), Fault::Claim));
    }
    for name in ["exp", "iat", "sub", "iss", "aud"] {
        cases.push((hs(&without(name)), Fault::Claim));
    }
    for aud in [
        json!(7),
        json!([]),
        json!([7]),
        json!({"plinth:default": 1}),
        json!(""),
        json!([["plinth:default"]]),
        json!(vec!["x"; 17]),
    ] {
        cases.push((hs(&with("aud", aud)), Fault::Claim));
    }
    for (name, value) in [
        ("iss", json!("https://id.example/")),
        ("iss", json!("https://ID.example")),
        ("iss", json!("' or 1=1 --")),
        ("aud", json!("plinth:other")),
        ("aud", json!("plinth:default\0")),
        ("aud", json!(["a", "b"])),
        ("aud", json!("plinth:defaul")),
    ] {
        cases.push((hs(&with(name, value)), Fault::Audience));
    }
    cases.push((hs(&with("iss", json!(["https://id.example"]))), Fault::Claim));
    for sub in [json!(7), json!(""), json!("a\nb"), json!("x".repeat(256)), json!(["u"])] {
        cases.push((hs(&with("sub", sub)), Fault::Claim));
    }
    for scope in [json!(7), json!({"a": 1}), json!(["publish:a", 7]), json!("publish:a ".repeat(101))] {
        cases.push((hs(&with("scope", scope)), Fault::Claim));
    }
    cases.push((hs(&with("jti", json!(7))), Fault::Claim));
    cases
}

fn of_times() -> Cases {
    let cases = [
        ("nbf", json!(NOW + 31), Fault::NotYet),
        ("nbf", json!("soon"), Fault::Claim),
        ("iat", json!(NOW + 31), Fault::NotYet),
        ("exp", json!(NOW - 31), Fault::Expired),
        ("exp", json!(NOW + 86_401 - 10), Fault::Lifetime),
        ("exp", json!(NOW - 15), Fault::Claim),
    ];
    cases.into_iter().map(|(name, value, fault)| (hs(&with(name, value)), fault)).collect()
}

fn of_signatures() -> Cases {
    let good = hs(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("dots");
    let (header, _) = signed.split_once('.').expect("dots");
    let mut cases = Cases::new();
    for token in [
        format!("{signed}.{}", &signature[..signature.len() - 3]),
        format!("{signed}.{signature}A"),
        format!("{signed}.AAAA"),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(with("sub", "admin").to_string())),
        Signer::Secret("another secret, of which nobody has heard before").token(&json!({"alg": "HS256"}), &claims()),
        Signer::Secret("").token(&json!({"alg": "HS256"}), &claims()),
    ] {
        cases.push((token, Fault::Signature));
    }
    cases
}

fn of_spellings() -> Cases {
    let good = hs(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("dots");
    let (header, body) = signed.split_once('.').expect("dots");
    let mut cases = Cases::new();
    // A last character with bits that stand for nothing: another spelling of the same signature.
    let other = char::from(signature.bytes().last().expect("not empty") + 1);
    let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(signature).expect("base64url"));
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "...".into(),
        "a.b.c".into(),
        format!("{good}."),
        format!(".{good}"),
        format!("{good}.{signature}"),
        format!("{header}..{signature}"),
        format!(" {good}"),
        format!("{good}\n"),
        format!("{header}.{body} .{signature}"),
        format!("{header}.\t{body}.{signature}"),
        format!("{signed}.{padded}"),
        format!("{signed}.{}{other}", &signature[..signature.len() - 1]),
        format!("{signed}.{}", signature.replace(['-', '_'], "+") + "+"),
        format!("{header}.{}.{signature}", STANDARD.encode(claims().to_string() + "??>")),
        "é.ü.ß".into(),
        "\0.\0.\0".into(),
        "a".repeat(5_000_000),
        format!("{header}.{}.{signature}", "A".repeat(9_000)),
        good.replace('.', ","),
    ] {
        cases.push((token, Fault::Malformed));
    }
    cases
}

#[tokio::test]
async fn what_a_header_says_of_keys_is_not_read() {
    let world = world().await;
    let (ours, theirs) = (Signer::p256(), Signer::p256());
    world.trust("default", "id", asymmetric(&["ES256"], &[ours.jwk(Some("a"))])).await;
    for kid in ["a", "b", "../../dev/null", "a' or '1'='1", "a\0", "http://127.0.0.1/jwks.json"] {
        let header = json!({
            "alg": "ES256", "kid": kid, "jwk": theirs.jwk(Some("a")), "jku": "http://127.0.0.1:1/jwks.json",
            "x5u": "http://127.0.0.1:1/cert.pem", "x5c": ["AAAA"],
        });
        let expected = if kid == "a" { Fault::Signature } else { Fault::UnknownKey };
        assert_eq!(world.fault(&theirs.token(&header, &claims())), expected, "{kid:?}");
    }
    let header = json!({"alg": "ES256", "kid": "a", "jwk": theirs.jwk(None), "jku": "http://127.0.0.1:1/"});
    assert!(world.enter(&ours.token(&header, &claims())).is_ok(), "they change nothing of a good token");
    let signed = ours.token(&json!({"alg": "ES256", "kid": "a"}), &claims());
    let (signed, _) = signed.rsplit_once('.').expect("dots");
    for forged in [[0_u8; 64].to_vec(), [0xff; 64].to_vec(), vec![0; 63], vec![0; 65], vec![0x30; 70]] {
        assert_eq!(world.fault(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(forged))), Fault::Signature);
    }
}

/// The classical confusion: the public key of an RSA issuer, in every form that an attacker has it in, as an HMAC secret.
#[tokio::test]
async fn a_public_key_is_no_secret() {
    let world = world().await;
    let rsa = Signer::rsa();
    world.trust("default", "id", asymmetric(&["RS256"], &[rsa.jwk(Some("a"))])).await;
    let Signer::Rsa(pair) = &rsa else { panic!("an RSA key") };
    let (n, _) = Signer::rsa_parts(pair);
    let der = pair.public_key().as_ref().to_vec();
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", STANDARD.encode(&der));
    for secret in [n, der, pem.into_bytes(), rsa.jwk(Some("a")).to_string().into_bytes()] {
        for (alg, hash) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
            let header = json!({"alg": alg, "kid": "a"}).to_string();
            let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims().to_string()));
            let signature = hmac::sign(&hmac::Key::new(hash, &secret), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
            assert_eq!(world.fault(&token), Fault::Algorithm);
        }
    }
    assert_eq!(world.fault(&rsa.token(&json!({"alg": "PS256", "kid": "a"}), &claims())), Fault::Algorithm);
}

#[tokio::test]
async fn the_same_key_id_of_two_issuers_is_two_keys() {
    let world = world().await;
    world.tenant("other").await;
    let (a, b) = (Signer::ed25519(), Signer::ed25519());
    world.trust("default", "id", asymmetric(&["EdDSA"], &[a.jwk(Some("1"))])).await;
    world.trust("other", "id", asymmetric(&["EdDSA"], &[b.jwk(Some("1"))])).await;
    let token = |signer: &Signer, aud: Value| signer.token(&json!({"alg": "EdDSA", "kid": "1"}), &with("aud", aud));
    for (signer, aud, tenant) in [(&a, "plinth:default", "default"), (&b, "plinth:other", "other")] {
        let caller = world.enter(&token(signer, aud.into())).expect("its own");
        assert_eq!(caller.tenant().map(TenantRef::name), Some(tenant));
    }
    assert_eq!(world.fault(&token(&a, "plinth:other".into())), Fault::Signature);
    assert_eq!(world.fault(&token(&b, "plinth:default".into())), Fault::Signature);
    // Which of the two tenants is meant, nobody can tell.
    assert_eq!(world.fault(&token(&a, json!(["plinth:other", "plinth:default"]))), Fault::Audience);
    assert!(world.enter(&token(&a, json!(["plinth:default", "elsewhere"]))).is_ok());
}

#[tokio::test]
async fn no_tenant_captures_the_tokens_of_another() {
    let world = world().await;
    world.tenant("other").await;
    let request = |audience: &str| IssuerRequest { audiences: vec![audience.into()], ..symmetric(&["HS256"]) };
    world.trust("default", "id", request("shop")).await;
    for (tenant, name) in [("other", "id"), ("default", "second")] {
        let taken = world.auth.ensure_issuer(&world.admin(tenant), name, request("shop")).await.expect_err("taken");
        assert!(matches!(taken, Error::Conflict(_)), "{taken:?}");
        assert!(!taken.to_string().contains("default") && !taken.to_string().contains("other"), "{taken}");
    }
    assert_eq!(world.enter(&hs(&with("aud", "shop"))).expect("trusted").tenant().map(TenantRef::name), Some("default"));

    let (_, admin) = world.key(&["admin"], None).await;
    for free in ["plinth:default", "plinth:default/app"] {
        assert!(world.auth.may_trust(&admin, &[free.into()]).is_ok(), "{free}");
    }
    for foreign in ["shop", "plinth:other", "plinth:default-2", "plinth:", "*", ""] {
        let denied = world.auth.may_trust(&admin, &["plinth:default".into(), foreign.into()]);
        assert!(matches!(denied, Err(Denied::Forbidden(_))), "{foreign}");
        assert!(world.auth.may_trust(&world.root("default"), &[foreign.into()]).is_ok(), "{foreign}");
    }
    // Who trusts it no more leaves it free.
    world.auth.delete_issuer(&world.admin("default"), "id").await.expect("deleted");
    world.trust("other", "id", request("shop")).await;
    world.auth.delete_tenant(&world.operator(), "other").await.expect("deleted");
    world.trust("default", "id", request("shop")).await;
    assert_eq!(world.log.scan(b"issuer-claim/", None, 10).expect("rows").len(), 1);
}

#[tokio::test]
async fn a_key_that_is_withdrawn_takes_its_tokens_along_and_one_that_is_added_does_not() {
    let world = world().await;
    let (old, new) = (Signer::p256(), Signer::p256());
    let token = |signer: &Signer, kid| signer.token(&json!({"alg": "ES256", "kid": kid}), &claims());
    world.trust("default", "id", asymmetric(&["ES256"], &[old.jwk(Some("1"))])).await;
    let caller = world.enter(&token(&old, "1")).expect("trusted");
    assert_eq!(world.fault(&token(&new, "2")), Fault::UnknownKey);
    world.trust("default", "id", asymmetric(&["ES256"], &[old.jwk(Some("1")), new.jwk(Some("2"))])).await;
    assert!(
        world.auth.is_live(&caller) && world.enter(&token(&old, "1")).is_ok() && world.enter(&token(&new, "2")).is_ok()
    );
    let mut revoked = Revocations::of(&caller);
    world.trust("default", "id", asymmetric(&["ES256"], &[new.jwk(Some("2"))])).await;
    assert!(is_told(&mut revoked), "live connections ask again");
    assert!(!world.auth.is_live(&caller));
    assert_eq!(world.fault(&token(&old, "1")), Fault::UnknownKey);
    assert!(world.enter(&token(&new, "2")).is_ok());
}

#[tokio::test]
async fn deletion_suspension_and_a_change_of_terms_end_what_is_remembered_of_a_token() {
    let world = world().await;
    world.trust("default", "id", symmetric(&["HS256"])).await;
    let caller = world.enter(&hs(&claims())).expect("trusted");
    let suspend = |suspended| crate::auth::TenantChange { suspended: Some(suspended), ..Default::default() };
    world.auth.change_tenant(&world.operator(), "default", suspend(true)).await.expect("suspended");
    assert!(!world.auth.is_live(&caller));
    assert!(matches!(world.enter(&hs(&claims())), Err(Denied::Suspended(_))));
    world.auth.change_tenant(&world.operator(), "default", suspend(false)).await.expect("goes on");
    assert!(world.auth.is_live(&caller) && world.enter(&hs(&claims())).is_ok());
    world.trust("default", "id", IssuerRequest { scope_claim: Some("scp".into()), ..symmetric(&["HS256"]) }).await;
    assert!(!world.auth.is_live(&caller));
    assert!(!world.enter(&hs(&claims())).expect("trusted").may(Action::Publish, "in.a"), "looked at again");
    world.auth.delete_issuer(&world.admin("default"), "id").await.expect("deleted");
    assert!(!world.auth.is_live(&caller));
    assert_eq!(world.fault(&hs(&claims())), Fault::Audience);
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_the_leeway() {
    let world = world().await;
    world.trust("default", "id", IssuerRequest { leeway: Some("5s".into()), ..symmetric(&["HS256"]) }).await;
    let token = hs(&with("nbf", NOW + 5));
    let caller = world.enter(&token).expect("within the leeway");
    world.pass(604);
    assert!(world.auth.is_live(&caller) && world.enter(&token).is_ok());
    world.pass(1);
    assert!(!world.auth.is_live(&caller));
    assert_eq!(world.fault(&token), Fault::Expired);
}

#[tokio::test]
async fn claims_are_mapped_as_the_tenant_says() {
    let world = world().await;
    let request = IssuerRequest {
        scope_claim: Some("https://id.example/scopes".into()),
        subject_claim: Some("uid".into()),
        default_scopes: vec!["subscribe:users/{uid}/**".into(), "publish:in".into()],
        ..symmetric(&["HS256"])
    };
    world.trust("default", "id", request).await;
    let mut claims = without("sub");
    claims["uid"] = json!("u-9");
    let caller = world.enter(&hs(&claims)).expect("trusted");
    assert_eq!(caller.id(), "token:id:u-9");
    assert!(caller.may(Action::Subscribe, "users/u-9/a") && !caller.may(Action::Subscribe, "users/u-8/a"));
    assert!(caller.may(Action::Publish, "in"));
    claims["https://id.example/scopes"] = json!(["publish:list", "unknown", "admin"]);
    let caller = world.enter(&hs(&claims)).expect("trusted");
    assert!(caller.may(Action::Publish, "list") && !caller.may(Action::Publish, "in") && caller.admin().is_ok());
    claims["https://id.example/scopes"] = Value::Null;
    for uid in ["*", "**", "a/b", "a.b", "u*"] {
        claims["uid"] = json!(uid);
        assert_eq!(world.fault(&hs(&claims)), Fault::Claim, "{uid}");
    }
}

#[tokio::test]
async fn an_issuer_that_makes_no_sense_is_refused() {
    let world = world().await;
    let (p256, rsa) = (Signer::p256(), Signer::rsa());
    let es = || asymmetric(&["ES256"], &[p256.jwk(Some("1"))]);
    let mut cases = vec![
        ("no algorithm", asymmetric(&[], &[p256.jwk(None)])),
        ("none", asymmetric(&["none"], &[p256.jwk(None)])),
        ("two families", asymmetric(&["ES256", "HS256"], &[p256.jwk(None)])),
        ("a secret and keys", IssuerRequest { secret: Some(SECRET.into()), ..es() }),
        ("no keys", IssuerRequest { jwks: None, ..es() }),
        ("an empty set", asymmetric(&["ES256"], &[])),
        ("keys for HS256", asymmetric(&["HS256"], &[p256.jwk(None)])),
        ("a secret for ES256", symmetric(&["ES256"])),
        ("a secret as a key", asymmetric(&["ES256"], &[HS.jwk(None)])),
        ("an algorithm without a key", asymmetric(&["ES256", "RS256"], &[p256.jwk(None)])),
        ("a key without an algorithm", asymmetric(&["ES256"], &[p256.jwk(Some("1")), rsa.jwk(Some("2"))])),
        ("one id twice", asymmetric(&["ES256"], &[p256.jwk(Some("1")), Signer::p256().jwk(Some("1"))])),
        ("two without an id", asymmetric(&["ES256"], &[p256.jwk(None), Signer::p256().jwk(None)])),
        ("a short secret", IssuerRequest { secret: Some("x".repeat(31)), ..symmetric(&["HS256"]) }),
        ("a short secret", IssuerRequest { secret: Some("x".repeat(63)), ..symmetric(&["HS256", "HS512"]) }),
        ("the cluster's name", IssuerRequest { issuer: "plinth:x".into(), ..es() }),
        ("no name", IssuerRequest { issuer: String::new(), ..es() }),
        ("a long life", IssuerRequest { max_lifetime: Some("8d".into()), ..es() }),
        ("a short life", IssuerRequest { max_lifetime: Some("1s".into()), ..es() }),
        ("a long leeway", IssuerRequest { leeway: Some("31s".into()), ..es() }),
        ("a bad scope", IssuerRequest { default_scopes: vec!["read:{sub}".into()], ..es() }),
    ];
    for (name, member, value) in [
        ("private", "d", json!("AAAA")),
        ("for encryption", "use", json!("enc")),
        ("for signing", "key_ops", json!(["sign"])),
        ("another algorithm", "alg", json!("RS256")),
        ("another curve", "crv", json!("P-521")),
        ("no point", "x", json!("AAAA")),
        ("off the curve", "y", p256.jwk(None)["x"].clone()),
        ("no base64", "x", json!("???")),
        ("a long id", "kid", json!("k".repeat(129))),
        ("a number", "kty", json!(7)),
    ] {
        let mut jwk = p256.jwk(None);
        jwk[member] = value;
        cases.push((name, asymmetric(&["ES256"], &[jwk])));
    }
    let mut short = rsa.jwk(None);
    short["n"] = json!(URL_SAFE_NO_PAD.encode([0xff; 128]));
    cases.push(("RSA of 1024 bits", asymmetric(&["RS256"], &[short])));
    for (what, request) in cases {
        let refused = world.refusal(request).await;
        assert!(matches!(refused, Error::Unprocessable(_)), "{what}: {refused:?}");
        assert!(!refused.to_string().contains(SECRET), "{what}");
    }
    for name in ["", "A", "a_b", "-a", "a-", "a/b", "plinth", &"a".repeat(64)] {
        let refused = world.auth.ensure_issuer(&world.admin("default"), name, es()).await;
        assert!(matches!(refused, Err(Error::Unprocessable(_))), "{name}");
    }
    for place in 0..=plinth_api::limits::ISSUERS_MAX {
        let request = IssuerRequest { audiences: vec![format!("plinth:default/{place}")], ..es() };
        let ensured = world.auth.ensure_issuer(&world.admin("default"), &format!("i{place}"), request).await;
        assert_eq!(ensured.is_ok(), place < plinth_api::limits::ISSUERS_MAX);
    }
}

// Fails when what is sealed under the root key from before is not sealed anew, or its tokens are checked with the new one alone.
#[tokio::test]
async fn replacing_the_root_key_loses_no_sealed_secret_and_minted_tokens_live_while_both_are_given() {
    let world = world().await;
    world.tenant("other").await;
    for tenant in ["default", "other"] {
        let request = IssuerRequest { audiences: vec![format!("plinth:{tenant}")], ..symmetric(&["HS256"]) };
        world.trust(tenant, "id", request).await;
    }
    let (_, caller) = world.key(&["publish:a"], None).await;
    let minted = world.mint(&caller, &["publish:a"], "1h", None).expect("minted").token;
    let issued = hs(&claims());
    let open = async |newest: &str, previous: Option<&str>| {
        let keys = RootKeys { newest: Some(newest.into()), previous: previous.map(str::to_owned) };
        Auth::open(world.log.clone(), keys).await.expect("credentials").0
    };
    let new_root = "another-root-key-of-the-test-0123";
    let enters = |auth: &Auth, token: &str| auth.authenticate(Credential::Bearer(token), None).is_ok();
    let both = open(new_root, Some(ROOT)).await;
    assert!(enters(&both, &minted) && enters(&both, &issued));
    let published = both.published_keys()["keys"].as_array().map(Vec::len);
    assert_eq!(published, Some(2), "who checks tokens by the published keys finds both");
    let alone = open(new_root, None).await;
    assert!(enters(&alone, &issued), "the secret is sealed under the new root key now");
    assert!(!enters(&alone, &minted));
    let back = open(ROOT, Some(new_root)).await;
    assert!(enters(&back, &minted) && enters(&back, &issued), "the way back is the same");
}

#[tokio::test]
async fn a_secret_is_sealed_in_the_store_and_is_not_taken_where_the_store_could_open_it() {
    let world = world().await;
    let view = world.trust("default", "id", symmetric(&["HS256"])).await;
    assert!(view.has_secret && view.jwks.is_none());
    for (_, value) in world.log.scan(b"", None, 1_000).expect("rows") {
        assert!(!String::from_utf8_lossy(&value).contains(&SECRET[..20]));
    }
    let token = hs(&claims());
    // Another start with the same root key opens it, one with another root key does not.
    let again = Auth::open(world.log.clone(), Some(ROOT.into())).await.expect("credentials").0;
    assert!(again.authenticate(Credential::Bearer(&token), None).is_ok());
    let other =
        Auth::open(world.log.clone(), Some("another-root-key-of-the-test".into())).await.expect("credentials").0;
    let refused = other.authenticate(Credential::Bearer(&token), None).expect_err("sealed");
    assert!(matches!(&refused, Denied::Token(fault) if fault.fault == Fault::UnknownKey), "{refused:?}");

    let made_itself = LogOptions::new(store::open("memory://").expect("a store"));
    let log = Log::open(made_itself).await.expect("a log");
    let (auth, made) = Auth::open(log, None).await.expect("credentials");
    let root = made.root_key.expect("made");
    let caller = auth.authenticate(Credential::Bearer(&root), Some("default")).expect("the root key");
    let refused = auth.ensure_issuer(&caller.admin().expect("root"), "id", symmetric(&["HS256"])).await;
    assert!(matches!(&refused, Err(Error::Unprocessable(why)) if why.contains("PLINTH_ROOT_KEY")), "{refused:?}");
}

#[tokio::test]
async fn a_minted_token_allows_what_it_says_and_no_more_than_its_key() {
    let world = world().await;
    let (_, caller) = world.key(&["publish:orders.*", "subscribe:users/*/**", "admin"], None).await;
    let minted =
        world.mint(&caller, &["subscribe:users/{sub}/**", "publish:orders.eu"], "15m", Some("u-7")).expect("minted");
    assert_eq!(minted.expires_at, Timestamp((NOW + 900) * 1000));
    let bearer = world.enter(&minted.token).expect("good");
    assert_eq!((bearer.id(), bearer.expires_at()), ("token:plinth:u-7", Some(minted.expires_at)));
    assert!(bearer.may(Action::Subscribe, "users/u-7/a") && !bearer.may(Action::Subscribe, "users/u-8/a"));
    assert!(bearer.may(Action::Publish, "orders.eu") && !bearer.may(Action::Publish, "orders.us"));
    assert!(bearer.admin().is_err() && bearer.operator().is_err());
    for wider in [
        "publish:**",
        "publish:orders*",
        "publish:orders.**",
        "subscribe:users/**",
        "manage:orders.eu",
        "subscribe:orders.eu",
    ] {
        assert!(matches!(world.mint(&caller, &[wider], "1m", None), Err(Denied::Forbidden(_))), "{wider}");
    }
    let again = world.mint(&bearer, &["publish:orders.eu"], "1m", None);
    assert!(matches!(again, Err(Denied::Forbidden(_))), "a token mints none");
    let root = world.auth.authenticate(Credential::Bearer(ROOT), None).expect("the root key");
    assert!(matches!(world.mint(&root, &["publish:a"], "1m", None), Err(Denied::Forbidden(_))), "outside a tenant");
    assert!(world.mint(&world.root("default"), &["publish:a"], "1m", None).is_ok());
    for (scopes, ttl, subject) in [
        (&["admin"][..], "1m", None),
        (&[], "1m", None),
        (&["publish:{sub}"], "1m", None),
        (&["publish:{sub}"], "1m", Some("a/b")),
        (&["publish:a"], "25h", None),
        (&["publish:a"], "0s", None),
        (&["publish:a"], "soon", None),
        (&["publish:a"], "1m", Some("")),
        (&["publish:a"], "1m", Some("a\nb")),
        (&["publish:_usage"], "1m", None),
    ] {
        let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let refused = TokenRequest::parse(&scopes, Some(ttl), subject.map(str::to_owned));
        assert!(matches!(refused, Err(Error::Unprocessable(_))), "{scopes:?} {ttl} {subject:?}");
    }
}

#[tokio::test]
async fn a_minted_token_ends_with_its_time_and_with_its_key() {
    let world = world().await;
    let (id, caller) = world.key(&["publish:**"], Some("10m")).await;
    let minted = world.mint(&caller, &["publish:a"], "1h", None).expect("minted");
    assert_eq!(minted.expires_at, Timestamp((NOW + 600) * 1000), "not after its key");
    let bearer = world.enter(&minted.token).expect("good");
    let mut revoked = Revocations::of(&bearer);
    world.auth.delete_key(&world.admin("default"), &id).await.expect("deleted");
    assert!(is_told(&mut revoked));
    assert!(!world.auth.is_live(&bearer));
    assert_eq!(world.fault(&minted.token), Fault::Claim);

    let (id, caller) = world.key(&["publish:**"], None).await;
    let minted = world.mint(&caller, &["publish:a"], "10m", None).expect("minted");
    let bearer = world.enter(&minted.token).expect("good");
    let rotated = world.auth.rotate_key(&world.admin("default"), &id, Some("1m".into())).await.expect("rotated");
    let later = world.mint(&world.enter(&rotated.key).expect("new"), &["publish:a"], "10m", None).expect("minted");
    assert!(world.auth.is_live(&bearer), "as long as the secret that minted it");
    world.pass(60);
    assert!(!world.auth.is_live(&bearer));
    assert_eq!(world.fault(&minted.token), Fault::Claim);
    assert!(world.enter(&later.token).is_ok());
    world.pass(540);
    assert_eq!(world.fault(&later.token), Fault::Expired);
}

#[tokio::test]
async fn a_minted_token_is_of_one_cluster_one_root_key_and_one_tenant() {
    let world = world().await;
    world.tenant("gone").await;
    let minted = world.mint(&world.root("gone"), &["publish:a"], "1h", None).expect("minted");
    let again = Auth::open(world.log.clone(), Some(ROOT.into())).await.expect("credentials").0;
    assert!(again.authenticate(Credential::Bearer(&minted.token), None).is_ok(), "on another node");
    let other =
        Auth::open(world.log.clone(), Some("another-root-key-of-the-test".into())).await.expect("credentials").0;
    let refused = other.authenticate(Credential::Bearer(&minted.token), None).expect_err("another key");
    assert!(matches!(&refused, Denied::Token(fault) if fault.fault == Fault::UnknownKey), "{refused:?}");
    let elsewhere = self::world().await;
    assert_eq!(elsewhere.fault(&minted.token), Fault::Audience);
    // The published key verifies it, as it would for anybody.
    let keys = key::given(&world.auth.published_keys()).expect("a key set");
    let set = super::key::KeySet::of_stored(&keys);
    let envelope = Envelope::open(&minted.token).expect("a token");
    let key = set.find(envelope.key_id.as_deref(), envelope.algorithm).expect("the key");
    assert!(key.verifies(envelope.algorithm, envelope.signed, &envelope.signature));
    // A tenant of the same name later is another one.
    world.auth.delete_tenant(&world.operator(), "gone").await.expect("deleted");
    world.tenant("gone").await;
    assert_eq!(world.fault(&minted.token), Fault::Claim);
}

#[tokio::test]
async fn a_ticket_of_a_token_ends_with_it_and_leaves_nothing_to_come_back_with() {
    let world = world().await;
    let (_, caller) = world.key(&["publish:**", "subscribe:**"], None).await;
    let minted = world.mint(&caller, &["subscribe:a"], "1h", None).expect("minted");
    let bearer = world.enter(&minted.token).expect("good");
    let ticket = world.auth.create_ticket(&bearer).expect("a ticket").ticket;
    let redeemed = world.auth.authenticate(Credential::Ticket(&ticket), None).expect("good once");
    assert_eq!(redeemed.id(), bearer.id());
    assert!(!redeemed.may(Action::Publish, "a") && !redeemed.may(Action::Subscribe, "b"));
    // With its key's rights it would be more than the token.
    assert_eq!(world.auth.reconnect_token(&redeemed), None);
    let ticket = world.auth.create_ticket(&bearer).expect("a ticket").ticket;
    world.pass(3601);
    assert!(world.auth.authenticate(Credential::Ticket(&ticket), None).is_err());
}

#[tokio::test]
async fn issuers_are_listed_viewed_and_changed_within_their_tenant() {
    let world = world().await;
    world.tenant("other").await;
    world.trust("default", "a", symmetric(&["HS256"])).await;
    let before = world.auth.get_issuer(&world.admin("default"), "a").expect("it is there");
    world.pass(5);
    let (after, made) =
        world.auth.ensure_issuer(&world.admin("default"), "a", symmetric(&["HS256", "HS512"])).await.expect("changed");
    assert!(!made && after.created_at == before.created_at && after.algorithms == ["HS256", "HS512"]);
    assert_eq!(world.auth.list_issuers(&world.admin("default"), None, 10).expect("a list"), [after]);
    assert_eq!(world.auth.list_issuers(&world.admin("other"), None, 10).expect("a list"), []);
    for name in ["a", "b"] {
        let absent = world.auth.get_issuer(&world.admin("other"), name).expect_err("absent");
        assert_eq!(absent.to_string(), format!("there is no issuer {name:?}"));
        let absent = world.auth.delete_issuer(&world.admin("other"), name).await.expect_err("absent");
        assert_eq!(absent.to_string(), format!("there is no issuer {name:?}"));
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_what_it_opened_ends() {
    let world = world().await;
    world.trust("default", "id", symmetric(&["HS256"])).await;
    let token = |jti: &str, sub: &str| {
        let mut claims = with("jti", jti);
        claims["sub"] = json!(sub);
        hs(&claims)
    };
    let callers = [("a", "u-7"), ("b", "u-7"), ("a", "u-8")]
        .map(|(jti, sub)| (token(jti, sub), world.enter(&token(jti, sub)).expect("trusted")));
    let live = || {
        callers.each_ref().map(|(token, caller)| {
            assert_eq!(world.enter(token).is_ok(), world.auth.is_live(caller));
            world.auth.is_live(caller)
        })
    };
    assert_eq!(live(), [true, true, true]);
    let mut announced = Revocations::of(&callers[0].1);
    let made = world.auth.revoke(&world.admin("default"), Revoked::Token("b".into())).await.expect("revoked");
    assert!(is_told(&mut announced));
    assert_eq!(live(), [true, false, true]);
    assert_eq!(world.fault(&callers[1].0), Fault::Revoked);
    let before = Some(Timestamp((NOW - 60) * 1000));
    world.auth.revoke(&world.admin("default"), Revoked::Subject("u-7".into(), before)).await.expect("revoked");
    assert_eq!(live(), [true, false, true], "issued later");
    world.auth.revoke(&world.admin("default"), Revoked::Subject("u-7".into(), None)).await.expect("revoked");
    assert_eq!(live(), [false, false, true]);
    // One that is issued later is of another time; an earlier bound takes nothing back.
    world.pass(60);
    world.auth.revoke(&world.admin("default"), Revoked::Subject("u-7".into(), before)).await.expect("revoked");
    assert_eq!(live(), [false, false, true]);
    // The clock of its issuer may be ahead: then it was there before.
    let mut ahead = with("iat", NOW + 30);
    ahead["sub"] = json!("u-7");
    assert_eq!(world.fault(&hs(&ahead)), Fault::Revoked);
    let mut later = with("iat", NOW + 60);
    later["sub"] = json!("u-7");
    assert!(world.enter(&hs(&later)).is_ok());
    // A start knows it, too, and another tenant's token with the same id does not mind.
    let again = Auth::open(world.log.clone(), Some(ROOT.into())).await.expect("credentials").0;
    assert!(again.authenticate(Credential::Bearer(&callers[0].0), None).is_err());
    world.tenant("other").await;
    world.trust("other", "id", symmetric(&["HS256"])).await;
    let mut theirs = with("aud", "plinth:other");
    theirs["jti"] = json!("b");
    assert!(world.enter(&hs(&theirs)).is_ok());
    let listed = world.auth.list_revocations(&world.admin("default"), None, 10).expect("a list");
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&made));
    assert_eq!(world.auth.list_revocations(&world.admin("other"), None, 10).expect("a list"), []);
}

#[tokio::test]
async fn a_revocation_of_a_key_ends_the_key_and_the_tokens_it_minted() {
    let world = world().await;
    let (id, caller) = world.key(&["publish:**"], None).await;
    let minted = world.mint(&caller, &["publish:a"], "1h", Some("u-7")).expect("minted");
    let other = world.mint(&world.root("default"), &["publish:a"], "1h", Some("u-8")).expect("minted");
    let bearer = world.enter(&minted.token).expect("good");
    world.auth.revoke(&world.admin("default"), Revoked::Key(id.clone())).await.expect("revoked");
    assert!(!world.auth.is_live(&caller) && !world.auth.is_live(&bearer));
    let again = world.auth.revoke(&world.admin("default"), Revoked::Key(id)).await;
    assert!(matches!(again, Err(Error::NotFound(_))), "{again:?}");
    let of_other = world.enter(&other.token).expect("good");
    let identity = of_other.identity().expect("of a tenant");
    world
        .auth
        .revoke(&world.admin("default"), Revoked::Token(identity.token_id.expect("a minted one has it")))
        .await
        .expect("revoked");
    assert_eq!(world.fault(&other.token), Fault::Revoked);
}

#[tokio::test]
async fn a_revocation_is_forgotten_when_no_such_token_can_be_good() {
    let world = world().await;
    let revoke = async |of: Revoked| world.auth.revoke(&world.admin("default"), of).await;
    let made = revoke(Revoked::Token("a".into())).await.expect("revoked");
    let longest = plinth_api::limits::TOKEN_LIFETIME_MS_MAX + 2 * plinth_api::limits::TOKEN_LEEWAY_MS_MAX;
    assert_eq!(made.expires_at.0 - made.created_at.0, longest);
    world.pass(longest / 1000);
    assert_eq!(world.auth.list_revocations(&world.admin("default"), None, 10).expect("a list"), []);
    assert_eq!(world.log.scan(b"revocation/", None, 10).expect("rows").len(), 1);
    revoke(Revoked::Token("b".into())).await.expect("revoked");
    assert_eq!(world.log.scan(b"revocation/", None, 10).expect("rows").len(), 1, "the next one takes it away");
    for bad in [
        Revoked::Token(String::new()),
        Revoked::Subject("x".repeat(256), None),
        Revoked::Subject("x".into(), Some(Timestamp(u64::MAX))),
    ] {
        assert!(matches!(revoke(bad.clone()).await, Err(Error::Unprocessable(_))), "{bad:?}");
    }
    world.tenant("gone").await;
    world.auth.revoke(&world.admin("gone"), Revoked::Token("b".into())).await.expect("revoked");
    world.auth.delete_tenant(&world.operator(), "gone").await.expect("deleted");
    assert_eq!(world.log.scan(b"revocation/", None, 10).expect("rows").len(), 1);
}

#[tokio::test]
async fn only_a_newer_credential_of_the_same_holder_with_no_fewer_rights_succeeds_another() {
    let world = world().await;
    world.tenant("other").await;
    let (_, caller) = world.key(&["publish:**", "subscribe:**"], None).await;
    let token = |scopes: &[&str], subject: &str| {
        let minted = world.mint(&caller, scopes, "1h", Some(subject)).expect("minted");
        world.enter(&minted.token).expect("good")
    };
    let old = token(&["subscribe:a.*"], "u-7");
    assert!(token(&["subscribe:a.*"], "u-7").succeeds(&old));
    assert!(token(&["subscribe:**", "publish:a"], "u-7").succeeds(&old));
    for other in [
        token(&["subscribe:a.b"], "u-7"),
        token(&["publish:a.*"], "u-7"),
        token(&["subscribe:**"], "u-8"),
        caller.clone(),
    ] {
        assert!(!other.succeeds(&old), "{}", other.id());
    }
    let elsewhere = world.mint(&world.root("other"), &["subscribe:**"], "1h", Some("u-7")).expect("minted");
    assert!(!world.enter(&elsewhere.token).expect("good").succeeds(&old), "the same subject in another tenant");
}

/// A deletion that is answered as unknown, and stored afterwards. Fails when `commit_followed` does not follow twice: the
/// issuer was read again in between.
#[tokio::test]
async fn a_deletion_that_is_stored_after_its_answer_acts_then() {
    let store = plinth_storage::testing::fault::FaultStore::in_memory();
    let options = LogOptions::new(store.stores());
    let patience = std::time::Duration::from_millis(200);
    let clock = Arc::new(Hands(AtomicU64::new(NOW * 1000)));
    let options = LogOptions { append_timeout: patience, clock: Arc::clone(&clock) as _, ..options };
    let log = Log::open(options).await.expect("a log");
    let (auth, _) = Auth::open(log.clone(), Some(ROOT.into())).await.expect("credentials");
    let world = World { clock, log, auth };
    world.trust("default", "id", symmetric(&["HS256"])).await;
    let caller = world.enter(&hs(&claims())).expect("trusted");
    let mut revoked = Revocations::of(&caller);
    store.on_put(|path| path.as_ref().contains("/wal/"), plinth_storage::testing::fault::PutFault::Hang);
    let deleted = world.auth.delete_issuer(&world.admin("default"), "id").await;
    assert!(matches!(deleted, Err(Error::Unknown(_))), "{deleted:?}");
    assert!(world.enter(&hs(&claims())).is_ok(), "it is not deleted yet, and is read again");
    is_told(&mut revoked);
    assert_eq!(store.release().await, 0);
    revoked.changed().await;
    assert_eq!(world.fault(&hs(&claims())), Fault::Audience);
    assert!(!world.auth.is_live(&caller));
}
