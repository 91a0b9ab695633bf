//! CustomResourceDefinitions: from the object to the resource that it defines.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Cause, Moment, Store, identity, object,
    registry::{Column, ResourceType, ScalePaths, Version},
    schema,
};

impl Store {
    /// Makes the registry's custom resources those of the kept CustomResourceDefinitions.
    pub(crate) fn reload_definitions(&mut self) {
        let wanted: Vec<ResourceType> = self
            .kept("apiextensions.k8s.io", "customresourcedefinitions", None)
            .filter_map(|(_, definition)| resource(definition))
            .collect();
        let present: Vec<(String, String)> = self
            .registry()
            .iter()
            .filter(|resource| resource.builtin.is_none())
            .map(|resource| (resource.group.clone(), resource.plural.clone()))
            .collect();
        for (group, plural) in present {
            self.registry_mut().uninstall(&group, &plural);
        }
        for resource in wanted {
            self.registry_mut().install(resource);
        }
    }
}

/// Fills in what kube-apiserver and its controllers decide about a definition.
pub(crate) fn complete(definition: &mut Value, moment: &Moment<'_>) {
    let kind = definition["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
    object::set_default(definition, &["spec", "names", "singular"], kind.to_lowercase().into());
    object::set_default(definition, &["spec", "names", "listKind"], format!("{kind}List").into());
    object::set_default(definition, &["spec", "conversion"], json!({"strategy": "None"}));
    let names = definition["spec"]["names"].clone();
    object::set(definition, &["status", "acceptedNames"], names);
    let stored: Vec<Value> = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    object::set_default(definition, &["status", "storedVersions"], stored.into());
    let finalizers = json!(["customresourcecleanup.apiextensions.k8s.io"]);
    object::set_default(definition, &["metadata", "finalizers"], finalizers);
    let now = identity::time(moment.now);
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message});
    object::set_default(
        definition,
        &["status", "conditions"],
        json!([
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition(
                "Established",
                "InitialNamesAccepted",
                "the initial names have been accepted"
            ),
        ]),
    );
}

/// The rules of a definition that the store depends on.
pub(crate) fn check(definition: &Value) -> Vec<Cause> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    for path in [&["group"][..], &["scope"], &["names", "plural"], &["names", "kind"]] {
        if object::at(spec, path).as_str().is_none_or(str::is_empty) {
            causes.push(Cause::required(format!("spec.{}", path.join(".")), ""));
        }
    }
    let expected = format!(
        "{}.{}",
        spec["names"]["plural"].as_str().unwrap_or_default(),
        spec["group"].as_str().unwrap_or_default()
    );
    if object::name(definition) != expected {
        causes.push(Cause::invalid(
            "metadata.name",
            &format!("{:?}", object::name(definition)),
            "must be spec.names.plural+\".\"+spec.group",
        ));
    }
    if !matches!(spec["scope"].as_str(), Some("Cluster" | "Namespaced") | None) {
        causes.push(Cause::unsupported(
            "spec.scope",
            &spec["scope"].to_string(),
            &["Cluster".to_owned(), "Namespaced".to_owned()],
        ));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &spec["versions"].to_string(),
            "must have exactly one version marked as storage version",
        ));
    }
    for (index, version) in versions.iter().enumerate() {
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            causes.push(Cause::required(path, "schemas are required"));
            continue;
        }
        check_structural(schema, &path, &mut causes);
        for error in kube_cel::compile_schema(&underscored(schema)).compilation_errors() {
            causes.push(Cause::invalid(path.clone(), "\"rule\"", &error.to_string()));
        }
    }
    causes
}

/// A structural schema has a type at every level.
fn check_structural(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let typeless = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].as_str().is_none_or(str::is_empty) && !typeless {
        causes.push(Cause::required(
            format!("{path}.type"),
            if path.ends_with("openAPIV3Schema") {
                "must not be empty at the root"
            } else {
                "must not be empty for specified object fields"
            },
        ));
    }
    for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
        check_structural(inner, &format!("{path}.properties[{field}]"), causes);
    }
    if let Some(inner) = schema::additional(schema) {
        check_structural(inner, &format!("{path}.additionalProperties"), causes);
    }
    if schema["items"].is_object() {
        check_structural(&schema["items"], &format!("{path}.items"), causes);
    } else if schema["type"] == "array" {
        causes.push(Cause::required(format!("{path}.items"), "must be specified"));
    }
}

