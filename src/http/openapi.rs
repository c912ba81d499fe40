//! The OpenAPI document, made from the handlers and the types of the API.
//!
//! What holds for every operation is put in here and not said at each: how it fails (`failures`), what its answers say in
//! their headers (`headers`), what it needs (`security`), examples of its bodies (`examples`, by schema), and what can be
//! done next (`links`). Tests fail for an operation that lacks one of them.

use plinth_api::error::Problem;
use plinth_api::frames::{ClientFrame, ServerFrame};
use plinth_api::issuers::IssuerName;
use plinth_api::quotas::QuotaNumber;
use plinth_api::records::{Control, Durability, EventFormat, From, Record, Wait};
use plinth_api::system::{Audit, TenantEvent, Usage};
use plinth_api::tenants::{AllowedOrigin, TenantName};
use plinth_api::tokens::TopicAction;
use plinth_api::topics::{TopicName, TopicPattern, TrimPlace};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::server::Server;
use utoipa::openapi::tag::Tag;
use utoipa::openapi::{OpenApi as Document, RefOr, Required};
use utoipa::{Modify, OpenApi};

use super::routes::{ROUTES, Route};
use super::{docs, health, issuers, keys, live, publish, quotas, read, revocations, tenants, tokens, topics, usage};
use crate::streams::control;
use crate::{streams, ws};

mod examples;
mod failures;
mod headers;
mod links;
mod security;
mod streams_headers;

/// The groups of operations.
const TAGS: &[(&str, &str)] = &[
    ("topics", "Named sets of partitions of a tenant."),
    ("records", "Publish, read, follow, trim."),
    (
        "streams",
        "Topics by the protocol of Durable Streams. What is at `/v1/streams/{path}` is at `/t/{tenant}/v1/streams/{path}` as well, for \
         clients that can send an address and `Authorization` and nothing else: the tenant is the credential's own, else nothing is \
         there; for the root key it is what the header `Plinth-Tenant` is elsewhere.",
    ),
    ("subscriptions", "Webhooks and workers that are woken by streams, by the same protocol."),
    ("tenants", "Who is isolated, limited and billed. For the holder of the root key."),
    ("keys", "Credentials of a tenant: API keys, trusted issuers of tokens, minted tokens, one-time tickets."),
    ("usage", "What tenants use."),
    ("operation", "What an operator's machinery asks, and the documents about the API. Open to everyone."),
];

/// Operations whose body may be left out.
const BODY_OPTIONAL: [&str; 5] = ["ensure_topic", "create_ticket", "rotate_key", "ensure_stream", "append_to_stream"];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Plinth",
        description = "A message queue over HTTP whose system of record is an object store.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        topics::list,
        topics::ensure,
        topics::view,
        topics::change,
        topics::remove,
        publish::publish,
        read::read,
        topics::trim,
        live::stream,
        streams::list,
        streams::put,
        streams::post,
        streams::get,
        streams::head,
        streams::remove,
        streams::options,
        control::keys,
        control::ensure,
        control::view,
        control::remove,
        control::link,
        control::unlink,
        control::claim,
        control::callback,
        control::ack,
        control::release,
        ws::upgrade::upgrade,
        quotas::view,
        tenants::create,
        tenants::list,
        tenants::view,
        tenants::change,
        tenants::remove,
        keys::create,
        keys::list,
        keys::view,
        keys::change,
        keys::rotate,
        keys::remove,
        keys::create_ticket,
        tokens::mint,
        tokens::published_keys,
        tokens::explain,
        revocations::create,
        revocations::list,
        issuers::list,
        issuers::ensure,
        issuers::view,
        issuers::remove,
        usage::view,
        usage::metrics,
        health::livez,
        health::readyz,
        health::startupz,
        health::version,
        health::metrics,
        docs::openapi_json,
        docs::asyncapi_json,
    ),
    // Besides those that an operation's bodies name: what parameters are made of, and what streams and frames hold.
    components(schemas(
        Problem,
        Record,
        Control,
        ClientFrame,
        ServerFrame,
        TopicName,
        TopicPattern,
        TrimPlace,
        TenantName,
        IssuerName,
        TopicAction,
        AllowedOrigin,
        QuotaNumber,
        From,
        Wait,
        EventFormat,
        Durability,
        Usage,
        Audit,
        TenantEvent
    )),
    modifiers(&EveryOperation)
)]
struct Api;

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> Document {
    Api::openapi()
}

struct EveryOperation;

