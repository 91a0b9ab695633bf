//! What other objects say that the user's spec names: an image catalog, pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use matriarch_api::cluster::ClusterSpec;
use matriarch_api::identity::Kind;
use matriarch_api::image_catalog::ImageCatalogSpec;
use matriarch_plan::Seen;
use serde::{Deserialize, Serialize};

/// What was read of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct References {
    /// The image catalog, if one is named.
    pub catalog: Option<(CatalogName, Seen<ImageCatalogSpec>)>,
    /// Addresses of the pods of each entry of `spec.podSelectorRefs`, by its name.
    pub pods: BTreeMap<String, Seen<Vec<IpAddr>>>,
}

/// An image catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogName {
    /// Is it one of the whole Kubernetes cluster, or of the Cluster's namespace.
    pub cluster_wide: bool,
    /// Its name.
    pub name: String,
}

impl CatalogName {
    /// The catalog that a spec names. An `imageName` beside it counts more.
    pub fn of(spec: &ClusterSpec) -> Option<Self> {
        let reference = spec.image_catalog_ref.as_ref().filter(|_| spec.image_name.is_none())?;
        Some(Self {
            cluster_wide: reference.kind.as_deref() == Some(Kind::ClusterImageCatalog.name()),
            name: reference.name.clone().unwrap_or_default(),
        })
    }

    /// Kind and name, for a person.
    pub fn shown(&self) -> String {
        let kind = if self.cluster_wide { Kind::ClusterImageCatalog } else { Kind::ImageCatalog };
        format!("{}/{}", kind.name(), self.name)
    }
}

impl References {
    /// What is known of a catalog; nothing if it is not the one that was read.
    pub(crate) fn catalog(&self, name: &CatalogName) -> Seen<ImageCatalogSpec> {
        match &self.catalog {
            Some((read, seen)) if read == name => seen.clone(),
            Some(_) | None => Seen::Unknown { why: "it was not read".to_owned() },
        }
    }
}
