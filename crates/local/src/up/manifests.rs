//! The files that `up` is given.

use std::path::{Path, PathBuf};

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};
use matriarch_api::Identity;
use serde_json::Value;

use crate::postgres::{InstalledServers, PostgresError};

/// What goes wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("{path} is not valid YAML: {text}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        text: String,
    },
    /// A document lacks what every object has.
    #[error("document {number} of {path} has no {field}")]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// Which document, from one.
        number: usize,
        /// The field.
        field: &'static str,
    },
    /// The PostgreSQL that a cluster asks for is not here.
    #[error("{path}: cluster {cluster} cannot run on this machine")]
    Server {
        /// The file.
        path: PathBuf,
        /// The cluster.
        cluster: String,
        /// Why.
        #[source]
        source: PostgresError,
    },
    /// The API server knows no such kind.
    #[error("{path}: no kind {kind} of {api_version}")]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind.
        kind: String,
        /// Its group and version.
        api_version: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server refused an object.
    #[error("{path}: {kind} {name} was refused")]
    Refused {
        /// The file.
        path: PathBuf,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// One object of a file.
#[derive(Clone, Debug)]
pub struct Manifest {
    path: PathBuf,
    api_version: String,
    kind: String,
    name: String,
    object: Value,
}

/// Reads all documents of all files.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ManifestError::Read { path: path.clone(), source })?;
        manifests.extend(parse(path, &text)?);
    }
    Ok(manifests)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| ManifestError::Parse { path: path.to_owned(), text: error.to_string() })?;
    let documents = documents.into_iter().enumerate().filter(|(_, document)| !document.is_null());
    documents
        .map(|(index, object)| {
            let field = |field: &'static str, pointer: &str| {
                object.pointer(pointer).and_then(Value::as_str).map(str::to_owned).ok_or_else(
                    || ManifestError::Incomplete {
                        path: path.to_owned(),
                        number: index + 1,
                        field,
                    },
                )
            };
            Ok(Manifest {
                path: path.to_owned(),
                api_version: field("apiVersion", "/apiVersion")?,
                kind: field("kind", "/kind")?,
                name: field("metadata.name", "/metadata/name")?,
                object,
            })
        })
        .collect()
}

/// Refuses clusters whose PostgreSQL is not installed, before anything is started. A cluster that
/// takes its image from a catalog is left to the operator.
pub fn check(
    manifests: &[Manifest],
    identity: Identity,
    default_image: &str,
    servers: &InstalledServers,
) -> Result<(), ManifestError> {
    for manifest in manifests {
        let ours = manifest.api_version.starts_with(&format!("{}/", identity.group()));
        if !ours || manifest.kind != "Cluster" {
            continue;
        }
        if manifest.object.pointer("/spec/imageCatalogRef").is_some() {
            continue;
        }
        let image = manifest.object.pointer("/spec/imageName").and_then(Value::as_str);
        servers.for_image(image.unwrap_or(default_image)).map_err(|source| {
            ManifestError::Server {
                path: manifest.path.clone(),
                cluster: manifest.name.clone(),
                source,
            }
        })?;
    }
    Ok(())
}

/// Applies one object as `kubectl apply --server-side` does.
pub async fn apply(client: &Client, manifest: &Manifest) -> Result<String, ManifestError> {
    let (group, version) =
        manifest.api_version.split_once('/').unwrap_or(("", manifest.api_version.as_str()));
    let kind = GroupVersionKind::gvk(group, version, &manifest.kind);
    let (resource, capabilities) =
        pinned_kind(client, &kind).await.map_err(|source| ManifestError::Kind {
            path: manifest.path.clone(),
            kind: manifest.kind.clone(),
            api_version: manifest.api_version.clone(),
            source: Box::new(source),
        })?;
    let namespace =
        manifest.object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default");
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace, &resource),
    };
    let parameters = PatchParams::apply("matriarch-local").force();
    api.patch(&manifest.name, &parameters, &Patch::Apply(&manifest.object)).await.map_err(
        |source| ManifestError::Refused {
            path: manifest.path.clone(),
            kind: manifest.kind.clone(),
            name: manifest.name.clone(),
            source: Box::new(source),
        },
    )?;
    Ok(format!("{} {}", manifest.kind, manifest.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n---\n\
        apiVersion: matriarch.dev/v1\nkind: Cluster\nmetadata:\n  name: c\nspec:\n  \
        imageName: ghcr.io/cloudnative-pg/postgresql:99\n";

    #[test]
    fn a_cluster_whose_server_is_not_installed_is_refused_with_the_cure() {
        let manifests = parse(Path::new("c.yaml"), FILE).unwrap();
        assert_eq!(manifests.len(), 2);
        let refused = check(&manifests, Identity::Matriarch, "x:15", &InstalledServers::default())
            .unwrap_err();
        let text = matriarch_api::causes::chain(&refused);
        assert!(text.contains("c.yaml: cluster c cannot run"), "{text}");
        assert!(text.contains("apt-get install postgresql-99"), "{text}");
    }

    #[test]
    fn a_document_without_a_name_is_named_by_its_number() {
        let text = "apiVersion: v1\nkind: Secret\n";
        let refused = parse(Path::new("c.yaml"), text).unwrap_err().to_string();
        assert_eq!(refused, "document 1 of c.yaml has no metadata.name");
    }
}