impl Modify for EveryOperation {
    fn modify(&self, document: &mut Document) {
        let mut here = Server::new("/");
        here.description = Some("The node that serves this document".to_owned());
        document.servers = Some(vec![here]);
        document.tags = Some(TAGS.iter().map(|(name, about)| tag(name, about)).collect());
        let components = document.components.get_or_insert_default();
        security::add_schemes(components);
        headers::add(components);
        failures::add_examples(components);
        for route in ROUTES {
            let operation = document.paths.paths.get_mut(route.path).and_then(|item| operation_mut(item, route.method));
            if let Some(operation) = operation {
                describe(operation, route);
            }
        }
        links::add(&mut document.paths);
    }
}

fn tag(name: &str, about: &str) -> Tag {
    let mut tag = Tag::new(name);
    tag.description = Some(about.to_owned());
    tag
}

fn operation<'a>(item: &'a PathItem, method: &str) -> Option<&'a Operation> {
    match method {
        "GET" => item.get.as_ref(),
        "PUT" => item.put.as_ref(),
        "POST" => item.post.as_ref(),
        "PATCH" => item.patch.as_ref(),
        "DELETE" => item.delete.as_ref(),
        "HEAD" => item.head.as_ref(),
        "OPTIONS" => item.options.as_ref(),
        _ => None,
    }
}

fn operation_mut<'a>(item: &'a mut PathItem, method: &str) -> Option<&'a mut Operation> {
    match method {
        "GET" => item.get.as_mut(),
        "PUT" => item.put.as_mut(),
        "POST" => item.post.as_mut(),
        "PATCH" => item.patch.as_mut(),
        "DELETE" => item.delete.as_mut(),
        "HEAD" => item.head.as_mut(),
        "OPTIONS" => item.options.as_mut(),
        _ => None,
    }
}

/// Adds to an operation what it has in common with others of its kind.
fn describe(operation: &mut Operation, route: &Route) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        parameter.schema = parameter.schema.take().map(without_null);
    }
    let id = operation.operation_id.as_deref().unwrap_or_default();
    if let Some(RefOr::T(body)) = operation.request_body.as_mut() {
        // The default of the format is `false`.
        body.required = (!BODY_OPTIONAL.contains(&id)).then_some(Required::True);
    }
    failures::describe(operation, route);
    headers::describe(operation, route);
    examples::describe(operation);
    security::describe(operation, route);
}

/// A parameter that is left out is not `null`.
fn without_null(mut schema: RefOr<Schema>) -> RefOr<Schema> {
    match &mut schema {
        RefOr::T(Schema::Object(object)) => {
            if let SchemaType::Array(types) = &object.schema_type
                && let [only, Type::Null] = &types[..]
            {
                object.schema_type = SchemaType::Type(only.clone());
            }
        }
        RefOr::T(Schema::OneOf(choice)) => {
            let is_null = |item: &RefOr<Schema>| matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null));
            choice.items.retain(|item| !is_null(item));
            if let [only] = &choice.items[..] {
                return only.clone();
            }
        }
        RefOr::Ref(_) | RefOr::T(_) => {}
    }
    schema
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::routes::Needs;
    use super::*;

    #[test]
    fn the_document_lists_exactly_the_routes_that_are_served() {
        let served: BTreeSet<(String, String)> =
            ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_owned())).collect();
        let document = serde_json::to_value(openapi()).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                described.insert((path.clone(), method.to_uppercase()));
            }
        }
        assert_eq!(described, served);
    }

    #[test]
    fn every_operation_has_an_id_of_its_own() {
        let document = serde_json::to_value(openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|item| item.as_object().unwrap().values());
        let ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn every_operation_says_how_it_fails_and_what_it_needs() {
        let document = serde_json::to_value(openapi()).unwrap();
        for route in ROUTES {
            let operation = &document["paths"][route.path][route.method.to_lowercase()];
            let at = format!("{} {}", route.method, route.path);
            assert!(operation["responses"]["default"].is_null(), "{at}: every status is named");
            assert!(operation["responses"]["500"].is_object(), "{at}");
            let guarded = route.needs != Needs::Nothing;
            assert_eq!(operation["responses"]["401"].is_object(), guarded, "{at}");
            assert_eq!(operation["x-plinth-needs"].is_string(), guarded, "{at}");
            assert_eq!(operation["security"].as_array().is_some_and(|list| !list.is_empty()), guarded, "{at}");
        }
    }
}
