//! Request bodies: JSON, read field by field, so that a refusal can name the field.
//!
//! Fields that nobody asks for are ignored: every client sends some of its own.

use axum::body::Bytes;
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::fault::{Fault, Kind};

/// How deep a body may be nested.
const DEPTH_LIMIT: usize = 32;

/// The JSON body of a request.
pub struct Body(Value);

impl Body {
    /// The body as an object.
    pub fn object(&self) -> Result<Object<'_>, Fault> {
        Object::of("body", &self.0)
    }

    /// A value that was made of a body.
    pub fn of(value: Value) -> Self {
        Self(value)
    }

    /// The body as a list of at most `limit` values.
    pub fn list(&self, path: &str, limit: usize) -> Result<Vec<Field<'_>>, Fault> {
        Field {
            path: path.to_owned(),
            value: &self.0,
        }
        .list(limit)
    }

    /// The object `{"name": {…}}` that most bodies consist of.
    pub fn member(&self, name: &str) -> Result<Object<'_>, Fault> {
        match self.0.get(name) {
            Some(value) => Object::of(name, value),
            None => {
                self.object()?;
                Err(Fault::bad_request(format!("{name}: missing")))
            }
        }
    }

    /// Reads a body.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let value: Value = serde_json::from_slice(bytes)
            .map_err(|error| Fault::bad_request(format!("body: not JSON: {error}")))?;
        if depth(&value) > DEPTH_LIMIT {
            return Err(Fault::bad_request(format!(
                "body: nested deeper than {DEPTH_LIMIT}"
            )));
        }
        // A NUL cannot be in JSON but so.
        let escaped = br"\u0000";
        if bytes.windows(escaped.len()).any(|part| part == escaped)
            && let Some(place) = nul(&value, "")
        {
            return Err(Fault::bad_request(format!("{place}: has a NUL character")));
        }
        Ok(Self(value))
    }
}

// serde_json itself stops at 128, so this recursion is bounded.
fn depth(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Where the first NUL is: databases other than `SQLite` have no text with one.
fn nul(value: &Value, path: &str) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(|| path.to_owned()),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .find_map(|(index, inner)| nul(inner, &format!("{path}[{index}]"))),
        Value::Object(map) => map.iter().find_map(|(name, inner)| {
            let whole = if path.is_empty() { "body" } else { path };
            if name.contains('\0') {
                return Some(format!("{whole}: a name in it"));
            }
            let dot = if path.is_empty() { "" } else { "." };
            nul(inner, &format!("{path}{dot}{name}"))
        }),
        _ => None,
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let bytes = read(request, state).await?;
        Self::parse(&bytes)
    }
}

impl<S: Send + Sync> OptionalFromRequest<S> for Body {
    type Rejection = Fault;

    /// None for an empty body.
    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Fault> {
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        Self::parse(&bytes).map(Some)
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Fault> {
    let media = request
        .headers()
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase());
    if let Some(media) = media
        && !media.contains("json")
    {
        return Err(Fault::new(
            Kind::BadMediaType,
            format!(
                "Content-Type: {}: only application/json is read",
                super::fault::shortened(&media)
            ),
        ));
    }
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| {
            if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                Fault::over_limit("body: too long")
            } else {
                Fault::bad_request(format!("body: {rejection}"))
            }
        })
}

/// An object in a body, and where in the body it is.
pub struct Object<'a> {
    path: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn of(path: &str, value: &'a Value) -> Result<Self, Fault> {
        value.as_object().map_or_else(
            || Err(Fault::field(path, value, "must be an object")),
            |map| {
                Ok(Self {
                    path: path.to_owned(),
                    map,
                })
            },
        )
    }

    /// The field `name`, if it is there and not null.
    pub fn get(&self, name: &str) -> Option<Field<'a>> {
        match self.map.get(name) {
            None | Some(Value::Null) => None,
            Some(value) => Some(Field {
                path: format!("{}.{name}", self.path),
                value,
            }),
        }
    }

    /// Whether the field is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The field `name`.
    pub fn required(&self, name: &str) -> Result<Field<'a>, Fault> {
        self.get(name)
            .ok_or_else(|| Fault::bad_request(format!("{}.{name}: missing", self.path)))
    }

    /// All fields, also those that are null.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> + '_ {
        self.map.iter().map(|(name, value)| {
            (
                name.as_str(),
                Field {
                    path: format!("{}.{name}", self.path),
                    value,
                },
            )
        })
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }
}

