//! The plugin's verbs, on a kubeconfig or on a state directory of one-machine mode.

use clap::{Args, Subcommand};
use matriarch_cli::{
    Session, Verb, explain, fencing, hibernate, logs, plan, promote, reload, restart,
};
use matriarch_local::up::kubeconfig;

use crate::arguments::Place;

/// Verbs of the plugin for the API server of a state directory.
#[derive(Debug, Subcommand)]
pub enum LocalPlugin {
    /// Makes another instance the primary.
    Promote(InPlace<promote::Arguments>),
    /// Restarts PostgreSQL of all instances, one after the other, or one standby.
    Restart(InPlace<restart::Arguments>),
    /// Lets the operator look at a cluster and its Secrets anew, at once.
    Reload(InPlace<reload::Arguments>),
    /// Stops PostgreSQL of instances and keeps it stopped, or lets it start again.
    Fencing(InPlace<fencing::Arguments>),
    /// Removes the pods of a cluster and keeps its volumes, or brings them back.
    Hibernate(InPlace<hibernate::Arguments>),
    /// Prints the logs of a cluster or of one instance.
    Logs(InPlace<logs::Arguments>),
    /// Shows what a changed Cluster would do, without writing anything.
    Plan(InPlace<plan::Arguments>),
    /// Says in sentences why a cluster is as it is, and what comes next.
    Explain(InPlace<explain::Arguments>),
}

/// A verb with the state directory that it is for.
#[derive(Debug, Args)]
pub struct InPlace<A: Args> {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// The verb's own arguments.
    #[command(flatten)]
    pub arguments: A,
}

impl LocalPlugin {
    /// Where, and what.
    pub fn into_parts(self) -> (Place, Verb) {
        match self {
            Self::Promote(verb) => (verb.place, Verb::Promote(verb.arguments)),
            Self::Restart(verb) => (verb.place, Verb::Restart(verb.arguments)),
            Self::Reload(verb) => (verb.place, Verb::Reload(verb.arguments)),
            Self::Fencing(verb) => (verb.place, Verb::Fencing(verb.arguments)),
            Self::Hibernate(verb) => (verb.place, Verb::Hibernate(verb.arguments)),
            Self::Logs(verb) => (verb.place, Verb::Logs(verb.arguments)),
            Self::Plan(verb) => (verb.place, Verb::Plan(verb.arguments)),
            Self::Explain(verb) => (verb.place, Verb::Explain(verb.arguments)),
        }
    }
}

/// On the API server of the kubeconfig.
pub async fn run(verb: Verb) -> anyhow::Result<()> {
    let session = Session::open(verb.connection()).await?;
    Ok(matriarch_cli::run(&session, verb).await?)
}

/// On the API server of a state directory: the named one, else that of KUBECONFIG, else the usual.
pub async fn run_in(place: Place, verb: Verb) -> anyhow::Result<()> {
    let mut connection = verb.connection().clone();
    let elsewhere = connection.kubeconfig.is_some() || std::env::var_os("KUBECONFIG").is_some();
    if !place.is_named() && elsewhere {
        return run(verb).await;
    }
    let (layout, client) = kubeconfig::connect(&place.state()).await?;
    connection.kubeconfig = Some(layout.kubeconfig());
    let namespace = connection.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let session = Session::new(client, namespace, connection);
    Ok(matriarch_cli::run(&session, verb).await?)
}
