//! The matrix itself: every route × every kind of credential × own, foreign, missing and doubly encoded names.
//!
//! A credential that is refused is refused alike whatever is asked for; one that is right gets its own things, and
//! somebody else's exactly as if they did not exist. A name is percent-decoded once: what is left of a second encoding is
//! a name of its own, and names nothing.

use std::collections::BTreeMap;

use plinth::http::{Needs, Route};
use plinth_api::error::ErrorCode;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{
    ALL, Names, Seen, Way, guarded, of_what_is_missing, prepared, request, send, subscribe, ways, wrong_credentials,
};
use crate::client::{Client, answer};
use crate::harness::{ROOT_KEY, Server};
use crate::tokens;

/// A kind of credential that is refused wherever it is shown, or nearly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Bad {
    Nothing,
    OtherScheme,
    Empty,
    Garbage,
    TooLong,
    Mistyped,
    OtherSecret,
    WrongRoot,
    Expired,
    Deleted,
    OfADeletedTenant,
    TokenMalformed,
    TokenUnsigned,
    TokenOfAnotherSecret,
    TokenExpired,
    TokenNotYetValid,
    TokenForAnotherAudience,
    TokenOfAnotherIssuer,
    TokenOfADeletedKey,
    TokenOfADeletedIssuer,
    TokenRevokedById,
    TokenOfARevokedSubject,
    TicketAsKey,
    SpentTicket,
    /// A good ticket, which opens live transports and nothing else.
    Ticket,
    OfASuspendedTenant,
    RootInNoTenant,
    RootWithoutTenant,
}

pub(super) const BAD: [Bad; 28] = [
    Bad::Nothing,
    Bad::OtherScheme,
    Bad::Empty,
    Bad::Garbage,
    Bad::TooLong,
    Bad::Mistyped,
    Bad::OtherSecret,
    Bad::WrongRoot,
    Bad::Expired,
    Bad::Deleted,
    Bad::OfADeletedTenant,
    Bad::TokenMalformed,
    Bad::TokenUnsigned,
    Bad::TokenOfAnotherSecret,
    Bad::TokenExpired,
    Bad::TokenNotYetValid,
    Bad::TokenForAnotherAudience,
    Bad::TokenOfAnotherIssuer,
    Bad::TokenOfADeletedKey,
    Bad::TokenOfADeletedIssuer,
    Bad::TokenRevokedById,
    Bad::TokenOfARevokedSubject,
    Bad::TicketAsKey,
    Bad::SpentTicket,
    Bad::Ticket,
    Bad::OfASuspendedTenant,
    Bad::RootInNoTenant,
    Bad::RootWithoutTenant,
];

impl Bad {
    /// How it is refused on a route, or `None` where it is good.
    fn refusal(self, route: &Way) -> Option<ErrorCode> {
        let live = route.needs == Needs::Subscribe || route.path == "/v1/ws";
        match self {
            // A WebSocket may show its credential in the first frame.
            Self::Nothing => (route.path != "/v1/ws").then_some(ErrorCode::Unauthenticated),
            Self::Ticket => (!live).then_some(ErrorCode::Unauthenticated),
            Self::OfASuspendedTenant => Some(ErrorCode::TenantSuspended),
            Self::RootInNoTenant => Some(ErrorCode::NotFound),
            // What it asks for may say which tenant.
            Self::RootWithoutTenant => {
                (route.needs != Needs::Operator && !route.names_the_tenant()).then_some(ErrorCode::Forbidden)
            }
            Self::OtherScheme
            | Self::Empty
            | Self::Garbage
            | Self::TooLong
            | Self::Mistyped
            | Self::OtherSecret
            | Self::WrongRoot
            | Self::Expired
            | Self::Deleted
            | Self::OfADeletedTenant
            | Self::TokenMalformed
            | Self::TokenUnsigned
            | Self::TokenOfAnotherSecret
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenForAnotherAudience
            | Self::TokenOfAnotherIssuer
            | Self::TokenOfADeletedKey
            | Self::TokenOfADeletedIssuer
            | Self::TokenRevokedById
            | Self::TokenOfARevokedSubject
            | Self::TicketAsKey
            | Self::SpentTicket => Some(ErrorCode::Unauthenticated),
        }
    }
}

