//! Certificates: read at start and again on SIGHUP. A set that does not read is an error, never a
//! reason to go on in clear.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::error::{Error, ErrorKind};

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Who signs the certificates of clients, PEM. With it every client must show one.
    pub client_ca: Option<PathBuf>,
}

/// One set of certificates.
pub(super) struct Loaded {
    pub config: Arc<ServerConfig>,
    /// The server's chain, PEM: channel binding is about its first certificate.
    pub chain: Vec<u8>,
}

/// The certificates in force. Connections keep those that they began with.
pub struct Tls {
    files: TlsFiles,
    loaded: RwLock<Arc<Loaded>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn unusable(setting: &str, path: &Path, why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Configuration,
        format!("{setting}: \"{}\": {why}", path.display()),
    )
}

fn certificates(
    setting: &str,
    path: &Path,
) -> Result<(Vec<u8>, Vec<CertificateDer<'static>>), Error> {
    let pem = std::fs::read(path).map_err(|e| unusable(setting, path, e))?;
    let all = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable(setting, path, e))?;
    if all.is_empty() {
        return Err(unusable(setting, path, "there is no certificate in it"));
    }
    Ok((pem, all))
}

fn load(files: &TlsFiles) -> Result<Loaded, Error> {
    let (chain, certificates_of_server) = certificates("tls_cert", &files.cert)?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unusable("tls_key", &files.key, e))?;
    // The provider is said, not left to chance: other libraries in the process may bring another.
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(format!("TLS: {e}")))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("tls_client_ca", path)?.1 {
                roots
                    .add(certificate)
                    .map_err(|e| unusable("tls_client_ca", path, e))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|e| unusable("tls_client_ca", path, e))?,
            )
        }
    };
    let mut config = builder
        .with_single_cert(certificates_of_server, key)
        .map_err(|e| unusable("tls_cert", &files.cert, e))?;
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(Loaded {
        config: Arc::new(config),
        chain,
    })
}

impl Tls {
    /// Reads the files; the error names the setting.
    pub fn open(files: TlsFiles) -> Result<Self, Error> {
        let loaded = load(&files)?;
        Ok(Self {
            files,
            loaded: RwLock::new(Arc::new(loaded)),
        })
    }

    /// Reads them again. On an error those that were in force stay so.
    pub fn reload(&self) -> Result<(), Error> {
        let loaded = load(&self.files)?;
        *self.loaded.write() = Arc::new(loaded);
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<Loaded> {
        self.loaded.read().clone()
    }

    /// Whether clients must show a certificate.
    pub(super) fn wants_client_certificates(&self) -> bool {
        self.files.client_ca.is_some()
    }
}

/// The common name of a certificate: the user that it is for.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    x509_certificate::X509Certificate::from_der(der)
        .ok()?
        .subject_common_name()
}
