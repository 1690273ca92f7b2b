//! The cursor of eventd, as it finds it at its start.

use eventd::cursor::{Cursor, Mark};

pub fn run(data: &[u8]) {
    let Ok(mut cursor) = serde_json::from_slice::<Cursor>(data) else {
        return;
    };
    let written = serde_json::to_vec(&cursor).expect("a cursor is JSON");
    let again: Cursor = serde_json::from_slice(&written).expect("our own cursor");
    assert_eq!(again, cursor);
    let missing: Vec<u64> = cursor.done.missing(1, u64::MAX).take(100).collect();
    for id in missing {
        assert!(!cursor.done.contains(id));
        cursor.mark(id, Mark::Done);
        assert!(cursor.done.contains(id) && !cursor.open.contains_key(&id));
    }
}
