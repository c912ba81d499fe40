//! Examples of bodies about subscriptions of streams.

use serde_json::{Value, json};

/// The example of a schema of the document.
pub(super) fn of_schema(name: &str) -> Option<Value> {
    let example = match name {
        "SubscriptionRequest" => json!({
            "type": "webhook", "pattern": "agents/*/events", "webhook": {"url": "https://worker.example.com/hook"},
            "lease_ttl_ms": 30_000,
        }),
        "Subscription" => json!({
            "id": "agents", "subscription_id": "agents", "type": "webhook", "pattern": "agents/*/events",
            "streams": [{"path": "agents/7/events", "link_type": "glob", "acked_offset": ACKED}],
            "webhook": {"url": "https://worker.example.com/hook", "signing": {
                "alg": "ed25519", "kid": "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                "jwks_url": "https://plinth.example.com/v1/streams/__ds/jwks.json",
            }},
            "wake_stream": null, "lease_ttl_ms": 30_000, "created_at": "2026-11-27T12:00:00.000Z", "status": "active",
            "description": null,
        }),
        "SubscriptionStreams" => json!({"streams": ["agents/7/control"]}),
        "ClaimRequest" => json!({"worker": "worker-1"}),
        "Claimed" => json!({
            "wake_id": WAKE, "generation": 7, "token": "plw_…", "lease_ttl_ms": 30_000,
            "streams": [{"path": "agents/7/events", "link_type": "glob", "acked_offset": ACKED, "tail_offset": TAIL,
                "has_pending": true}],
        }),
        "AckRequest" => json!({
            "wake_id": WAKE, "generation": 7, "acks": [{"stream": "agents/7/events", "offset": TAIL}], "done": true,
        }),
        "Acknowledged" => json!({"ok": true, "next_wake": false}),
        "ReleaseRequest" => json!({"wake_id": WAKE, "generation": 7}),
        _ => return None,
    };
    Some(example)
}

const WAKE: &str = "w_0199f1a2b3c4d5e6f708192a3b4c5d6e";
const ACKED: &str = "1780000000123000_0000000000170000";
const TAIL: &str = "1780000000123000_0000000000180000";
