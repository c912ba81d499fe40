//! The OpenAPI document, made from the handlers and the types of the API.
//!
//! What holds for every operation is put in here and not said at each: how it fails and what it needs.

use plinth_api::error::Problem;
use plinth_api::frames::{ClientFrame, ServerFrame};
use plinth_api::quotas::QuotaNumber;
use plinth_api::records::{Control, Durability, EventFormat, From, Record, Wait};
use plinth_api::tenants::{AllowedOrigin, TenantName};
use plinth_api::topics::{TopicName, TopicPattern, TrimPlace};
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::schema::{Object, Schema, SchemaType, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::error::PROBLEM_JSON;
use super::routes::{Needs, ROUTES, Route, SOCKET};
use super::{docs, health, keys, live, publish, read, tenants, topics};
use crate::ws;

const BEARER: &str = "bearer";
const TICKET: &str = "ticket";

/// Operations whose body may be left out.
const BODY_OPTIONAL: [&str; 2] = ["ensure_topic", "create_ticket"];

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
        ws::upgrade::upgrade,
        tenants::create,
        tenants::list,
        tenants::view,
        tenants::change,
        tenants::remove,
        keys::create,
        keys::list,
        keys::remove,
        keys::create_ticket,
        health::livez,
        health::readyz,
        health::startupz,
        health::version,
        health::metrics,
        docs::openapi_json,
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
        AllowedOrigin,
        QuotaNumber,
        From,
        Wait,
        EventFormat,
        Durability
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
        if let Some(components) = document.components.as_mut() {
            let mut bearer = Http::new(HttpAuthScheme::Bearer);
            bearer.description = Some(
                "An API key, or the root key. The root key acts inside a tenant with the header `Plinth-Tenant: <name>`."
                    .to_owned(),
            );
            components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
            let ticket = "A one-time ticket of `POST /v1/tickets`, for clients that cannot set headers.";
            let ticket = ApiKeyValue::with_description(TICKET, ticket);
            components.add_security_scheme(TICKET, SecurityScheme::ApiKey(ApiKey::Query(ticket)));
        }
        for route in ROUTES {
            let operation = document.paths.paths.get_mut(route.path).and_then(|item| operation(item, route));
            if let Some(operation) = operation {
                describe(operation, route);
            }
        }
    }
}

fn operation<'a>(item: &'a mut PathItem, route: &Route) -> Option<&'a mut Operation> {
    match route.method {
        "GET" => item.get.as_mut(),
        "PUT" => item.put.as_mut(),
        "POST" => item.post.as_mut(),
        "PATCH" => item.patch.as_mut(),
        "DELETE" => item.delete.as_mut(),
        _ => None,
    }
}

/// A header of an answer.
fn header(kind: Type, description: &str) -> RefOr<Header> {
    HeaderBuilder::new().schema(Some(Object::with_type(kind))).description(Some(description)).build().into()
}

/// What answers say in their headers, whatever was asked.
fn describe_headers(operation: &mut Operation, route: &Route) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let id = "The `X-Request-Id` of the request, or one that was made for it";
        response.headers.insert("X-Request-Id".to_owned(), header(Type::String, id));
        if status == "default" {
            let after = "Seconds after which to try again, where that may help";
            response.headers.insert("Retry-After".to_owned(), header(Type::Integer, after));
            let challenge = "With 401 and 403: `Bearer`, by RFC 6750";
            response.headers.insert("WWW-Authenticate".to_owned(), header(Type::String, challenge));
        }
        if status == "200" && route.needs == Needs::Subscribe && route.path != SOCKET {
            let cookie = "Of an event stream that was opened with a ticket: `__Secure-plinth`, which opens it again";
            response.headers.insert("Set-Cookie".to_owned(), header(Type::String, cookie));
        }
    }
}

fn describe(operation: &mut Operation, route: &Route) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let failure =
        ResponseBuilder::new().description("It failed; `code` says why").content(PROBLEM_JSON, problem).build();
    operation.responses.responses.insert("default".to_owned(), failure.into());
    describe_headers(operation, route);
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        parameter.schema = parameter.schema.take().map(without_null);
    }
    let id = operation.operation_id.as_deref().unwrap_or_default();
    if let Some(RefOr::T(body)) = operation.request_body.as_mut()
        && BODY_OPTIONAL.contains(&id)
    {
        body.required = Some(Required::False);
    }
    let need = match route.needs {
        Needs::Nothing => return,
        Needs::Tenant => "a key of a tenant",
        Needs::Publish => "the scope `publish` for the topic",
        Needs::Subscribe => "the scope `subscribe` for the topic",
        Needs::View => "any scope for the topic",
        Needs::Manage => "the scope `manage` for the topic",
        Needs::Admin => "the scope `admin`",
        Needs::Operator => "the root key",
    };
    operation.security = Some(credentials(route));
    let description = operation.description.take().map(|text| text + "\n\n").unwrap_or_default();
    operation.description = Some(format!("{description}Needs {need}."));
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

/// The credentials of which one is enough.
fn credentials(route: &Route) -> Vec<SecurityRequirement> {
    let named = |scheme| SecurityRequirement::new(scheme, Vec::<String>::new());
    let mut credentials = vec![named(BEARER)];
    if route.needs == Needs::Subscribe || route.path == SOCKET {
        credentials.push(named(TICKET));
    }
    if route.path == SOCKET {
        // The credential may come with the subprotocols or in the first frame.
        credentials.push(SecurityRequirement::default());
    }
    credentials
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
            assert!(operation["responses"]["default"].is_object(), "{} {}", route.method, route.path);
            assert_eq!(
                operation["security"].is_array(),
                route.needs != Needs::Nothing,
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}
