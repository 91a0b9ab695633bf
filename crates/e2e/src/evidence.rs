//! What pods said: lines that nobody expected, and all of it where a test failed.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::kubernetes::{Namespace, OPERATOR_NAMESPACE};
use crate::podlogs::PodLogs;

/// Lines of level WARN or ERROR that may stand in a log, by a part of their message, and why.
const EXPECTED: &[(&str, &str)] = &[(
    "rolebindings.rbac.authorization.k8s.io",
    "who may bind a Role is asked of a cache that has yet to see the Role that was just made",
)];

/// Fails where the operator or an agent of this namespace has logged a warning or an error that is
/// not listed, in whatever pod. What PostgreSQL logs is its own: it calls a client that it ends an
/// error.
///
/// # Errors
/// With the lines, or if they cannot be read.
pub fn expect_quiet(namespace: &Namespace, logs: &PodLogs, since: jiff::Timestamp) -> Result<()> {
    let mut found = Vec::new();
    let (name, expected) = (namespace.name(), namespace.expected_warnings());
    for place in &namespace.places() {
        let logs = logs.read(place)?;
        // An operator always runs, at first or in the end: without its log nothing is judged.
        let seen = place != OPERATOR_NAMESPACE || !logs.is_empty();
        ensure!(seen, "no log of the operator is kept");
        for (file, lines) in logs {
            let lines = lines.into_iter().filter(|line| line.at >= since).map(|line| line.text);
            let lines = lines.filter(|line| is_unexpected(line));
            let lines = lines.filter(|line| !expected.iter().any(|part| line.contains(part)));
            // The operator serves all tests at once: another one's lines are another one's.
            let own = lines.filter(|line| place == name || line.contains(name));
            found.extend(own.map(|line| format!("{file}: {line}")));
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

/// Writes down what a failed test leaves: why it failed, the objects of its namespace, and all logs.
/// `cargo xtask e2e` says the reasons once more when all tests are over.
///
/// # Errors
/// If it cannot be written.
pub async fn collect(
    namespace: &Namespace,
    logs: &PodLogs,
    reason: &anyhow::Error,
) -> Result<PathBuf> {
    let kubernetes = namespace.kubernetes();
    let directory = kubernetes.directory().join("failures").join(namespace.name());
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    std::fs::write(directory.join("reason.txt"), format!("{reason:#}\n"))?;
    for place in &namespace.places() {
        for (file, lines) in logs.read(place)? {
            let lines: Vec<String> = lines.into_iter().map(|line| line.text).collect();
            std::fs::write(directory.join(file), lines.join("\n"))?;
        }
    }
    let kubectl = kubernetes.tool("kubectl")?;
    let kinds = "clusters.matriarch.dev,instances.matriarch.dev,pods,persistentvolumeclaims,\
                 services,endpointslices,leases,poddisruptionbudgets,configmaps,events";
    let words = ["get", "-n", namespace.name(), "-o", "yaml", kinds];
    let objects = kubernetes.run(&kubectl, &words).await?;
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
