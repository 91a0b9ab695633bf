//! `restart CLUSTER [INSTANCE]`: the annotation of `kubectl rollout restart` for all instances, a
//! new pod for one standby.

use jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use matriarch_api::Cluster;
use matriarch_api::annotations::RESTARTED_AT;
use serde_json::json;

use crate::error::Error;
use crate::session::{Connection, Session, instance_names, require_instance};
use crate::text::say;

/// Arguments of `restart`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster.
    pub cluster: String,
    /// One standby of it [default: all instances, one after the other, the primary last].
    pub instance: Option<String>,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// May this one instance be restarted alone.
///
/// # Errors
/// If it is none, or the primary: the end of a primary's pod is a switchover, which has verbs of
/// its own.
pub fn check(cluster: &Cluster, instance: &str) -> Result<(), Error> {
    require_instance(cluster, instance)?;
    let name = cluster.name();
    let primary = cluster.status.as_ref().and_then(|status| status.current_primary.as_deref());
    if primary != Some(instance) {
        return Ok(());
    }
    let instead = match instance_names(cluster).len() {
        1 => String::new(),
        _ => format!(", or `promote {name} INSTANCE` and then `restart {name} {instance}`"),
    };
    Err(Error::Refused(format!(
        "{instance} is the primary and is not restarted alone: `restart {name}` restarts all \
         instances, the primary last{instead}"
    )))
}

/// Restarts.
///
/// # Errors
/// If there is no such cluster or instance, or the API refuses.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let name = &arguments.cluster;
    let cluster = session.cluster(name).await?;
    let Some(instance) = &arguments.instance else {
        // Whole seconds, as kubectl writes them.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let patch = json!({"metadata": {"annotations": {RESTARTED_AT: now.to_string()}}});
        session.patch_cluster(name, &patch).await?;
        return say(&format!("{name} restarted: its instances follow one after the other"));
    };
    check(&cluster, instance)?;
    let pods = session.pods();
    let pod = pods.get_opt(instance).await;
    let pod = pod.map_err(|error| session.refused("get", "pods", error))?;
    let Some(uid) = pod.and_then(|pod| pod.metadata.uid) else {
        return Err(Error::Refused(format!(
            "instance {instance} has no pod now; the operator makes one, see `explain {name}`"
        )));
    };
    // The same pod as was looked at, not its successor of the same name.
    let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    pods.delete(instance, &params)
        .await
        .map_err(|error| session.refused("delete", "pods", error))?;
    say(&format!("instance {instance} restarted: its pod is made anew on the same volume"))
}
