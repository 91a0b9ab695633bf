//! The API server's own CA and certificate, made once for each state directory.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::layout::{Layout, make_directory, write_file};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Its files cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be made.
    #[error("cannot make the API server's certificate")]
    Make(#[from] rcgen::Error),
    /// It cannot be used.
    #[error("cannot use the API server's certificate")]
    Use(#[from] rustls::Error),
    /// What was just made cannot be read.
    #[error("cannot read the API server's key")]
    Key(#[source] rustls_pki_types::pem::Error),
}

/// What the API server shows and what its clients trust.
pub struct ApiCertificate {
    /// PEM of the CA.
    pub ca: String,
    /// How the server speaks TLS.
    pub server: rustls::ServerConfig,
}

/// The CA of the state directory, kept over restarts because pods and kubeconfigs hold it, and a
/// new certificate for `address`.
pub fn open(layout: &Layout, address: Ipv4Addr) -> Result<ApiCertificate, CertificateError> {
    let directory = layout.root().join("pki");
    make_directory(&directory, 0o700)
        .map_err(|source| CertificateError::File { path: directory.clone(), source })?;
    let (ca_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
    let (ca, key) = match (read(&ca_path)?, read(&key_path)?) {
        (Some(ca), Some(key)) => (ca, key),
        (None, _) | (_, None) => {
            let (ca, key) = make_ca()?;
            write(&key_path, &key)?;
            write(&ca_path, &ca)?;
            (ca, key)
        }
    };
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&key)?)?;
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut parameters = CertificateParams::new(names.map(str::to_owned).to_vec())?;
    for address in [address, Ipv4Addr::LOCALHOST] {
        parameters.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(address)));
    }
    parameters.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let own_key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&own_key, &issuer)?;
    let key = PrivateKeyDer::from_pem_slice(own_key.serialize_pem().as_bytes())
        .map_err(CertificateError::Key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(ApiCertificate { ca, server })
}

fn make_ca() -> Result<(String, String), CertificateError> {
    let mut parameters = CertificateParams::new(Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters.distinguished_name.push(DnType::CommonName, "matriarch local");
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn read(path: &Path) -> Result<Option<String>, CertificateError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CertificateError::File { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, content: &str) -> Result<(), CertificateError> {
    write_file(path, content.as_bytes(), 0o600)
        .map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_outlives_a_restart() {
        let path = std::env::temp_dir().join(format!("m-pki-{}", std::process::id()));
        let layout = Layout::make(&path).unwrap();
        let first = open(&layout, Ipv4Addr::new(127, 9, 0, 1)).unwrap();
        let second = open(&layout, Ipv4Addr::new(127, 9, 0, 1)).unwrap();
        assert_eq!(first.ca, second.ca);
        std::fs::remove_dir_all(path).unwrap();
    }
}
