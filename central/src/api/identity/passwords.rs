//! Passwords: kept as argon2id hashes.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

/// The hash of a password, in PHC form with a salt of its own.
///
/// # Errors
/// There is no randomness, or the password is longer than argon2 takes.
pub fn hash(password: &str) -> Result<String, String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| error.to_string())
}

/// Whether `password` is the one that was hashed. Without a hash the same time goes by, so that
/// the time does not tell who has an account.
pub fn matches(password: &str, hash: Option<&str>) -> bool {
    // A hash of nothing that anybody can type.
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA\
                          $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else {
        return false;
    };
    let same = Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok();
    same && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let one = hash("secret").unwrap();
        let two = hash("secret").unwrap();
        assert_ne!(one, two);
        assert!(one.starts_with("$argon2id$"));
        assert!(matches("secret", Some(&one)) && matches("secret", Some(&two)));
        assert!(!matches("Secret", Some(&one)));
        assert!(!matches("secret", None));
        assert!(!matches("", Some("not a hash")));
    }
}
