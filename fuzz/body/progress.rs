//! What image deployment tells: every byte comes out once, but for blanks between objects.

use hooks::progress::{Piece, Splitter};

pub fn run(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let mut splitter = Splitter::default();
    let mut pieces = splitter.feed(first);
    pieces.extend(splitter.feed(second));
    pieces.extend(splitter.finish());
    let all: Vec<u8> = pieces
        .into_iter()
        .flat_map(|(Piece::Object(bytes) | Piece::Other(bytes))| bytes)
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let given = data
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace());
    assert!(given.eq(all), "bytes were lost or added");
}
