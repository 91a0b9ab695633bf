//! Deletion: preconditions, grace, finalizers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    ListOptions, Moment, Store, Target, WriteOptions, Written, key, present, subject, subject_kind,
};
use crate::{
    Cause, Refusal, ResourceId, ResourceType, builtin::Builtin, identity, object, status::Subject,
};

/// What happens to the objects that the deleted one owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// They go afterwards.
    #[default]
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

/// Options of a deletion.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds for a pod to stop; `None` for what the pod says.
    pub grace: Option<i64>,
    /// The uid that the object must have.
    pub uid: Option<String>,
    /// The resourceVersion that the object must have.
    pub resource_version: Option<String>,
    /// Owned objects.
    pub propagation: Option<Propagation>,
    /// Nothing is kept.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a DeleteOptions object.
    ///
    /// # Errors
    /// Refuses a propagation policy that there is not.
    pub fn parse(body: &Value) -> Result<Self, Refusal> {
        let text =
            |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let propagation = match body["propagationPolicy"].as_str() {
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some("Orphan") => Some(Propagation::Orphan),
            None | Some("") if body["orphanDependents"] == true => Some(Propagation::Orphan),
            None | Some("") => None,
            Some(other) => {
                return Err(Refusal::Invalid {
                    subject: Subject {
                        group: "meta.k8s.io".into(),
                        kind: "DeleteOptions".into(),
                        name: String::new(),
                    },
                    causes: vec![Cause::unsupported(
                        "propagationPolicy",
                        &format!("{other:?}"),
                        &["Foreground", "Background", "Orphan", "nil"].map(str::to_owned),
                    )],
                });
            }
        };
        Ok(Self {
            grace: body["gracePeriodSeconds"].as_i64(),
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            propagation,
            dry_run: body["dryRun"].as_array().is_some_and(|list| !list.is_empty()),
        })
    }
}