/// A server on which every kind of credential has been made.
pub(super) struct World {
    pub(super) server: Server,
    tokens: BTreeMap<Bad, String>,
    /// Everything but `manage`: a publish with it makes no topic.
    careful: Client,
    pub(super) foreign: Client,
}

impl World {
    pub(super) async fn new() -> Self {
        let server = Server::start().await;
        let client = server.client();
        client.make_topic("zz-here", 1).await;
        let mut tokens = BTreeMap::new();
        for kind in BAD {
            if let Some(token) = made(&server, kind).await {
                tokens.insert(kind, token);
            }
        }
        // A long-poll that gets nothing passes the second of life of the key that expires.
        client.page("zz-here", "from=latest&wait=2s").await;
        let careful = server.with_scopes(&["admin", "publish:**", "subscribe:**"]).await;
        let foreign = server.tenant("zz-other").await;
        foreign.publish("zz-theirs", "text/plain", "secret").await;
        Self { server, tokens, careful, foreign }
    }

    /// The token of a kind, where it is one that could be shown as a key.
    pub(super) fn token(&self, kind: Bad) -> Option<&str> {
        self.tokens.get(&kind).map(String::as_str)
    }

    /// A request of the route that shows a credential of the kind.
    async fn shown(&self, kind: Bad, route: &Way, names: &Names) -> RequestBuilder {
        let stranger = self.server.stranger();
        match kind {
            Bad::Nothing => request(&stranger, route, names),
            Bad::OtherScheme => request(&stranger, route, names).header("Authorization", "Basic cm9vdDpyb290"),
            Bad::Ticket => request(&stranger, route, names).query(&[("ticket", ticket(&self.server).await)]),
            Bad::SpentTicket => request(&stranger, route, names).query(&[("ticket", &self.tokens[&kind])]),
            Bad::RootInNoTenant => request(&self.server.root().acting_in("zz-nowhere"), route, names),
            Bad::RootWithoutTenant => request(&self.server.root(), route, names),
            Bad::Empty
            | Bad::Garbage
            | Bad::TooLong
            | Bad::Mistyped
            | Bad::OtherSecret
            | Bad::WrongRoot
            | Bad::Expired
            | Bad::Deleted
            | Bad::OfADeletedTenant
            | Bad::TokenMalformed
            | Bad::TokenUnsigned
            | Bad::TokenOfAnotherSecret
            | Bad::TokenExpired
            | Bad::TokenNotYetValid
            | Bad::TokenForAnotherAudience
            | Bad::TokenOfAnotherIssuer
            | Bad::TokenOfADeletedKey
            | Bad::TokenOfADeletedIssuer
            | Bad::TokenRevokedById
            | Bad::TokenOfARevokedSubject
            | Bad::TicketAsKey
            | Bad::OfASuspendedTenant => {
                request(&Client::new(self.server.url(), Some(&self.tokens[&kind])), route, names)
            }
        }
    }

    /// The client that may use a route.
    fn right(&self, route: &Route) -> Client {
        match route.needs {
            Needs::Operator => self.server.root(),
            Needs::Manage | Needs::ManageAll => self.server.client(),
            Needs::Nothing
            | Needs::Tenant
            | Needs::Publish
            | Needs::Subscribe
            | Needs::View
            | Needs::ViewAll
            | Needs::SubscribeAll
            | Needs::WakeToken
            | Needs::Admin => self.careful.clone(),
        }
    }

