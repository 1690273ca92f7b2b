//! Binding files: what can be read is written, and read back the same.

use agents::binding;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match binding::parse(text) {
        Ok(binding) => assert_eq!(binding::parse(&binding.to_string()), Ok(binding)),
        // an error is one log line, of a length that does no harm
        Err(error) => assert!(error.to_string().len() < 2000),
    }
}
