//! `promote CLUSTER INSTANCE`: asks the operator for a switchover, by `status.targetPrimary`.

use kube::api::Patch;
use matriarch_api::phases::INSTANCES_HEALTHY;
use matriarch_api::{Cluster, Kind};
use serde_json::json;

use crate::error::Error;
use crate::session::{Connection, Session, require_instance};
use crate::text::say;

/// Arguments of `promote`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The cluster.
    pub cluster: String,
    /// The instance that is to be the primary.
    pub instance: String,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is the primary.
    AlreadyPrimary,
    /// Ask for it.
    Ask,
}

/// Is a switchover to this instance possible, as far as the cluster's status tells. The operator
/// judges again; what it would refuse for certain is refused here, where the reason is read.
///
/// # Errors
/// If it would be refused.
pub fn decide(
    cluster: &Cluster,
    instance: &str,
    identity: matriarch_api::Identity,
) -> Result<Decision, Error> {
    require_instance(cluster, instance)?;
    let status = cluster.status.clone().unwrap_or_default();
    let name = cluster.name();
    let current = status.current_primary.unwrap_or_default();
    if current == instance {
        return Ok(Decision::AlreadyPrimary);
    }
    if current.is_empty() {
        return Err(Error::Refused(format!(
            "cluster {name} has had no primary yet: there is nothing to hand over; see `explain {name}`"
        )));
    }
    let fenced = crate::fencing::present(cluster, identity)?;
    if fenced.contains(instance) {
        return Err(Error::Refused(format!(
            "{instance} is fenced and cannot take over: `fencing off {name} {instance}` first"
        )));
    }
    let ready = status.instances_status.get(INSTANCES_HEALTHY);
    if !ready.is_some_and(|ready| ready.iter().any(|ready| ready == instance)) {
        return Err(Error::Refused(format!(
            "{instance} is not ready, and would lose data or time as the primary; see `status {name}`"
        )));
    }
    Ok(Decision::Ask)
}

/// Asks for a switchover.
///
/// # Errors
/// If it is not possible, or the API refuses.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let Arguments { cluster: name, instance, .. } = arguments;
    let cluster = session.cluster(name).await?;
    match decide(&cluster, instance, session.identity)? {
        Decision::AlreadyPrimary => {
            say(&format!("{instance} is already the primary instance of cluster {name}"))
        }
        Decision::Ask => {
            let wish = json!({"status": {"targetPrimary": instance}});
            let resource = format!("{}/status", session.resource(Kind::Cluster));
            session
                .clusters()
                .patch_status(name, &Session::patch_params(), &Patch::Merge(&wish))
                .await
                .map_err(|error| session.refused("patch", &resource, error))?;
            say(&format!("instance {instance} of cluster {name} will be promoted"))
        }
    }
}
