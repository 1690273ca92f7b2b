//! Whom we believe to be a cluster's RAPI.
//!
//! The CA file of a backend may hold the cluster's own certificate (`rapi.pem`, without its key),
//! which is then the only one that is accepted, whatever names and dates are in it; or the
//! certificates of an authority, and then the usual rules hold.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use webpki::RawPublicKeyEntity;

use super::certificate;

/// Why no connection can be set up with a CA file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Content { path: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Rustls(#[from] Error),
}

/// A configuration that believes what `ca_file` says; without one, anything (`insecure`) or
/// nothing.
///
/// # Errors
/// The file cannot be read or holds no certificate.
pub fn client_config(ca_file: Option<&Path>, insecure: bool) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pinned = match ca_file {
        Some(path) => read_certificates(path)?,
        None => Vec::new(),
    };
    let verifier = Pinned {
        algorithms: provider.signature_verification_algorithms,
        authority: authority(&pinned, &provider),
        pinned,
        insecure,
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let content = |reason: String| TlsError::Content {
        path: path.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(format!("not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(content("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// The verifier for certificates that an authority in the file signed, if there is one that can
/// be an authority: Ganeti's own certificates cannot.
fn authority(
    certificates: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .ok()
}

struct Pinned {
    pinned: Vec<CertificateDer<'static>>,
    authority: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
    insecure: bool,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pinned")
            .field("certificates", &self.pinned.len())
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

impl Pinned {
    /// Checks that the peer has the key of `certificate`. This holds for `insecure` also: which
    /// certificate is believed is one thing, whether its owner is there another.
    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let info = certificate::public_key_info(certificate).ok_or_else(bad)?;
        let info = SubjectPublicKeyInfoDer::from(info);
        let key = RawPublicKeyEntity::try_from(&info).map_err(|_| bad())?;
        let accepted = self
            .algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| {
                key.verify_signature(*algorithm, message, signed.signature())
                    .is_ok()
            });
        if accepted {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.insecure || self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.authority {
            Some(authority) => authority.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.3 forbids PKCS #1 v1.5 and SHA-1 in handshakes (RFC 8446, section 4.2.3).
        let allowed = !matches!(
            signed.scheme,
            SignatureScheme::RSA_PKCS1_SHA1
                | SignatureScheme::RSA_PKCS1_SHA256
                | SignatureScheme::RSA_PKCS1_SHA384
                | SignatureScheme::RSA_PKCS1_SHA512
                | SignatureScheme::ECDSA_SHA1_Legacy
        );
        if allowed {
            self.signature(message, certificate, signed)
        } else {
            Err(Error::InvalidCertificate(CertificateError::BadSignature))
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use harness::process;
    use harness::scratch::Scratch;
    use harness::wait::USUAL;
    use tokio::net::TcpStream;

    use super::*;

    /// Makes a certificate as Ganeti makes its own: X.509 version 1, RSA, no alternative names.
    fn certificate(scratch: &Scratch, name: &str) {
        let key = scratch.join(&format!("{name}.key"));
        let request = scratch.join(&format!("{name}.csr"));
        let certificate = scratch.join(&format!("{name}.pem"));
        let run = |arguments: &[&std::ffi::OsStr]| {
            process::check(Command::new("openssl").args(arguments), USUAL).unwrap();
        };
        run(&[
            "req".as_ref(),
            "-new".as_ref(),
            "-newkey".as_ref(),
            "rsa:2048".as_ref(),
            "-nodes".as_ref(),
            "-subj".as_ref(),
            "/CN=ganeti.example.com".as_ref(),
            "-keyout".as_ref(),
            key.as_os_str(),
            "-out".as_ref(),
            request.as_os_str(),
        ]);
        run(&[
            "x509".as_ref(),
            "-req".as_ref(),
            "-in".as_ref(),
            request.as_os_str(),
            "-signkey".as_ref(),
            key.as_os_str(),
            "-out".as_ref(),
            certificate.as_os_str(),
        ]);
        let shown = process::check(
            Command::new("openssl").args([
                "x509".as_ref(),
                "-noout".as_ref(),
                "-text".as_ref(),
                "-in".as_ref(),
                certificate.as_os_str(),
            ]),
            USUAL,
        )
        .unwrap();
        assert!(shown.contains("Version: 1"), "{shown}");
    }

    struct Server(Child);

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    async fn serve(scratch: &Scratch, name: &str, port: u16, protocol: &str) -> Server {
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", protocol, "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .arg("-cert")
            .arg(scratch.join(&format!("{name}.pem")))
            .arg("-key")
            .arg(scratch.join(&format!("{name}.key")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Server(child);
        let deadline = tokio::time::Instant::now() + USUAL;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "openssl s_server");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        server
    }

    /// A request to the server: whether the handshake was made; the reason if not.
    async fn handshake(ca_file: Option<&Path>, insecure: bool, port: u16) -> Result<(), String> {
        let config = client_config(ca_file, insecure).map_err(|error| error.to_string())?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .timeout(std::time::Duration::from_secs(3))
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        match client
            .get(format!("https://127.0.0.1:{port}/"))
            .send()
            .await
        {
            Err(error) if error.is_connect() => Err(format!("{error:?}")),
            // The server says nothing more: what comes after the handshake is not of interest.
            _ => Ok(()),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn ganetis_own_certificate_is_believed_if_it_is_the_pinned_one() {
        crate::serve::install_tls();
        let scratch = Scratch::new("central-tls").unwrap();
        certificate(&scratch, "ours");
        certificate(&scratch, "theirs");
        let ours = scratch.join("ours.pem");
        let theirs = scratch.join("theirs.pem");
        for protocol in ["-tls1_2", "-tls1_3"] {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let _server = serve(&scratch, "ours", port, protocol).await;
            handshake(Some(&ours), false, port).await.unwrap();
            handshake(None, true, port).await.unwrap();
            let refused = handshake(Some(&theirs), false, port).await.unwrap_err();
            assert!(refused.contains("InvalidCertificate"), "{refused}");
            let refused = handshake(None, false, port).await.unwrap_err();
            assert!(refused.contains("InvalidCertificate"), "{refused}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused_by_name() {
        let scratch = Scratch::new("central-tls").unwrap();
        let empty = scratch.write("empty.pem", "nothing\n").unwrap();
        for path in [empty.as_path(), Path::new("/nonexistent.pem")] {
            let error = client_config(Some(path), false).unwrap_err().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
