//! Entries of the outbox, one a line, and the names of its files.

use agents::outbox::{Entry, FileName};

pub fn run(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(name) = std::str::from_utf8(line)
            && let Some(parsed) = FileName::parse(name)
        {
            assert_eq!(parsed.to_string(), name);
        }
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
            continue;
        };
        let written = serde_json::to_vec(&entry).expect("an entry is JSON");
        let again: Entry = serde_json::from_slice(&written).expect("our own entry");
        assert_eq!(again.body_bytes(), entry.body_bytes());
    }
}
