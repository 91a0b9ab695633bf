//! What pods are made from: hashes that tell whether the user has changed something that shapes them
//! (docs/decisions/agent-upgrade.md).

use std::collections::BTreeMap;

use matriarch_api::annotations::Annotation;
use matriarch_plan::stamp::PodStamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::resolve::Resolved;
use crate::setup::Owner;

/// Fields of the user's spec that shape pods, by their names in JSON. A change of another field
/// never replaces a pod.
pub const SHAPES: [&str; 27] = [
    "imagePullPolicy",
    "imagePullSecrets",
    "schedulerName",
    "priorityClassName",
    "postgresUID",
    "postgresGID",
    "walStorage",
    "tablespaces",
    "ephemeralVolumeSource",
    "ephemeralVolumesSizeLimit",
    "serviceAccountName",
    "startDelay",
    "stopDelay",
    "livenessProbeTimeout",
    "affinity",
    "topologySpreadConstraints",
    "resources",
    "projectedVolumeTemplate",
    "env",
    "envFrom",
    "seccompProfile",
    "podSecurityContext",
    "securityContext",
    "probes",
    IMAGE,
    POD_PATCH,
    COREDUMP_FILTER,
];

/// Stands for all fields that say which image of PostgreSQL is used: what came out of them.
const IMAGE: &str = "image";
/// Stand for the annotations of these names.
const POD_PATCH: &str = "podPatch";
const COREDUMP_FILTER: &str = "coredumpFilter";

/// A hash in sixteen letters, by which two states of an object are told apart.
pub fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The same wish has one form: what is not said, and what is said to be nothing, are alike. Another
/// operator may know more fields below this one.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| (name, plain(value)))
                .filter(|(_, value)| !is_nothing(value))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

/// Every field that the user has set, hashed: what a pod that is made now carries.
pub fn fields(owner: &Owner<'_>, resolved: &Resolved) -> BTreeMap<String, String> {
    let spec = serde_json::to_value(&owner.cluster.spec).map(plain).unwrap_or_default();
    let fields = spec.as_object().into_iter().flatten();
    let mut hashes: BTreeMap<String, String> =
        fields.map(|(name, value)| (name.clone(), hash(&value.to_string()))).collect();
    if !resolved.tablespaces.is_empty() {
        // Their sizes and owners shape no pod.
        let names = json!(resolved.tablespaces);
        hashes.insert("tablespaces".to_owned(), hash(&names.to_string()));
    }
    hashes.insert(IMAGE.to_owned(), hash(&Value::String(resolved.image.clone()).to_string()));
    for (name, annotation) in
        [(POD_PATCH, Annotation::PodPatch), (COREDUMP_FILTER, Annotation::CoredumpFilter)]
    {
        let given = owner.given(annotation);
        hashes.extend(given.map(|text| (name.to_owned(), hash(text))));
    }
    hashes
}

/// What a pod made now is compared with.
pub fn wanted(owner: &Owner<'_>, resolved: &Resolved, pod: &Value) -> PodStamp {
    let mut set = fields(owner, resolved);
    let shaping = SHAPES.map(|name| (name.to_owned(), set.remove(name).unwrap_or_default()));
    PodStamp { pod: hash(&pod.to_string()), fields: shaping.into_iter().collect() }
}
