//! Which fields of `Cluster.spec` have an effect. One table that only shrinks.
//!
//! A field without effect is never ignored silently. One that says where data comes from, where
//! copies go or how they are protected blocks: nothing is created (traps K7). All of them are listed
//! by the condition `UnsupportedFields`.

use serde_json::Value;

/// What a field does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Support {
    /// What it says.
    Effective,
    /// Nothing yet, and the condition `UnsupportedFields` says so.
    Listed,
    /// Nothing yet, and the cluster is not created with it.
    Blocking,
}

/// A line of the table. It speaks for its path and all below it that no longer line speaks for.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Path below `spec`: `a.b`, `list[]`.
    pub path: &'static str,
    /// What the field does.
    pub support: Support,
    /// What is so without it; empty for effective fields.
    pub sentence: &'static str,
    /// A member and its value with which the field asks for nothing (`enabled: false`); an empty
    /// name is the field itself.
    neutral: Option<(&'static str, bool)>,
}

/// A field in a user's spec that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path in the object, e.g. `spec.plugins[0]`.
    pub path: String,
    /// Listed or blocking.
    pub kind: Support,
    /// For a person: what is so without it.
    pub sentence: &'static str,
}

const fn effective(path: &'static str) -> Entry {
    Entry { path, support: Support::Effective, sentence: "", neutral: None }
}

const fn listed(path: &'static str, sentence: &'static str) -> Entry {
    Entry { path, support: Support::Listed, sentence, neutral: None }
}

const fn blocking(path: &'static str, sentence: &'static str) -> Entry {
    Entry { path, support: Support::Blocking, sentence, neutral: None }
}

const fn unless(mut entry: Entry, member: &'static str, value: bool) -> Entry {
    entry.neutral = Some((member, value));
    entry
}

const RECOVERY: &str = "the cluster would start empty instead of from this source";
const COPIES: &str = "no backup would be taken and no WAL archived";

/// The table.
pub const TABLE: &[Entry] = &[
    effective("description"),
    effective("inheritedMetadata"),
    effective("imageName"),
    effective("imageCatalogRef"),
    effective("imagePullPolicy"),
    effective("imagePullSecrets"),
    effective("schedulerName"),
    effective("priorityClassName"),
    effective("postgresUID"),
    effective("postgresGID"),
    effective("instances"),
    effective("minSyncReplicas"),
    effective("maxSyncReplicas"),
    effective("postgresql.parameters"),
    effective("postgresql.synchronous"),
    unless(
        listed(
            "postgresql.synchronous.failoverQuorum",
            "a failover is always checked against the quorum",
        ),
        "",
        true,
    ),
    listed(
        "postgresql.synchronous.podFailureDomainKeys",
        "synchronous standbys are chosen without regard to failure domains",
    ),
    listed(
        "postgresql.synchronous.nodeFailureDomainKeys",
        "synchronous standbys are chosen without regard to failure domains",
    ),
    effective("postgresql.pg_hba"),
    effective("postgresql.pg_ident"),
    unless(
        listed(
            "postgresql.syncReplicaElectionConstraint",
            "synchronous standbys are chosen without regard to failure domains",
        ),
        "enabled",
        false,
    ),
    effective("postgresql.shared_preload_libraries"),
    effective("postgresql.ldap"),
    effective("postgresql.promotionTimeout"),
    effective("postgresql.enableAlterSystem"),
    listed("postgresql.extensions", "the image's own extensions are there"),
    effective("podSelectorRefs"),
    effective("replicationSlots.highAvailability"),
    unless(
        listed(
            "replicationSlots.highAvailability.synchronizeLogicalDecoding",
            "logical slots are lost in a failover",
        ),
        "",
        false,
    ),
    effective("replicationSlots.updateInterval"),
    effective("replicationSlots.synchronizeReplicas"),
    effective("bootstrap.initdb"),
    blocking("bootstrap.initdb.import", RECOVERY),
    blocking("bootstrap.recovery", RECOVERY),
    blocking("bootstrap.pg_basebackup", RECOVERY),
    unless(
        blocking("replica", "the cluster would be a primary of its own instead of a replica"),
        "enabled",
        false,
    ),
    effective("superuserSecret"),
    effective("enableSuperuserAccess"),
    effective("certificates"),
    effective("storage"),
    effective("walStorage"),
    effective("tablespaces"),
    effective("ephemeralVolumeSource"),
    effective("ephemeralVolumesSizeLimit"),
    effective("serviceAccountTemplate"),
    effective("serviceAccountName"),
    effective("startDelay"),
    effective("stopDelay"),
    effective("smartShutdownTimeout"),
    effective("switchoverDelay"),
    effective("failoverDelay"),
    effective("livenessProbeTimeout"),
    effective("failover"),
    effective("affinity"),
    effective("topologySpreadConstraints"),
    effective("resources"),
    effective("primaryUpdateStrategy"),
    effective("primaryUpdateMethod"),
    effective("primaryLease"),
    listed(
        "primaryLease.releasedLeaseDurationSeconds",
        "a Lease that was given up is free at once",
    ),
    blocking("backup", COPIES),
    listed("backup.target", "no backup is taken"),
    effective("nodeMaintenanceWindow"),
    listed("monitoring", "the agents' own metrics are served"),
    listed("externalClusters", "nothing reads from other servers"),
    effective("logLevel"),
    effective("projectedVolumeTemplate"),
    effective("env"),
    effective("envFrom"),
    listed("managed.roles", "roles are left alone"),
    effective("managed.services"),
    effective("seccompProfile"),
    effective("podSecurityContext"),
    effective("securityContext"),
    effective("enablePDB"),
    unless(
        blocking("plugins[]", "what the plugin archives, encrypts or restores would not be"),
        "enabled",
        false,
    ),
    effective("probes"),
    unless(
        listed(
            "probes.liveness.isolationCheck",
            "a primary that is cut off is stopped by the rules of its Lease",
        ),
        "enabled",
        false,
    ),
];

