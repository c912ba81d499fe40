//! The OpenAPI document, made from the handlers and the types of the API.
//!
//! What holds for every operation is put in here and not said at each: how it fails and what it needs.

use plinth_api::error::Problem;
use plinth_api::frames::{ClientFrame, ServerFrame};
use plinth_api::records::{Control, Record};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as Document, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::error::PROBLEM_JSON;
use super::routes::{Needs, ROUTES, Route};
use super::{docs, health, keys, live, publish, read, tenants, topics};
use crate::ws;

const BEARER: &str = "bearer";

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
        live::stream,
        ws::upgrade::upgrade,
        tenants::create,
        tenants::list,
        tenants::view,
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
    components(schemas(Problem, Record, Control, ClientFrame, ServerFrame)),
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
            let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
            components.add_security_scheme(BEARER, scheme);
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

fn describe(operation: &mut Operation, route: &Route) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let failure =
        ResponseBuilder::new().description("It failed; `code` says why").content(PROBLEM_JSON, problem).build();
    operation.responses.responses.insert("default".to_owned(), failure.into());
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
    operation.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
    let description = operation.description.take().map(|text| text + "\n\n").unwrap_or_default();
    operation.description = Some(format!("{description}Needs {need}."));
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
