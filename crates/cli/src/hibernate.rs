//! `hibernate on|off|status CLUSTER`: the annotation hibernation.

use matriarch_api::annotations::{Annotation, hibernation};
use matriarch_api::{Cluster, Identity};
use serde_json::json;

use crate::error::Error;
use crate::session::{Connection, Session};
use crate::text::say;

/// Arguments of `hibernate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to do.
    #[arg(value_enum)]
    pub wish: Wish,
    /// The cluster.
    pub cluster: String,
    /// How to reach the API server.
    #[command(flatten)]
    pub connection: Connection,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// Pods go, volumes stay.
    On,
    /// Pods come back.
    Off,
    /// Say which of both it is.
    Status,
}

/// Writes the annotation, or tells how far the cluster is.
///
/// # Errors
/// If there is no such cluster, or the API refuses.
pub async fn run(session: &Session, arguments: &Arguments) -> Result<(), Error> {
    let name = &arguments.cluster;
    let cluster = session.cluster(name).await?;
    let value = match arguments.wish {
        Wish::Status => return say(&state(&cluster, session.identity)),
        Wish::On => hibernation::ON,
        Wish::Off => hibernation::OFF,
    };
    let key = Annotation::Hibernation.key(session.identity);
    session.patch_cluster(name, &json!({"metadata": {"annotations": {key: value}}})).await?;
    say(&match arguments.wish {
        Wish::On => format!(
            "{name} will hibernate: its pods go once it is healthy, its volumes stay; \
             `hibernate off {name}` brings it back"
        ),
        Wish::Off | Wish::Status => format!("{name} wakes up: its pods come back"),
    })
}

/// One sentence on how far it is.
fn state(cluster: &Cluster, identity: Identity) -> String {
    let name = cluster.name();
    let kind = Annotation::Hibernation.key(identity);
    let conditions = cluster.status.iter().flat_map(|status| &status.conditions);
    match conditions.into_iter().find(|condition| condition.type_ == kind) {
        Some(condition) => format!("{name}: {}", condition.message),
        None => format!("{name} does not hibernate"),
    }
}
