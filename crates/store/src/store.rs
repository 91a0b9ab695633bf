//! The objects, their history, and reading them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use kube_cel::Validator;
use serde_json::Value;

use crate::{
    Refusal, Registry, ResourceId, ResourceType,
    builtin::Builtin,
    object,
    selector::{FieldSelector, LabelSelector},
    status::Subject,
};

mod apply;
mod collect;
mod delete;
mod history;
#[cfg(test)]
mod tests;
mod write;

pub use delete::{DeleteOptions, Propagation};
pub use history::{ListOptions, Page, WatchCursor, WatchEvent, WatchStart, parse_revision};

/// Now and chance, which a pure store cannot ask for.
pub struct Moment<'a> {
    /// The time.
    pub now: Timestamp,
    /// A source of random numbers: uids and the suffixes of generated names.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// Where an object is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Group of the resource that keeps it.
    pub group: String,
    /// Plural of the resource that keeps it.
    pub plural: String,
    /// Namespace, empty for objects without.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// The object or the subresource that a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    /// The object itself.
    None,
    /// Its status.
    Status,
    /// Its scale.
    Scale,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Resource.
    pub resource: &'a ResourceId,
    /// Namespace, empty for cluster-wide resources.
    pub namespace: &'a str,
    /// Name; empty in a creation.
    pub name: &'a str,
    /// Subresource.
    pub subresource: Subresource,
}

/// What happens to fields that the schema does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped with a warning.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// Options of a write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Who writes, for managedFields.
    pub manager: String,
    /// Nothing is kept.
    pub dry_run: bool,
    /// Unknown fields.
    pub field_validation: FieldValidation,
    /// Server-side apply takes fields from other managers.
    pub force: bool,
}

/// The answer to a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now, or the Status of a deletion.
    pub object: Value,
    /// Whether it is new.
    pub created: bool,
    /// For the `Warning` header.
    pub warnings: Vec<String>,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resourceVersion that it made.
    pub revision: u64,
    /// Object.
    pub key: ObjectKey,
    /// Before; `None` for a creation.
    pub before: Option<Arc<Value>>,
    /// After; `None` for a removal.
    pub after: Option<Arc<Value>>,
}

/// How a store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Changes kept for watches; older resourceVersions are expired.
    pub history: usize,
    /// Addresses that Services get: the network as a number and its prefix length.
    pub service_network: (u32, u8),
}

impl Default for Options {
    fn default() -> Self {
        Self { history: 10_000, service_network: (u32::from_be_bytes([10, 96, 0, 0]), 16) }
    }
}

/// Kubernetes objects in memory.
#[derive(Debug)]
pub struct Store {
    registry: Registry,
    objects: BTreeMap<ObjectKey, Arc<Value>>,
    revision: u64,
    log: VecDeque<Change>,
    /// Changes up to this revision are forgotten.
    forgotten: u64,
    options: Options,
    validator: Validator,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            registry: Registry::default(),
            objects: BTreeMap::new(),
            revision: 1,
            log: VecDeque::new(),
            forgotten: 1,
            options,
            validator: Validator::new(),
        }
    }

    /// A store with what an earlier one kept. Watches begin anew at `revision`.
    #[must_use]
    pub fn restore(
        options: Options,
        revision: u64,
        objects: impl IntoIterator<Item = (ObjectKey, Value)>,
    ) -> Self {
        let mut store = Self::new(options);
        store.revision = revision.max(1);
        store.forgotten = store.revision;
        store.objects = objects.into_iter().map(|(key, value)| (key, Arc::new(value))).collect();
        store.reload_definitions();
        store
    }

    /// The resources.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The resourceVersion of the latest change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest resourceVersion of the CustomResourceDefinitions: it changes whenever the
    /// OpenAPI documents do.
    #[must_use]
    pub fn definitions_revision(&self) -> u64 {
        self.kept("apiextensions.k8s.io", "customresourcedefinitions", None)
            .filter_map(|(_, kept)| object::resource_version(kept).parse().ok())
            .max()
            .unwrap_or(0)
    }

    /// Every object as it is kept.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The changes after a revision, for what must outlive the process.
    pub fn changes_since(&self, revision: u64) -> impl Iterator<Item = &Change> {
        self.log.iter().filter(move |change| change.revision > revision)
    }

    /// Forgets all changes up to now, so that older resourceVersions are expired.
    pub fn compact(&mut self) {
        self.log.clear();
        self.forgotten = self.revision;
    }

    /// One object.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] and [`Refusal::NoResource`].
    pub fn get(&self, target: &Target<'_>) -> Result<Value, Refusal> {
        let resource = self.registry.find(target.resource)?;
        let found = self.find(&resource, target)?;
        match target.subresource {
            Subresource::Scale => write::scale_of(&resource, target, &found),
            Subresource::Status if !has_status(&resource, target) => Err(Refusal::NoResource),
            Subresource::Status | Subresource::None => {
                Ok(present(&resource, &target.resource.version, &found))
            }
        }
    }

    fn find(&self, resource: &ResourceType, target: &Target<'_>) -> Result<Arc<Value>, Refusal> {
        self.objects
            .get(&key(resource, target.namespace, target.name))
            .cloned()
            .ok_or_else(|| Refusal::NotFound(subject(resource, target.name)))
    }

    /// The kept object of a built-in or custom kind, by group, plural, namespace and name.
    #[must_use]
    pub fn peek(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.objects
            .get(&ObjectKey {
                group: group.into(),
                plural: plural.into(),
                namespace: namespace.into(),
                name: name.into(),
            })
            .map(AsRef::as_ref)
    }

    /// All kept objects of a resource, in a namespace or in all.
    pub fn kept<'a>(
        &'a self,
        group: &str,
        plural: &str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Value>)> + use<'a> {
        let start = ObjectKey {
            group: group.into(),
            plural: plural.into(),
            namespace: namespace.unwrap_or_default().into(),
            name: String::new(),
        };
        let (group, plural) = (start.group.clone(), start.plural.clone());
        self.objects.range(start..).take_while(move |(key, _)| {
            key.group == group
                && key.plural == plural
                && namespace.is_none_or(|wanted| key.namespace == wanted)
        })
    }

    /// Keeps a change: the one place where the store changes.
    fn commit(&mut self, key: ObjectKey, after: Option<Value>) -> Option<Arc<Value>> {
        self.revision += 1;
        let after = after.map(|mut value| {
            object::metadata(&mut value)
                .insert("resourceVersion".into(), self.revision.to_string().into());
            Arc::new(value)
        });
        let before = match &after {
            Some(value) => self.objects.insert(key.clone(), Arc::clone(value)),
            None => self.objects.remove(&key),
        };
        let definition = key.plural == "customresourcedefinitions";
        let change = Change { revision: self.revision, key, before, after: after.clone() };
        self.log.push_back(change);
        while self.log.len() > self.options.history {
            if let Some(old) = self.log.pop_front() {
                self.forgotten = old.revision;
            }
        }
        if definition {
            self.reload_definitions();
        }
        after
    }
}

