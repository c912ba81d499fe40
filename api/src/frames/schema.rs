//! The JSON Schema (2020-12) of the frames, made from the same types that read and write them.

use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::{ClientFrame, SUBPROTOCOL, ServerFrame};

/// Where OpenAPI keeps its schemas; a schema on its own keeps them under `$defs`.
const OPENAPI_SCHEMAS: &str = "#/components/schemas/";

/// The document that is committed as `openapi/frames.schema.json`.
///
/// # Panics
/// When a schema cannot be written as JSON, which would be a defect of its derivation.
#[must_use]
pub fn schema() -> Value {
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    add::<ClientFrame<'_>>(&mut schemas);
    add::<ServerFrame>(&mut schemas);
    schemas.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut defs = Map::new();
    for (name, schema) in schemas {
        let mut value = serde_json::to_value(schema).expect("a schema is plain JSON");
        move_references(&mut value);
        defs.insert(name, value);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("WebSocket frames of {SUBPROTOCOL}"),
        "description": "A frame from the client is one `ClientFrame`, a frame from the server one `ServerFrame`.",
        "anyOf": [{ "$ref": "#/$defs/ClientFrame" }, { "$ref": "#/$defs/ServerFrame" }],
        "$defs": defs,
    })
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), <T as PartialSchema>::schema()));
    T::schemas(schemas);
}

fn move_references(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get_mut("$ref") {
                *target = target.replace(OPENAPI_SCHEMAS, "#/$defs/");
            }
            fields.values_mut().for_each(move_references);
        }
        Value::Array(items) => items.iter_mut().for_each(move_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
