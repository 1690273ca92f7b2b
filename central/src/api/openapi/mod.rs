//! The OpenAPI document: what the API answers to, for people and for programs that try it out.
//!
//! It is made from the table of operations. A test asks each of them of a running server, one
//! compares the committed document with the table, and one has a program of others try them all
//! and compare every answer with its schema.

mod answers;
mod bodies;
pub(super) mod operations;

use axum::Json;
use serde_json::{Map, Value, json};

use self::operations::{Answer, OPERATIONS, Operation};
use super::authorization::Role;

/// Returns whether a path is one of the document whose last segment is a literal. The version of
/// a service, which has aliases, is not compared.
pub fn ends_with_literal(path: &str) -> bool {
    OPERATIONS.iter().any(|operation| {
        let literal = |segment: &str| !segment.starts_with('{');
        let mut template = operation.path.split('/').skip(1);
        let mut given = path.split('/').skip(1);
        let mut place = 0;
        loop {
            match (template.next(), given.next()) {
                (None, None) => break operation.path.rsplit('/').next().is_some_and(literal),
                (Some(expected), Some(segment)) => {
                    if literal(expected) && expected != segment && place != 1 {
                        break false;
                    }
                }
                _ => break false,
            }
            place += 1;
        }
    })
}

/// A name, an id, a token: what stands in a path.
fn segment() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255})
}

fn object_with(member: &str, schema: &Value) -> Value {
    json!({"type": "object", "required": [member], "properties": {member: schema}})
}

/// The body of a success.
fn content(answer: Answer) -> Option<Value> {
    let many = |name| json!({"type": "array", "items": answers::named(name)});
    Some(match answer {
        Answer::Nothing => return None,
        Answer::Bare(name) => answers::named(name),
        Answer::BareList(name) => many(name),
        Answer::One(member, name) => object_with(member, &answers::named(name)),
        Answer::Many(member, name) => object_with(member, &many(name)),
    })
}

/// What it may be refused with: each fault has one member, named after its kind.
fn faults(operation: &Operation) -> Vec<u16> {
    let mut faults = vec![400, 503];
    if !operation.open {
        faults.push(401);
    }
    if operation.role > Role::Member {
        faults.push(403);
    }
    if operation.path.contains('{') || !operation.headers.is_empty() {
        faults.push(404);
    }
    if operation.method != "get" && operation.method != "head" {
        // What is named in the body may not be there, or not be free, or be too much.
        faults.extend([403, 404, 409, 413]);
    }
    if operation.body.is_some() {
        faults.extend([413, 415]);
    }
    if operation.query.contains(&"changes-since") {
        faults.push(304);
    }
    faults.extend_from_slice(operation.faults);
    faults.sort_unstable();
    faults.dedup();
    faults
}

fn described(description: &str, schema: Option<Value>) -> Value {
    let mut response = json!({"description": description});
    if let (Some(schema), Some(map)) = (schema, response.as_object_mut()) {
        let content = json!({"application/json": {"schema": schema}});
        map.insert("content".to_owned(), content);
    }
    response
}

fn responses(operation: &Operation) -> Value {
    let mut all = Map::new();
    for (place, status) in operation.statuses.iter().enumerate() {
        let schema = (place == 0).then(|| content(operation.answer)).flatten();
        all.insert(status.to_string(), described("Done", schema));
    }
    for status in faults(operation) {
        let response = match status {
            304 => described("Nothing has changed since", None),
            // The answer to HEAD has no body.
            _ if operation.method == "head" => described("A refusal", None),
            _ => json!({"$ref": "#/components/responses/Refusal"}),
        };
        all.insert(status.to_string(), response);
    }
    Value::Object(all)
}

fn parameter(place: &str, name: &str, required: bool, schema: &Value) -> Value {
    json!({"name": name, "in": place, "required": required, "schema": schema})
}

fn query(name: &str) -> Value {
    match name {
        "limit" | "minRam" | "minDisk" | "size_min" | "size_max" => {
            json!({"type": "integer", "minimum": 0})
        }
        "changes-since" => json!({"type": "string", "format": "date-time"}),
        "is_public" | "router:external" | "shared" | "public" | "SNF:floating_ip_pool" => {
            json!({"type": "boolean"})
        }
        _ => json!({"type": "string"}),
    }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let path = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| parameter("path", name, true, &segment()));
    let query = operation
        .query
        .iter()
        .map(|name| parameter("query", name, false, &query(name)));
    let headers = operation
        .headers
        .iter()
        .map(|(name, required)| parameter("header", name, *required, &json!({"type": "string"})));
    path.chain(query).chain(headers).collect()
}

fn describe(operation: &Operation) -> Value {
    let mut described = json!({
        "summary": operation.summary,
        "operationId": format!("{} {}", operation.method, operation.path),
        "parameters": parameters(operation),
        "responses": responses(operation),
    });
    let Some(map) = described.as_object_mut() else {
        return described;
    };
    if operation.open {
        map.insert("security".to_owned(), json!([]));
    } else {
        map.insert("x-required-role".to_owned(), json!(operation.role.name()));
    }
    if let Some(body) = operation.body {
        map.insert(
            "requestBody".to_owned(),
            json!({
                "required": !operation.body_optional,
                "content": {"application/json": {"schema": body()}},
            }),
        );
    }
    described
}

/// The document.
pub fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            methods.insert(operation.method.to_owned(), describe(operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "snf-central",
            "description": "OpenStack's dialect; the Cyclades one has the same paths behind /cyclades.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            },
            "schemas": answers::schemas(),
            "responses": {
                "Refusal": described("A refusal, with its reason", Some(answers::named("Fault"))),
            },
        },
        "paths": paths,
    })
}

/// `GET /openapi.json`.
pub async fn show() -> Json<Value> {
    Json(document())
}
