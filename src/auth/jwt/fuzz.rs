//! Fuzz targets of tokens: what is read before a signature is looked at, and the times in the claims.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plinth_api::limits::TOKEN_KEY_ID_BYTES_MAX;
use plinth_storage::ids::Timestamp;

use super::claims::{audiences, times};
use super::envelope::Envelope;
use super::template::Template;
use crate::auth::pattern::Pattern;
use crate::fuzz::{ITERATIONS, text};

const HEADER: &[&str] = &[
    "{",
    "}",
    ",",
    ":",
    "\"alg\":\"HS256\"",
    "\"alg\":\"none\"",
    "\"alg\":\"RS256\"",
    "\"typ\":\"JWT\"",
    "\"typ\":\"at+jwt\"",
    "\"kid\":\"k\"",
    "\"kid\":\"\"",
    "\"crit\":[]",
    "\"jwk\":{}",
    "\"jku\":\"https://a\"",
    "\"b64\":false",
    "\"odd\":1",
    " ",
    "\"",
];
const CLAIMS: &[&str] = &[
    "\"iss\":\"a\"",
    "\"aud\":\"b\"",
    "\"aud\":[\"b\",\"c\"]",
    "\"aud\":[]",
    "\"aud\":[1]",
    "\"exp\":2000",
    "\"iat\":1000",
    "\"nbf\":1500",
    "\"exp\":1.5",
    "\"exp\":-1",
    "\"iat\":18446744073709551615",
    "\"exp\":9007199254740991",
    "\"iat\":null",
    "\"sub\":\"u\"",
];

fn object(pieces: &[&str], picks: &[u8]) -> String {
    let fields: Vec<&str> = picks.iter().take(6).map(|pick| pieces[usize::from(*pick) % pieces.len()]).collect();
    format!("{{{}}}", fields.join(","))
}

#[test]
fn a_token_that_is_read_has_one_spelling_and_an_algorithm_that_signs() {
    type Given = (Vec<u8>, Vec<u8>, Vec<u8>, bool);
    bolero::check!().with_iterations(ITERATIONS).with_type::<Given>().for_each(|(header, claims, signature, tidy)| {
        let header = if *tidy { object(&HEADER[4..], header) } else { text(HEADER, header) };
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let claims = object(CLAIMS, claims);
        let token = format!("{}.{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()), encode(signature));
        let Ok(read) = Envelope::open(&token) else { return };
        assert!(
            !header.contains("\"alg\":\"none\"") && !header.contains("crit") && !header.contains("b64"),
            "{header}"
        );
        assert_eq!(read.signature, *signature);
        assert_eq!(format!("{}.{}", std::str::from_utf8(read.signed).expect("text"), encode(&read.signature)), token);
        assert!(read.key_id.is_none_or(|id| (1..=TOKEN_KEY_ID_BYTES_MAX).contains(&id.len())));
        for name in ["\"exp\":", "\"aud\":", "\"iat\":"] {
            assert!(claims.matches(name).count() <= 1, "a claim is twice: {claims}");
        }
        if let Ok(all) = audiences(&read.claims) {
            assert!(!all.is_empty() && all.iter().all(|one| !one.is_empty()), "{claims}");
        }
    });
}

#[test]
fn a_token_holds_from_when_it_was_issued_until_it_ends_and_not_too_long() {
    bolero::check!().with_iterations(ITERATIONS).with_type::<(u16, u16, Option<u16>, u16)>().for_each(
        |(issued, ends, begins, now)| {
            let begins = begins.map(|begins| format!(",\"nbf\":{begins}")).unwrap_or_default();
            let claims = URL_SAFE_NO_PAD.encode(format!("{{\"iat\":{issued},\"exp\":{ends}{begins}}}"));
            let token = format!("{}.{claims}.AA", URL_SAFE_NO_PAD.encode("{\"alg\":\"HS256\"}"));
            let read = Envelope::open(&token).expect("a token that can be read");
            let now_ms = u64::from(*now) * 1000;
            let (longest, leeway) = (3_600_000, 30_000);
            let Ok((from, to)) = times(&read.claims, longest, leeway, Timestamp(now_ms)) else { return };
            assert_eq!(from.0, u64::from(*issued) * 1000);
            assert_eq!(to.0, u64::from(*ends) * 1000 + leeway);
            assert!(from.0 <= now_ms + leeway && now_ms < to.0, "it holds now");
            assert!(to.0 - leeway - from.0 <= longest, "not too long");
        },
    );
}

#[test]
fn text_that_is_no_token_is_refused_without_a_panic() {
    const PIECES: &[&str] = &["eyJ", ".", "a", "=", "-_", "é", "eyJhbGciOiJIUzI1NiJ9", "e30", " ", "\0"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<Vec<u8>>().for_each(|picks| {
        let given = text(PIECES, picks);
        if Envelope::open(&given).is_ok() {
            assert_eq!(given.matches('.').count(), 2, "{given}");
        }
    });
}

// Fails when the value of a claim could be more than a part of one level of a name.
#[test]
fn a_scope_with_a_claim_in_it_reaches_no_further_than_with_a_star_there() {
    const TEMPLATE: &[&str] = &["a", "/", ".", "{sub}", "{sub}/", "a/{sub}", "*", "**", "{", "}", "{x}", "_"];
    const CLAIM: &[&str] = &["u", "7", "-~_", "*", "/", ".", "u/u", "{sub}", " ", "\0", "%2F", "é"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(picks, claim)| {
        let (pattern, value) =
            (text(TEMPLATE, &picks[..picks.len().min(4)]), text(CLAIM, &claim[..claim.len().min(2)]));
        let Ok(template) = Template::parse(&format!("subscribe:{pattern}")) else { return };
        let Ok(scope) = template.expand(|name| (name == "sub").then_some(&value)) else { return };
        let scope = scope.to_string();
        let given = scope.strip_prefix("subscribe:").expect("the action stays");
        if pattern.contains("{sub}") {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_~-".contains(&byte);
            assert!(!value.is_empty() && value.bytes().all(plain), "{pattern} with {value:?}");
        }
        assert_eq!(given, pattern.replace("{sub}", &value));
        let Ok(wider) = Pattern::parse(&pattern.replace("{sub}", "*")) else { return };
        let name = given.replace("**", "x/y.z").replace('*', "w");
        assert!(wider.matches(&name), "{pattern} with {value:?} allows {name}");
    });
}
