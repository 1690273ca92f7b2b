//! The grammar of a JSON object (RFC 8259), byte by byte.
//!
//! Strings are taken more liberally than the RFC has them: any byte may be in them, and any may
//! follow a backslash. Who writes them quotes what others have said.

/// Deeper nesting is taken for garbage: no message of an image deployment has a tenth of it, and
/// every level may have to be looked at again.
const DEPTH_LIMIT: usize = 32;

/// The longest number or word (`false`), in bytes.
const SCALAR_LIMIT: usize = 64;

/// The place in an object whose opening brace was the byte before the first.
#[derive(Debug)]
pub(super) struct Grammar {
    /// The arrays and objects around the place, the outermost first.
    open: Vec<Container>,
    next: Expected,
    /// The number or word that is under way.
    scalar: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Object,
    Array,
}

/// The element that the next byte has to belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A name, or the end of the object that has just begun.
    NameOrEnd,
    /// A name: a comma came before.
    Name,
    /// The colon behind a name.
    Colon,
    /// A value.
    Value,
    /// A value, or the end of the array that has just begun.
    ValueOrEnd,
    /// A comma, or the end of what is open.
    CommaOrEnd,
    /// A string that is a name, or a value; after a backslash any byte.
    InString { is_name: bool, is_escaped: bool },
    /// More of a number or word.
    InScalar,
}

impl Default for Grammar {
    fn default() -> Self {
        Self {
            open: vec![Container::Object],
            next: Expected::NameOrEnd,
            scalar: Vec::new(),
        }
    }
}

impl Grammar {
    /// Takes the next byte; whether it may come here. After one that may not, the place is lost.
    pub(super) fn accepts(&mut self, byte: u8) -> bool {
        if let Expected::InString {
            is_name,
            is_escaped,
        } = self.next
        {
            self.next = match byte {
                _ if is_escaped => Expected::InString {
                    is_name,
                    is_escaped: false,
                },
                b'\\' => Expected::InString {
                    is_name,
                    is_escaped: true,
                },
                b'"' if is_name => Expected::Colon,
                b'"' => Expected::CommaOrEnd,
                _ => self.next,
            };
            return true;
        }
        if self.next == Expected::InScalar {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') {
                self.scalar.push(byte);
                return self.scalar.len() <= SCALAR_LIMIT;
            }
            if serde_json::from_slice::<serde_json::Value>(&self.scalar).is_err() {
                return false;
            }
            self.next = Expected::CommaOrEnd;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => true,
            b'"' => self.begins_string(),
            b':' => self.moves(Expected::Colon, Expected::Value),
            b',' => self.comma(),
            b'{' => self.opens(Container::Object),
            b'[' => self.opens(Container::Array),
            b'}' => self.closes(Container::Object),
            b']' => self.closes(Container::Array),
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' if self.wants_value() => {
                self.scalar.clear();
                self.scalar.push(byte);
                self.next = Expected::InScalar;
                true
            }
            _ => false,
        }
    }

    /// Returns whether the object's own closing brace has come.
    pub(super) fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// Returns whether the place is inside of a string.
    pub(super) fn is_in_string(&self) -> bool {
        matches!(self.next, Expected::InString { .. })
    }

    fn wants_value(&self) -> bool {
        matches!(self.next, Expected::Value | Expected::ValueOrEnd)
    }

    fn moves(&mut self, from: Expected, to: Expected) -> bool {
        let fits = self.next == from;
        self.next = to;
        fits
    }

    fn begins_string(&mut self) -> bool {
        let is_name = matches!(self.next, Expected::NameOrEnd | Expected::Name);
        let fits = is_name || self.wants_value();
        self.next = Expected::InString {
            is_name,
            is_escaped: false,
        };
        fits
    }

    fn comma(&mut self) -> bool {
        let next = match self.open.last() {
            Some(Container::Object) => Expected::Name,
            _ => Expected::Value,
        };
        self.moves(Expected::CommaOrEnd, next)
    }

    fn opens(&mut self, container: Container) -> bool {
        let fits = self.wants_value() && self.open.len() < DEPTH_LIMIT;
        self.open.push(container);
        self.next = match container {
            Container::Object => Expected::NameOrEnd,
            Container::Array => Expected::ValueOrEnd,
        };
        fits
    }

    fn closes(&mut self, container: Container) -> bool {
        let empty = match container {
            Container::Object => Expected::NameOrEnd,
            Container::Array => Expected::ValueOrEnd,
        };
        let fits = self.next == Expected::CommaOrEnd || self.next == empty;
        let opened = self.open.pop();
        self.next = Expected::CommaOrEnd;
        fits && opened == Some(container)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of bytes of an object that are taken; its length and one more if it is complete.
    fn taken(text: &str) -> usize {
        let bytes = text.as_bytes();
        assert_eq!(bytes[0], b'{');
        let mut grammar = Grammar::default();
        for (index, byte) in bytes.iter().enumerate().skip(1) {
            if !grammar.accepts(*byte) {
                return index;
            }
            if grammar.is_complete() {
                assert_eq!(index + 1, bytes.len());
                return index + 2;
            }
        }
        bytes.len()
    }

    #[test]
    fn what_json_allows_is_complete() {
        for text in [
            "{}",
            "{ }",
            r#"{"a":1}"#,
            r#"{"a":-1.5e+3,"b":[],"c":{},"d":[1,"x",null,true,false,[{}]]}"#,
            r#"{"a" : "q\"\\" , "b" : [ ] }"#,
            "{\n\t\"a\":\r\n1 }",
            "{\"any\": \"\u{1}\n\\x\"}",
        ] {
            assert_eq!(taken(text), text.len() + 1, "{text}");
        }
    }

    #[test]
    fn what_json_forbids_is_told_at_once() {
        for (text, at) in [
            ("{a", 1),
            ("{{", 1),
            ("{\"a\" 1", 5),
            ("{\"a\":x", 5),
            ("{\"a\":1,}", 7),
            ("{\"a\":nul}", 8),
            ("{\"a\":01}", 7),
            ("{\"a\":1 2", 7),
            ("{\"a\":[}", 6),
            ("{\"a\":[1}", 7),
            ("{\"a\":]", 5),
            ("{]", 1),
            ("{\"a\":[,", 6),
            ("{:", 1),
            ("{,", 1),
        ] {
            assert_eq!(taken(text), at, "{text}");
        }
    }
}