/// The key of an object of a resource.
pub(crate) fn key(resource: &ResourceType, namespace: &str, name: &str) -> ObjectKey {
    let (group, plural) = resource.storage();
    ObjectKey {
        group,
        plural,
        namespace: if resource.namespaced { namespace.to_owned() } else { String::new() },
        name: name.to_owned(),
    }
}

/// The object in refusals: by plural.
pub(crate) fn subject(resource: &ResourceType, name: &str) -> Subject {
    Subject { group: resource.group.clone(), kind: resource.plural.clone(), name: name.to_owned() }
}

/// The object in [`Refusal::Invalid`]: by kind.
pub(crate) fn subject_kind(resource: &ResourceType, name: &str) -> Subject {
    Subject { group: resource.group.clone(), kind: resource.kind.clone(), name: name.to_owned() }
}

/// Why a write that names another uid is refused, in the words of kube-apiserver's storage.
pub(crate) fn other_uid(
    resource: &ResourceType,
    namespace: &str,
    name: &str,
    (wanted, present): (&str, &str),
) -> String {
    let place = match resource.builtin {
        Some(Builtin::Service) => "services/specs".to_owned(),
        Some(Builtin::Node) => "minions".to_owned(),
        Some(Builtin::Event) => "events".to_owned(),
        Some(kind) if kind != Builtin::CustomResourceDefinition => resource.plural.clone(),
        Some(_) | None => format!("{}/{}", resource.group, resource.plural),
    };
    let namespace = if resource.namespaced { format!("{namespace}/") } else { String::new() };
    format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{place}/{namespace}{name}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {present}"
    )
}

pub(crate) fn has_status(resource: &ResourceType, target: &Target<'_>) -> bool {
    resource.version(&target.resource.version).is_some_and(|version| version.status)
}

/// An object as a version shows it.
#[must_use]
pub fn present(resource: &ResourceType, version: &str, kept: &Value) -> Value {
    let mut shown = crate::event::present(resource, kept);
    let api_version = resource.api_version(version);
    if shown["apiVersion"] != api_version.as_str() {
        object::members(&mut shown).insert("apiVersion".into(), api_version.into());
    }
    shown
}

/// Both selectors of a list or watch.
#[derive(Clone, Debug, Default)]
pub struct Selectors {
    /// Labels.
    pub labels: LabelSelector,
    /// Fields.
    pub fields: FieldSelector,
}

impl Selectors {
    /// Parses the texts of a query for a resource.
    ///
    /// # Errors
    /// Refuses what is no selector, or a field that the resource cannot be selected by.
    pub fn parse(
        resource: &ResourceType,
        version: &str,
        labels: &str,
        fields: &str,
    ) -> Result<Self, Refusal> {
        let known = resource
            .version(version)
            .map(|version| version.selectable_fields.as_slice())
            .unwrap_or_default();
        let fields = if resource.builtin.is_some() {
            FieldSelector::parse_builtin(fields, known)?
        } else {
            FieldSelector::parse(fields, known)?
        };
        Ok(Self { labels: LabelSelector::parse(labels)?, fields })
    }

    /// Whether both match everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    fn matches(&self, shown: &Value) -> bool {
        self.labels.matches(shown) && self.fields.matches(shown)
    }
}
