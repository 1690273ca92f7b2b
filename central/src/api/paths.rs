//! Paths as clients write them: with a slash at the end, with two in a row, with `.json`.

use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;

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
    if let Some(stem) = plain.strip_suffix(".json") {
        plain.truncate(stem.len());
    }
    if plain.is_empty() {
        plain.push('/');
    }
    plain
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
            ("/.json", "/"),
            ("/%2f/x", "/%2f/x"),
        ] {
            assert_eq!(plain(given), expected, "{given}");
        }
    }
}
