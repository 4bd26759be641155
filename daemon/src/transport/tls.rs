//! TLS: rustls with aws-lc-rs. Roots are the configured CA, else the system's, else those that were compiled in: a
//! missing CA store is no reason for a daemon not to start (reference ops 1.6).

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use super::TransportError;

/// Whose word makes a server's certificate good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roots {
    /// The configured CA's.
    Configured,
    /// The system's.
    System,
    /// Of those that were compiled in: the system has none that can be read. They are as old as this binary.
    BuiltIn,
}

/// The TLS settings for all exchanges, and where their roots are from.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<(ClientConfig, Roots), TransportError> {
    let mut roots = RootCertStore::empty();
    let mut from = Roots::System;
    if let Some(path) = ca_file {
        let wrong = |why: String| TransportError::SetUp(format!("ca_file {}: {why}", path.display()));
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))? {
            roots.add(certificate.map_err(|e| wrong(e.to_string()))?).map_err(|e| wrong(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(wrong("it holds no certificate in PEM form".to_owned()));
        }
        from = Roots::Configured;
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            from = Roots::BuiltIn;
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| TransportError::SetUp(format!("TLS cannot be set up: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((config, from))
}
