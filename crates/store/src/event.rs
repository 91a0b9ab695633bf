//! Events: core/v1 and events.k8s.io/v1 are two forms of one object. It is kept in core's form.

use serde_json::Value;

use crate::{ResourceType, builtin::Builtin, fields::FieldSet, object};

/// events.k8s.io's name of a field, and core's.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn is_new_form(resource: &ResourceType) -> bool {
    resource.builtin == Some(Builtin::Event) && !resource.group.is_empty()
}

fn rename(object: &Value, renamed: impl Fn(&str) -> Option<&'static str>) -> Value {
    match object {
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(field, value)| {
                    (renamed(field).map_or_else(|| field.clone(), str::to_owned), value.clone())
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

/// A kept object as its resource shows it.
#[must_use]
pub fn present(resource: &ResourceType, kept: &Value) -> Value {
    if !is_new_form(resource) {
        return kept.clone();
    }
    rename(kept, |field| NAMES.iter().find(|(_, core)| *core == field).map(|(new, _)| *new))
}

/// An object of a request as it is kept.
#[must_use]
pub fn keep(resource: &ResourceType, shown: Value) -> Value {
    if !is_new_form(resource) {
        return shown;
    }
    let mut kept =
        rename(&shown, |field| NAMES.iter().find(|(new, _)| *new == field).map(|(_, core)| *core));
    object::members(&mut kept).insert("apiVersion".into(), "v1".into());
    kept
}

fn names_new_fields(api_version: &str) -> bool {
    api_version.starts_with("events.k8s.io/")
}

/// Fields that an entry of managedFields names, as those of the kept form.
pub(crate) fn kept_fields(api_version: &str, fields: &Value) -> FieldSet {
    if !names_new_fields(api_version) {
        return FieldSet::parse(fields);
    }
    FieldSet::parse(&rename_fields(fields, |field| {
        NAMES.iter().find(|(new, _)| *new == field).map(|(_, core)| *core)
    }))
}

/// Fields of the kept form, as an entry of managedFields names them.
pub(crate) fn shown_fields(api_version: &str, fields: Value) -> Value {
    if !names_new_fields(api_version) {
        return fields;
    }
    rename_fields(&fields, |field| {
        NAMES.iter().find(|(_, core)| *core == field).map(|(new, _)| *new)
    })
}

fn rename_fields(fields: &Value, renamed: impl Fn(&str) -> Option<&'static str>) -> Value {
    fields
        .as_object()
        .into_iter()
        .flatten()
        .map(|(step, below)| {
            let field = step.strip_prefix("f:").and_then(&renamed);
            (field.map_or_else(|| step.clone(), |field| format!("f:{field}")), below.clone())
        })
        .collect()
}
