//! What a new server finds inside: files, data for cloud-init, a password.

use serde_json::{Value, json};

use crate::api::body::{Field, Object};
use crate::api::fault::Fault;

/// The most files, and the most bytes in them together.
const FILES: usize = 5;
const BYTES: usize = 10_240;
/// The most characters of user data, in base64.
const USER_DATA: usize = 65_535;
/// The characters of a generated password: none that look like another one.
const ALPHABET: &[u8] = b"abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const PASSWORD_LENGTH: usize = 16;

/// What a new server finds inside.
#[derive(Debug)]
pub struct Inside {
    /// The list as the OS definition reads it.
    pub personality: Value,
    pub user_data: Option<String>,
    pub password: Option<String>,
}

impl Inside {
    /// Reads `personality`, `user_data` and `adminPass`.
    ///
    /// # Errors
    /// 400 naming the field, 413 for too much of it.
    pub fn parse(server: &Object<'_>) -> Result<Self, Fault> {
        Ok(Self {
            personality: personality(server)?,
            user_data: user_data(server)?,
            password: password(server)?,
        })
    }

    /// Whether there is nothing that would have to be delivered.
    pub fn is_empty(&self) -> bool {
        self.user_data.is_none()
            && self.password.is_none()
            && self.personality.as_array().is_none_or(Vec::is_empty)
    }
}

fn personality(server: &Object<'_>) -> Result<Value, Fault> {
    let Some(field) = server.get("personality") else {
        return Ok(json!([]));
    };
    let list = field.list(usize::MAX)?;
    if list.len() > FILES {
        return Err(Fault::over_limit(format!(
            "server.personality: {} files: at most {FILES}",
            list.len()
        )));
    }
    let mut sum = 0_usize;
    let mut files = Vec::new();
    for entry in &list {
        let (file, size) = file(entry)?;
        sum = sum.saturating_add(size);
        if sum > BYTES {
            return Err(Fault::over_limit(format!(
                "server.personality: more than {BYTES} bytes"
            )));
        }
        files.push(file);
    }
    Ok(Value::Array(files))
}

fn file(entry: &Field<'_>) -> Result<(Value, usize), Fault> {
    let object = entry.object()?;
    let path = object.required("path")?;
    let text = path.text(255)?;
    let plain =
        text.starts_with('/') && !text.ends_with('/') && !text.split('/').any(|p| p == "..");
    if !plain {
        return Err(path.refuse("must be the absolute path of a file"));
    }
    let contents = object.required("contents")?;
    let (encoded, size) = contents.base64()?;
    let owner = |name: &str| -> Result<String, Fault> {
        match object.get(name) {
            Some(field) => Ok(field.name(64)?.to_owned()),
            None => Ok("root".to_owned()),
        }
    };
    let mode = match object.get("mode") {
        Some(field) => field.integer(0..=0o7777)?,
        None => 0o440,
    };
    let file = json!({
        "path": text,
        "contents": encoded,
        "owner": owner("owner")?,
        "group": owner("group")?,
        "mode": mode,
    });
    Ok((file, size))
}

