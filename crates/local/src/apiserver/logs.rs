//! Logs of pods: the kubelet has them, the API server passes them on.

use axum::body::Body;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use http::{Response, StatusCode};
use matriarch_store::{Refusal, ResourceId, Subresource, Target};
use serde_json::Value;

use super::{ApiServer, answer, resources::Request};

/// What part of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Container; `None` where the pod has but one.
    pub container: Option<String>,
    /// Whether to go on with what comes.
    pub follow: bool,
    /// The last so many lines only.
    pub tail: Option<usize>,
    /// The container before the last restart.
    pub previous: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Lines of the last so many seconds only.
    pub since_seconds: Option<u64>,
}

/// A log as it comes.
pub type LogStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Who has the logs.
pub trait PodLogs: Send + Sync {
    /// The log of a container of a pod.
    fn read(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Refusal>>;
}

impl ApiServer {
    /// Answers `pods/log`.
    pub(super) async fn pod_log(&self, request: &Request) -> Result<Response<Body>, Refusal> {
        let place = &request.place;
        let namespace = place.namespace.as_deref().unwrap_or_default();
        let name = place.name.as_deref().unwrap_or_default();
        let pods = ResourceId::new("", "v1", "pods");
        if place.resource != pods {
            return Err(Refusal::NoResource);
        }
        let target = Target { resource: &pods, namespace, name, subresource: Subresource::None };
        let pod = self.store().get(&target)?;
        let container = container(&pod, request.parameters.get("container"))?;
        let parameters = &request.parameters;
        let options = LogOptions {
            container: Some(container),
            follow: parameters.flag("follow"),
            tail: parameters.number("tailLines").and_then(|n| usize::try_from(n).ok()),
            previous: parameters.flag("previous"),
            timestamps: parameters.flag("timestamps"),
            since_seconds: parameters.number("sinceSeconds"),
        };
        let logs = self.logs().ok_or_else(|| {
            Refusal::Internal("no kubelet has registered with this server".into())
        })?;
        let stream = logs.read(namespace, name, options).await?;
        Ok(answer::typed(StatusCode::OK, "text/plain", Body::from_stream(stream)))
    }
}

/// The container that is meant: the named one, or the only one.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, Refusal> {
    let names: Vec<&str> = ["initContainers", "containers"]
        .iter()
        .flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str())
        .collect();
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match asked {
        Some(asked) if names.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => {
            Err(Refusal::BadRequest(format!("container {asked} is not valid for pod {name}")))
        }
        None => match pod["spec"]["containers"].as_array().map(Vec::as_slice) {
            Some([only]) => Ok(only["name"].as_str().unwrap_or_default().to_owned()),
            _ => Err(Refusal::BadRequest(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                names.join(" ")
            ))),
        },
    }
}
