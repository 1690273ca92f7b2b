//! Paths as clients write them: with a slash at the end, with two in a row, with `.json` behind
//! the name of a collection.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::dialect::Dialect;
use super::fault::Fault;
use super::openapi;

/// Brings the path of a request into the form that the routes are written in.
pub fn normalise(mut request: Request) -> Request {
    let uri = request.uri();
    let wanted = plain(uri.path());
    if wanted != uri.path() {
        let whole = match uri.query() {
            Some(query) => format!("{wanted}?{query}"),
            None => wanted,
        };
        let mut parts = uri.clone().into_parts();
        if let Ok(changed) = PathAndQuery::try_from(whole) {
            parts.path_and_query = Some(changed);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request
}

fn plain(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        plain.push('/');
        plain.push_str(segment);
    }
    if let Some(stem) = plain.strip_suffix(".json")
        && is_collection(stem)
    {
        plain.truncate(stem.len());
    }
    if plain.is_empty() {
        plain.push('/');
    }
    plain
}

/// Returns whether a path ends with a word of the API. Anything else at its end is the name of
/// something, of which `.json` may be a part.
fn is_collection(path: &str) -> bool {
    let path = path
        .strip_prefix(Dialect::Cyclades.prefix())
        .unwrap_or(path);
    path == "/openapi" || openapi::ends_with_literal(path)
}

/// Refuses a path that is not text once its `%XX` are taken for bytes: no name has such.
pub async fn readable(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if decoded(path).is_none() {
        return Fault::field("path", path, "not UTF-8, or has a NUL character").into_response();
    }
    next.run(request).await
}

fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escaped = (*first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn paths_are_made_plain() {
        for (given, expected) in [
            ("/", "/"),
            ("", "/"),
            ("//", "/"),
            ("/compute/v2.0/", "/compute/v2.0"),
            ("/compute//v2.0/servers.json", "/compute/v2.0/servers"),
            ("/cyclades/servers/.json", "/cyclades/servers/.json"),
            (
                "/cyclades/compute/v2.0/servers/detail.json",
                "/cyclades/compute/v2.0/servers/detail",
            ),
            ("/compute/v1.1/servers.json", "/compute/v1.1/servers"),
            (
                "/compute/v2.0/servers/1/tags.json",
                "/compute/v2.0/servers/1/tags",
            ),
            ("/openapi.json", "/openapi"),
            // Names of tags, of metadata, of keys.
            (
                "/compute/v2.0/servers/1/tags/conf.json",
                "/compute/v2.0/servers/1/tags/conf.json",
            ),
            (
                "/compute/v2.0/servers/1/tags/servers.json",
                "/compute/v2.0/servers/1/tags/servers.json",
            ),
            (
                "/cyclades/compute/v2.0/servers/1/metadata/settings.json",
                "/cyclades/compute/v2.0/servers/1/metadata/settings.json",
            ),
            (
                "/compute/v2.0/os-keypairs/my.key.json",
                "/compute/v2.0/os-keypairs/my.key.json",
            ),
            ("/.json", "/"),
            ("/%2f/x", "/%2f/x"),
        ] {
            assert_eq!(plain(given), expected, "{given}");
        }
    }
}
