//! Creating, updating and patching.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Moment, ObjectKey, Store, Subresource, Target, WriteOptions, Written, apply::answer,
    has_status, key, present, subject, subject_kind,
};
use crate::{
    Cause, Refusal, ResourceType,
    builtin::Builtin,
    conform, identity,
    managers::{self, Reset, Writer},
    object,
    patch::Patch,
    registry::{ScalePaths, Version},
};

/// The two states of an update, and what it is an update of.
pub(super) struct Revision<'a> {
    pub resource: &'a Arc<ResourceType>,
    pub target: &'a Target<'a>,
    pub old: Arc<Value>,
    pub new: Value,
    /// Whether managedFields are those of the new state already.
    pub recorded: bool,
}

impl<'a> Revision<'a> {
    fn update(
        resource: &'a Arc<ResourceType>,
        target: &'a Target<'a>,
        old: Arc<Value>,
        new: Value,
    ) -> Self {
        Self { resource, target, old, new, recorded: false }
    }
}

pub(super) const STALE: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl Store {
    /// Creates an object; `metadata.generateName` makes a name from the random source.
    ///
    /// # Errors
    /// Every [`Refusal`] that kube-apiserver has for it.
    pub fn create(
        &mut self,
        target: &Target<'_>,
        body: Value,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let resource = self.registry.find(target.resource)?;
        let (object, warnings) = conform::decode(&resource, target, body, options)?;
        let mut written = self.insert(&resource, target, object, false, options, moment)?;
        written.warnings = warnings;
        Ok(written)
    }

    /// The end of every creation. `recorded` says that managedFields are made already.
    pub(super) fn insert(
        &mut self,
        resource: &Arc<ResourceType>,
        target: &Target<'_>,
        mut object: Value,
        recorded: bool,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        identity::settle(resource, target.namespace, &mut object, moment)?;
        if !target.name.is_empty() && object::name(&object) != target.name {
            return Err(name_mismatch(object::name(&object), target.name));
        }
        self.admit(resource, target.namespace, object::name(&object))?;
        if !object::resource_version(&object).is_empty() {
            return Err(Refusal::BadRequest(
                "resourceVersion should not be set on objects to be created".into(),
            ));
        }
        let schema = self.kept_schema(resource, target)?;
        if resource.builtin.is_none() {
            conform::default(&schema, &mut object);
        }
        wipe(&mut object);
        if let Some(kind) = resource.builtin {
            crate::defaults::fill(kind, &mut object);
        }
        if !recorded {
            self.record(resource, target, None, &mut object, options, moment)?;
        }
        Self::complete(resource, &mut object, None);
        begin(resource, target, &mut object, moment);
        if resource.builtin == Some(Builtin::Service) {
            self.allocate_address(resource, &mut object, moment)?;
        }
        self.check(resource, target, &object, None)?;
        let place = key(resource, target.namespace, object::name(&object));
        if self.objects.contains_key(&place) {
            return Err(Refusal::AlreadyExists(subject(resource, &place.name)));
        }
        let object = self.keep(place, object, options);
        Ok(answer(resource, target, &object, true, Vec::new()))
    }

    /// Refuses a write into a namespace that is not there or is going.
    fn admit(&self, resource: &ResourceType, namespace: &str, name: &str) -> Result<(), Refusal> {
        if !resource.namespaced {
            return Ok(());
        }
        match self.peek("", "namespaces", "", namespace) {
            None => Err(Refusal::NotFound(crate::status::Subject {
                group: String::new(),
                kind: "namespaces".into(),
                name: namespace.into(),
            })),
            Some(found) if object::is_deleting(found) => Err(Refusal::NamespaceTerminating {
                subject: subject(resource, name),
                namespace: namespace.to_owned(),
            }),
            Some(_) => Ok(()),
        }
    }

    /// Makes the managedFields of an object that is created or updated.
    fn record(
        &self,
        resource: &Arc<ResourceType>,
        target: &Target<'_>,
        old: Option<&Value>,
        new: &mut Value,
        options: &WriteOptions,
        moment: &Moment<'_>,
    ) -> Result<(), Refusal> {
        let schema = self.kept_schema(resource, target)?;
        let writer = Writer {
            name: &options.manager,
            api_version: &resource.api_version(&target.resource.version),
            subresource: target.subresource,
            now: moment.now,
        };
        let reset = Reset::of(resource, has_status(resource, target), target.subresource);
        managers::record(resource, &schema, old, new, reset, &writer);
        Ok(())
    }

    /// Everything that an object must fulfil to be kept.
    fn check(
        &self,
        resource: &ResourceType,
        target: &Target<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), Refusal> {
        let mut causes = identity::check(resource, object, old);
        causes.extend(conform::check(resource, target, object, old, &self.validator));
        if causes.is_empty() {
            return Ok(());
        }
        Err(Refusal::Invalid { subject: subject_kind(resource, object::name(object)), causes })
    }

    /// Keeps an object, or says how it would look.
    pub(super) fn keep(
        &mut self,
        place: ObjectKey,
        object: Value,
        options: &WriteOptions,
    ) -> Arc<Value> {
        if options.dry_run {
            return Arc::new(object);
        }
        self.commit(place, Some(object)).unwrap_or_default()
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// Every [`Refusal`] that kube-apiserver has for it.
    pub fn update(
        &mut self,
        target: &Target<'_>,
        body: Value,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let resource = self.registry.find(target.resource)?;
        let old = match self.find(&resource, target) {
            Ok(old) => old,
            Err(_)
                if target.subresource == Subresource::None
                    && resource.builtin.is_some_and(|kind| kind.creates_on_update()) =>
            {
                return self.create(target, body, options, moment);
            }
            Err(refusal) => return Err(refusal),
        };
        if target.subresource == Subresource::Scale {
            return self.update_scale(&resource, target, old, &body, options, moment);
        }
        let (new, warnings) = conform::decode(&resource, target, body, options)?;
        let named = object::name(&new);
        if named != target.name {
            return Err(name_mismatch(named, target.name));
        }
        let version = object::resource_version(&new);
        if version.is_empty()
            && resource.builtin.is_none_or(|kind| !kind.allows_unconditional_update())
        {
            return Err(Refusal::Invalid {
                subject: subject(&resource, target.name),
                causes: vec![Cause::invalid(
                    "metadata.resourceVersion",
                    "0",
                    "must be specified for an update",
                )],
            });
        }
        self.replace(Revision::update(&resource, target, old, new), warnings, options, moment)
    }

    /// Changes an object by a patch; server-side apply may create it.
    ///
    /// # Errors
    /// Every [`Refusal`] that kube-apiserver has for it.
    pub fn patch(
        &mut self,
        target: &Target<'_>,
        patch: &Patch,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let resource = self.registry.find(target.resource)?;
        let old = self.find(&resource, target)?;
        if target.subresource == Subresource::Scale {
            let mut scale = scale_of(&resource, target, &old)?;
            patch.apply(&mut scale, &Value::Null)?;
            return self.update_scale(&resource, target, old, &scale, options, moment);
        }
        let version = version_of(&resource, target)?;
        let mut shown = present(&resource, &target.resource.version, &old);
        if resource.builtin.is_none() && matches!(patch, Patch::Strategic(_)) {
            return Err(Refusal::UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml".into(),
            ));
        }
        patch.apply(&mut shown, &version.schema)?;
        let (new, warnings) = conform::decode(&resource, target, shown, options)?;
        self.replace(Revision::update(&resource, target, old, new), warnings, options, moment)
    }

    /// The end of every update: what may not change is put back, the rest checked and kept.
    pub(super) fn replace(
        &mut self,
        mut revision: Revision<'_>,
        warnings: Vec<String>,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let (resource, target) = (revision.resource, revision.target);
        swap_check(&revision)?;
        keep_system_fields(&mut revision);
        if let Some(kind) = resource.builtin {
            crate::defaults::fill(kind, &mut revision.new);
        }
        if !revision.recorded {
            let old = Some(&*revision.old);
            self.record(resource, target, old, &mut revision.new, options, moment)?;
        }
        Self::complete(resource, &mut revision.new, Some(&revision.old));
        isolate_status(&mut revision);
        if resource.builtin == Some(Builtin::PersistentVolume) {
            let now = identity::time(moment.now);
            crate::defaults::date_phase(&mut revision.new, &revision.old, &now);
        }
        count_generation(&mut revision);
        self.check(resource, target, &revision.new, Some(&revision.old))?;
        let place = key(resource, target.namespace, target.name);
        let done = object::is_deleting(&revision.new)
            && object::finalizers(&revision.new).is_empty()
            && revision.new["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0;
        let unchanged = managers::same_but_times(&revision.new, &revision.old);
        let object = if unchanged && !done {
            revision.old
        } else if done && !options.dry_run {
            self.commit(place, None);
            Arc::new(revision.new)
        } else {
            self.keep(place, revision.new, options)
        };
        Ok(answer(resource, target, &object, false, warnings))
    }

    fn update_scale(
        &mut self,
        resource: &Arc<ResourceType>,
        target: &Target<'_>,
        old: Arc<Value>,
        scale: &Value,
        options: &WriteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let paths = scale_paths(resource, target)?.clone();
        let mut new = (*old).clone();
        let replicas = match &scale["spec"]["replicas"] {
            Value::Null => json!(0),
            wanted if wanted.is_i64() => wanted.clone(),
            other => {
                return Err(Refusal::BadRequest(format!(
                    "Scale in version \"v1\" cannot be handled as a Scale: spec.replicas: {other}"
                )));
            }
        };
        let path = path_fields(&paths.spec_replicas);
        if *object::at(&new, &path) != replicas {
            object::set(&mut new, &path, replicas);
            let writer = Writer {
                name: &options.manager,
                api_version: &resource.api_version(&target.resource.version),
                subresource: Subresource::Scale,
                now: moment.now,
            };
            managers::record_scale(&mut new, &path, &writer);
        }
        let version = object::resource_version(scale);
        if !version.is_empty() {
            object::set(&mut new, &["metadata", "resourceVersion"], version.into());
        }
        let whole = Target { subresource: Subresource::None, ..*target };
        let mut revision = Revision::update(resource, &whole, old, new);
        revision.recorded = true;
        let written = self.replace(revision, Vec::new(), options, moment)?;
        let object = scale_of(resource, target, &written.object)?;
        Ok(Written { object, ..written })
    }
}

/// Takes from a new object what only the server sets.
fn wipe(object: &mut Value) {
    let metadata = object::metadata(object);
    for field in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "uid"]
    {
        object::remove(metadata, field);
    }
}

