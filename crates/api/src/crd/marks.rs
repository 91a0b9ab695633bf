//! What the types alone do not say of their schema, by path: bounds, words, patterns, defaults,
//! how lists merge, what is required.
//!
//! Every list and string that a rule reads is bounded (traps K2: with 256 items and names of 63
//! characters rules across lists stay within the server's budget). A default stands in the schema
//! only where ours is CloudNativePG's and depends on no other field (traps K6).

use serde_json::{Value, json};

use super::structural::node_mut;
use crate::identity::Kind;

/// A path of the schema and the keywords that are put there.
type Mark = (&'static str, Value);

/// Greatest number of items of a list that a rule reads.
pub const MAX_ITEMS: u32 = 256;
/// Greatest length of a name that a rule reads: PostgreSQL's, and that of a DNS label.
pub const MAX_NAME: u32 = 63;

/// Greatest length of a tablespace's name ([`crate::names::is_tablespace_name`]).
const MAX_TABLESPACE_NAME: usize = crate::names::MAX_TABLESPACE_NAME;

/// A path that is not in the schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema of {kind} has no path {path:?}")]
pub struct UnknownPath {
    /// Whose schema.
    pub kind: &'static str,
    /// The path.
    pub path: String,
}

/// Puts all marks of a kind into its schema.
pub fn apply(kind: Kind, schema: &mut Value) -> Result<(), UnknownPath> {
    let marks = match kind {
        Kind::Cluster => {
            let mut marks = lists();
            marks.extend(numbers());
            marks.extend(texts());
            marks.extend(required());
            marks.extend(defaults());
            marks
        }
        Kind::Instance => vec![],
        Kind::ImageCatalog | Kind::ClusterImageCatalog => catalog(),
    };
    for (path, keywords) in marks {
        merge(kind, schema, path, keywords)?;
    }
    if kind == Kind::Cluster {
        for path in ["spec.walStorage", "spec.tablespaces[].storage"] {
            remove_property(kind, schema, path, "retainPolicy")?;
        }
    }
    Ok(())
}

fn merge(kind: Kind, schema: &mut Value, path: &str, keywords: Value) -> Result<(), UnknownPath> {
    let unknown = || UnknownPath { kind: kind.name(), path: path.to_owned() };
    let node = node_mut(schema, path).and_then(Value::as_object_mut).ok_or_else(unknown)?;
    if let Value::Object(keywords) = keywords {
        node.extend(keywords);
    }
    Ok(())
}

/// One retention policy holds for all volumes of a cluster: it is written in `spec.storage` alone.
fn remove_property(
    kind: Kind,
    schema: &mut Value,
    path: &str,
    name: &str,
) -> Result<(), UnknownPath> {
    node_mut(schema, path)
        .and_then(|node| node.get_mut("properties"))
        .and_then(Value::as_object_mut)
        .and_then(|properties| properties.shift_remove(name))
        .map(|_| ())
        .ok_or_else(|| UnknownPath { kind: kind.name(), path: format!("{path}.{name}") })
}

/// A list whose items are told apart by these fields, so that several appliers can each own some.
fn keyed(keys: &[&str]) -> Value {
    json!({ "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "maxItems": MAX_ITEMS })
}

fn bounded() -> Value {
    json!({ "maxItems": MAX_ITEMS })
}

fn lists() -> Vec<Mark> {
    vec![
        ("spec.env", keyed(&["name"])),
        ("spec.envFrom", bounded()),
        ("spec.externalClusters", keyed(&["name"])),
        ("spec.imagePullSecrets", bounded()),
        ("spec.managed.roles", keyed(&["name"])),
        ("spec.managed.services.additional", bounded()),
        ("spec.plugins", keyed(&["name"])),
        ("spec.podSelectorRefs", keyed(&["name"])),
        ("spec.postgresql.extensions", keyed(&["name"])),
        ("spec.tablespaces", keyed(&["name"])),
        ("spec.topologySpreadConstraints", keyed(&["topologyKey", "whenUnsatisfiable"])),
        ("spec.resources.claims", keyed(&["name"])),
        ("spec.affinity.tolerations", bounded()),
        ("spec.postgresql.parameters", json!({ "maxProperties": 512 })),
        ("spec.postgresql.synchronous.standbyNamesPre", bounded()),
        ("spec.postgresql.synchronous.standbyNamesPost", bounded()),
        ("spec.postgresql.synchronous.podFailureDomainKeys", bounded()),
        ("spec.postgresql.synchronous.nodeFailureDomainKeys", bounded()),
        ("spec.bootstrap.initdb.import.databases", bounded()),
        ("spec.bootstrap.initdb.import.roles", bounded()),
        ("spec.bootstrap.initdb.import.postImportApplicationSQL", bounded()),
        ("spec.certificates.serverAltDNSNames", bounded()),
        ("spec.failover.priority", json!({ "maxProperties": MAX_ITEMS })),
        ("spec.replicationSlots.synchronizeReplicas.excludePatterns", bounded()),
        ("status.conditions", keyed(&["type"])),
    ]
}

fn numbers() -> Vec<Mark> {
    let at_least = |minimum: i64| json!({ "minimum": minimum });
    let mut marks = vec![
        ("spec.instances", json!({ "minimum": 1, "maximum": 100 })),
        ("spec.minSyncReplicas", json!({ "minimum": 0, "maximum": 100 })),
        ("spec.maxSyncReplicas", json!({ "minimum": 0, "maximum": 100 })),
        ("spec.postgresql.synchronous.number", json!({ "minimum": 1, "maximum": 1000 })),
        ("spec.failover.failsafeMax", at_least(1)),
        ("spec.managed.roles[].connectionLimit", at_least(-1)),
        ("spec.postgresql.ldap.port", json!({ "minimum": 1, "maximum": 65535 })),
        ("spec.replicationSlots.updateInterval", at_least(1)),
        ("spec.imageCatalogRef.major", at_least(10)),
        (
            "spec.bootstrap.initdb.walSegmentSize",
            json!({ "enum": [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] }),
        ),
        ("spec.backup.barmanObjectStore.data.jobs", at_least(1)),
        ("spec.backup.barmanObjectStore.wal.maxParallel", at_least(1)),
    ];
    for path in [
        "spec.startDelay",
        "spec.stopDelay",
        "spec.smartShutdownTimeout",
        "spec.switchoverDelay",
        "spec.failoverDelay",
        "spec.livenessProbeTimeout",
        "spec.postgresUID",
        "spec.postgresGID",
        "spec.postgresql.promotionTimeout",
        "spec.postgresql.synchronous.maxStandbyNamesFromCluster",
    ] {
        marks.push((path, at_least(0)));
    }
    for path in [
        "spec.primaryLease.leaseDurationSeconds",
        "spec.primaryLease.renewDeadlineSeconds",
        "spec.primaryLease.retryPeriodSeconds",
        "spec.primaryLease.releasedLeaseDurationSeconds",
    ] {
        marks.push((path, json!({ "minimum": 1, "maximum": 86400 })));
    }
    marks
}

fn texts() -> Vec<Mark> {
    let name = || json!({ "maxLength": MAX_NAME });
    let size =
        || json!({ "maxLength": 32, "pattern": r"^[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?$" });
    let mut marks = vec![
        ("spec.imageName", json!({ "maxLength": 512 })),
        ("spec.imagePullPolicy", json!({ "enum": ["Always", "Never", "IfNotPresent"] })),
        ("spec.imageCatalogRef.kind", json!({ "enum": ["ImageCatalog", "ClusterImageCatalog"] })),
        (
            "spec.failover.maximumLag",
            json!({
                "maxLength": 32,
                "pattern": r"^(unlimited|[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?)$",
            }),
        ),
        ("spec.env[].name", json!({ "maxLength": 256 })),
        ("spec.affinity.tolerations[].key", json!({ "maxLength": 317 })),
        ("spec.affinity.tolerations[].operator", json!({ "maxLength": 16 })),
        ("spec.affinity.tolerations[].value", json!({ "maxLength": MAX_NAME })),
        (
            "spec.backup.retentionPolicy",
            json!({ "maxLength": 16, "pattern": "^[1-9][0-9]*[dwm]$" }),
        ),
        (
            "spec.replicationSlots.highAvailability.slotPrefix",
            json!({ "maxLength": 30, "pattern": "^[0-9a-z_]*$" }),
        ),
        (
            "spec.externalClusters[].name",
            json!({ "maxLength": MAX_NAME, "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*$" }),
        ),
        ("spec.postgresql.extensions[].name", json!({ "maxLength": 59 })),
        (
            "spec.podSelectorRefs[].name",
            json!({ "maxLength": MAX_NAME, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" }),
        ),
        (
            "spec.tablespaces[].name",
            json!({
                "maxLength": MAX_TABLESPACE_NAME,
                "pattern": "^[a-zA-Z]([-_a-zA-Z0-9]*[a-zA-Z0-9])?$",
            }),
        ),
        ("spec.managed.services.disabledDefaultServices[]", json!({ "enum": ["r", "ro"] })),
        ("spec.managed.roles[].validUntil", json!({ "format": "date-time" })),
        ("spec.bootstrap.initdb.import.databases[]", name()),
        ("spec.bootstrap.initdb.import.roles[]", name()),
        ("spec.serviceAccountName", json!({ "maxLength": 253 })),
    ];
    for path in [
        "spec.managed.roles[].name",
        "spec.postgresql.synchronous.standbyNamesPre[]",
        "spec.postgresql.synchronous.standbyNamesPost[]",
        "spec.bootstrap.initdb.database",
        "spec.bootstrap.initdb.owner",
        "spec.bootstrap.initdb.import.source.externalCluster",
        "spec.bootstrap.recovery.source",
        "spec.bootstrap.pg_basebackup.source",
        "spec.replica.source",
        "spec.replica.self",
        "spec.replica.primary",
    ] {
        marks.push((path, name()));
    }
    for path in ["spec.storage.size", "spec.walStorage.size", "spec.tablespaces[].storage.size"] {
        marks.push((path, size()));
    }
    marks
}

fn required() -> Vec<Mark> {
    let fields = |names: &[&str]| json!({ "required": names });
    vec![
        ("", fields(&["spec"])),
        ("spec.imageCatalogRef", fields(&["kind", "name", "major"])),
        ("spec.externalClusters[]", fields(&["name"])),
        ("spec.managed.roles[]", fields(&["name"])),
        ("spec.managed.services.additional[]", fields(&["selectorType", "serviceTemplate"])),
        ("spec.plugins[]", fields(&["name"])),
        ("spec.podSelectorRefs[]", fields(&["name", "selector"])),
        ("spec.postgresql.extensions[]", fields(&["name"])),
        ("spec.postgresql.extensions[].env[]", fields(&["name", "value"])),
        ("spec.postgresql.synchronous", fields(&["method", "number"])),
        ("spec.tablespaces[]", fields(&["name", "storage"])),
        ("spec.bootstrap.initdb.import", fields(&["type", "source", "databases"])),
        ("spec.bootstrap.initdb.import.source", fields(&["externalCluster"])),
        ("spec.bootstrap.pg_basebackup", fields(&["source"])),
        ("spec.bootstrap.recovery.backup", fields(&["name"])),
        ("spec.bootstrap.recovery.volumeSnapshots", fields(&["storage"])),
        ("spec.backup.barmanObjectStore", fields(&["destinationPath"])),
        ("spec.bootstrap.initdb.postInitSQLRefs.secretRefs[]", fields(&["name", "key"])),
        ("spec.bootstrap.initdb.postInitSQLRefs.configMapRefs[]", fields(&["name", "key"])),
        ("spec.bootstrap.initdb.postInitApplicationSQLRefs.secretRefs[]", fields(&["name", "key"])),
        (
            "spec.bootstrap.initdb.postInitApplicationSQLRefs.configMapRefs[]",
            fields(&["name", "key"]),
        ),
        ("spec.bootstrap.initdb.postInitTemplateSQLRefs.secretRefs[]", fields(&["name", "key"])),
        ("spec.bootstrap.initdb.postInitTemplateSQLRefs.configMapRefs[]", fields(&["name", "key"])),
        ("spec.superuserSecret", fields(&["name"])),
        ("spec.bootstrap.initdb.secret", fields(&["name"])),
    ]
}

fn defaults() -> Vec<Mark> {
    let default = |value: Value| json!({ "default": value });
    vec![
        ("spec.instances", default(json!(1))),
        ("spec.minSyncReplicas", default(json!(0))),
        ("spec.maxSyncReplicas", default(json!(0))),
        ("spec.startDelay", default(json!(3600))),
        ("spec.switchoverDelay", default(json!(3600))),
        ("spec.failoverDelay", default(json!(0))),
        ("spec.enableSuperuserAccess", default(json!(false))),
        ("spec.primaryUpdateStrategy", default(json!("unsupervised"))),
        ("spec.logLevel", default(json!("info"))),
        ("spec.replicationSlots.updateInterval", default(json!(30))),
        ("spec.replicationSlots.highAvailability.enabled", default(json!(true))),
        ("spec.replicationSlots.synchronizeReplicas.enabled", default(json!(true))),
    ]
}

fn catalog() -> Vec<Mark> {
    vec![
        ("", json!({ "required": ["spec"] })),
        ("spec", json!({ "required": ["images"] })),
        (
            "spec.images",
            json!({
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["major"],
                "minItems": 1,
                "maxItems": 8,
            }),
        ),
        ("spec.images[]", json!({ "required": ["image", "major"] })),
        ("spec.images[].major", json!({ "minimum": 10 })),
        ("spec.images[].image", json!({ "minLength": 1, "maxLength": 512 })),
        ("spec.images[].extensions", keyed(&["name"])),
        ("spec.images[].extensions[]", json!({ "required": ["name"] })),
        ("spec.images[].extensions[].name", json!({ "maxLength": 59 })),
        (
            "spec.componentImages",
            json!({
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["key"],
                "maxItems": 32,
            }),
        ),
        ("spec.componentImages[]", json!({ "required": ["image", "key"] })),
        ("spec.componentImages[].key", json!({ "maxLength": MAX_NAME })),
    ]
}
