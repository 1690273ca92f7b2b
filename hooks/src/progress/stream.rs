//! JSON objects out of a stream of bytes that may be split anywhere.

/// The longest object that is taken, in bytes.
pub const OBJECT_LIMIT: usize = 1 << 20;

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// What looks like one JSON object, from `{` to the matching `}`.
    Object(Vec<u8>),
    /// What is none: text between objects, or an object without end.
    Other(Vec<u8>),
}

/// Splits a stream into pieces. Every byte comes out once, in order, but for blanks between
/// objects; no more than [`OBJECT_LIMIT`] bytes are held.
#[derive(Debug, Default)]
pub struct Splitter {
    held: Vec<u8>,
    depth: u32,
    in_string: bool,
    escaped: bool,
}

impl Splitter {
    /// Takes the next bytes; returns the pieces that are complete with them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for byte in bytes {
            if self.depth == 0 {
                self.outside(*byte, &mut pieces);
            } else {
                self.inside(*byte, &mut pieces);
            }
        }
        pieces
    }

    /// The stream has ended; returns what was held of an unfinished piece.
    pub fn finish(&mut self) -> Option<Piece> {
        self.depth = 0;
        self.in_string = false;
        self.escaped = false;
        self.take_other()
    }

    fn outside(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        if byte == b'{' {
            pieces.extend(self.take_other());
            self.held.push(byte);
            self.depth = 1;
            return;
        }
        if self.held.is_empty() && byte.is_ascii_whitespace() {
            return;
        }
        self.held.push(byte);
        if byte == b'\n' || self.held.len() >= OBJECT_LIMIT {
            pieces.extend(self.take_other());
        }
    }

    fn inside(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        self.held.push(byte);
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => self.in_string = true,
                b'{' => self.depth = self.depth.saturating_add(1),
                b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if self.depth == 0 {
            pieces.push(Piece::Object(std::mem::take(&mut self.held)));
        } else if self.held.len() >= OBJECT_LIMIT {
            pieces.extend(self.finish());
        }
    }

    fn take_other(&mut self) -> Option<Piece> {
        let other = std::mem::take(&mut self.held);
        (!other.is_empty()).then_some(Piece::Other(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Piece> {
        let mut splitter = Splitter::default();
        let mut pieces: Vec<_> = chunks
            .iter()
            .flat_map(|chunk| splitter.feed(chunk))
            .collect();
        pieces.extend(splitter.finish());
        pieces
    }

    fn object(text: &str) -> Piece {
        Piece::Object(text.as_bytes().to_vec())
    }

    fn other(text: &str) -> Piece {
        Piece::Other(text.as_bytes().to_vec())
    }

    #[test]
    fn split_at_any_byte_it_is_the_same() {
        let stream = r#" {"a": "}\"{\\"}{"b":{"c":[{}]}}
            not json
            {"d": "é"} tail {"#;
        let expected = [
            object(r#"{"a": "}\"{\\"}"#),
            object(r#"{"b":{"c":[{}]}}"#),
            other("not json\n"),
            object(r#"{"d": "é"}"#),
            other("tail "),
            other("{"),
        ];
        let bytes = stream.as_bytes();
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let chunks = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(split(&chunks), expected, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn what_has_no_end_is_not_held_for_ever() {
        for start in ["{", "{\"", "x"] {
            let mut splitter = Splitter::default();
            let mut out = 0;
            splitter.feed(start.as_bytes());
            for _ in 0..40 {
                for piece in splitter.feed(&[b'y'; 100_000]) {
                    let Piece::Other(bytes) = piece else { panic!() };
                    out += bytes.len();
                }
                assert!(splitter.held.len() <= OBJECT_LIMIT);
            }
            if let Some(Piece::Other(bytes)) = splitter.finish() {
                out += bytes.len();
            }
            assert_eq!(out, start.len() + 4_000_000);
            assert_eq!(splitter.feed(b"{}"), [object("{}")]);
        }
    }
}