/// Gives a new object what the server decides.
fn begin(
    resource: &ResourceType,
    target: &Target<'_>,
    object: &mut Value,
    moment: &mut Moment<'_>,
) {
    let metadata = object::metadata(object);
    metadata.insert("uid".into(), identity::uid(moment).into());
    metadata.insert("creationTimestamp".into(), identity::time(moment.now).into());
    if resource.builtin.is_none_or(Builtin::has_generation) {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.builtin.is_none() && has_status(resource, target) {
        object::remove(object::members(object), "status");
    }
    if let Some(kind) = resource.builtin {
        crate::defaults::begin(kind, object, &identity::time(moment.now));
        if kind == Builtin::CustomResourceDefinition {
            crate::definition::complete(object, moment);
        }
    }
}

fn name_mismatch(named: &str, wanted: &str) -> Refusal {
    Refusal::BadRequest(format!(
        "the name of the object ({named}) does not match the name on the URL ({wanted})"
    ))
}

pub(super) fn version_of<'a>(
    resource: &'a ResourceType,
    target: &Target<'_>,
) -> Result<&'a Version, Refusal> {
    resource.version(&target.resource.version).ok_or(Refusal::NoResource)
}

/// Compare-and-swap: by uid and resourceVersion, where the request names them.
fn swap_check(revision: &Revision<'_>) -> Result<(), Refusal> {
    let (old, new) = (&revision.old, &revision.new);
    let conflict = |detail: String| Refusal::Conflict {
        subject: subject(revision.resource, revision.target.name),
        detail,
    };
    let (wanted, present) = (object::uid(new), object::uid(old));
    if !wanted.is_empty() && wanted != present {
        let target = revision.target;
        return Err(conflict(super::other_uid(
            revision.resource,
            target.namespace,
            target.name,
            (wanted, present),
        )));
    }
    let wanted = object::resource_version(new);
    if !wanted.is_empty() && wanted != object::resource_version(old) {
        return Err(conflict(STALE.to_owned()));
    }
    Ok(())
}

