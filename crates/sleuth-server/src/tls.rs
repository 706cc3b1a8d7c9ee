//! TLS by rustls: certificates from files, client certificates against a CA.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::SecurityError;
use crate::reload::{Latest, Source};

/// Where certificates lie. All are PEM files and are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The server's chain, its own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Authorities of client certificates. With it every client must show one.
    pub client_ca: Option<PathBuf>,
}

/// The one protocol that is spoken over TLS.
const ALPN: &[u8] = b"h2";

// === impl TlsSettings ===

impl TlsSettings {
    /// Reads the files, and reads them again as long as the source is followed.
    pub(crate) fn open(
        &self,
    ) -> Result<(Source<ServerConfig>, Latest<ServerConfig>), SecurityError> {
        let own = self.clone();
        let files = [&self.certificate, &self.key].into_iter().chain(&self.client_ca);
        Source::open("certificates", files.cloned().collect(), move || own.read())
    }

    /// TLS 1.2 and 1.3, HTTP/2 alone. Each read has a session cache of its own, so that nobody
    /// resumes what an earlier authority vouched for.
    pub(crate) fn read(&self) -> Result<ServerConfig, SecurityError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?)
            .map_err(|_| SecurityError::Pem { path: self.key.clone(), what: "private key" })?;
        let unusable = |source| SecurityError::Certificate {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        };
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => builder.with_client_cert_verifier(verifier(path, provider)?),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols.push(ALPN.to_vec());
        Ok(config)
    }
}

fn verifier(
    path: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, SecurityError> {
    let fail = |why: String| SecurityError::ClientCa { path: path.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| fail(e.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map(|verifier| verifier as _)
        .map_err(|e| fail(e.to_string()))
}

/// The names under which a verified client certificate may be listed: DNS names and URIs of its
/// subject's alternative names, in its own order.
pub(crate) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    parsed.valid_dns_names().chain(parsed.valid_uri_names()).map(str::to_owned).collect()
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SecurityError> {
    let fail = || SecurityError::Pem { path: path.to_owned(), what: "certificate" };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes(path)?)
        .collect::<Result<_, _>>()
        .map_err(|_| fail())?;
    if chain.is_empty() { Err(fail()) } else { Ok(chain) }
}

fn bytes(path: &Path) -> Result<Vec<u8>, SecurityError> {
    fs::read(path).map_err(|source| SecurityError::Read { path: path.to_owned(), source })
}
