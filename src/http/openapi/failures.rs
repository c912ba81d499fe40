//! How operations fail: each code that one may answer, by what it needs, what it reads and what it alone does.

use plinth_api::error::{ErrorCode as Code, Problem};
use utoipa::openapi::example::Example;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Components, ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::super::error::PROBLEM_JSON;
use super::super::routes::{Needs, Route};

/// What an operation may answer besides what its kind may: by operation id.
const OWN: &[(&str, &[Code])] = &[
    ("ensure_topic", &[Code::Conflict]),
    ("view_topic", &[Code::Gone]),
    ("change_topic", &[Code::Conflict, Code::Gone]),
    ("delete_topic", &[Code::Gone]),
    ("ensure_stream", &[Code::Conflict, Code::Gone]),
    (
        "append_to_stream",
        &[
            Code::Conflict,
            Code::SequenceMismatch,
            Code::ProducerFenced,
            Code::Closed,
            Code::ContentTypeMismatch,
            Code::Gone,
        ],
    ),
    ("read_stream", &[Code::Conflict, Code::Gone]),
    ("view_stream", &[Code::Conflict, Code::Gone]),
    ("delete_stream", &[Code::Conflict, Code::Gone]),
    (
        "publish_records",
        &[
            Code::TailMismatch,
            Code::SequenceMismatch,
            Code::Fenced,
            Code::Closed,
            Code::Gone,
            Code::IdempotencyKeyReused,
        ],
    ),
    (
        "read_records",
        &[Code::NotAcceptable, Code::Gone, Code::OffsetTrimmed, Code::OffsetAboveTail, Code::Unprocessable],
    ),
    ("follow_topics", &[Code::NotAcceptable, Code::Gone, Code::Unprocessable]),
    ("trim_records", &[Code::Conflict, Code::Gone, Code::OffsetAboveTail]),
    ("ensure_subscription", &[Code::Conflict]),
    ("link_streams", &[Code::Conflict]),
    ("claim_wake", &[Code::Conflict]),
    ("call_back", &[Code::Conflict, Code::Fenced]),
    ("acknowledge_wake", &[Code::Conflict, Code::Fenced]),
    ("release_wake", &[Code::Fenced]),
    ("view_usage", &[Code::Unprocessable]),
    ("create_tenant", &[Code::Conflict]),
    ("change_tenant", &[Code::Conflict]),
    ("change_key", &[Code::Conflict]),
    ("rotate_key", &[Code::Conflict]),
    ("ensure_issuer", &[Code::Conflict]),
    ("readyz", &[Code::StoreUnavailable, Code::ShuttingDown]),
];

/// Parameters that hold a cursor, but for the `from` of a report of use, which is a time, and the `cursor` of a stream, which is
/// a number.
const CURSORS: [&str; 3] = ["cursor", "from", "last_event_id"];

/// The codes that an operation may answer, in the order of the closed list.
fn codes(route: &Route, operation: &Operation) -> Vec<Code> {
    let id = operation.operation_id.as_deref().unwrap_or_default();
    let has_parameter = |name: &str| {
        let mut parameters = operation.parameters.iter().flatten();
        parameters.any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.name == name))
    };
    let mut codes = vec![Code::InvalidRequest, Code::Internal];
    if route.needs != Needs::Nothing {
        codes.extend([
            Code::UnknownField,
            Code::Unauthenticated,
            Code::Forbidden,
            Code::TenantSuspended,
            Code::NotFound,
        ]);
        codes.extend([Code::QuotaExceeded, Code::Overloaded, Code::StoreUnavailable, Code::ShuttingDown]);
        if !matches!(route.method, "GET" | "HEAD") {
            codes.push(Code::OutcomeUnknown);
        }
    }
    if (has_parameter("topic") || has_parameter("path")) && route.needs != Needs::Nothing {
        codes.push(Code::InvalidTopicName);
    }
    if CURSORS.into_iter().any(has_parameter) && !matches!(id, "view_usage" | "read_stream") {
        codes.push(Code::InvalidCursor);
    }
    if operation.request_body.is_some() {
        codes.extend([Code::TooLarge, Code::UnsupportedMediaType, Code::RequestTimeout, Code::Unprocessable]);
    }
    let own = OWN.iter().find(|(name, _)| *name == id);
    codes.extend(own.into_iter().flat_map(|(_, codes)| codes.iter()));
    Code::ALL.into_iter().filter(|code| codes.contains(code)).collect()
}

/// Puts the answers of a failed operation into it, one per status. The answer `default`, which would allow anything, goes.
pub(super) fn describe(operation: &mut Operation, route: &Route) {
    let codes = codes(route, operation);
    let responses = &mut operation.responses.responses;
    responses.remove("default");
    for code in &codes {
        let same: Vec<Code> = codes.iter().copied().filter(|other| other.status() == code.status()).collect();
        if same.first() == Some(code) {
            responses.insert(code.status().to_string(), failure(&same).into());
        }
    }
}

/// An answer with one of `codes`, which have the same status.
fn failure(codes: &[Code]) -> Response {
    let described: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.title().to_lowercase())).collect();
    let names: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let examples = names.iter().map(|name| (*name, RefOr::Ref(Ref::new(format!("#/components/examples/{name}")))));
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem")));
    ResponseBuilder::new()
        .description(described.join("; "))
        .content(PROBLEM_JSON, problem.examples_from_iter(examples).build())
        .extensions(Some(Extensions::from_iter([("x-plinth-codes", names)])))
        .build()
}

/// The problem of every code, as an example.
pub(super) fn add_examples(components: &mut Components) {
    for code in Code::ALL {
        let mut problem = Problem::new(code, code.title().to_lowercase());
        problem.request_id = Some("01k5x2-1f".to_owned());
        let mut example = Example::default();
        example.summary = code.title().to_owned();
        example.value = Some(serde_json::to_value(&problem).expect("a problem is plain strings and numbers"));
        components.examples.insert(code.as_str().to_owned(), RefOr::T(example));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_that_has_codes_of_its_own_is_there() {
        let document = serde_json::to_value(super::super::openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().values();
        let ids: Vec<&str> = paths
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        for (id, _) in OWN {
            assert!(ids.contains(id), "{id}");
        }
    }
}
