//! The matrix for WebSocket frames: a credential in the first frame, and what each frame may name.

use plinth_api::error::ErrorCode;
use serde_json::{Value, json};

use super::cells::{BAD, Bad, World};
use crate::client::Client;
use crate::harness::Server;
use crate::ws::Socket;

/// A connection that has not shown a credential yet.
async fn silent(server: &Server) -> Socket {
    let opened = Socket::open(server, "/v1/ws", &[("sec-websocket-protocol", "plinth.v1.json".to_owned())]).await;
    opened.unwrap_or_else(|refused| panic!("refused: {:?}", refused.problem))
}

// Fails when the first frame is checked in another way than the header.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_credential_in_the_first_frame_ends_the_connection() {
    let world = World::new().await;
    for kind in BAD {
        let Some(token) = world.token(kind) else { continue };
        let mut socket = silent(&world.server).await;
        socket.send(json!({"type": "auth", "token": token})).await;
        let expected =
            if kind == Bad::OfASuspendedTenant { ErrorCode::TenantSuspended } else { ErrorCode::Unauthenticated };
        assert_eq!(socket.closed_after(expected).await, Some(4401), "{kind:?}");
    }
}

// Fails when `refresh` is checked in another way than the header, or its caller is taken over before it is let in.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_credential_in_a_refresh_is_refused_and_the_connection_gains_and_loses_nothing() {
    let world = World::new().await;
    let reader = world.server.client().make_key(&["subscribe:zz-here"]).await;
    let mut socket = Socket::with_key(&world.server, &reader).await;
    for kind in BAD {
        let Some(token) = world.token(kind) else { continue };
        socket.send(json!({"type": "refresh", "id": "r", "token": token})).await;
        let expected =
            if kind == Bad::OfASuspendedTenant { ErrorCode::TenantSuspended } else { ErrorCode::Unauthenticated };
        assert_eq!(socket.error(Some("r")).await.code, expected, "{kind:?}");
        for topic in ["zz-here", "zz-none"] {
            socket.send(json!({"type": "publish", "id": "p", "topic": topic, "records": [{"text": "x"}]})).await;
            assert_eq!(socket.error(Some("p")).await.code, ErrorCode::Forbidden, "{kind:?}");
        }
        socket.send(json!({"type": "subscribe", "id": "s", "topics": ["zz-here"]})).await;
        socket.frame("subscribed").await;
        socket.send(json!({"type": "unsubscribe", "sub": "s"})).await;
        socket.past_caught_up("unsubscribed").await;
    }
    // Neither does one that is good and somebody else's, nor the root key.
    for (token, expected) in [
        (world.server.key(), ErrorCode::Forbidden),
        (crate::harness::ROOT_KEY, ErrorCode::Forbidden),
        (&*world.foreign.make_key(&["admin", "publish:**", "subscribe:**"]).await, ErrorCode::Forbidden),
    ] {
        socket.send(json!({"type": "refresh", "id": "r", "token": token})).await;
        assert_eq!(socket.error(Some("r")).await.code, expected);
        socket.send(json!({"type": "publish", "id": "p", "topic": "zz-here", "records": [{"text": "x"}]})).await;
        assert_eq!(socket.error(Some("p")).await.code, ErrorCode::Forbidden);
    }
    assert_eq!(world.server.client().count("zz-here").await, 0, "nothing was stored");
}

/// Each frame that names a topic.
fn frames(topic: &str) -> [Value; 3] {
    [
        json!({"type": "subscribe", "id": "f", "topics": [topic], "from": "earliest"}),
        json!({"type": "subscribe", "id": "f", "topics": ["zz-here", topic]}),
        json!({"type": "publish", "id": "f", "topic": topic, "records": [{"text": "x"}]}),
    ]
}

/// The error that answers a frame, without the topic's name.
async fn refusal(client: &Client, frame: Value, topic: &str) -> (ErrorCode, String) {
    let mut socket = client.ws().await;
    socket.send(&frame).await;
    let error = socket.frame("error").await;
    assert_eq!(error.id.as_deref(), Some("f"), "{}", error.text);
    (error.problem.expect("an error has a problem").code, error.text.replace(topic, "TOPIC"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_cannot_tell_a_foreign_topic_from_a_missing_one() {
    let world = World::new().await;
    let careful = world.server.with_scopes(&["publish:**", "subscribe:**"]).await;
    for (theirs, nobodys) in frames("zz-theirs").into_iter().zip(frames("zz-none")) {
        let at = theirs.to_string();
        let theirs = refusal(&careful, theirs, "zz-theirs").await;
        assert_eq!(theirs.0, ErrorCode::NotFound, "{at}");
        assert_eq!(theirs, refusal(&careful, nobodys, "zz-none").await, "{at}");
    }
    for frame in frames("%7Az-here") {
        assert_eq!(
            refusal(&careful, frame, "").await.0,
            ErrorCode::InvalidTopicName,
            "names in frames are not decoded"
        );
    }
    assert_eq!(world.foreign.topic("zz-theirs").await.records, 1, "nothing was stored");
    assert_eq!(world.server.client().count("zz-here").await, 0, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_without_the_scope_is_refused_whether_or_not_the_topic_exists() {
    let world = World::new().await;
    let wrong = world.server.with_scopes(&["admin", "publish:elsewhere.*", "subscribe:elsewhere.*"]).await;
    for kind in 0..3 {
        let mut seen = Vec::new();
        for topic in ["zz-here", "zz-theirs", "zz-none"] {
            let frame = frames(topic)[kind].clone();
            let (code, text) = refusal(&wrong, frame, topic).await;
            assert_eq!(code, ErrorCode::Forbidden, "{text}");
            seen.push(text.replace("zz-here", "TOPIC"));
        }
        assert!(seen.iter().all(|text| *text == seen[0]), "{seen:?}");
    }
    assert_eq!(world.server.client().count("zz-here").await, 0, "nothing was stored");
}
