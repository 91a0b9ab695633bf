//! Writes memory and status by compare-and-swap, and events.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource};
use matriarch_api::Cluster;
use matriarch_api::cluster::ClusterStatus;
use matriarch_render::Setup;
use matriarch_render::story;

/// What became of a write of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It says this now.
    Yes,
    /// It said this already.
    Unchanged,
    /// Somebody wrote in between: nothing may be executed on what was read.
    Conflict,
}

/// Writes the status if it differs from what was read.
///
/// # Errors
/// If the API refuses, for another reason than a conflict.
pub async fn status(
    client: &Client,
    setup: &Setup,
    cluster: &Cluster,
    status: ClusterStatus,
) -> Result<Written, kube::Error> {
    if cluster.status.as_ref() == Some(&status) {
        return Ok(Written::Unchanged);
    }
    let api = Api::<Cluster>::namespaced_with(client.clone(), cluster.namespace(), &setup.identity);
    let mut wanted = cluster.clone();
    wanted.api_version = setup.identity.api_version();
    "Cluster".clone_into(&mut wanted.kind);
    wanted.metadata.managed_fields = None;
    wanted.status = Some(status);
    let params = PostParams {
        field_manager: Some(setup.identity.operator_name().to_owned()),
        ..PostParams::default()
    };
    match api.replace_status(cluster.name(), &params, &wanted).await {
        Ok(_) => Ok(Written::Yes),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(Written::Conflict),
        Err(error) => Err(error),
    }
}

/// Publishes events about a Cluster. An event that cannot be written is logged and lost: nothing
/// depends on it.
pub async fn events(
    recorder: &Recorder,
    setup: &Setup,
    cluster: &Cluster,
    events: &[story::Event],
) {
    let reference: ObjectReference = cluster.object_ref(&setup.identity);
    for event in events {
        let mut note = event.note.clone();
        // The API refuses notes of more than 1 kB.
        if note.len() > 1_000 {
            let mut end = 1_000;
            while !note.is_char_boundary(end) {
                end -= 1;
            }
            note.truncate(end);
        }
        let published = Event {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            reason: event.reason.to_owned(),
            note: Some(note),
            action: event.action.to_owned(),
            secondary: event.related.as_deref().and_then(|it| related(setup, cluster, it)),
        };
        if let Err(error) = recorder.publish(&published, &reference).await {
            tracing::debug!(cluster = cluster.name(), reason = event.reason, %error, "event lost");
        }
    }
}

fn related(setup: &Setup, cluster: &Cluster, object: &str) -> Option<ObjectReference> {
    let (kind, name) = object.split_once('/')?;
    Some(ObjectReference {
        api_version: (kind == "Instance").then(|| setup.identity.api_version()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        namespace: Some(cluster.namespace().to_owned()),
        ..ObjectReference::default()
    })
}
