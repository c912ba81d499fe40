//! What can be done with what an operation has made: links from its answer to the operations on it.
//!
//! They are found by path, so that an operation on a topic, a key or a tenant that is added later is linked, too.

use serde_json::Value;
use utoipa::openapi::link::Link;
use utoipa::openapi::path::{Operation, PathItem, Paths};
use utoipa::openapi::{RefOr, Responses};

use super::super::routes::ROUTES;

/// Who makes a thing, the parameter that names it elsewhere, and where its name is after it was made.
const MAKERS: &[(&str, &str, &str)] = &[
    ("ensure_topic", "topic", "$response.body#/name"),
    ("publish_records", "topic", "$request.path.topic"),
    ("ensure_stream", "path", "$request.path.path"),
    ("create_tenant", "tenant", "$response.body#/name"),
    ("create_key", "id", "$response.body#/id"),
    ("ensure_issuer", "name", "$response.body#/name"),
];

pub(super) fn add(paths: &mut Paths) {
    for (maker, parameter, expression) in MAKERS {
        let Some(home) = path_of(paths, maker) else { continue };
        let home = home.trim_end_matches("/records").to_owned();
        let thing = if home.contains('{') { home } else { format!("{home}/{{{parameter}}}") };
        let targets = on(paths, &thing, maker);
        if let Some(responses) = answers(paths, maker) {
            link(responses, &targets, parameter, expression);
        }
    }
}

/// The operations on `thing`, and on what is below it and needs no further name.
fn on(paths: &Paths, thing: &str, maker: &str) -> Vec<String> {
    let mut found = Vec::new();
    for route in ROUTES.iter().filter(|route| route.path.strip_prefix(thing).is_some_and(|rest| !rest.contains('{'))) {
        let operation = paths.paths.get(route.path).and_then(|item| super::operation(item, route.method));
        found.extend(operation.and_then(|operation| operation.operation_id.clone()).filter(|id| id != maker));
    }
    found
}

fn path_of(paths: &Paths, id: &str) -> Option<String> {
    let is_it = |operation: &Operation| operation.operation_id.as_deref() == Some(id);
    let has_it = |item: &PathItem| ROUTES.iter().any(|route| super::operation(item, route.method).is_some_and(is_it));
    paths.paths.iter().find(|(_, item)| has_it(item)).map(|(path, _)| path.clone())
}

fn answers<'a>(paths: &'a mut Paths, id: &str) -> Option<&'a mut Responses> {
    let path = path_of(paths, id)?;
    let item = paths.paths.get_mut(&path)?;
    let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
    let found = operations.into_iter().flatten().find(|operation| operation.operation_id.as_deref() == Some(id));
    found.map(|operation| &mut operation.responses)
}

/// Links each answer of success to the operations `targets`.
fn link(responses: &mut Responses, targets: &[String], parameter: &str, expression: &str) {
    for (_, response) in responses.responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
        let RefOr::T(response) = response else { continue };
        for target in targets {
            let mut link = Link::default();
            link.operation_id.clone_from(target);
            link.parameters.insert(parameter.to_owned(), Value::from(expression));
            response.links.insert(target.clone(), RefOr::T(link));
        }
    }
}
