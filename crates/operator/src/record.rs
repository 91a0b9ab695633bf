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
    /// Somebody wrote in between, or took the Cluster away: nothing may be executed on what was read.
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
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(Written::Conflict),
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

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use matriarch_api::Identity;
    use serde_json::json;

    use super::*;

    /// What becomes of a write that is answered with this code.
    async fn answered(code: u16, reason: &str) -> Result<Written, Box<dyn std::error::Error>> {
        let said = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "reason": reason, "message": reason,
        })
        .to_string();
        let server = tower::service_fn(move |_: Request<Body>| {
            let answer =
                Response::builder().status(code).body(Body::from(said.clone().into_bytes()));
            async move { answer }
        });
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": Identity::Matriarch.api_version(), "kind": "Cluster",
            "metadata": {"name": "db", "namespace": "default"},
            "spec": {"instances": 1, "storage": {"size": "1Gi"}},
        }))?;
        let wanted = ClusterStatus { phase: Some("new".to_owned()), ..ClusterStatus::default() };
        let client = Client::new(server, "default");
        Ok(Box::pin(status(&client, &Setup::default(), &cluster, wanted)).await?)
    }

    #[tokio::test]
    async fn a_cluster_that_was_changed_or_deleted_meanwhile_is_no_failure() {
        assert_eq!(answered(409, "Conflict").await.ok(), Some(Written::Conflict));
        assert_eq!(answered(404, "NotFound").await.ok(), Some(Written::Conflict));
        assert!(answered(403, "Forbidden").await.is_err());
    }
}
