//! Making an SSH key: Ed25519, in OpenSSH's formats (RFC 8709; `PROTOCOL.key` of OpenSSH).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

const KIND: &[u8] = b"ssh-ed25519";

/// A key that nobody has had before.
pub struct Made {
    /// For `authorized_keys`.
    pub public: String,
    /// For `~/.ssh`, without a passphrase.
    pub private: String,
    /// The public key in its wire form, of which fingerprints are made.
    pub blob: Vec<u8>,
}

/// Makes a key with a comment.
///
/// # Errors
/// There is no randomness.
pub fn generate(comment: &str) -> Result<Made, String> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(|error| error.to_string())?;
    let check = getrandom::u32().map_err(|error| error.to_string())?;
    from_seed(&seed, check, comment)
}

fn from_seed(seed: &[u8; 32], check: u32, comment: &str) -> Result<Made, String> {
    // A comment is the rest of a line.
    let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| error.to_string())?;
    let public = pair.public_key().as_ref();
    let mut blob = Vec::new();
    string(&mut blob, KIND);
    string(&mut blob, public);
    let mut secret = Vec::new();
    secret.extend(check.to_be_bytes());
    secret.extend(check.to_be_bytes());
    string(&mut secret, KIND);
    string(&mut secret, public);
    string(&mut secret, &[seed, public].concat());
    string(&mut secret, comment.as_bytes());
    // Padded with 1, 2, 3 … to the block size of the cipher "none".
    for byte in 1_u8.. {
        if secret.len().is_multiple_of(8) {
            break;
        }
        secret.push(byte);
    }
    let mut file = b"openssh-key-v1\0".to_vec();
    string(&mut file, b"none");
    string(&mut file, b"none");
    string(&mut file, b"");
    file.extend(1_u32.to_be_bytes());
    string(&mut file, &blob);
    string(&mut file, &secret);
    let encoded = STANDARD.encode(&file);
    let mut private = "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned();
    for line in encoded.as_bytes().chunks(70) {
        private.push_str(&String::from_utf8_lossy(line));
        private.push('\n');
    }
    private.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    Ok(Made {
        public: format!("ssh-ed25519 {} {comment}", STANDARD.encode(&blob)),
        private,
        blob,
    })
}

/// A string of RFC 4251, section 5: its length, then its bytes.
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn ssh_keygen_reads_the_private_key_and_finds_the_public_one() {
        for comment in ["", "k", "a longer name: né"] {
            let made = generate(comment).unwrap();
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("key");
            std::fs::write(&file, &made.private).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
            let Ok(output) = Command::new("ssh-keygen")
                .arg("-y")
                .arg("-f")
                .arg(&file)
                .output()
            else {
                return harness::skip("ssh_keygen_reads_the_private_key", "no ssh-keygen");
            };
            let shown = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{:?}", output.stderr);
            assert_eq!(shown.trim(), made.public.trim());
        }
    }
}
