//! What the agent is started with.

use std::net::IpAddr;

use crate::root::Root;

/// PostgreSQL's port in every pod.
pub const POSTGRES_PORT: u16 = 5432;
/// The agent's HTTPS port in every pod.
pub const AGENT_PORT: u16 = 8000;
/// The metrics port in every pod.
pub const METRICS_PORT: u16 = 9187;

/// Who this pod is and where it finds the Kubernetes API.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// Name of the instance, which is the pod's name.
    pub instance: String,
    /// Namespace of everything.
    pub namespace: String,
    /// Uid of the pod.
    pub pod_uid: String,
    /// Address at which others reach this pod.
    pub address: IpAddr,
    /// Name of the cluster.
    pub cluster: String,
    /// Which API identity is served: `matriarch`, `cnpg`, `edb`.
    pub identity: String,
    /// Host and port of the Kubernetes API; the host is an IP address.
    pub api_server: (String, u16),
    /// The pod's root directory.
    pub root: Root,
    /// `PATH`, in which PostgreSQL's programs are looked for first.
    pub path: std::ffi::OsString,
    /// True on one machine, where PostgreSQL listens on the pod's address alone.
    pub own_address_only: bool,
    /// Where PostgreSQL has its tablespaces.
    pub tablespaces: TablespacePlace,
}

/// Where PostgreSQL has its tablespaces (docs/decisions/tablespaces.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TablespacePlace {
    /// Each on a volume of its own, at a path that is the same in every pod: it stands in WAL.
    Volumes,
    /// In the data directory: on one machine pods have no paths of their own.
    DataDirectory,
}

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable is not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable cannot be read.
    #[error("{name} is {value:?}, which is not {expected}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

fn variable(name: &'static str) -> Result<String, Error> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or(Error::Missing(name))
}

impl AgentOptions {
    /// Reads the environment that the operator gives to the pod.
    ///
    /// # Errors
    /// If a variable is missing or malformed.
    pub fn from_environment() -> Result<Self, Error> {
        let one_machine = std::env::var_os("MATRIARCH_ROOT").is_some_and(|it| !it.is_empty());
        let address = variable("POD_IP")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        Ok(Self {
            instance: variable("POD_NAME")?,
            namespace: variable("NAMESPACE")?,
            pod_uid: variable("POD_UID")?,
            address: address.parse().map_err(|_| Error::Malformed {
                name: "POD_IP",
                value: address.clone(),
                expected: "an IP address",
            })?,
            cluster: variable("CLUSTER_NAME")?,
            identity: variable("MATRIARCH_API_IDENTITY").unwrap_or_else(|_| "matriarch".to_owned()),
            api_server: (
                variable("KUBERNETES_SERVICE_HOST")?,
                port.parse().map_err(|_| Error::Malformed {
                    name: "KUBERNETES_SERVICE_PORT",
                    value: port.clone(),
                    expected: "a port",
                })?,
            ),
            root: Root::from_environment(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            own_address_only: one_machine,
            tablespaces: if one_machine {
                TablespacePlace::DataDirectory
            } else {
                TablespacePlace::Volumes
            },
        })
    }
}
