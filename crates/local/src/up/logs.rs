//! The kubelet's logs, as the API server asks for them.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use matriarch_store::Refusal;

use crate::apiserver::{LogOptions, LogStream, PodLogs};
use crate::kubelet::Shared;
use crate::kubelet::logs::{LogRequest, read};

/// Reads the files that the kubelet's containers write.
pub(super) struct KubeletLogs {
    shared: Arc<Shared>,
}

impl KubeletLogs {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl PodLogs for KubeletLogs {
    fn read(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Refusal>> {
        let shared = self.shared.clone();
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        async move {
            let api: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
            let object = api
                .get(&pod)
                .await
                .map_err(|error| Refusal::Internal(format!("cannot read pod {pod}: {error}")))?;
            let request = LogRequest {
                namespace,
                pod,
                uid: object.metadata.uid.unwrap_or_default(),
                container: options.container.unwrap_or_default(),
                follow: options.follow,
                tail_lines: options.tail,
                previous: options.previous,
            };
            match read(&shared.layout, &request) {
                Ok(stream) => Ok(stream.map(Ok::<Bytes, std::io::Error>).boxed()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok(futures::stream::empty().boxed())
                }
                Err(error) => Err(Refusal::Internal(format!("cannot read the log: {error}"))),
            }
        }
        .boxed()
    }
}