fn user_data(server: &Object<'_>) -> Result<Option<String>, Fault> {
    let Some(field) = server.get("user_data") else {
        return Ok(None);
    };
    let (text, _) = field.base64()?;
    if text.len() > USER_DATA {
        return Err(Fault::over_limit(format!(
            "server.user_data: longer than {USER_DATA} characters"
        )));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// No refusal here shows the password.
fn password(server: &Object<'_>) -> Result<Option<String>, Fault> {
    let Some(field) = server.get("adminPass") else {
        return Ok(None);
    };
    let refuse = |reason: &str| Err(Fault::bad_request(format!("server.adminPass: {reason}")));
    let Some(text) = field.value().as_str() else {
        return refuse("must be a string");
    };
    if text.chars().any(char::is_control) || text.chars().count() > 128 {
        return refuse("must have at most 128 characters, none of them a control character");
    }
    let kinds = [
        text.chars().any(char::is_alphabetic),
        text.chars().any(char::is_numeric),
        text.chars().any(|c| !c.is_alphanumeric()),
    ];
    let kinds = kinds.iter().filter(|there| **there).count();
    if text.chars().count() < 8 || kinds < 2 {
        return refuse("too weak: at least 8 characters, of letters, digits and others two kinds");
    }
    Ok(Some(text.to_owned()))
}

/// A new password.
///
/// # Errors
/// There is no randomness.
pub fn generate() -> Result<String, Fault> {
    let length = ALPHABET.len();
    let mut password = String::new();
    while password.len() < PASSWORD_LENGTH {
        let mut byte = [0_u8];
        getrandom::fill(&mut byte).map_err(Fault::internal)?;
        // Numbers that do not spread evenly are thrown away.
        let number = usize::from(byte[0]);
        let even = (256 / length).saturating_mul(length);
        if let Some(letter) = ALPHABET.get(number % length).filter(|_| number < even) {
            password.push(char::from(*letter));
        }
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::body::Body;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn parse(server: &Value) -> Result<Inside, Fault> {
        let body = Body::parse(json!({ "server": server }).to_string().as_bytes())?;
        Inside::parse(&body.member("server")?)
    }

    #[test]
    fn files_are_checked_and_counted() {
        let file = |path: &str, contents: &str| json!({"path": path, "contents": contents});
        let inside = parse(&json!({"personality": [file("/etc/motd", "aGk=")]})).unwrap();
        assert_eq!(inside.personality[0]["owner"], "root");
        assert_eq!(inside.personality[0]["mode"], 0o440);
        for bad in [
            file("etc/motd", "aGk="),
            file("/etc/", "aGk="),
            file("/etc/../../x", "aGk="),
            file("/etc/motd", "not base64"),
            json!({"path": "/x"}),
            json!({"path": "/x", "contents": "", "mode": 0o10000}),
            json!({"path": "/x", "contents": "", "owner": "a\nb"}),
        ] {
            let fault = parse(&json!({"personality": [bad]})).unwrap_err();
            assert!(
                fault.message.starts_with("server.personality[0]."),
                "{}",
                fault.message
            );
        }
        let big = STANDARD.encode(vec![0; 6000]);
        let two = json!({"personality": [file("/a", &big), file("/b", &big)]});
        assert!(parse(&two).unwrap_err().message.contains("10240"));
        let six: Vec<Value> = (0..6).map(|_| file("/a", "")).collect();
        assert!(parse(&json!({"personality": six})).is_err());
    }

    #[test]
    fn base64_may_have_line_breaks() {
        let encoded = STANDARD.encode([7; 200]);
        let lines: String = encoded
            .as_bytes()
            .chunks(60)
            .map(|line| format!("{}\r\n", String::from_utf8_lossy(line)))
            .collect();
        let server = json!({
            "user_data": lines,
            "personality": [{"path": "/etc/motd", "contents": lines}],
        });
        let inside = parse(&server).unwrap();
        assert_eq!(inside.user_data.as_deref(), Some(encoded.as_str()));
        assert_eq!(inside.personality[0]["contents"], encoded);
        assert!(parse(&json!({"user_data": "aGk\n=x"})).is_err());
    }

    #[test]
    fn a_weak_password_is_refused_and_not_repeated() {
        for weak in ["abc", "abcdefgh", "12345678", "secret\u{0}77"] {
            let fault = parse(&json!({"adminPass": weak})).unwrap_err();
            assert!(!fault.message.contains(weak), "{}", fault.message);
        }
        assert!(parse(&json!({"adminPass": "correct horse"})).is_ok());
    }

    #[test]
    fn generated_passwords_differ_and_are_strong_enough() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let password = generate().unwrap();
            assert_eq!(password.len(), PASSWORD_LENGTH);
            assert!(seen.insert(password));
        }
    }
}