/// The line that speaks for a path of the schema: the longest that is a prefix of it.
pub fn entry_of(path: &str) -> Option<&'static Entry> {
    TABLE.iter().filter(|entry| covers(entry.path, path)).max_by_key(|entry| entry.path.len())
}

fn covers(entry: &str, path: &str) -> bool {
    path.strip_prefix(entry)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', '{']))
}

/// All fields of a spec that have no effect. `spec` is the JSON as the user wrote it: a type would
/// have forgotten what it does not know.
pub fn unsupported(spec: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    visit("", "spec", spec, &mut findings);
    findings
}

/// True if nothing may be created with these findings.
pub fn blocks(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.kind == Support::Blocking)
}

fn visit(path: &str, shown: &str, value: &Value, findings: &mut Vec<Finding>) {
    if let Some(entry) = TABLE.iter().find(|entry| entry.path == path) {
        match entry.support {
            Support::Effective => {}
            Support::Listed | Support::Blocking => {
                // A longer line below speaks for its part, so that `backup.target` alone only lists.
                let (own, others) = split(path, value);
                if own && !is_neutral(entry, value) {
                    findings.push(Finding {
                        path: shown.to_owned(),
                        kind: entry.support,
                        sentence: entry.sentence,
                    });
                }
                for name in others {
                    visit(&join(path, &name), &join(shown, &name), &value[&name], findings);
                }
                return;
            }
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                visit(&join(path, name), &join(shown, name), field, findings);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit(&format!("{path}[]"), &format!("{shown}[{index}]"), item, findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Does the value say anything that the line at `path` itself speaks for; and which members have
/// lines of their own.
fn split(path: &str, value: &Value) -> (bool, Vec<String>) {
    match value {
        Value::Null => (false, vec![]),
        Value::Array(items) => (!items.is_empty(), vec![]),
        Value::Object(fields) => {
            let has_line = |name: &String| TABLE.iter().any(|entry| entry.path == join(path, name));
            let others: Vec<String> =
                fields.keys().filter(|name| has_line(name)).cloned().collect();
            (fields.len() > others.len(), others)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => (true, vec![]),
    }
}

fn is_neutral(entry: &Entry, value: &Value) -> bool {
    entry.neutral.is_some_and(|(member, neutral)| {
        let value = if member.is_empty() { Some(value) } else { value.get(member) };
        value.and_then(Value::as_bool) == Some(neutral)
    })
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::crd;
    use crate::identity::{Identity, Kind};

    fn paths_of_spec() -> Vec<(String, bool)> {
        let schema = crd::schema(Kind::Cluster, Identity::Matriarch).unwrap();
        let mut paths = Vec::new();
        crd::walk("", &schema["properties"]["spec"], &mut |path, node| {
            let leaf = node.get("properties").is_none() && node.get("items").is_none();
            paths.push((path.to_owned(), leaf));
        });
        paths
    }

    #[test]
    fn the_table_speaks_for_every_field_of_the_schema_exactly_once() {
        let paths = paths_of_spec();
        assert!(paths.len() > 1000, "the schema has only {} paths", paths.len());
        for (path, leaf) in &paths {
            assert!(!leaf || entry_of(path).is_some(), "no line speaks for spec.{path}");
        }
        let known: BTreeSet<&str> = paths.iter().map(|(path, _)| path.as_str()).collect();
        let mut seen = BTreeSet::new();
        for entry in TABLE {
            assert!(known.contains(entry.path), "spec.{} is not in the schema", entry.path);
            assert!(seen.insert(entry.path), "spec.{} has two lines", entry.path);
            assert_eq!(entry.support == Support::Effective, entry.sentence.is_empty());
        }
    }

    #[test]
    fn no_default_of_the_schema_is_reported_as_unsupported() {
        let schema = crd::schema(Kind::Cluster, Identity::Matriarch).unwrap();
        crd::walk("", &schema["properties"]["spec"], &mut |path, node| {
            if node.get("default").is_some() {
                let support = entry_of(path).unwrap().support;
                assert_eq!(support, Support::Effective, "spec.{path} has a default");
            }
        });
    }

    #[test]
    fn what_decides_about_data_blocks_and_the_rest_is_listed() {
        let spec = json!({
            "instances": 3,
            "storage": { "size": "1Gi" },
            "bootstrap": { "recovery": { "source": "old" } },
            "monitoring": { "metricsQueriesTTL": "1m" },
            "plugins": [{ "name": "a" }, { "name": "b", "enabled": false }],
        });
        let findings = unsupported(&spec);
        let found: Vec<_> = findings.iter().map(|f| (f.path.as_str(), f.kind)).collect();
        assert!(found.contains(&("spec.bootstrap.recovery", Support::Blocking)));
        assert!(found.contains(&("spec.monitoring", Support::Listed)));
        assert!(found.contains(&("spec.plugins[0]", Support::Blocking)));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(blocks(&findings));
    }

    #[test]
    fn a_field_that_asks_for_nothing_is_no_finding() {
        let spec = json!({
            "replica": { "enabled": false, "source": "x" },
            "backup": { "target": "primary" },
            "plugins": [],
        });
        let findings = unsupported(&spec);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].path, "spec.backup.target");
        assert!(!blocks(&findings));
        assert!(blocks(&unsupported(&json!({ "backup": { "retentionPolicy": "7d" } }))));
        assert!(blocks(&unsupported(&json!({ "replica": { "primary": "b" } }))));
    }
}
