//! The CustomResourceDefinitions, built from the types, the marks and the rules.

mod marks;
mod rules;
mod structural;

#[cfg(test)]
mod tests;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use marks::{MAX_ITEMS, MAX_NAME, UnknownPath};
pub use rules::Rule;
pub use structural::walk;

use crate::cluster::{ClusterSpec, ClusterStatus};
use crate::identity::{Identity, Kind};
use crate::image_catalog::ImageCatalogSpec;
use crate::instance::{InstanceSpec, InstanceStatus};

/// Greatest size of a definition in bytes of compact JSON: plain `kubectl apply` writes it once more
/// into an annotation of at most 262,144 bytes (traps K1).
pub const MAX_BYTES: usize = 200_000;

/// A definition cannot be built. Only a mistake in our own tables can cause it; tests build all.
#[derive(Debug, thiserror::Error)]
pub enum CrdError {
    /// A table names a path that is not in the schema.
    #[error("apply a table to the schema")]
    Table(#[from] UnknownPath),
    /// The definition is not of the type that Kubernetes has.
    #[error("read the definition of {kind} as a CustomResourceDefinition")]
    Type {
        /// Whose.
        kind: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A printer column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the value is.
    pub json_path: String,
    /// Shown with `-o wide` alone if greater than 0.
    pub priority: i32,
    /// What it says.
    pub description: String,
}

/// All rules of a kind under an identity.
pub fn rules_of(kind: Kind, identity: Identity) -> Vec<Rule> {
    rules::of(kind, identity)
}

/// The schema of a kind under an identity: the whole object.
pub fn schema(kind: Kind, identity: Identity) -> Result<Value, UnknownPath> {
    let (description, spec, status) = match kind {
        Kind::Cluster => (
            "A PostgreSQL cluster.",
            structural::structural::<ClusterSpec>(),
            Some(structural::structural::<ClusterStatus>()),
        ),
        Kind::Instance => (
            "One instance of a PostgreSQL cluster: the operator's directive and the agent's report. Not for people to write.",
            structural::structural::<InstanceSpec>(),
            Some(structural::structural::<InstanceStatus>()),
        ),
        Kind::ImageCatalog => (
            "Images with PostgreSQL by major version, for one namespace.",
            structural::structural::<ImageCatalogSpec>(),
            None,
        ),
        Kind::ClusterImageCatalog => (
            "Images with PostgreSQL by major version, for all namespaces.",
            structural::structural::<ImageCatalogSpec>(),
            None,
        ),
    };
    let mut schema = json!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": { "type": "string" },
            "kind": { "type": "string" },
            "metadata": { "type": "object" },
            "spec": spec,
        },
    });
    if let (Some(status), Some(properties)) = (status, schema["properties"].as_object_mut()) {
        properties.insert("status".to_owned(), status);
    }
    marks::apply(kind, &mut schema)?;
    rules::apply(kind, identity, &mut schema)?;
    Ok(schema)
}

/// The definition of a kind under an identity, as JSON.
pub fn json(kind: Kind, identity: Identity) -> Result<Value, UnknownPath> {
    let mut version = json!({
        "name": identity.version(),
        "served": true,
        "storage": true,
        "schema": { "openAPIV3Schema": schema(kind, identity)? },
        "additionalPrinterColumns": columns(kind),
    });
    match kind {
        Kind::Cluster => {
            version["subresources"] = json!({
                "status": {},
                "scale": {
                    "specReplicasPath": ".spec.instances",
                    "statusReplicasPath": ".status.instances",
                    "labelSelectorPath": ".status.selector",
                },
            });
        }
        Kind::Instance => version["subresources"] = json!({ "status": {} }),
        Kind::ImageCatalog | Kind::ClusterImageCatalog => {}
    }
    let mut names = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.singular(),
        "categories": ["matriarch"],
    });
    let short = short_names(kind, identity);
    if !short.is_empty() {
        names["shortNames"] = json!(short);
    }
    Ok(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": kind.crd_name(identity) },
        "spec": {
            "group": identity.group(),
            "names": names,
            "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
            "versions": [version],
        },
    }))
}

/// The definition of a kind under an identity.
pub fn definition(kind: Kind, identity: Identity) -> Result<CustomResourceDefinition, CrdError> {
    serde_json::from_value(json(kind, identity)?)
        .map_err(|source| CrdError::Type { kind: kind.name(), source })
}

/// All definitions under an identity.
pub fn all(identity: &Identity) -> Result<Vec<CustomResourceDefinition>, CrdError> {
    Kind::ALL.into_iter().map(|kind| definition(kind, *identity)).collect()
}

/// The schema of a kind as Kubernetes' type, for those who prune or fill in defaults themselves.
pub fn open_api(kind: Kind, identity: Identity) -> Result<JSONSchemaProps, CrdError> {
    serde_json::from_value(schema(kind, identity)?)
        .map_err(|source| CrdError::Type { kind: kind.name(), source })
}

fn short_names(kind: Kind, identity: Identity) -> Vec<&'static str> {
    match (kind, identity) {
        (Kind::Cluster, Identity::Matriarch) => vec!["pgc"],
        (Kind::Instance, Identity::Matriarch) => vec!["pgi"],
        // The peers give their kinds none.
        (Kind::Cluster | Kind::Instance, Identity::Cnpg | Identity::Edb)
        | (Kind::ImageCatalog | Kind::ClusterImageCatalog, _) => vec![],
    }
}

/// The printer columns of a kind.
pub fn columns(kind: Kind) -> Vec<Column> {
    let column = |name: &str, kind: &str, path: &str, priority: i32, description: &str| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        json_path: path.to_owned(),
        priority,
        description: description.to_owned(),
    };
    let age = column("Age", "date", ".metadata.creationTimestamp", 0, "When it was made");
    match kind {
        Kind::Cluster => vec![
            age,
            column("Instances", "integer", ".status.instances", 0, "Instances with a volume"),
            column(
                "Ready",
                "integer",
                ".status.readyInstances",
                0,
                "Instances that accept connections",
            ),
            column("Status", "string", ".status.phase", 0, "What the cluster is doing"),
            column("Primary", "string", ".status.currentPrimary", 0, "The primary"),
            column(
                "SyncTopology",
                "string",
                ".status.conditions[?(@.type==\"SyncReplicationTopologySatisfied\")].reason",
                1,
                "Are synchronous standbys in other failure domains",
            ),
            column(
                "Waits for",
                "string",
                ".status.blockedBy[0].message",
                1,
                "What the operator waits for",
            ),
        ],
        Kind::Instance => vec![
            age,
            column("Cluster", "string", ".spec.clusterName", 0, "The cluster"),
            column("Role", "string", ".status.role", 0, "What it is to PostgreSQL"),
            column("State", "string", ".status.state", 0, "What it is doing"),
            column("Timeline", "integer", ".status.timeline", 0, "Timeline of the data"),
            column("Failure", "string", ".status.failure.reason", 0, "Why it cannot go on"),
            column("Term", "integer", ".status.term", 1, "Highest term obeyed"),
            column("Version", "string", ".status.postgresVersion", 1, "PostgreSQL's version"),
        ],
        Kind::ImageCatalog | Kind::ClusterImageCatalog => vec![age],
    }
}
