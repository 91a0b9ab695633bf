//! The Node object and its heartbeat.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use matriarch_api::causes::chain;
use serde_json::json;

use super::{NODE_NAME, Shared};

const PERIOD: Duration = Duration::from_secs(10);

/// Makes the node and says every ten seconds that it is alive.
pub(super) async fn keep(shared: Arc<Shared>) {
    let api: Api<Node> = Api::all(shared.client.clone());
    let parameters = PatchParams::apply("kubelet").force();
    let since = Timestamp::now();
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory = memory_kib().map(|kib| format!("{kib}Ki")).unwrap_or_else(|| "0".to_owned());
    loop {
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": NODE_NAME,
                "labels": {"kubernetes.io/hostname": NODE_NAME, "kubernetes.io/os": "linux"},
            },
        });
        let resources = json!({
            "cpu": processors.to_string(), "memory": memory, "pods": "250",
        });
        let status = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": shared.network.node().to_string()},
                    {"type": "Hostname", "address": NODE_NAME},
                ],
                "capacity": resources,
                "allocatable": resources,
                "conditions": [{
                    "type": "Ready",
                    "status": "True",
                    "reason": "KubeletReady",
                    "message": "matriarch local is running",
                    "lastHeartbeatTime": Timestamp::now().to_string(),
                    "lastTransitionTime": since.to_string(),
                }],
            },
        });
        let written = async {
            api.patch(NODE_NAME, &parameters, &Patch::Apply(&node)).await?;
            api.patch_status(NODE_NAME, &parameters, &Patch::Apply(&status)).await
        };
        if let Err(error) = written.await {
            tracing::debug!(error = chain(&error), "cannot write the node");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn memory_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
}