    /// Names that the tenant `default` has, that another tenant has, that nobody has, and the first ones encoded twice.
    async fn names(&self) -> [Names; 4] {
        let own = prepared(&self.server).await;
        let made = answer(self.foreign.post("/v1/keys").json(&json!({"name": "", "scopes": ["subscribe:**"]}))).await;
        let id = made.json()["id"].as_str().unwrap().to_owned();
        subscribe(&self.foreign, &id).await;
        let issuer = json!({"issuer": "https://theirs.example", "algorithms": ["HS256"], "secret": "x".repeat(64)});
        let trusted = answer(self.foreign.put("/v1/issuers/zz-abroad").json(&issuer)).await;
        assert!([200, 201].contains(&trusted.status), "{}", trusted.text());
        let foreign = Names {
            home: "default".into(),
            topic: "zz-theirs".into(),
            tenant: "zz-other".into(),
            id,
            issuer: "zz-abroad".into(),
        };
        let twice = Names {
            home: "default".into(),
            topic: own.topic.replacen('z', "%7A", 1),
            tenant: own.tenant.replacen('v', "%2576", 1),
            id: own.id.replacen('0', "%2530", 1),
            issuer: own.issuer.replacen('z', "%257A", 1),
        };
        [own, foreign, Names::missing(), twice]
    }
}

/// The token of a kind, where there is one to make.
async fn made(server: &Server, kind: Bad) -> Option<String> {
    let client = server.client();
    let token = match kind {
        Bad::Nothing | Bad::OtherScheme | Bad::Ticket | Bad::RootInNoTenant | Bad::RootWithoutTenant => return None,
        Bad::Empty => String::new(),
        Bad::Garbage => "garbage".to_owned(),
        Bad::TooLong => "x".repeat(5000),
        Bad::Mistyped => {
            let (most, last) = server.key().split_at(server.key().len() - 1);
            format!("{most}{}", if last == "x" { "y" } else { "x" })
        }
        Bad::OtherSecret => format!("plk_{}_{}", server.key().split('_').nth(1).unwrap(), "A".repeat(49)),
        Bad::WrongRoot => format!("{ROOT_KEY}x"),
        Bad::Expired => {
            let short = json!({"name": "", "scopes": ALL, "expires_in": "1s"});
            answer(client.post("/v1/keys").json(&short)).await.json()["key"].as_str().unwrap().to_owned()
        }
        Bad::Deleted => {
            let made = answer(client.post("/v1/keys").json(&json!({"name": "", "scopes": ALL}))).await.json();
            let gone = answer(client.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await;
            assert_eq!(gone.status, 204);
            made["key"].as_str().unwrap().to_owned()
        }
        Bad::OfADeletedTenant => {
            let key = server.tenant("zz-deleted").await.make_key(&ALL).await;
            assert_eq!(answer(server.root().delete("/v1/tenants/zz-deleted")).await.status, 204);
            key
        }
        Bad::TokenMalformed => tokens::bad(server).await.remove(0),
        Bad::TokenUnsigned => tokens::bad(server).await.remove(1),
        Bad::TokenOfAnotherSecret => tokens::bad(server).await.remove(2),
        Bad::TokenExpired => tokens::bad(server).await.remove(3),
        Bad::TokenNotYetValid => tokens::bad(server).await.remove(4),
        Bad::TokenForAnotherAudience => tokens::bad(server).await.remove(5),
        Bad::TokenOfAnotherIssuer => tokens::bad(server).await.remove(6),
        Bad::TokenOfADeletedKey => {
            let made = answer(client.post("/v1/keys").json(&json!({"name": "", "scopes": ALL}))).await.json();
            let minter = Client::new(server.url(), made["key"].as_str());
            let minted = answer(minter.post("/v1/tokens").json(&json!({"scopes": ["subscribe:**"]}))).await;
            assert_eq!(minted.status, 201, "{}", minted.text());
            let gone = answer(client.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap()))).await;
            assert_eq!(gone.status, 204);
            minted.json()["token"].as_str().unwrap().to_owned()
        }
        Bad::TokenOfADeletedIssuer => tokens::of_a_deleted_issuer(server, &ALL).await,
        Bad::TokenRevokedById => revoked(server, "zz-by-id", |token| json!({"token_id": tokens::id_of(token)})).await,
        Bad::TokenOfARevokedSubject => revoked(server, "zz-by-subject", |_| json!({"subject": "zz-by-subject"})).await,
        Bad::TicketAsKey => ticket(server).await,
        Bad::SpentTicket => {
            let ticket = ticket(server).await;
            let spent = server.stranger().get(&format!("/v1/topics/zz-here/records?ticket={ticket}"));
            assert_eq!(answer(spent).await.status, 200);
            ticket
        }
        Bad::OfASuspendedTenant => {
            let key = server.tenant("zz-suspended").await.make_key(&ALL).await;
            let suspend = server.root().patch("/v1/tenants/zz-suspended").json(&json!({"suspended": true}));
            assert_eq!(answer(suspend).await.status, 200);
            key
        }
    };
    Some(token)
}

