//! `fencing on|off CLUSTER INSTANCE|*`: the annotation fencedInstances.

use std::collections::BTreeSet;

use kube::api::Patch;
use matriarch_api::annotations::{Annotation, Fenced, parse_fenced};
use matriarch_api::{Cluster, Identity, Kind};
use serde_json::{Value, json};

use crate::error::Error;
use crate::session::{Connection, Session, instance_names, require_instance};
use crate::text::say;

/// How often to try again when somebody wrote in between.
const ATTEMPTS: usize = 5;

/// Arguments of `fencing`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// On or off.
    #[arg(value_enum)]
    pub switch: Switch,
    /// The cluster.
    pub cluster: String,
    /// The instance, or `*` for all, those to come included.
    #[arg(required_if_eq("switch", "on"), default_value_if("switch", "off", "*"))]
    pub instance: Option<String>,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// PostgreSQL stops and stays stopped.
    On,
    /// PostgreSQL may start again.
    Off,
}

/// The fence after the change; `*` is all.
pub fn change(before: &Fenced, switch: Switch, instance: &str, members: &[String]) -> Fenced {
    let named = |mut names: BTreeSet<String>| match switch {
        Switch::On => {
            names.insert(instance.to_owned());
            Fenced::Some(names)
        }
        Switch::Off => {
            names.remove(instance);
            if names.is_empty() { Fenced::None } else { Fenced::Some(names) }
        }
    };
    match (switch, instance, before) {
        (Switch::On, "*", _) => Fenced::All,
        (Switch::Off, "*", _) => Fenced::None,
        (Switch::On, _, Fenced::All) => Fenced::All,
        // Instead of all: each of the others by name.
        (Switch::Off, _, Fenced::All) => named(members.iter().cloned().collect()),
        (_, _, Fenced::None) => named(BTreeSet::new()),
        (_, _, Fenced::Some(names)) => named(names.clone()),
    }
}

/// The present fence of a cluster.
///
/// # Errors
/// If the annotation cannot be read: it is not overwritten, because it may fence somebody.
pub fn present(cluster: &Cluster, identity: Identity) -> Result<Fenced, Error> {
    let key = Annotation::FencedInstances.key(identity);
    let text = cluster.metadata.annotations.as_ref().and_then(|all| all.get(&key));
    parse_fenced(text.map_or("", String::as_str))
        .map_err(|source| Error::Fence { cluster: cluster.name().to_owned(), source })
}

/// The patch that writes a fence, if the cluster is still as it was read.
fn patch(cluster: &Cluster, identity: Identity, fence: &Fenced) -> Value {
    let key = Annotation::FencedInstances.key(identity);
    json!({"metadata": {
        "resourceVersion": cluster.metadata.resource_version,
        "annotations": {key: fence.to_annotation()},
    }})
}

/// Changes the fence.
///
/// # Errors
/// If there is no such cluster or instance, or the API refuses.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let name = &arguments.cluster;
    let instance = arguments.instance.as_deref().unwrap_or("*");
    let mut attempt = 0;
    loop {
        attempt += 1;
        let cluster = session.cluster(name).await?;
        if instance != "*" {
            require_instance(&cluster, instance)?;
        }
        let before = present(&cluster, session.identity)?;
        let after = change(&before, arguments.switch, instance, &instance_names(&cluster));
        let who =
            if instance == "*" { format!("all instances of {name}") } else { instance.to_owned() };
        let is = match arguments.switch {
            Switch::On => "fenced",
            Switch::Off => "unfenced",
        };
        if before == after {
            return say(&format!("{who} already {is}"));
        }
        let patch = patch(&cluster, session.identity, &after);
        let params = Session::patch_params();
        match session.clusters().patch(name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => return say(&format!("{who} {is}")),
            Err(kube::Error::Api(answer)) if answer.code == 409 && attempt < ATTEMPTS => {}
            Err(error) => {
                let resource = session.resource(Kind::Cluster);
                return Err(session.refused("patch", &resource, error));
            }
        }
    }
}
