//! Fuzz target of the subprotocols that a client offers, with a token in their disguise.

use axum::http::header::SEC_WEBSOCKET_PROTOCOL;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Offer, SUBPROTOCOL};
use crate::fuzz::{ITERATIONS, text};

// Fails when a token is taken of two, or of an offer without our protocol, or in another spelling than its own.
#[test]
fn an_offer_is_taken_when_it_names_our_protocol_and_one_token_at_most() {
    const PIECES: &[&str] =
        &["plinth.v1.json", "plinth.v1.json,", ",", ", ", ",bearer.YQ,", "bearer.cGxrX2E", "bearer.", "=", "/", "é"];
    bolero::check!().with_iterations(ITERATIONS).with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(first, second)| {
        let lines = [first, second].map(|picks| text(PIECES, &picks[..picks.len().min(3)]));
        let mut headers = HeaderMap::new();
        for line in &lines {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_bytes(line.as_bytes()).expect("no controls"));
        }
        let Ok(offer) = Offer::of(&headers) else { return };
        let names: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).map(str::trim).collect();
        assert!(offer.named && names.contains(&SUBPROTOCOL), "{lines:?}");
        let tokens: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("bearer.")).collect();
        let read: Vec<String> = offer.token.iter().map(|token| URL_SAFE_NO_PAD.encode(token)).collect();
        assert_eq!(read, tokens, "{lines:?}");
    });
}
