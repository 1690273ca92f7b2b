//! The corpus of the fuzz targets (fuzz/corpus), replayed without a fuzzer.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // a test may fail

#[path = "../../fuzz/body/cursor.rs"]
mod cursor;
#[path = "../../fuzz/body/job_events.rs"]
mod job_events;

/// Runs a target on every input of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).expect(&folder) {
        let path = entry.unwrap().path();
        println!("{}", path.display()); // the last one shown is the one that fails
        run(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{folder} is empty");
}

#[test]
fn the_corpus_of_cursor() {
    replay("cursor", cursor::run);
}

#[test]
fn the_corpus_of_job_events() {
    replay("job_events", job_events::run);
}