/// Puts back the metadata that only the server changes.
fn keep_system_fields(revision: &mut Revision<'_>) {
    let old = &revision.old["metadata"];
    let metadata = object::metadata(&mut revision.new);
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "resourceVersion",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ] {
        object::copy_field(old, metadata, field);
    }
    object::remove(metadata, "selfLink");
}

/// The object's own path leaves the status alone, the status' path everything else.
fn isolate_status(revision: &mut Revision<'_>) {
    if !has_status(revision.resource, revision.target) {
        return;
    }
    let old = &revision.old;
    match revision.target.subresource {
        Subresource::None | Subresource::Scale => {
            object::copy_field(old, object::members(&mut revision.new), "status");
        }
        Subresource::Status => {
            let mut new = (**old).clone();
            object::copy_field(&revision.new, object::members(&mut new), "status");
            let fields: &[&str] = if revision.resource.builtin.is_some() {
                &["managedFields", "labels", "annotations", "finalizers"]
            } else {
                &["managedFields"]
            };
            for field in fields {
                object::copy_field(&revision.new["metadata"], object::metadata(&mut new), field);
            }
            revision.new = new;
        }
    }
}

/// A change of what the user wants is a new generation.
fn count_generation(revision: &mut Revision<'_>) {
    let Some(generation) = revision.old["metadata"]["generation"].as_i64() else { return };
    let with_status = has_status(revision.resource, revision.target);
    let differs = |field: &str| revision.old.get(field) != revision.new.get(field);
    let fields: std::collections::BTreeSet<&String> = [&*revision.old, &revision.new]
        .iter()
        .filter_map(|object| object.as_object())
        .flat_map(serde_json::Map::keys)
        .collect();
    let changed = fields.into_iter().any(|field| {
        let kept = matches!(field.as_str(), "metadata" | "apiVersion" | "kind");
        let apart = with_status && field == "status";
        !kept && !apart && differs(field)
    });
    if changed {
        object::metadata(&mut revision.new).insert("generation".into(), (generation + 1).into());
    }
}

