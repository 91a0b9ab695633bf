//! What the server says about its resources: `/api`, `/apis`, with and without aggregation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{Refusal, Registry, ResourceType, builtin::Builtin, registry::Version};

const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

type Groups<'a> = BTreeMap<&'a str, Vec<(&'a str, Vec<(&'a ResourceType, &'a Version)>)>>;

/// Served versions of each group, in the order of preference, with their resources.
fn served(registry: &Registry) -> Groups<'_> {
    let mut groups: Groups<'_> = BTreeMap::new();
    for resource in registry.iter() {
        for version in resource.versions.iter().filter(|version| version.served) {
            let versions = groups.entry(&resource.group).or_default();
            let here = (&**resource, version);
            match versions.iter_mut().find(|(name, _)| *name == version.name) {
                Some((_, resources)) => resources.push(here),
                None => versions.push((&version.name, vec![here])),
            }
        }
    }
    groups
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn group_entry<T>(group: &str, versions: &[(&str, T)]) -> Value {
    let list: Vec<Value> = versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "versions": list, "preferredVersion": list[0]})
}

/// APIGroupList of `/apis`.
#[must_use]
pub fn groups(registry: &Registry) -> Value {
    let list: Vec<Value> = served(registry)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| group_entry(group, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// APIGroup of `/apis/<group>`.
///
/// # Errors
/// [`Refusal::NoResource`] where there is no such group.
pub fn group(registry: &Registry, name: &str) -> Result<Value, Refusal> {
    let groups = served(registry);
    let versions = groups.get(name).filter(|_| !name.is_empty()).ok_or(Refusal::NoResource)?;
    let mut entry = group_entry(name, versions);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Ok(entry)
}

/// Subresources that are served: name, verbs, and kind where it is another.
fn subresources(resource: &ResourceType, version: &Version) -> Vec<(&'static str, Value, Value)> {
    let own = json!({"group": resource.group, "version": version.name, "kind": resource.kind});
    let mut list = Vec::new();
    if version.status {
        list.push(("status", json!(["get", "patch", "update"]), own.clone()));
    }
    if version.scale.is_some() {
        let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
        list.push(("scale", json!(["get", "patch", "update"]), scale));
    }
    if resource.builtin == Some(Builtin::Pod) {
        list.push(("log", json!(["get"]), own));
    }
    list
}

/// APIResourceList of one group and version.
///
/// # Errors
/// [`Refusal::NoResource`] where it is not served.
pub fn resources(registry: &Registry, group: &str, version: &str) -> Result<Value, Refusal> {
    let groups = served(registry);
    let found = groups
        .get(group)
        .and_then(|versions| versions.iter().find(|(name, _)| *name == version))
        .ok_or(Refusal::NoResource)?;
    let mut list = Vec::new();
    for (resource, version) in &found.1 {
        let mut entry = json!({
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        list.push(entry);
        for (name, verbs, kind) in subresources(resource, version) {
            list.push(json!({
                "name": format!("{}/{name}", resource.plural),
                "singularName": "",
                "namespaced": resource.namespaced,
                "group": kind["group"],
                "version": kind["version"],
                "kind": kind["kind"],
                "verbs": verbs,
            }));
        }
    }
    Ok(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": list,
    }))
}

/// Aggregated discovery (`apidiscovery.k8s.io/v2`) of `/api` (`core`) or `/apis`.
#[must_use]
pub fn aggregated(registry: &Registry, core: bool) -> Value {
    let mut items = Vec::new();
    for (group, versions) in served(registry) {
        if group.is_empty() != core {
            continue;
        }
        let list: Vec<Value> = versions
            .iter()
            .map(|(version, resources)| {
                let resources: Vec<Value> =
                    resources.iter().map(|(resource, version)| entry(resource, version)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        let metadata = if core { json!({}) } else { json!({"name": group}) };
        items.push(json!({"metadata": metadata, "versions": list}));
    }
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn entry(resource: &ResourceType, version: &Version) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": version.name, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let subresources: Vec<Value> = subresources(resource, version)
        .into_iter()
        .map(|(name, verbs, kind)| json!({"subresource": name, "responseKind": kind, "verbs": verbs}))
        .collect();
    if !subresources.is_empty() {
        entry["subresources"] = subresources.into();
    }
    entry
}
