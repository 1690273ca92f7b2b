//! A JSON object whose strings have bytes in them that JSON forbids → one that is JSON.
//!
//! A message about an error quotes others: names of files in another encoding, lines of
//! a log, escape sequences for a terminal. The message counts more than such a byte.

/// The replacement for bytes that are no text (U+FFFD).
const REPLACEMENT: &str = "\u{fffd}";

/// The object with whatever is no text in its strings replaced or escaped.
///
/// - Bytes that are not UTF-8 become U+FFFD, as do halves of a surrogate pair.
/// - Control characters, line breaks among them, are kept, escaped.
/// - A backslash that begins no escape sequence is one.
pub(super) fn repaired(object: &[u8]) -> String {
    let text = String::from_utf8_lossy(object);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    let mut in_string = false;
    while let Some(character) = rest.chars().next() {
        let (first, after) = rest.split_at(character.len_utf8());
        rest = after;
        match character {
            '"' => {
                in_string = !in_string;
                out.push('"');
            }
            '\\' if in_string => rest = escape(after, &mut out),
            control if in_string && u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            _ => out.push_str(first),
        }
    }
    out
}

/// Appends the escape sequence whose backslash came before `rest`; returns what follows it.
fn escape<'a>(rest: &'a str, out: &mut String) -> &'a str {
    if let Some(unit) = code_unit(rest) {
        let after = rest.get(5..).unwrap_or_default();
        let second = after.strip_prefix('\\').and_then(code_unit);
        return match (unit, second) {
            (0xd800..0xdc00, Some(0xdc00..0xe000)) => {
                out.push('\\');
                out.push_str(rest.get(..11).unwrap_or_default());
                rest.get(11..).unwrap_or_default()
            }
            (0xd800..0xe000, _) => {
                out.push_str(REPLACEMENT);
                after
            }
            _ => {
                out.push('\\');
                out.push_str(rest.get(..5).unwrap_or_default());
                after
            }
        };
    }
    match rest.chars().next() {
        Some(known @ ('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't')) => {
            out.push('\\');
            out.push(known);
            rest.get(1..).unwrap_or_default()
        }
        // The backslash is text, and what follows it is looked at by itself.
        _ => {
            out.push_str("\\\\");
            rest
        }
    }
}

/// The number in a `uXXXX` at the beginning of `text`.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix('u')?.get(..4)?;
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn whatever_a_string_has_in_it_the_object_is_json() {
        for (inside, expected) in [
            (&b"plain"[..], "plain"),
            (b"caf\xe9", "caf\u{fffd}"),
            (b"a\x00\x1f\nb", "a\0\u{1f}\nb"),
            (br"\x \u12 \", "\\x \\u12 \\"),
            (br"\ud83d\ude00", "\u{1f600}"),
            (br"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (br"\ud83d\u0041", "\u{fffd}A"),
            (br#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
            ("\\é".as_bytes(), "\\é"),
            ("\\ué123".as_bytes(), "\\ué123"),
        ] {
            // A single backslash at the end would escape the quote.
            let inside = inside.strip_suffix(b" \\").unwrap_or(inside);
            let expected = expected.strip_suffix(" \\").unwrap_or(expected);
            let object = [&b"{\"a\": [\""[..], inside, b"\"]}"].concat();
            let value: Value = serde_json::from_str(&repaired(&object)).unwrap();
            assert_eq!(value["a"][0], expected);
        }
    }

    #[test]
    fn what_is_json_stays_as_it_is() {
        let object = r#"{ "a" : [1, true, "\u00e9\n"], "b": {} }"#;
        assert_eq!(repaired(object.as_bytes()), object);
    }
}
