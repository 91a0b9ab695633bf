//! The kubectl plugin: what a person asks and tells the operator, through the Kubernetes API and
//! with the person's own rights.
//!
//! Each verb is a module with its arguments and its work; what is printed is made by pure functions
//! from what was read, so that tests need no API server. The plugin reads no Secret but the
//! application's, and that one only where psql needs it.

pub mod error;
pub mod explain;
pub mod fencing;
pub mod hibernate;
pub mod install;
pub mod logs;
pub mod measured;
pub mod observed;
pub mod plan;
pub mod promote;
pub mod psql;
pub mod reload;
pub mod restart;
pub mod session;
pub mod status;
pub mod text;

pub use error::Error;
pub use session::{Connection, Session};

/// What to ask or tell.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Shows how a cluster and its instances are.
    Status(status::Arguments),
    /// Makes another instance the primary, without loss and with one short interruption.
    Promote(promote::Arguments),
    /// Restarts PostgreSQL of all instances, one after the other, or one standby.
    Restart(restart::Arguments),
    /// Lets the operator look at a cluster and its Secrets anew, at once.
    Reload(reload::Arguments),
    /// Stops PostgreSQL of instances and keeps it stopped, or lets it start again.
    Fencing(fencing::Arguments),
    /// Removes the pods of a cluster and keeps its volumes, or brings them back.
    Hibernate(hibernate::Arguments),
    /// Opens psql on the primary.
    Psql(psql::Arguments),
    /// Prints the logs of a cluster or of one instance.
    Logs(logs::Arguments),
    /// Shows what a changed Cluster would do, without writing anything.
    Plan(plan::Arguments),
    /// Says in sentences why a cluster is as it is, and what comes next.
    Explain(explain::Arguments),
}

impl Verb {
    /// How the user says to reach the API server.
    pub fn connection(&self) -> &Connection {
        match self {
            Self::Status(arguments) => &arguments.connection,
            Self::Promote(arguments) => &arguments.connection,
            Self::Restart(arguments) => &arguments.connection,
            Self::Reload(arguments) => &arguments.connection,
            Self::Fencing(arguments) => &arguments.connection,
            Self::Hibernate(arguments) => &arguments.connection,
            Self::Psql(arguments) => &arguments.connection,
            Self::Logs(arguments) => &arguments.connection,
            Self::Plan(arguments) => &arguments.connection,
            Self::Explain(arguments) => &arguments.connection,
        }
    }
}

/// Does it.
///
/// # Errors
/// If the API refuses, or what was asked for cannot be; the text says what to do.
pub async fn run(session: &Session, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Status(arguments) => Box::pin(status::run(session, &arguments)).await,
        Verb::Promote(arguments) => promote::run(session, &arguments).await,
        Verb::Restart(arguments) => restart::run(session, &arguments).await,
        Verb::Reload(arguments) => reload::run(session, &arguments).await,
        Verb::Fencing(arguments) => fencing::run(session, &arguments).await,
        Verb::Hibernate(arguments) => hibernate::run(session, &arguments).await,
        Verb::Psql(arguments) => psql::run(session, &arguments).await,
        Verb::Logs(arguments) => logs::run(session, &arguments).await,
        Verb::Plan(arguments) => Box::pin(plan::run(session, &arguments)).await,
        Verb::Explain(arguments) => explain::run(session, &arguments).await,
    }
}
