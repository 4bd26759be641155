//! TLS: rustls with aws-lc-rs. Roots are the configured CA, else the system's, else those that were compiled in: a
//! missing CA store is no reason for a daemon not to start (reference ops 1.6).

use std::{fs::File, io::Read, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

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

/// Largest key file that is read, in bytes; ours have 2000.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// The TLS settings for all exchanges, and where their roots are from. `client`: the files of a certificate and its key.
pub(super) fn client_config(ca_file: Option<&Path>, client: Option<(&Path, &Path)>) -> Result<(ClientConfig, Roots), TransportError> {
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
        .with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let wrong = |why: String| TransportError::SetUp(format!("client_cert {}: {why}", certificate.display()));
            let chain =
                CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|e| wrong(e.to_string()))?;
            if chain.is_empty() {
                return Err(wrong("it holds no certificate in PEM form".to_owned()));
            }
            config.with_client_auth_cert(chain, private_key(key)?).map_err(|e| wrong(format!("{e} (its key: {})", key.display())))?
        }
    };
    Ok((config, from))
}

/// Reads a key from a file that nobody else can read.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TransportError> {
    let wrong = |why: String| TransportError::SetUp(format!("client_key {}: {why}", path.display()));
    let file = File::open(path).map_err(|e| wrong(e.to_string()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // Of the file that is open: what lies at the path may be another one by now.
        let mode = file.metadata().map_err(|e| wrong(e.to_string()))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(wrong(format!("others can read it (mode {mode:04o}); `chmod 600 {}`", path.display())));
        }
    }
    let mut text = Vec::new();
    file.take(MAX_KEY_BYTES).read_to_end(&mut text).map_err(|e| wrong(e.to_string()))?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| wrong("it holds no private key in PEM form".to_owned()))
}
