//! OpenAPI v3 of each group and version, as kubectl reads it: for `explain`, for the merge keys of
//! `apply`, and to see which requests take `fieldValidation` and `dryRun`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{Refusal, Registry, ResourceType, registry::Version, schema};

const PREFIX: &str = "#/components/schemas/";

/// The index of `/openapi/v3`. The hash changes when the document may have.
#[must_use]
pub fn index(registry: &Registry, revision: u64) -> Value {
    let mut paths = Map::new();
    for resource in registry.iter() {
        for version in resource.versions.iter().filter(|version| version.served) {
            let path = base(&resource.group, &version.name);
            let url = format!("/openapi/v3/{path}?hash={revision:016X}");
            paths.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": paths})
}

fn base(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of a group and version.
///
/// # Errors
/// [`Refusal::NoResource`] where it is not served.
pub fn document(registry: &Registry, group: &str, version: &str) -> Result<Value, Refusal> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in registry.iter().filter(|resource| resource.group == group) {
        let Some(found) = resource.version(version) else { continue };
        let name = schema_name(resource, found);
        let mut whole = (*found.schema).clone();
        if let Some(members) = whole.as_object_mut() {
            crate::object::remove(members, "x-kubernetes-schema-name");
            members
                .insert("x-kubernetes-group-version-kind".into(), json!([kind(resource, version)]));
        }
        include(&whole, &mut schemas);
        schemas.insert(name.clone(), whole);
        schemas.insert(format!("{name}List"), list_schema(resource, version, &name));
        add_paths(resource, found, &name, &mut paths);
    }
    if paths.is_empty() {
        return Err(Refusal::NoResource);
    }
    include(&json!({"$ref": format!("{PREFIX}{}", schema::OBJECT_META)}), &mut schemas);
    Ok(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.34.4"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn kind(resource: &ResourceType, version: &str) -> Value {
    json!({"group": resource.group, "version": version, "kind": resource.kind})
}

/// `io.k8s.api.core.v1.Pod` for built-in kinds, the group turned round for others.
fn schema_name(resource: &ResourceType, version: &Version) -> String {
    if let Some(name) = version.schema["x-kubernetes-schema-name"].as_str() {
        return name.to_owned();
    }
    let turned: Vec<&str> = resource.group.rsplit('.').collect();
    format!("{}.{}.{}", turned.join("."), version.name, resource.kind)
}

fn list_schema(resource: &ResourceType, version: &str, name: &str) -> Value {
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": format!("{PREFIX}{name}")}},
        },
        "x-kubernetes-group-version-kind": [
            {"group": resource.group, "version": version, "kind": resource.list_kind}
        ],
    })
}

/// Adds every built-in type that a schema refers to.
fn include(found: &Value, schemas: &mut Map<String, Value>) {
    let mut names = BTreeSet::new();
    references(found, &mut names);
    for name in names {
        if schemas.contains_key(&name) {
            continue;
        }
        if let Some(definition) = schema::definition(&name) {
            schemas.insert(name, definition.clone());
            include(definition, schemas);
        }
    }
}

fn references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(name) = members
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|target| target.strip_prefix(PREFIX))
            {
                names.insert(name.to_owned());
            }
            members.values().for_each(|inner| references(inner, names));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn add_paths(
    resource: &ResourceType,
    version: &Version,
    name: &str,
    paths: &mut Map<String, Value>,
) {
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let list = format!("/{}{scope}/{}", base(&resource.group, &version.name), resource.plural);
    let one = format!("{list}/{{name}}");
    let operation = |action: &str, writes: bool, types: &[&str]| {
        operation(resource, version, name, action, writes, types)
    };
    let json = &["application/json"][..];
    let all = &[
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ][..];
    // kubectl sends the strategic patch to every kind whose document names it.
    let patches = if resource.builtin.is_some() { all } else { &all[..3] };
    paths.insert(
        list,
        json!({"get": operation("list", false, &[]), "post": operation("post", true, json)}),
    );
    let object = json!({
        "get": operation("get", false, &[]),
        "put": operation("put", true, json),
        "patch": operation("patch", true, patches),
        "delete": operation("delete", false, &[]),
    });
    for subresource in [("status", version.status), ("scale", version.scale.is_some())] {
        if subresource.1 {
            paths.insert(
                format!("{one}/{}", subresource.0),
                json!({"get": operation("get", false, &[]), "patch": operation("patch", true, patches)}),
            );
        }
    }
    paths.insert(one, object);
}

fn operation(
    resource: &ResourceType,
    version: &Version,
    name: &str,
    action: &str,
    writes: bool,
    types: &[&str],
) -> Value {
    let schema = json!({"schema": {"$ref": format!("{PREFIX}{name}")}});
    let query = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string"}});
    let mut parameters = Vec::new();
    if writes {
        parameters.extend(["dryRun", "fieldManager", "fieldValidation"].map(query));
    }
    if action == "delete" {
        parameters.push(query("dryRun"));
    }
    if action == "patch" {
        parameters.push(query("force"));
    }
    let mut operation = json!({
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": schema}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind(resource, &version.name),
    });
    if !types.is_empty() {
        let content: Map<String, Value> =
            types.iter().map(|kind| ((*kind).to_owned(), schema.clone())).collect();
        operation["requestBody"] = json!({"content": content});
    }
    operation
}