/// A value in a body, and where in the body it is.
pub struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// Where it is, for a message.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value as it came.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    pub fn is_null(&self) -> bool {
        self.value.is_null()
    }

    /// A refusal of this field.
    pub fn refuse(&self, reason: &str) -> Fault {
        Fault::field(&self.path, self.value, reason)
    }

    /// A string, whatever is in it.
    pub fn string(&self) -> Result<&'a str, Fault> {
        self.value
            .as_str()
            .ok_or_else(|| self.refuse("must be a string"))
    }

    /// A string fit to be a name or a description: at most `limit` characters, none of them a
    /// control character.
    pub fn text(&self, limit: usize) -> Result<&'a str, Fault> {
        let text = self.string()?;
        if text.chars().count() > limit {
            return Err(self.refuse(&format!("longer than {limit} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(self.refuse("has a control character"));
        }
        Ok(text)
    }

    /// The one line of a file's content, without the line break at its end: at most `limit`
    /// characters, white space at both ends and a byte order mark removed.
    ///
    /// # Errors
    /// It has several lines, a control character other than a tab, or is too long.
    pub fn file_line(&self, limit: usize) -> Result<&'a str, Fault> {
        let text = self.string()?.trim_start_matches('\u{feff}').trim();
        if text.chars().count() > limit {
            return Err(self.refuse(&format!("longer than {limit} characters")));
        }
        if text.contains(['\n', '\r']) {
            return Err(self.refuse("has more than one line"));
        }
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(self.refuse("has a control character"));
        }
        Ok(text)
    }

    /// Base64 (RFC 4648, section 4) without its white space: encoders break the lines of files.
    /// Returned with the number of bytes that it encodes.
    ///
    /// # Errors
    /// It is not base64.
    pub fn base64(&self) -> Result<(String, usize), Fault> {
        let mut text = self.string()?.to_owned();
        text.retain(|character| !character.is_ascii_whitespace());
        let size = STANDARD
            .decode(&text)
            .map_err(|_| self.refuse("must be base64"))?
            .len();
        Ok((text, size))
    }

    /// As [`Field::text`], and not empty.
    pub fn name(&self, limit: usize) -> Result<&'a str, Fault> {
        let text = self.text(limit)?.trim();
        if text.is_empty() {
            return Err(self.refuse("must not be empty"));
        }
        Ok(text)
    }

    /// A whole number in `range`; a string of digits will do.
    pub fn integer(&self, range: std::ops::RangeInclusive<i64>) -> Result<i64, Fault> {
        let number = match self.value {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        match number {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(self.refuse(&format!(
                "must be a whole number from {} to {}",
                range.start(),
                range.end()
            ))),
        }
    }

    /// `true` or `false`; the strings `true`, `True`, `false`, `False` will do.
    pub fn boolean(&self) -> Result<bool, Fault> {
        match self.value {
            Value::Bool(value) => Ok(*value),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(self.refuse("must be true or false")),
        }
    }

    /// The id of something: a number, or a string of digits, or the last segment of a link.
    pub fn reference(&self) -> Result<String, Fault> {
        let text = match self.value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned(),
            _ => return Err(self.refuse("must be an id")),
        };
        if text.is_empty() || text.len() > 255 {
            return Err(self.refuse("must be an id"));
        }
        Ok(text)
    }

    pub fn object(&self) -> Result<Object<'a>, Fault> {
        Object::of(&self.path, self.value)
    }

    /// A list of at most `limit` values.
    pub fn list(&self, limit: usize) -> Result<Vec<Field<'a>>, Fault> {
        let list = self
            .value
            .as_array()
            .ok_or_else(|| self.refuse("must be a list"))?;
        if list.len() > limit {
            return Err(Fault::bad_request(format!(
                "{}: {} values: at most {limit}",
                self.path,
                list.len()
            )));
        }
        Ok(list
            .iter()
            .enumerate()
            .map(|(index, value)| Field {
                path: format!("{}[{index}]", self.path),
                value,
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T>(result: Result<T, Fault>) -> String {
        match result {
            Ok(_) => String::from("accepted"),
            Err(fault) => fault.message,
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_the_value() {
        let body = Body::parse(br#"{"server": {"name": 5, "networks": [{"uuid": []}]}}"#).unwrap();
        let server = body.member("server").unwrap();
        let name = server.required("name").unwrap();
        assert_eq!(refusal(name.name(10)), "server.name: 5: must be a string");
        let networks = server.required("networks").unwrap().list(8).unwrap();
        let uuid = networks[0].object().unwrap().required("uuid").unwrap();
        assert_eq!(
            refusal(uuid.reference()),
            "server.networks[0].uuid: []: must be an id"
        );
        assert_eq!(
            refusal(server.required("flavorRef")),
            "server.flavorRef: missing"
        );
        assert_eq!(refusal(body.member("port")), "port: missing");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "5", "null", "{", "\u{feff}{}", "[[[[[["] {
            let refused = Body::parse(text.as_bytes())
                .and_then(|body| body.member("server").map(|_| ()))
                .is_err();
            assert!(refused, "{text}");
        }
    }

    #[test]
    fn a_nul_is_named_with_its_place() {
        let refused = |text: &str| refusal(Body::parse(text.as_bytes()));
        let in_list = r#"{"server": {"networks": [{"uuid": "1"}, {"uuid": "a\u0000"}]}}"#;
        assert_eq!(
            refused(in_list),
            "server.networks[1].uuid: has a NUL character"
        );
        let in_name = r#"{"server": {"metadata": {"\u0000": "x"}}}"#;
        assert_eq!(
            refused(in_name),
            "server.metadata: a name in it: has a NUL character"
        );
        // A backslash, and then what only looks like one.
        assert_eq!(refused(r#"{"a": "\\u0000"}"#), "accepted");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(Body::parse(deep(31).as_bytes()).is_ok());
        assert!(Body::parse(deep(32).as_bytes()).is_err());
        assert!(Body::parse(deep(100_000).as_bytes()).is_err());
    }

    #[test]
    fn numbers_beyond_the_range_are_refused() {
        let body = Body::parse(
            br#"{"a": 99999999999999999999999, "b": 1.5, "c": "7", "d": -1, "e": 1e400}"#,
        );
        // 1e400 is no JSON number that serde_json can hold.
        assert!(body.is_err());
        let body =
            Body::parse(br#"{"a": 99999999999999999999999, "b": 1.5, "c": "7", "d": -1}"#).unwrap();
        let object = body.object().unwrap();
        for name in ["a", "b", "d"] {
            assert!(
                object.required(name).unwrap().integer(0..=9).is_err(),
                "{name}"
            );
        }
        assert_eq!(object.required("c").unwrap().integer(0..=9).unwrap(), 7);
    }

    #[test]
    fn control_characters_are_not_for_names() {
        let body = Body::parse("{\"a\": \"x\\u0007y\", \"b\": \"né 名\", \"c\": \" \"}".as_bytes())
            .unwrap();
        let object = body.object().unwrap();
        assert!(object.required("a").unwrap().text(9).is_err());
        assert_eq!(object.required("b").unwrap().name(9).unwrap(), "né 名");
        assert!(object.required("b").unwrap().name(3).is_err());
        assert!(object.required("c").unwrap().name(3).is_err());
    }
}
