//! The kinds as Kubernetes objects whose group is chosen at run time.
//!
//! `kube::Resource` takes its `DynamicType` from the [`Identity`]. The scope must be
//! `DynamicResourceScope`: with `NamespaceResourceScope` a type with a run-time identity does not
//! compile in `kube::Api::namespaced_with` (traps K8).

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube_core::DynamicResourceScope;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::cluster::{ClusterSpec, ClusterStatus};
use crate::identity::{Identity, Kind};
use crate::image_catalog::ImageCatalogSpec;
use crate::instance::{InstanceSpec, InstanceStatus};

macro_rules! object {
    ($(
        $(#[$meta:meta])*
        $name:ident { spec: $spec:ty $(, status: $status:ty)? }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// Group and version: the identity under which it was made.
            #[serde(default)]
            pub api_version: String,
            /// The kind.
            #[serde(default)]
            pub kind: String,
            /// Metadata.
            #[serde(default)]
            pub metadata: ObjectMeta,
            /// What is wanted.
            #[serde(default, deserialize_with = "lenient")]
            pub spec: $spec,
            $(
            /// What is.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub status: Option<$status>,
            )?
        }

        impl $name {
            /// The kind.
            pub const KIND: Kind = Kind::$name;

            /// An object with this name and spec.
            pub fn new(identity: Identity, name: &str, spec: $spec) -> Self {
                Self {
                    api_version: identity.api_version(),
                    kind: Self::KIND.name().to_owned(),
                    metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                    spec,
                    $( status: None::<$status>, )?
                }
            }

            /// The object's name; empty only for an object that no server has seen.
            pub fn name(&self) -> &str {
                self.metadata.name.as_deref().unwrap_or_default()
            }

            /// The object's namespace; empty if it has none.
            pub fn namespace(&self) -> &str {
                self.metadata.namespace.as_deref().unwrap_or_default()
            }
        }

        impl kube_core::Resource for $name {
            type DynamicType = Identity;
            type Scope = DynamicResourceScope;

            fn kind(_: &Identity) -> Cow<'_, str> {
                Cow::Borrowed(Self::KIND.name())
            }

            fn group(identity: &Identity) -> Cow<'_, str> {
                Cow::Borrowed(identity.group())
            }

            fn version(identity: &Identity) -> Cow<'_, str> {
                Cow::Borrowed(identity.version())
            }

            fn plural(_: &Identity) -> Cow<'_, str> {
                Cow::Borrowed(Self::KIND.plural())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    )* };
}

object! {
    /// A PostgreSQL cluster.
    Cluster { spec: ClusterSpec, status: ClusterStatus }
    /// One instance of a cluster: the operator's directive and the agent's report.
    Instance { spec: InstanceSpec, status: InstanceStatus }
    /// Images by major version, for one namespace.
    ImageCatalog { spec: ImageCatalogSpec }
    /// Images by major version, for all namespaces.
    ClusterImageCatalog { spec: ImageCatalogSpec }
}

impl Cluster {
    /// The owner reference of everything that is made for the cluster; none before a server has
    /// given it a uid.
    pub fn owner_reference(&self, identity: Identity) -> Option<OwnerReference> {
        Some(OwnerReference {
            api_version: identity.api_version(),
            kind: Kind::Cluster.name().to_owned(),
            name: self.metadata.name.clone()?,
            uid: self.metadata.uid.clone()?,
            controller: Some(true),
            block_owner_deletion: Some(true),
        })
    }
}

/// Reads a spec whose quantities may be numbers: the schema allows `cpu: 2`, as Kubernetes does,
/// but k8s-openapi's `Quantity` reads strings alone, and one unreadable object would stop the
/// watch of all.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let mut value = Value::deserialize(deserializer)?;
    stringify_quantities(&mut value);
    serde_json::from_value(value).map_err(serde::de::Error::custom)
}

/// Fields whose values are quantities, in the types of Kubernetes and in ours.
const QUANTITIES: [&str; 5] = ["sizeLimit", "divisor", "shm", "temporaryData", "maximumLag"];
/// Fields that are maps of quantities.
const QUANTITY_MAPS: [&str; 3] = ["limits", "requests", "capacity"];

fn stringify_quantities(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if QUANTITIES.contains(&name.as_str()) {
                    stringify(field);
                } else if let (true, Value::Object(map)) =
                    (QUANTITY_MAPS.contains(&name.as_str()), &mut *field)
                {
                    map.values_mut().for_each(stringify);
                }
                stringify_quantities(field);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(stringify_quantities),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn stringify(value: &mut Value) {
    if value.is_number() {
        *value = Value::String(value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube_core::Resource;

    #[test]
    fn the_identity_decides_the_url() {
        assert_eq!(
            Cluster::url_path(&Identity::Matriarch, Some("ns")),
            "/apis/matriarch.dev/v1/namespaces/ns/clusters"
        );
        assert_eq!(
            ClusterImageCatalog::url_path(&Identity::Cnpg, None),
            "/apis/postgresql.cnpg.io/v1/clusterimagecatalogs"
        );
    }

    #[test]
    fn quantities_may_be_numbers() {
        let cluster: Cluster = serde_json::from_value(serde_json::json!({
            "apiVersion": "matriarch.dev/v1", "kind": "Cluster", "metadata": { "name": "c" },
            "spec": {
                "instances": 3,
                "resources": { "limits": { "cpu": 2, "memory": "1Gi" } },
                "ephemeralVolumesSizeLimit": { "shm": 1_000_000 },
                "failover": { "maximumLag": 65536 },
            },
        }))
        .unwrap();
        let limits = cluster.spec.resources.unwrap().limits.unwrap();
        assert_eq!(limits["cpu"].0, "2");
        assert_eq!(cluster.spec.instances, Some(3));
    }

    #[test]
    fn what_is_absent_is_not_written() {
        let cluster = Cluster::new(Identity::Matriarch, "c", ClusterSpec::default());
        assert_eq!(serde_json::to_value(&cluster.spec).unwrap(), serde_json::json!({}));
    }
}