impl Store {
    /// Deletes an object, or marks it as being deleted while somebody has to clean up first.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], and [`Refusal::Conflict`] where a precondition does not hold.
    pub fn delete(
        &mut self,
        target: &Target<'_>,
        options: &DeleteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Written, Refusal> {
        let resource = self.registry.find(target.resource)?;
        let found = self.find(&resource, target)?;
        preconditions(&resource, &found, options)?;
        if resource.builtin == Some(Builtin::Namespace)
            && matches!(target.name, "default" | "kube-system" | "kube-public")
        {
            return Err(identity::forbidden(
                &resource,
                target.name,
                "this namespace may not be deleted",
            ));
        }
        let mut marked = (*found).clone();
        set_propagation(&mut marked, options.propagation);
        let grace = grace(&resource, &found, options);
        let waits = grace > 0
            || !object::finalizers(&marked).is_empty()
            || !object::strings(&marked["spec"]["finalizers"]).is_empty()
                && resource.builtin == Some(Builtin::Namespace);
        let place = key(&resource, target.namespace, target.name);
        let shown = |kept: &Value| present(&resource, &target.resource.version, kept);
        if !waits {
            if !options.dry_run {
                self.commit(place, None);
            }
            let object = if resource.builtin == Some(Builtin::Pod) {
                // The answer alone says how it went: it was marked and removed in one.
                mark(&resource, &mut marked, 0, moment);
                shown(&marked)
            } else if resource.builtin.is_some_and(Builtin::returns_deleted) {
                shown(&found)
            } else {
                success(&resource, target.name, &found)
            };
            return Ok(Written { object, created: false, warnings: Vec::new() });
        }
        mark(&resource, &mut marked, grace, moment);
        let object = if marked == *found {
            found
        } else {
            self.keep(
                place,
                marked,
                &WriteOptions { dry_run: options.dry_run, ..Default::default() },
            )
        };
        Ok(Written { object: shown(&object), created: false, warnings: Vec::new() })
    }

    /// Deletes all objects of a list.
    ///
    /// # Errors
    /// What the list and each deletion refuse; an object that has gone meanwhile is passed over.
    pub fn delete_collection(
        &mut self,
        id: &ResourceId,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
        moment: &mut Moment<'_>,
    ) -> Result<Vec<Value>, Refusal> {
        let namespaced = self.registry.find(id)?.namespaced;
        let page = self.list(id, namespaced.then_some(namespace), list)?;
        let mut deleted = Vec::new();
        for item in page.items {
            let target = Target {
                resource: id,
                namespace,
                name: object::name(&item),
                subresource: super::Subresource::None,
            };
            match self.delete(&target, options, moment) {
                Ok(_) => deleted.push(item),
                Err(Refusal::NotFound(_)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(deleted)
    }
}

fn preconditions(
    resource: &ResourceType,
    found: &Arc<Value>,
    options: &DeleteOptions,
) -> Result<(), Refusal> {
    let name = object::name(found);
    // Namespaces and definitions have their own deletion, and their own words.
    let own =
        matches!(resource.builtin, Some(Builtin::Namespace | Builtin::CustomResourceDefinition));
    let checks = [
        ("UID", &options.uid, object::uid(found), "been deleted and then recreated"),
        (
            "ResourceVersion",
            &options.resource_version,
            object::resource_version(found),
            "been modified",
        ),
    ];
    for (what, wanted, present, fate) in checks {
        let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != present) else { continue };
        return Err(if own {
            Refusal::Conflict {
                subject: subject(resource, name),
                detail: format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {present}"
                ),
            }
        } else {
            Refusal::Conflict {
                subject: subject_kind(resource, name),
                detail: format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({present}). The object might have {fate}"
                ),
            }
        });
    }
    Ok(())
}

fn set_propagation(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let mut finalizers = object::finalizers(object);
    let before = finalizers.len();
    finalizers.retain(|one| !matches!(one.as_str(), "orphan" | "foregroundDeletion"));
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push("foregroundDeletion".into()),
        Propagation::Orphan => finalizers.push("orphan".into()),
    }
    let metadata = object::metadata(object);
    if !finalizers.is_empty() {
        metadata.insert("finalizers".into(), finalizers.into());
    } else if before > 0 {
        object::remove(metadata, "finalizers");
    }
}

/// Seconds that the object has to stop: pods that run somewhere, nothing else.
fn grace(resource: &ResourceType, found: &Value, options: &DeleteOptions) -> i64 {
    if resource.builtin != Some(Builtin::Pod) {
        return 0;
    }
    let scheduled = found["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(found["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !scheduled || ended {
        return 0;
    }
    options
        .grace
        .or_else(|| found["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0)
}

/// Marks an object as being deleted. A second deletion can only shorten the grace of the first.
fn mark(resource: &ResourceType, object: &mut Value, grace: i64, moment: &Moment<'_>) {
    let first = !object::is_deleting(object);
    let before = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if !first && (resource.builtin != Some(Builtin::Pod) || grace >= before) {
        return;
    }
    let until = if first {
        moment.now.saturating_add(jiff::SignedDuration::from_secs(grace)).unwrap_or(moment.now)
    } else {
        let shorter = jiff::SignedDuration::from_secs(before - grace);
        object["metadata"]["deletionTimestamp"]
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .and_then(|at| at.saturating_sub(shorter).ok())
            .unwrap_or(moment.now)
    };
    let metadata = object::metadata(object);
    metadata.insert("deletionTimestamp".into(), identity::time(until).into());
    if resource.builtin != Some(Builtin::Namespace) {
        metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    }
    if first && let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
    if resource.builtin == Some(Builtin::Namespace) {
        object::set(object, &["status", "phase"], "Terminating".into());
    }
}

fn success(resource: &ResourceType, name: &str, found: &Value) -> Value {
    let mut details = json!({"name": name});
    if !resource.group.is_empty() {
        details["group"] = resource.group.as_str().into();
    }
    details["kind"] = resource.plural.as_str().into();
    details["uid"] = object::uid(found).into();
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
