//! What pods said: lines that nobody expected, and all of it where a test failed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};
use serde_json::Value;

use crate::kubernetes::{Kubernetes, Namespace, OPERATOR_NAMESPACE};

/// Lines of level WARN or ERROR that may stand in a log, by a part of their message, and why.
const EXPECTED: &[(&str, &str)] = &[(
    "rolebindings.rbac.authorization.k8s.io",
    "who may bind a Role is asked of a cache that has yet to see the Role that was just made",
)];

/// Fails where the operator or an agent of this namespace has logged a warning or an error that is
/// not listed. What PostgreSQL logs is its own: it calls a client that it ends an error.
///
/// # Errors
/// With the lines, or if they cannot be read.
pub async fn expect_quiet(namespace: &Namespace, since: jiff::Timestamp) -> Result<()> {
    let mut found = Vec::new();
    let expected = namespace.expected_warnings();
    for place in [namespace.name(), OPERATOR_NAMESPACE] {
        for (pod, log) in logs(namespace.kubernetes(), place, Some(since)).await? {
            let lines = log.lines().filter(|line| is_unexpected(line));
            let lines = lines.filter(|line| !expected.iter().any(|part| line.contains(part)));
            // The operator serves all tests at once: another one's lines are another one's.
            let name = namespace.name();
            let own = lines.filter(|line| place == name || line.contains(name));
            found.extend(own.map(|line| format!("{pod}: {line}")));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let shown = found.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    bail!("{} lines of the logs are warnings or errors:\n{shown}", found.len())
}

/// A warning or an error of ours that is not listed.
fn is_unexpected(line: &str) -> bool {
    let Ok(entry) = serde_json::from_str::<Value>(line) else { return false };
    let level = entry["level"].as_str().unwrap_or_default();
    let ours = entry["logger"] != "postgres";
    ours && matches!(level, "warning" | "warn" | "error" | "WARN" | "ERROR")
        && !EXPECTED.iter().any(|(part, _)| line.contains(part))
}

/// The logs of all containers of a namespace, by pod and container.
///
/// # Errors
/// If the pods cannot be listed.
pub async fn logs(
    kubernetes: &Kubernetes,
    namespace: &str,
    since: Option<jiff::Timestamp>,
) -> Result<Vec<(String, String)>> {
    let pods: Api<Pod> = Api::namespaced(kubernetes.client().clone(), namespace);
    let mut logs = Vec::new();
    for pod in pods.list(&ListParams::default()).await?.items {
        let spec = pod.spec.clone().unwrap_or_default();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        for container in containers.map(|container| container.name.clone()) {
            for previous in [true, false] {
                let parameters = LogParams {
                    container: Some(container.clone()),
                    previous,
                    since_time: since.and_then(|time| time.to_string().parse().ok()),
                    ..LogParams::default()
                };
                // There is no former container, or the node is cut off: then there is no log.
                if let Ok(log) = pods.logs(&pod.name_any(), &parameters).await {
                    let which = if previous { "-previous" } else { "" };
                    logs.push((format!("{}-{container}{which}", pod.name_any()), log));
                }
            }
        }
    }
    Ok(logs)
}

/// Writes down what a failed test leaves: why it failed, the objects of its namespace, and all logs.
/// `cargo xtask e2e` says the reasons once more when all tests are over.
///
/// # Errors
/// If it cannot be written.
pub async fn collect(
    kubernetes: &Kubernetes,
    namespace: &str,
    reason: &anyhow::Error,
) -> Result<PathBuf> {
    let directory = kubernetes.directory().join("failures").join(namespace);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::write(directory.join("reason.txt"), format!("{reason:#}\n"))?;
    for place in [namespace, OPERATOR_NAMESPACE] {
        for (name, log) in logs(kubernetes, place, None).await? {
            std::fs::write(directory.join(format!("{name}.log")), log)?;
        }
    }
    let kubectl = kubernetes.tool("kubectl")?;
    let kinds = "clusters.matriarch.dev,instances.matriarch.dev,pods,persistentvolumeclaims,\
                 services,endpointslices,leases,poddisruptionbudgets,configmaps,events";
    let objects = kubernetes.run(&kubectl, &["get", "-n", namespace, "-o", "yaml", kinds]).await?;
    std::fs::write(directory.join("objects.yaml"), objects)?;
    let nodes = kubernetes.run(&kubectl, &["describe", "nodes"]).await?;
    std::fs::write(directory.join("nodes.txt"), nodes)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::is_unexpected;

    #[test]
    fn warnings_of_ours_count_and_those_of_postgresql_do_not() {
        assert!(is_unexpected(r#"{"level":"error","logger":"instance-manager","msg":"x"}"#));
        assert!(is_unexpected(r#"{"level":"warning","logger":"keeper","msg":"x"}"#));
        assert!(!is_unexpected(r#"{"level":"error","logger":"postgres","msg":"record"}"#));
        assert!(!is_unexpected(r#"{"level":"info","logger":"instance-manager","msg":"x"}"#));
        assert!(!is_unexpected("no JSON"));
    }
}
