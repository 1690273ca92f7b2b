//! The environment that another program has made for this one.

use std::ffi::OsString;

/// A variable that has a meaning here, and is no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value}: not UTF-8")]
pub struct NotUtf8 {
    /// The variable; bytes that are no text are escaped.
    pub name: String,
    /// Its value, cut off after a few words; bytes that are no text are escaped.
    pub value: String,
}

/// So much of a wrong value is shown, in characters.
const SHOWN: usize = 200;

/// The variables as texts. Of those that are none, the ones that `matters` are refused: they must
/// not count as absent. The name is given to it with U+FFFD for what is no text.
///
/// # Errors
/// See [`NotUtf8`].
pub fn texts(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    matters: impl Fn(&str) -> bool,
) -> Result<Vec<(String, String)>, NotUtf8> {
    let mut found = Vec::new();
    for (name, value) in variables {
        match (name.to_str(), value.to_str()) {
            (Some(name), Some(value)) => found.push((name.to_owned(), value.to_owned())),
            _ if matters(&name.to_string_lossy()) => {
                return Err(NotUtf8 {
                    name: shown(&name),
                    value: format!("\"{}\"", shown(&value)),
                });
            }
            _ => {}
        }
    }
    Ok(found)
}

fn shown(text: &OsString) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    text.as_bytes()
        .escape_ascii()
        .map(char::from)
        .take(SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn variable(name: &[u8], value: &[u8]) -> (OsString, OsString) {
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        (text(name), text(value))
    }

    #[test]
    fn what_matters_is_refused_by_name_and_other_programs_variables_are_not() {
        let ours = |name: &str| name.starts_with("OURS_");
        let good = [
            variable(b"OURS_A", "é".as_bytes()),
            variable(b"OTHER", b"\xff"),
            variable(b"\xff", b"x"),
        ];
        let found = texts(good, ours).unwrap();
        assert_eq!(found, [("OURS_A".to_owned(), "é".to_owned())]);
        let error = texts([variable(b"OURS_IP", b"10.0.0.\xff")], ours).unwrap_err();
        assert_eq!(error.to_string(), r#"OURS_IP="10.0.0.\xff": not UTF-8"#);
        let error = texts([variable(b"OURS_\xff", b"x\ny")], ours).unwrap_err();
        assert_eq!(error.to_string(), r#"OURS_\xff="x\ny": not UTF-8"#);
    }
}
