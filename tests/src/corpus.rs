//! The corpus of a fuzz target, replayed without a fuzzer.

use std::fs;

/// Runs a target on every input of its corpus, `fuzz/corpus/<target>`.
///
/// # Panics
/// There is none, or the target panics: the last path that was printed is the input.
pub fn replay(target: &str, run: fn(&[u8])) {
    let folder = crate::source_root().join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        run(&fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}
