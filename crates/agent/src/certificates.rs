//! Certificates: read from the Secrets by name, written for PostgreSQL, used by the agent's port.
//!
//! Any of them may change at any time; nothing is restarted for it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use matriarch_api::instance::SecretNames;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::postgres::data;
use crate::root::Root;

/// Where the certificates are in the pod.
#[derive(Clone, Debug)]
pub struct Files {
    directory: PathBuf,
}

impl Files {
    /// The files of this pod.
    #[must_use]
    pub fn new(root: &Root) -> Self {
        Self { directory: root.certificates() }
    }

    /// Certificates that verify servers.
    #[must_use]
    pub fn server_ca(&self) -> PathBuf {
        self.directory.join("server-ca.crt")
    }

    /// Certificates that verify clients.
    #[must_use]
    pub fn client_ca(&self) -> PathBuf {
        self.directory.join("client-ca.crt")
    }

    /// The server's certificate.
    #[must_use]
    pub fn server_certificate(&self) -> PathBuf {
        self.directory.join("server.crt")
    }

    /// Its key.
    #[must_use]
    pub fn server_key(&self) -> PathBuf {
        self.directory.join("server.key")
    }

    /// The certificate of role streaming_replica.
    #[must_use]
    pub fn replication_certificate(&self) -> PathBuf {
        self.directory.join("streaming_replica.crt")
    }

    /// Its key.
    #[must_use]
    pub fn replication_key(&self) -> PathBuf {
        self.directory.join("streaming_replica.key")
    }
}

/// Why the certificates cannot be used. Those in use stay in use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A Secret is not there or may not be read.
    #[error("cannot read Secret {name}")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// A key is missing.
    #[error("Secret {name} has no key {key}")]
    Key {
        /// The Secret.
        name: String,
        /// The key.
        key: &'static str,
    },
    /// What is there is no certificate, or the key is another's.
    #[error("{what} of Secret {name} cannot be used: {why}")]
    Invalid {
        /// The Secret.
        name: String,
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The files.
    #[error("cannot write the certificates")]
    Write(#[source] data::Error),
}

impl Error {
    /// True if a Secret is certainly missing, which only a person or the operator can mend.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Secret { source: kube::Error::Api(status), .. } => status.code == 404,
            Self::Key { .. } => true,
            Self::Secret { .. } | Self::Invalid { .. } | Self::Write(_) => false,
        }
    }
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pair {
    secret: String,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// Everything as read from the Secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Material {
    server: Pair,
    replication: Pair,
    server_ca: Vec<u8>,
    client_ca: Vec<u8>,
    /// Secret name → resourceVersion.
    pub versions: BTreeMap<String, String>,
}

impl Material {
    /// Reads the Secrets.
    ///
    /// # Errors
    /// If one is missing or unreadable.
    pub async fn read(secrets: &Api<Secret>, names: &SecretNames) -> Result<Self, Error> {
        let mut material = Self::default();
        material.server = material.pair(secrets, &names.server).await?;
        material.replication = material.pair(secrets, &names.replication).await?;
        material.server_ca = material.authorities(secrets, &names.server_ca).await?;
        material.client_ca = material.authorities(secrets, &names.client_ca).await?;
        Ok(material)
    }

    /// What an agent before this one wrote: enough to go on with while the API is away.
    #[must_use]
    pub fn load(root: &Root) -> Option<Self> {
        let files = Files::new(root);
        let pair = |certificate: PathBuf, key: PathBuf| {
            Some(Pair {
                secret: certificate.display().to_string(),
                certificate: std::fs::read(certificate).ok()?,
                key: std::fs::read(key).ok()?,
            })
        };
        Some(Self {
            server: pair(files.server_certificate(), files.server_key())?,
            replication: pair(files.replication_certificate(), files.replication_key())?,
            server_ca: std::fs::read(files.server_ca()).ok()?,
            client_ca: std::fs::read(files.client_ca()).ok()?,
            versions: BTreeMap::new(),
        })
    }

    async fn get(&mut self, secrets: &Api<Secret>, name: &str) -> Result<Secret, Error> {
        let secret = secrets
            .get(name)
            .await
            .map_err(|source| Error::Secret { name: name.to_owned(), source })?;
        let version = secret.metadata.resource_version.clone().unwrap_or_default();
        self.versions.insert(name.to_owned(), version);
        Ok(secret)
    }

    async fn pair(&mut self, secrets: &Api<Secret>, name: &str) -> Result<Pair, Error> {
        let secret = self.get(secrets, name).await?;
        Ok(Pair {
            secret: name.to_owned(),
            certificate: key(&secret, name, "tls.crt")?,
            key: key(&secret, name, "tls.key")?,
        })
    }

    async fn authorities(
        &mut self,
        secrets: &Api<Secret>,
        names: &[String],
    ) -> Result<Vec<u8>, Error> {
        let mut together = Vec::new();
        for name in names {
            let secret = self.get(secrets, name).await?;
            together.extend(key(&secret, name, "ca.crt")?);
            together.push(b'\n');
        }
        Ok(together)
    }

    /// Writes what differs. True if something did.
    ///
    /// # Errors
    /// As the system says.
    pub fn write(&self, root: &Root) -> Result<bool, Error> {
        let files = Files::new(root);
        data::make_directory(&root.certificates()).map_err(Error::Write)?;
        let mut changed = false;
        for (path, content) in [
            (files.server_ca(), &self.server_ca),
            (files.client_ca(), &self.client_ca),
            (files.server_key(), &self.server.key),
            (files.server_certificate(), &self.server.certificate),
            (files.replication_key(), &self.replication.key),
            (files.replication_certificate(), &self.replication.certificate),
        ] {
            if std::fs::read(&path).is_ok_and(|present| present == *content) {
                continue;
            }
            data::write_atomically(&path, content).map_err(Error::Write)?;
            changed = true;
        }
        Ok(changed)
    }

    /// TLS of the agent's port: 1.3 only; a client certificate is verified if given.
    ///
    /// # Errors
    /// If the material makes no sense.
    pub fn server_tls(&self) -> Result<Arc<ServerConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots(&self.client_ca, "the client CAs")?);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| invalid("", "the client CAs", &error))?;
        let (chain, key) = self.server.parse()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| invalid("", "TLS 1.3", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| invalid(&self.server.secret, "tls.crt", &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// TLS towards other agents.
    ///
    /// # Errors
    /// If the material makes no sense.
    pub fn client_tls(&self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (chain, key) = self.replication.parse()?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| invalid("", "TLS 1.3", &error))?
            .with_root_certificates(roots(&self.server_ca, "the server CAs")?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| invalid(&self.replication.secret, "tls.crt", &error))?;
        Ok(Arc::new(config))
    }
}

impl Pair {
    fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&self.certificate).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(invalid(&self.secret, "tls.crt", &"it holds no certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| invalid(&self.secret, "tls.key", &error))?;
        Ok((chain, key))
    }
}

fn invalid(name: &str, what: &'static str, why: &dyn std::fmt::Display) -> Error {
    Error::Invalid { name: name.to_owned(), what, why: why.to_string() }
}

fn key(secret: &Secret, name: &str, key: &'static str) -> Result<Vec<u8>, Error> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(|bytes| bytes.0.clone())
        .ok_or_else(|| Error::Key { name: name.to_owned(), key })
}

fn roots(pem: &[u8], what: &'static str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem).filter_map(Result::ok) {
        store.add(certificate).map_err(|error| invalid("", what, &error))?;
    }
    if store.is_empty() {
        return Err(invalid("", what, &"they hold no certificate"));
    }
    Ok(store)
}
