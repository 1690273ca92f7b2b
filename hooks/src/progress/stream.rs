//! JSON objects out of a stream of bytes that may be split anywhere, and that has other text in
//! it: what an OS definition runs writes to the same pipe.
//!
//! Text that begins with a brace is an object only as long as every byte of it can belong to one: a
//! stray brace or quote in a text does not swallow the objects after it.

use super::grammar::Grammar;

/// The longest object that is taken, in bytes.
pub const OBJECT_LIMIT: usize = 1 << 20;

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// One JSON object, from `{` to the matching `}`; its strings may have bytes in them that JSON
    /// forbids.
    Object(Vec<u8>),
    /// What is none: text between objects, or an object without end.
    Other(Vec<u8>),
}

/// Splits a stream into pieces. Every byte comes out once, in order, but for blanks between
/// objects; no more than [`OBJECT_LIMIT`] bytes are held.
///
/// An object that is under way is given up
/// - at a byte that cannot come there in JSON,
/// - at a line that begins with `{`, and inside of a string also at one that begins with blanks
///   and `{`: a new object begins there,
/// - at [`OBJECT_LIMIT`] bytes.
///
/// Its bytes are then looked at again from the second one on: another object may be among them.
#[derive(Debug, Default)]
pub struct Splitter {
    held: Vec<u8>,
    /// The place in the object that is under way; none between objects.
    grammar: Option<Grammar>,
    /// Nothing but blanks has come in this line, inside of an object.
    line: LineStart,
}

/// The distance from the beginning of a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum LineStart {
    /// Something else has come in this line.
    #[default]
    Over,
    /// The next byte is the first.
    Here,
    /// Nothing but blanks has come.
    Blank,
}

impl Splitter {
    /// Takes the next bytes; returns the pieces that are complete with them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        // What was given up and is to be looked at again, from its end: the last is the next.
        let mut again: Vec<u8> = Vec::new();
        let mut fresh = bytes.iter().copied();
        while let Some(byte) = again.pop().or_else(|| fresh.next()) {
            self.take(byte, &mut pieces, &mut again);
        }
        pieces
    }

    /// The stream has ended; returns what was held of an unfinished piece, and the objects in it.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut again = Vec::new();
        while self.grammar.is_some() {
            self.give_up(&mut pieces, &mut again);
            while let Some(byte) = again.pop() {
                self.take(byte, &mut pieces, &mut again);
            }
        }
        pieces.extend(self.take_other());
        pieces
    }

    fn take(&mut self, byte: u8, pieces: &mut Vec<Piece>, again: &mut Vec<u8>) {
        let Some(grammar) = &mut self.grammar else {
            self.outside(byte, pieces);
            return;
        };
        if byte == b'{' && self.line != LineStart::Over {
            let begins_anew = self.line == LineStart::Here || grammar.is_in_string();
            if begins_anew {
                again.push(byte);
                self.give_up(pieces, again);
                return;
            }
        }
        self.line = match byte {
            b'\n' => LineStart::Here,
            b' ' | b'\t' | b'\r' if self.line != LineStart::Over => LineStart::Blank,
            _ => LineStart::Over,
        };
        if !grammar.accepts(byte) {
            again.push(byte);
            self.give_up(pieces, again);
            return;
        }
        self.held.push(byte);
        if grammar.is_complete() {
            self.grammar = None;
            pieces.push(Piece::Object(std::mem::take(&mut self.held)));
        } else if self.held.len() >= OBJECT_LIMIT {
            // Not looked at again: that would cost more than so much garbage is worth.
            self.grammar = None;
            pieces.extend(self.take_other());
        }
    }

    fn outside(&mut self, byte: u8, pieces: &mut Vec<Piece>) {
        if byte == b'{' {
            pieces.extend(self.take_other());
            self.held.push(byte);
            self.grammar = Some(Grammar::default());
            self.line = LineStart::Over;
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

    /// Rejects the held bytes: their brace is text, and the rest is scanned again.
    fn give_up(&mut self, pieces: &mut Vec<Piece>, again: &mut Vec<u8>) {
        self.grammar = None;
        again.extend(self.held.drain(1..).rev());
        // A text of many braces is to come out in lines all the same.
        let ends_line = again.last().is_none_or(|next| *next == b'{');
        if ends_line {
            pieces.extend(self.take_other());
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
            for piece in splitter.finish() {
                let Piece::Other(bytes) = piece else { panic!() };
                out += bytes.len();
            }
            assert_eq!(out, start.len() + 4_000_000);
            assert_eq!(splitter.feed(b"{}"), [object("{}")]);
        }
    }

    #[test]
    fn an_object_is_found_behind_a_brace_that_is_text() {
        for (stream, expected) in [
            (
                "near {\n{\"a\":1}\n",
                vec![other("near "), other("{\n"), object("{\"a\":1}")],
            ),
            ("{{\"a\":1}", vec![other("{"), object("{\"a\":1}")]),
            (
                "{ x {\"a\":1} y",
                vec![other("{ x "), object("{\"a\":1}"), other("y")],
            ),
            (
                "{\"s\": \"no end\n  {\"a\":1}",
                vec![other("{\"s\": \"no end\n"), object("{\"a\":1}")],
            ),
            (
                "{\"a\":[{\"b\":1},",
                vec![other("{\"a\":["), object("{\"b\":1}"), other(",")],
            ),
        ] {
            assert_eq!(split(&[stream.as_bytes()]), expected, "{stream}");
            let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
            assert_eq!(split(&bytes), expected, "{stream}, byte by byte");
        }
    }

    #[test]
    fn a_nested_object_may_begin_a_line_of_blanks() {
        let pretty = "{\n  \"a\":\n  {\n    \"b\": [\n      {},\n\t{}\n    ]\n  }\n}";
        assert_eq!(split(&[pretty.as_bytes()]), [object(pretty)]);
    }

    #[test]
    fn much_garbage_takes_little_time() {
        let start = std::time::Instant::now();
        for garbage in [
            "{\"a\":",
            "{\"a\":[",
            "{\"",
            "{\"{",
            "{",
            "{\"a\":[{},",
            "{\n",
            "{ \"x\n",
        ] {
            let mut splitter = Splitter::default();
            let bytes = garbage.repeat((1 << 20) / garbage.len());
            let mut out: usize = 0;
            let mut pieces = splitter.feed(bytes.as_bytes());
            pieces.extend(splitter.finish());
            for Piece::Object(bytes) | Piece::Other(bytes) in pieces {
                out += bytes
                    .iter()
                    .filter(|byte| !byte.is_ascii_whitespace())
                    .count();
            }
            let given = bytes
                .bytes()
                .filter(|byte| !byte.is_ascii_whitespace())
                .count();
            assert_eq!(out, given, "{garbage:?}");
        }
        let time = start.elapsed();
        assert!(time < std::time::Duration::from_secs(60), "{time:?}");
    }
}
