//! The database pod: the keeper and the agent.
//!
//! The keeper ([`keeper`]) is PID 1: small, synchronous, it starts and reaps PostgreSQL and the
//! agent and stops PostgreSQL when the right to accept writes has run out. The agent ([`run`]) is
//! its child: it carries out the commands of the protocol's state machine
//! (`matriarch_plan::protocol`), configures PostgreSQL and reports.

pub mod keeper;
pub mod options;
pub mod root;
pub mod status;

pub use keeper::KeeperOptions;
pub use options::AgentOptions;
pub use root::Root;

mod error;
pub use error::Error;

/// Runs the agent until the pod ends.
///
/// # Errors
/// If it cannot go on; the keeper then starts a new one.
#[expect(clippy::unused_async, reason = "the binary awaits it; the event loop lands behind it")]
pub async fn run(options: AgentOptions) -> Result<(), Error> {
    tracing::info!(instance = options.instance, "agent starts");
    Ok(())
}
