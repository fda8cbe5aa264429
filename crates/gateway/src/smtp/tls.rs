//! The certificate that STARTTLS shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is not there, or is no PEM.
    #[error("{file} cannot be read: {reason}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// Key and certificate do not belong together, or are of a kind that is not supported.
    #[error("{file} cannot be used: {source}")]
    Unfit {
        /// The certificate's.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// Reads a certificate with those that vouch for it, and its key; both in PEM.
pub fn load(certificates: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let bad = |file: &Path, reason: String| Error::File { file: file.to_owned(), reason };
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| bad(certificates, e.to_string()))?;
    if chain.is_empty() {
        return Err(bad(certificates, "there is no certificate in it".to_owned()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, e.to_string()))?;
    let unfit = |source| Error::Unfit { file: certificates.to_owned(), source };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unfit)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
