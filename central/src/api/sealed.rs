//! Text that only who knows a secret can read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use super::fault::Fault;

fn key(secret: &str) -> Result<LessSafeKey, Fault> {
    // The secret has 256 random bits of its own: no slow derivation is needed. The prefix makes
    // the key another one than the hash by which the secret is looked up.
    let digest = Sha256::new()
        .chain_update(b"snf-central seal:")
        .chain_update(secret.as_bytes())
        .finalize();
    UnboundKey::new(&AES_256_GCM, &digest)
        .map(LessSafeKey::new)
        .map_err(Fault::internal)
}

/// Encrypts `text`.
///
/// # Errors
/// There is no randomness.
pub fn seal(secret: &str, text: &str) -> Result<String, Fault> {
    let mut nonce = [0_u8; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(Fault::internal)?;
    let mut bytes = text.as_bytes().to_vec();
    key(secret)?
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::empty(),
            &mut bytes,
        )
        .map_err(Fault::internal)?;
    let mut sealed = nonce.to_vec();
    sealed.extend_from_slice(&bytes);
    Ok(STANDARD.encode(sealed))
}

/// What [`seal`] was given; none: another secret, or not what it made.
///
/// # Errors
/// The key cannot be made.
pub fn open(secret: &str, sealed: &str) -> Result<Option<String>, Fault> {
    let Ok(bytes) = STANDARD.decode(sealed) else {
        return Ok(None);
    };
    let Some((nonce, rest)) = bytes.split_first_chunk::<NONCE_LEN>() else {
        return Ok(None);
    };
    let mut rest = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let opened = key(secret)?
        .open_in_place(nonce, Aad::empty(), &mut rest)
        .ok()
        .and_then(|text| String::from_utf8(text.to_vec()).ok());
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_opens() {
        let sealed = seal("s3cret", "swordfish").unwrap();
        assert!(!sealed.contains("swordfish"));
        assert_ne!(sealed, seal("s3cret", "swordfish").unwrap());
        assert_eq!(
            open("s3cret", &sealed).unwrap().as_deref(),
            Some("swordfish")
        );
        assert_eq!(open("other", &sealed).unwrap(), None);
        for broken in ["", "AAAA", "not base64!", &sealed[..sealed.len() - 4]] {
            assert_eq!(open("s3cret", broken).unwrap(), None, "{broken}");
        }
    }
}
