//! Which resources there are.

use std::{collections::BTreeMap, sync::Arc};

use kube_cel::CompiledSchema;
use serde_json::Value;

use crate::{Refusal, builtin, builtin::Builtin};

/// A resource as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ResourceId {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    pub plural: String,
}

impl ResourceId {
    /// A resource by its three names.
    #[must_use]
    pub fn new(group: &str, version: &str, plural: &str) -> Self {
        Self { group: group.into(), version: version.into(), plural: plural.into() }
    }
}

/// A column of the server-side table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: String,
    /// OpenAPI format.
    pub format: String,
    /// What the column shows.
    pub description: String,
    /// 0 is always shown, others with `-o wide`.
    pub priority: i64,
    /// JSONPath of the value; empty for the columns of built-in kinds.
    pub path: String,
}

/// Paths of the scale subresource, as in a CustomResourceDefinition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas, such as `.spec.instances`.
    pub spec_replicas: String,
    /// Present replicas.
    pub status_replicas: String,
    /// Label selector of the pods, as text.
    pub label_selector: Option<String>,
}

/// One version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// `v1` …
    pub name: String,
    /// Whether requests may name it.
    pub served: bool,
    /// Whether objects are kept in it.
    pub storage: bool,
    /// OpenAPI schema of the whole object; `$ref` points to [`crate::schema::definition`].
    pub schema: Arc<Value>,
    /// CEL rules of the schema, for custom resources that have some.
    pub rules: Option<Arc<CompiledSchema>>,
    /// Whether there is a status subresource.
    pub status: bool,
    /// The scale subresource.
    pub scale: Option<ScalePaths>,
    /// Columns of the table, without the name.
    pub columns: Vec<Column>,
    /// Fields beyond name and namespace that a field selector may name.
    pub selectable_fields: Vec<String>,
}

/// A kind of object and how it is served.
#[derive(Clone, Debug)]
pub struct ResourceType {
    /// API group, empty for core.
    pub group: String,
    /// Plural, as in paths.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Kind of the list.
    pub list_kind: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories such as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// The versions, in the order of discovery.
    pub versions: Vec<Version>,
    /// Which built-in kind it is; `None` for one from a CustomResourceDefinition.
    pub builtin: Option<Builtin>,
}

impl ResourceType {
    /// The served version of that name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name && version.served)
    }

    /// The version that objects are kept in.
    #[must_use]
    pub fn storage_version(&self) -> &str {
        self.versions
            .iter()
            .find(|version| version.storage)
            .map(|version| version.name.as_str())
            .unwrap_or_default()
    }

    /// `apiVersion` of an object in a version.
    #[must_use]
    pub fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// Group and plural under which objects are kept: both groups of Events share one.
    #[must_use]
    pub fn storage(&self) -> (String, String) {
        match self.builtin {
            Some(Builtin::Event) => (String::new(), "events".to_owned()),
            _ => (self.group.clone(), self.plural.clone()),
        }
    }
}

/// All resources by group and plural.
#[derive(Clone, Debug)]
pub struct Registry {
    types: BTreeMap<(String, String), Arc<ResourceType>>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self { types: BTreeMap::new() };
        builtin::types().into_iter().for_each(|one| registry.install(one));
        registry
    }
}

impl Registry {
    /// Adds a resource, or replaces it.
    pub fn install(&mut self, resource: ResourceType) {
        let key = (resource.group.clone(), resource.plural.clone());
        self.types.insert(key, Arc::new(resource));
    }

    /// Takes a resource out.
    pub fn uninstall(&mut self, group: &str, plural: &str) {
        self.types.remove(&(group.to_owned(), plural.to_owned()));
    }

    /// All resources in the order of group and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResourceType>> {
        self.types.values()
    }

    /// The resource of a request.
    ///
    /// # Errors
    /// [`Refusal::NoResource`] where the group, version or plural is not served.
    pub fn find(&self, id: &ResourceId) -> Result<Arc<ResourceType>, Refusal> {
        self.types
            .get(&(id.group.clone(), id.plural.clone()))
            .filter(|resource| resource.version(&id.version).is_some())
            .cloned()
            .ok_or(Refusal::NoResource)
    }

    /// The resource with a kind, as an ownerReference names it.
    #[must_use]
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Arc<ResourceType>> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        self.types
            .values()
            .find(|resource| resource.group == group && resource.kind == kind)
            .cloned()
    }
}