/// A token of a subject that was good until it was revoked.
async fn revoked(server: &Server, subject: &str, what: impl Fn(&str) -> Value) -> String {
    let token = tokens::minted(server, subject).await;
    let revoked = answer(server.client().post("/v1/revocations").json(&what(&token))).await;
    assert_eq!(revoked.status, 201, "{}", revoked.text());
    token
}

async fn ticket(server: &Server) -> String {
    let made = answer(server.client().post("/v1/tickets")).await;
    assert_eq!(made.status, 201);
    made.json()["ticket"].as_str().unwrap().to_owned()
}

fn has_a_name(route: &Route) -> bool {
    route.path.contains('{') || route.path == "/v1/stream"
}

fn code(seen: &Seen) -> Option<String> {
    let problem: Value = serde_json::from_str(&seen.body).ok()?;
    problem["code"].as_str().map(str::to_owned)
}

// Fails when a route looks at names before it looks at the credential, or a kind of credential gets through somewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_is_refused_alike_whatever_it_asks_for() {
    let world = World::new().await;
    let names = world.names().await;
    for route in guarded() {
        for kind in BAD {
            let Some(expected) = kind.refusal(route) else { continue };
            let mut first: Option<Seen> = None;
            for names in &names {
                let at = format!("{} {} with {kind:?} for {}", route.method, route.path, names.topic);
                let seen = send(world.shown(kind, route, names).await).await;
                // Without a tenant it is a valid credential all the same, and what is no name is said before what it may do.
                if kind == Bad::RootWithoutTenant && code(&seen).as_deref() == Some("invalid_topic_name") {
                    continue;
                }
                assert_eq!(seen.status, expected.status(), "{at}: {seen:?}");
                assert_eq!(code(&seen).as_deref(), Some(expected.as_str()), "{at}: {seen:?}");
                let secret = world.token(kind).filter(|token| token.len() > 8);
                assert!(secret.is_none_or(|secret| !seen.body.contains(secret)), "{at}: it repeats the credential");
                let challenged = seen.headers.iter().any(|(name, _)| name == "www-authenticate");
                assert_eq!(challenged, [401, 403].contains(&seen.status), "{at}: {seen:?}");
                // It says at length why, with the time.
                if route.path == "/v1/auth/explain" {
                    continue;
                }
                let seen = seen.anonymous(names);
                assert_eq!(*first.get_or_insert_with(|| seen.clone()), seen, "{at}: it tells the names apart");
            }
        }
    }
    nothing_happened(&world, &names).await;
}