/// The resource of a definition; `None` while it is not whole.
fn resource(definition: &Value) -> Option<ResourceType> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&names["kind"])?;
    let mut versions: Vec<Version> =
        spec["versions"].as_array()?.iter().filter_map(version).collect();
    versions.sort_by_key(|version| std::cmp::Reverse(priority(&version.name)));
    Some(ResourceType {
        group: text(&spec["group"])?,
        plural: text(&names["plural"])?,
        singular: text(&names["singular"]).unwrap_or_else(|| kind.to_lowercase()),
        list_kind: text(&names["listKind"]).unwrap_or_else(|| format!("{kind}List")),
        short_names: object::strings(&names["shortNames"]),
        categories: object::strings(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        versions,
        builtin: None,
        kind,
    })
}

/// Kubernetes' order of versions: stable before beta before alpha, higher before lower.
fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    let digits = rest.chars().take_while(char::is_ascii_digit).count();
    let Ok(major) = rest[..digits].parse() else { return (0, 0, 0) };
    match &rest[digits..] {
        "" => (3, major, 0),
        stage => stage
            .strip_prefix("beta")
            .map(|minor| (2, major, minor.parse().unwrap_or(0)))
            .or_else(|| {
                stage.strip_prefix("alpha").map(|minor| (1, major, minor.parse().unwrap_or(0)))
            })
            .unwrap_or((0, 0, 0)),
    }
}

fn version(spec: &Value) -> Option<Version> {
    let own = spec["schema"]["openAPIV3Schema"].clone();
    let rules = kube_cel::compile_schema(&underscored(&own));
    let rules = has_rules(&own).then(|| Arc::new(rules));
    let subresources = &spec["subresources"];
    let scale = &subresources["scale"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Version {
        name: text(&spec["name"])?,
        served: spec["served"] == true,
        storage: spec["storage"] == true,
        schema: Arc::new(whole(own)),
        rules,
        status: subresources["status"].is_object(),
        scale: scale.is_object().then(|| ScalePaths {
            spec_replicas: text(&scale["specReplicasPath"]).unwrap_or_default(),
            status_replicas: text(&scale["statusReplicasPath"]).unwrap_or_default(),
            label_selector: text(&scale["labelSelectorPath"]),
        }),
        columns: columns(&spec["additionalPrinterColumns"]),
        selectable_fields: spec["selectableFields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|field| {
                Some(field["jsonPath"].as_str()?.trim_start_matches('.').to_owned())
            })
            .collect(),
    })
}

/// The schema with rules as kube-cel reads them: it doubles every `_` of a field's name, where
/// Kubernetes replaces only `__`.
fn underscored(schema: &Value) -> Value {
    let mut names = BTreeSet::new();
    field_names(schema, &mut names);
    let mut schema = schema.clone();
    if !names.is_empty() {
        double_underscores(&mut schema, &names);
    }
    schema
}

fn field_names(schema: &Value, names: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let properties = members.get("properties").and_then(Value::as_object);
            let fields = properties.into_iter().flatten().map(|(name, _)| name);
            names.extend(fields.filter(|name| name.contains('_')).cloned());
            members.values().for_each(|member| field_names(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| field_names(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn double_underscores(schema: &mut Value, names: &BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), member) {
                    ("rule" | "messageExpression", Value::String(text)) => {
                        let (mut rule, mut word) = (String::new(), String::new());
                        // A space ends the last word and is taken off again.
                        for letter in text.chars().chain([' ']) {
                            if letter.is_alphanumeric() || letter == '_' {
                                word.push(letter);
                                continue;
                            }
                            let field = rule.ends_with('.') && names.contains(&word);
                            rule.push_str(&if field { word.replace('_', "__") } else { word });
                            rule.push(letter);
                            word = String::new();
                        }
                        rule.pop();
                        *text = rule;
                    }
                    (_, member) => double_underscores(member, names),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| double_underscores(item, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.contains_key("x-kubernetes-validations") || members.values().any(has_rules)
        }
        Value::Array(items) => items.iter().any(has_rules),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The schema with the fields that every object has.
fn whole(mut schema: Value) -> Value {
    let properties = object::child(&mut schema, "properties");
    for field in ["apiVersion", "kind"] {
        properties.entry(field).or_insert_with(|| json!({"type": "string"}));
    }
    properties.insert("metadata".into(), (*schema::reference(schema::OBJECT_META)).clone());
    schema
}

fn columns(list: &Value) -> Vec<Column> {
    let mut columns: Vec<Column> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|column| {
            let text = |field: &str| column[field].as_str().unwrap_or_default().to_owned();
            Column {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description: text("description"),
                priority: column["priority"].as_i64().unwrap_or(0),
                path: text("jsonPath"),
            }
        })
        .collect();
    if columns.is_empty() {
        columns.push(Column {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            path: ".metadata.creationTimestamp".into(),
        });
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn versions_are_ordered_by_stability() {
        let mut versions = ["v1alpha1", "v2", "v1beta2", "v1", "foo", "v1beta10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }
}
