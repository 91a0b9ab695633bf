//! The agent's way to the Kubernetes API: its own objects by name, nothing else.

use std::path::Path;
use std::time::Duration;

use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::options::AgentOptions;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The service account is not mounted.
    #[error("cannot read the service account's {file}")]
    ServiceAccount {
        /// Which file.
        file: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The CA's certificate cannot be read.
    #[error("the service account's ca.crt holds no certificate")]
    Authority,
    /// The address of the API is none.
    #[error("the Kubernetes API's address is no address")]
    Address(#[source] http::uri::InvalidUri),
    /// The client cannot be built.
    #[error("cannot build a client of the Kubernetes API")]
    Client(#[source] kube::Error),
}

/// A new client, which opens connections of its own. `limit` is that of connecting and of writing.
///
/// Nothing limits reading: in a pooled connection that clock also runs while nothing is asked, so
/// it would cut every connection that has been idle for so long, and the request that comes just
/// then would fail. Who needs an answer in time limits the whole request.
///
/// The API server is given by its IP address, so the C resolver is never asked (traps P2).
///
/// # Errors
/// If the service account is not mounted or makes no sense.
pub fn connect(options: &AgentOptions, limit: Duration) -> Result<Client, Error> {
    let (host, port) = &options.api_server;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let uri = format!("https://{host}:{port}").parse().map_err(Error::Address)?;
    let directory = options.root.service_account();
    let mut config = Config::new(uri);
    config.default_namespace.clone_from(&options.namespace);
    config.root_cert = Some(authorities(&directory.join("ca.crt"))?);
    config.auth_info.token_file = Some(directory.join("token").to_string_lossy().into_owned());
    config.connect_timeout = Some(limit);
    config.read_timeout = None;
    config.write_timeout = Some(limit);
    config.default_retry = false;
    Client::try_from(config).map_err(Error::Client)
}

fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let pem =
        std::fs::read(path).map_err(|source| Error::ServiceAccount { file: "ca.crt", source })?;
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .map(|certificate| certificate.to_vec())
        .collect();
    if found.is_empty() { Err(Error::Authority) } else { Ok(found) }
}