// Fails when what takes the token of a wake takes the key of a tenant, or tells whether there is such a subscription.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_token_of_a_wake_is_asked_for_no_other_credential_counts() {
    let world = World::new().await;
    let names = world.names().await;
    let mut routes = 0;
    for route in &ways(|route| route.needs == Needs::WakeToken) {
        routes += 1;
        for names in &names {
            let mut requests =
                vec![request(&world.server.client(), route, names), request(&world.server.root(), route, names)];
            for kind in BAD {
                requests.push(world.shown(kind, route, names).await);
            }
            for shown in requests {
                let seen = send(shown).await;
                let problem: Value = serde_json::from_str(&seen.body).expect("a problem document");
                let told = (seen.status, &problem["code"], &problem["error"]["code"]);
                assert_eq!(told, (401, &json!("unauthenticated"), &json!("TOKEN_INVALID")), "{}", route.path);
            }
        }
    }
    assert_eq!(routes, 12);
    nothing_happened(&world, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_without_the_scope_cannot_tell_names_apart() {
    let world = World::new().await;
    let names = world.names().await;
    for route in guarded().filter(|route| has_a_name(route)) {
        for wrong in wrong_credentials(&world.server, route).await {
            let mut first: Option<Seen> = None;
            for names in &names[..3] {
                let seen = send(request(&wrong, route, names)).await;
                assert_eq!(seen.status, 403, "{} {} for {}: {seen:?}", route.method, route.path, names.topic);
                let seen = seen.anonymous(names);
                assert_eq!(*first.get_or_insert_with(|| seen.clone()), seen, "{} {}", route.method, route.path);
            }
            // What is no name is refused for that, or for the scope; nothing is found by it.
            let seen = send(request(&wrong, route, &names[3])).await;
            assert!([400, 403].contains(&seen.status), "{} {}: {seen:?}", route.method, route.path);
        }
    }
    nothing_happened(&world, &names).await;
}

// Fails when a name is decoded twice anywhere, or another tenant's thing is looked up.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_credential_gets_its_own_things_and_no_others() {
    let world = World::new().await;
    for route in guarded().filter(|route| has_a_name(route)) {
        let at = format!("{} {}", route.method, route.path);
        let [own, foreign, missing, twice] = world.names().await;
        let client = world.right(route);
        let seen = send(request(&client, route, &twice)).await;
        assert!([400, 404, 422].contains(&seen.status), "{at}, encoded twice: {seen:?}");
        if route.path.contains("{topic}") {
            assert_eq!(code(&seen).as_deref(), Some("invalid_topic_name"), "{at}, encoded twice: {seen:?}");
        }
        // The operator's things are nobody's, and a PUT makes what is missing.
        if route.needs != Needs::Operator && route.method != "PUT" {
            let theirs = send(request(&client, route, &foreign)).await;
            let nobodys = send(request(&client, route, &missing)).await;
            assert_eq!(theirs.status, of_what_is_missing(route), "{at}: {theirs:?}");
            assert_eq!(theirs.anonymous(&foreign), nobodys.anonymous(&missing), "{at}");
        }
        nothing_happened(&world, &[own, foreign]).await;
        let own = prepared(&world.server).await;
        let seen = send(request(&client, route, &own)).await;
        assert!(seen.status < 300, "{at}: {seen:?}");
        answer(world.server.client().delete("/v1/topics/zz-here")).await;
    }
}

/// The things of both tenants are as they were.
async fn nothing_happened(world: &World, names: &[Names]) {
    let [own, foreign] = &names[..2] else { panic!("names of both tenants") };
    for (client, names, records) in [(&world.server.client(), own, 0), (&world.foreign, foreign, 1)] {
        let topic = client.topic(&names.topic).await;
        assert_eq!((topic.records, topic.max_record_bytes), (records, 1024 * 1024), "{topic:?}");
        let keys = answer(client.get("/v1/keys?limit=1000")).await.json();
        let ids: Vec<&Value> = keys["data"].as_array().unwrap().iter().map(|key| &key["id"]).collect();
        assert!(ids.contains(&&json!(names.id)), "the key {} is gone", names.id);
        assert_eq!(answer(world.server.root().get(&format!("/v1/tenants/{}", names.tenant))).await.status, 200);
    }
}
