//! Why the agent ends.

/// An operation without which the agent cannot go on. The keeper starts a new one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment is incomplete.
    #[error("cannot read the environment")]
    Options(#[source] crate::options::Error),
}
