//! What hostile and broken clients send: never a 5xx, and a refusal that says what was wrong.
//!
//! The operations are those of the OpenAPI document, which is thereby shown to be true.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use support::{Central, TOKEN};

struct Operation {
    method: Method,
    path: String,
    body: Option<Value>,
    /// There may be none.
    optional: bool,
}

/// The operations of the document, as the server tells it.
async fn operations(central: &Central) -> Vec<Operation> {
    let document = central.get("/openapi.json").await.expect(200);
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            let schema = &described["requestBody"]["content"]["application/json"]["schema"];
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                body: (!schema.is_null()).then(|| schema.clone()),
                optional: described["requestBody"]["required"] == false,
            });
        }
    }
    assert!(all.len() > 60, "{}", all.len());
    all
}

/// The path with all its parameters being `value`, which is already encoded.
fn filled(path: &str, value: &str) -> String {
    path.split('/')
        .map(|part| if part.starts_with('{') { value } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

/// Something that the schema allows.
fn example(schema: &Value) -> Value {
    if let Some(choices) = schema["oneOf"].as_array() {
        return example(&choices[0]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    let kind = schema["type"]
        .as_str()
        .or_else(|| schema["type"][0].as_str())
        .unwrap_or("object");
    match kind {
        "string" if schema["contentEncoding"] == "base64" => json!("MTEx"),
        "string" if schema["format"] == "password" => json!("correct horse"),
        "string" if !schema["pattern"].is_null() => json!("/etc/motd"),
        "string" => json!("1"),
        "integer" => schema["minimum"].clone(),
        "array" => json!([example(&schema["items"])]),
        "boolean" => json!(true),
        _ => {
            let mut object = Map::new();
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                object.insert(name.clone(), example(inner));
            }
            Value::Object(object)
        }
    }
}

/// Where in a value something can be replaced, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                places(inner, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                places(inner, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

fn hostile_values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(-0.5),
        json!(""),
        json!("   "),
        json!("nul\u{0}byte"),
        json!("bell\u{7}escape\u{1b}[2J"),
        json!("\u{202e}right to left \u{1f4a9} \u{fffd} e\u{301}"),
        json!("a".repeat(5000)),
        json!("'; DROP TABLE servers; --"),
        json!("../../etc/passwd"),
        json!("99999999999999999999999999"),
        json!("fe80::1%eth0"),
        json!("10.0.0.0/33"),
        json!([]),
        json!({}),
        json!([null]),
        json!({"": ""}),
        nested(20),
        nested(60),
    ]
}

/// Fails unless the answer is a success or a refusal as it should be.
fn proper(what: &str, status: StatusCode, body: &Value) {
    assert!(
        !status.is_server_error() || status == StatusCode::NOT_IMPLEMENTED,
        "{what}: {status} {body}"
    );
    if status.is_client_error() {
        let fault = body
            .as_object()
            .filter(|map| map.len() == 1)
            .and_then(|map| map.values().next())
            .unwrap_or_else(|| panic!("{what}: {status} {body}"));
        assert_eq!(fault["code"], status.as_u16(), "{what}: {body}");
        let message = fault["message"].as_str().unwrap();
        assert!(message.len() > 3 && message.len() < 1000, "{what}: {body}");
    }
}

/// A central with something to hit.
async fn target() -> Central {
    // With all that can be asked for, so that all of it is read.
    let parameters = "[parameters]\nurl = 'http://central.example.org'\n\
        [images]\nsources = ['https://images.example.org/']\n";
    let central = Central::with(support::rapi::FakeRapi::start().await, parameters).await;
    central.create("victim", &["bridged"]).await;
    central
}

#[tokio::test(flavor = "multi_thread")]
async fn the_committed_document_is_what_is_served_and_all_in_it_is_answered() {
    let central = Central::start().await;
    let served = central.get("/openapi.json").await.expect(200);
    let committed: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    assert!(
        served == committed,
        "snf-central openapi > central/openapi.json"
    );
    for operation in operations(&central).await {
        let path = filled(&operation.path, "1");
        let asked = format!("{} {path}", operation.method);
        let answer = central
            .ask(operation.method.clone(), &path, Some(TOKEN), None)
            .await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{asked}");
        let text = answer.body.to_string();
        assert!(!text.contains("path /"), "{asked}: {text}");
        // Who is nobody gets nothing but versions.
        let stranger = central.ask(operation.method, &path, None, None).await;
        let open = ["/", "/identity", "/compute", "/network", "/image"].contains(&path.as_str())
            || ["version", "versions", "resources"]
                .iter()
                .any(|member| !stranger.body[member].is_null())
            || path.ends_with("/tokens");
        assert!(
            open || stranger.status == StatusCode::UNAUTHORIZED,
            "{asked}: {} {}",
            stranger.status,
            stranger.body
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_is_not_for_a_path_is_refused_with_those_that_are() {
    let central = target().await;
    let mut methods: std::collections::BTreeMap<String, Vec<String>> = Default::default();
    for operation in operations(&central).await {
        let path = filled(&operation.path, "1");
        let method = operation.method.to_string();
        methods.entry(path).or_default().push(method);
    }
    for (path, known) in methods {
        for prefix in ["", "/cyclades"] {
            let brew = Method::from_bytes(b"BREW").unwrap();
            let path = format!("{prefix}{path}");
            let answer = central.ask(brew, &path, Some(TOKEN), None).await;
            let allow = answer.headers.get("allow");
            let allow = allow.unwrap_or_else(|| panic!("{path}: no Allow: {answer:?}"));
            let allowed: Vec<&str> = allow.to_str().unwrap().split(',').collect();
            for method in &known {
                assert!(allowed.contains(&method.as_str()), "{path}: {allowed:?}");
            }
            answer.fault(405, "notAllowed");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_breaks_anything() {
    let central = target().await;
    let long = "a".repeat(3000);
    let hostile = [
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "99999999999999999999999",
        "9223372036854775807",
        "%00",
        "%ff%fe",
        "%2e%2e%2f",
        "%F0%9F%92%A9",
        "'%20OR%201=1",
        "%0d%0aX-Evil:%201",
        long.as_str(),
    ];
    for operation in operations(&central).await {
        if !operation.path.contains('{') {
            continue;
        }
        for value in hostile {
            let path = filled(&operation.path, value);
            let body = operation.body.as_ref().map(example);
            let answer = central
                .ask(operation.method.clone(), &path, Some(TOKEN), body)
                .await;
            let what = format!("{} {path}", operation.method);
            if operation.method != Method::HEAD {
                proper(&what, answer.status, &answer.body);
            }
            assert!(!answer.status.is_success() || value == "01", "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_of_a_body_breaks_anything() {
    let central = target().await;
    for operation in operations(&central).await {
        let Some(schema) = &operation.body else {
            continue;
        };
        // Logging in is limited, and slow on purpose.
        let login = operation.path.contains("tokens");
        let choices = schema["oneOf"]
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![schema.clone()]);
        for choice in choices {
            let good = example(&choice);
            let mut all = Vec::new();
            places(&good, "", &mut all);
            let values = hostile_values();
            for place in &all {
                for (index, value) in values.iter().enumerate() {
                    if login && index % 5 != 0 {
                        continue;
                    }
                    let mut body = good.clone();
                    *body.pointer_mut(place).unwrap() = value.clone();
                    let path = filled(&operation.path, "1");
                    let what = format!("{} {path} {place} = {value:.60}", operation.method);
                    let answer = central
                        .ask(operation.method.clone(), &path, Some(TOKEN), Some(body))
                        .await;
                    proper(&what, answer.status, &answer.body);
                }
            }
        }
    }
    // It still does what it is for.
    central.create("after", &["bridged"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bytes_break_anything() {
    let central = target().await;
    let deep = format!("{}1{}", "[".repeat(50_000), "]".repeat(50_000));
    let bodies: Vec<(Vec<u8>, u16)> = vec![
        (b"".to_vec(), 400),
        (b"{".to_vec(), 400),
        (b"\xff\xfe\x00".to_vec(), 400),
        (b"{\"server\": \"\xff\"}".to_vec(), 400),
        (b"null".to_vec(), 400),
        (b"[{\"server\": {}}]".to_vec(), 400),
        (b"{\"server\": {}} trailing".to_vec(), 400),
        (b"{\"server\": {\"name\": 1e999}}".to_vec(), 400),
        (deep.into_bytes(), 400),
        (vec![b' '; 600 << 10], 413),
    ];
    for operation in operations(&central).await {
        if operation.body.is_none() || operation.path.ends_with("v2.0/tokens") {
            continue;
        }
        let path = filled(&operation.path, "1");
        for (body, status) in &bodies {
            if operation.optional && body.is_empty() {
                continue;
            }
            let answer = central
                .ask_raw(operation.method.clone(), &path, body.clone())
                .await;
            let shown = String::from_utf8_lossy(body.get(..30).unwrap_or(body));
            let what = format!("{} {path} {shown}", operation.method);
            proper(&what, answer.status, &answer.body);
            // What is not there need not look at the body.
            assert!(
                answer.status == *status || answer.status == StatusCode::NOT_FOUND,
                "{what}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_and_no_header_breaks_anything() {
    let central = target().await;
    let queries = [
        "limit=99999999999999999999",
        "limit=-1",
        "limit=x",
        "marker=99999999999999999999",
        "marker=%00",
        "name=%00",
        "name=%ff",
        "name=%25_%5c'",
        "changes-since=yesterday",
        "changes-since=9999-12-31T23:59:59Z",
        "changes-since=0000-00-00T00:00:00Z",
        "status=%F0%9F%92%A9",
        "device_id=x&network_id=y",
        "&&==&=;%",
        "a[]=1&a[b]=2",
    ];
    for operation in operations(&central).await {
        if operation.method != Method::GET || operation.path.contains('{') {
            continue;
        }
        for query in queries {
            let path = format!("{}?{query}", operation.path);
            let answer = central.get(&path).await;
            proper(&path, answer.status, &answer.body);
        }
    }
    let path = format!("{}/compute/v2.0/servers", central.base);
    for (name, value) in [
        ("x-auth-token", b"\xff\xfe".to_vec()),
        ("x-auth-token", vec![b'a'; 8000]),
        ("x-auth-token", b"' OR 1=1".to_vec()),
        ("host", b"x\"><script>".to_vec()),
        ("content-type", b"\xff".to_vec()),
        ("content-length", b"0".to_vec()),
        ("accept", vec![b'*'; 8000]),
    ] {
        let value = reqwest::header::HeaderValue::from_bytes(&value).unwrap();
        let answer = reqwest::Client::new()
            .get(&path)
            .header(name, value)
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_client_error(), "{name}");
    }
    let wrong = reqwest::Client::new()
        .post(&path)
        .header("X-Auth-Token", TOKEN)
        .header("Content-Type", "text/xml")
        .body("<server/>")
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