pub(super) fn scale_paths<'a>(
    resource: &'a ResourceType,
    target: &Target<'_>,
) -> Result<&'a ScalePaths, Refusal> {
    version_of(resource, target)?.scale.as_ref().ok_or(Refusal::NoResource)
}

/// The fields of a path such as `.spec.replicas`.
fn path_fields(path: &str) -> Vec<&str> {
    path.split('.').filter(|field| !field.is_empty()).collect()
}

/// The Scale of an object.
pub(super) fn scale_of(
    resource: &ResourceType,
    target: &Target<'_>,
    kept: &Value,
) -> Result<Value, Refusal> {
    let paths = scale_paths(resource, target)?;
    let number = |path: &str| object::at(kept, &path_fields(path)).as_i64();
    let spec = number(&paths.spec_replicas).ok_or_else(|| {
        Refusal::Internal(format!(
            "the spec replicas field {:?} does not exist",
            paths.spec_replicas
        ))
    })?;
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        object::copy_field(&kept["metadata"], object::members(&mut metadata), field);
    }
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": spec},
        "status": {"replicas": number(&paths.status_replicas).unwrap_or(0)},
    });
    let selector = paths.label_selector.as_deref();
    if let Some(text) = selector.and_then(|path| object::at(kept, &path_fields(path)).as_str())
        && !text.is_empty()
    {
        object::set(&mut scale, &["status", "selector"], text.into());
    }
    Ok(scale)
}
