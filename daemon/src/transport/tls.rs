//! TLS: rustls with aws-lc-rs. Roots are the configured CA, else the system's, else those that were compiled in: a
//! missing CA store is no reason for a daemon not to start (reference ops 1.6).

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::TransportError;

/// The TLS settings for all exchanges.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TransportError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        let wrong = |why: String| TransportError::SetUp(format!("ca_file {}: {why}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
            roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("it holds no certificate in PEM form".to_owned()));
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| TransportError::SetUp(format!("TLS cannot be set up: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
