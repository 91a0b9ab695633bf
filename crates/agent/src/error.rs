//! Why the agent ends.

/// An operation without which the agent cannot go on. The keeper starts a new one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment is incomplete.
    #[error("cannot read the environment")]
    Options(#[source] crate::options::Error),
    /// The identity is none of those that are served.
    #[error("MATRIARCH_API_IDENTITY is {0:?}, which is no identity")]
    Identity(String),
    /// Standard input is not the keeper's socket.
    #[error("cannot talk to the keeper")]
    Keeper(#[source] std::io::Error),
    /// The keeper is gone: nobody would stop PostgreSQL in time any more.
    #[error("the keeper is gone")]
    KeeperGone,
    /// The directories of the pod.
    #[error("cannot prepare the pod's directories")]
    Directories(#[source] crate::postgres::data::Error),
    /// The ledger.
    #[error("cannot use the ledger")]
    Ledger(#[source] crate::ledger::Error),
    /// The Kubernetes API.
    #[error("cannot use the Kubernetes API")]
    Kubernetes(#[source] crate::kubernetes::Error),
    /// The agent's port.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}
