//! The manifest, the changed Cluster, and what differs.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use matriarch_api::{Cluster, Identity, Kind};
use serde_json::{Value, json};

use crate::error::Error;

/// What a manifest holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifest {
    /// Clusters.
    pub clusters: Vec<Value>,
    /// Kind and name of everything else.
    pub ignored: Vec<String>,
}

/// Reads a manifest; `-` is standard input.
///
/// # Errors
/// If it cannot be read, or holds no Cluster.
pub fn read(path: &Path, identity: Identity) -> Result<Manifest, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        text
    } else {
        std::fs::read_to_string(path).map_err(failed)?
    };
    parse(path, &text, identity)
}

/// Takes a manifest apart.
///
/// # Errors
/// If it is no YAML or JSON, or holds no Cluster of this identity.
pub fn parse(path: &Path, text: &str, identity: Identity) -> Result<Manifest, Error> {
    let failed = |why: String| Error::Manifest { path: path.to_owned(), why };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| failed(error.to_string()))?;
    let mut manifest = Manifest::default();
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let text = |pointer: &str| {
            document.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        let ours = text("/apiVersion") == identity.api_version();
        if !ours || kind != Kind::Cluster.name() {
            manifest.ignored.push(format!("{kind}/{name}"));
        } else if name.is_empty() {
            return Err(failed("a Cluster has no metadata.name".to_owned()));
        } else {
            manifest.clusters.push(document);
        }
    }
    if manifest.clusters.is_empty() {
        let kind = format!("no Cluster of {} in it", identity.api_version());
        return Err(failed(kind));
    }
    Ok(manifest)
}

/// The Cluster as it would be: the spec of the manifest, its labels and annotations over those
/// that are there, the status and identity of the present one.
pub fn merge(present: Option<&Cluster>, wanted: &Value, namespace: &str) -> Value {
    let before = present.and_then(|cluster| serde_json::to_value(cluster).ok());
    let Some(mut changed) = before else {
        let mut new = wanted.clone();
        new["metadata"]["namespace"] = json!(namespace);
        return new;
    };
    changed["apiVersion"] = wanted["apiVersion"].clone();
    changed["kind"] = wanted["kind"].clone();
    changed["spec"] = wanted["spec"].clone();
    if let Some(metadata) = changed["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    for field in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            changed["metadata"][field][key] = value.clone();
        }
    }
    changed
}

/// One value that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Path of the field.
    pub path: String,
    /// What is there now.
    pub before: Option<Value>,
    /// What would be there.
    pub after: Option<Value>,
}

/// What differs in spec, labels and annotations.
pub fn changes(present: Option<&Cluster>, changed: &Cluster) -> Vec<Change> {
    let leaves = |cluster: Option<&Cluster>| {
        let mut leaves = BTreeMap::new();
        let value = cluster.and_then(|cluster| serde_json::to_value(cluster).ok());
        let value = value.unwrap_or_default();
        flatten("spec", &value["spec"], &mut leaves);
        flatten("metadata.labels", &value["metadata"]["labels"], &mut leaves);
        flatten("metadata.annotations", &value["metadata"]["annotations"], &mut leaves);
        leaves
    };
    let (before, after) = (leaves(present), leaves(Some(changed)));
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort();
    paths.dedup();
    let differing = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    differing
        .map(|path| Change {
            path: path.clone(),
            before: before.get(path).cloned(),
            after: after.get(path).cloned(),
        })
        .collect()
}

/// Paths of the manifest's spec that the API has dropped: it knows no such fields.
pub fn dropped(wanted: &Value, kept: &Value) -> Vec<String> {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    flatten("spec", wanted, &mut before);
    flatten("spec", kept, &mut after);
    before.into_keys().filter(|path| !after.contains_key(path)).collect()
}

/// All leaves of a value by path; lists are leaves, because their order matters.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                flatten(&format!("{path}.{name}"), field, leaves);
            }
        }
        Value::Null => {}
        Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            leaves.insert(path.to_owned(), value.clone());
        }
    }
}
