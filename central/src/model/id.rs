//! Ids of what is not numbered.

use uuid::Builder;

/// A random UUID (RFC 9562, version 4).
///
/// # Errors
/// There is no randomness.
pub fn random() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(Builder::from_random_bytes(bytes).into_uuid().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_random_uuids() {
        let text = random().unwrap();
        assert_eq!(text.len(), 36);
        assert_eq!(text.get(14..15), Some("4"), "{text}");
        assert!(
            text.get(19..20).is_some_and(|c| "89ab".contains(c)),
            "{text}"
        );
        assert_ne!(text, random().unwrap());
    }
}
