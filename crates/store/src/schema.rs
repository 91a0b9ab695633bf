//! The OpenAPI schemas of the built-in kinds, with the marks that Kubernetes puts on lists and
//! maps, and the way through a schema that both built-in and custom kinds share.

use std::sync::{Arc, OnceLock};

use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{
            ConfigMap, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod,
            Secret, Service, ServiceAccount,
        },
        discovery::v1::EndpointSlice,
        events::v1::Event as NewEvent,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
        storage::v1::StorageClass,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Status},
};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

const PREFIX: &str = "#/components/schemas/";

/// Name of the schema of metadata, which custom resources refer to.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// How a list is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// As one value.
    Atomic,
    /// Its items are scalars and a set.
    Set,
    /// Its items are objects with these keys.
    Map(Vec<String>),
}

/// Marks of the built-in kinds that k8s-openapi's schemas lack:
/// type, field, list type or the keys of a map list, key of the strategic merge.
/// A field that is not named here is atomic, in both.
const LISTS: &[(&str, &str, &[&str], &str)] = &[
    ("core.v1.PodSpec", "containers", &["name"], "name"),
    ("core.v1.PodSpec", "initContainers", &["name"], "name"),
    ("core.v1.PodSpec", "ephemeralContainers", &["name"], "name"),
    ("core.v1.PodSpec", "volumes", &["name"], "name"),
    ("core.v1.PodSpec", "imagePullSecrets", &["name"], "name"),
    ("core.v1.PodSpec", "hostAliases", &["ip"], "ip"),
    ("core.v1.PodSpec", "resourceClaims", &["name"], "name"),
    ("core.v1.PodSpec", "schedulingGates", &["name"], "name"),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        "topologyKey",
    ),
    ("core.v1.PodStatus", "conditions", &["type"], "type"),
    ("core.v1.PodStatus", "podIPs", &["ip"], "ip"),
    ("core.v1.Container", "env", &["name"], "name"),
    ("core.v1.Container", "ports", &["containerPort", "protocol"], "containerPort"),
    ("core.v1.Container", "volumeMounts", &["mountPath"], "mountPath"),
    ("core.v1.Container", "volumeDevices", &["devicePath"], "devicePath"),
    ("core.v1.ResourceRequirements", "claims", &["name"], ""),
    ("core.v1.ServiceSpec", "ports", &["port", "protocol"], "port"),
    ("core.v1.ServiceStatus", "conditions", &["type"], "type"),
    ("core.v1.ServiceAccount", "secrets", &["name"], "name"),
    ("core.v1.NamespaceStatus", "conditions", &["type"], "type"),
    ("core.v1.NodeStatus", "conditions", &["type"], "type"),
    ("core.v1.NodeStatus", "addresses", &["type"], "type"),
    ("core.v1.NodeSpec", "podCIDRs", &["="], "="),
    ("core.v1.PersistentVolumeClaimStatus", "conditions", &["type"], "type"),
    ("policy.v1.PodDisruptionBudgetStatus", "conditions", &["type"], "type"),
    ("meta.v1.ObjectMeta", "ownerReferences", &["uid"], "uid"),
    ("meta.v1.ObjectMeta", "finalizers", &["="], "="),
    ("v1.CustomResourceDefinitionStatus", "conditions", &["type"], ""),
];

/// Built-in objects that are merged as one value.
const ATOMIC_TYPES: &[&str] = &[
    "core.v1.LocalObjectReference",
    "core.v1.SecretKeySelector",
    "core.v1.ConfigMapKeySelector",
    "core.v1.ObjectFieldSelector",
    "core.v1.ResourceFieldSelector",
    "core.v1.TypedLocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectReference",
    "meta.v1.LabelSelector",
    "meta.v1.OwnerReference",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
    "discovery.v1.EndpointConditions",
];

/// Types of a CRD's schema that may be more than an object.
const ANY_JSON: &[&str] = &[
    "apiextensions.v1.JSON",
    "apiextensions.v1.JSONSchemaPropsOrArray",
    "apiextensions.v1.JSONSchemaPropsOrBool",
    "apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// Built-in maps that are merged as one value.
const ATOMIC_MAPS: &[(&str, &str)] =
    &[("core.v1.ServiceSpec", "selector"), ("core.v1.PodSpec", "nodeSelector")];

/// The schemas of all built-in types by name.
pub fn definitions() -> &'static Map<String, Value> {
    static DEFINITIONS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFINITIONS.get_or_init(generate)
}

/// The schema of a built-in type.
#[must_use]
pub fn definition(name: &str) -> Option<&'static Value> {
    definitions().get(name)
}

/// A schema that only refers to a built-in type.
#[must_use]
pub fn reference(name: &str) -> Arc<Value> {
    Arc::new(json!({"$ref": format!("{PREFIX}{name}")}))
}

fn generate() -> Map<String, Value> {
    let mut settings = SchemaSettings::openapi3();
    settings.definitions_path = "/components/schemas".into();
    settings.transforms.clear();
    let mut generator = settings.into_generator();
    macro_rules! include {
        ($($kind:ty),* $(,)?) => { $( generator.subschema_for::<$kind>(); )* };
    }
    include!(
        Namespace,
        Pod,
        PersistentVolumeClaim,
        Service,
        Secret,
        ConfigMap,
        ServiceAccount,
        Event,
        NewEvent,
        Node,
        Lease,
        EndpointSlice,
        PodDisruptionBudget,
        Role,
        RoleBinding,
        ClusterRole,
        ClusterRoleBinding,
        PersistentVolume,
        StorageClass,
        CustomResourceDefinition,
        DeleteOptions,
        Status,
    );
    let mut definitions = generator.take_definitions(true);
    mark(&mut definitions);
    definitions
}

fn mark(definitions: &mut Map<String, Value>) {
    for (kind, field, keys, strategic) in LISTS {
        let Some(list) = field_of(definitions, kind, field) else { continue };
        if *keys == ["="] {
            list.insert("x-kubernetes-list-type".into(), "set".into());
        } else {
            list.insert("x-kubernetes-list-type".into(), "map".into());
            list.insert("x-kubernetes-list-map-keys".into(), (*keys).into());
        }
        if !strategic.is_empty() {
            list.insert("x-kubernetes-patch-strategy".into(), "merge".into());
        }
        if !matches!(*strategic, "" | "=") {
            list.insert("x-kubernetes-patch-merge-key".into(), (*strategic).into());
        }
    }
    for kind in ATOMIC_TYPES {
        if let Some(Value::Object(schema)) = find_mut(definitions, kind) {
            schema.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
    }
    // k8s-openapi calls these objects, though they hold any JSON: a default may be a number.
    for kind in ANY_JSON {
        if let Some(Value::Object(schema)) = find_mut(definitions, kind) {
            schema.remove("type");
        }
    }
    // Its fields are those of the object that it speaks of.
    if let Some(Value::Object(schema)) = find_mut(definitions, "FieldsV1") {
        schema.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    for (kind, field) in ATOMIC_MAPS {
        if let Some(map) = field_of(definitions, kind, field) {
            map.insert("x-kubernetes-map-type".into(), "atomic".into());
        }
    }
}

fn find_mut<'a>(definitions: &'a mut Map<String, Value>, kind: &str) -> Option<&'a mut Value> {
    let suffix = format!(".{kind}");
    definitions.iter_mut().find(|(name, _)| name.ends_with(&suffix)).map(|(_, schema)| schema)
}

fn field_of<'a>(
    definitions: &'a mut Map<String, Value>,
    kind: &str,
    field: &str,
) -> Option<&'a mut Map<String, Value>> {
    find_mut(definitions, kind)?.get_mut("properties")?.get_mut(field)?.as_object_mut()
}

/// Follows `$ref` and the `allOf` of one entry that schemars wraps described references in.
#[must_use]
pub fn resolve(schema: &Value) -> &Value {
    let mut current = schema;
    // A chain of references is short; a loop of nothing but references is not a schema.
    for _ in 0..8 {
        let target = current["$ref"].as_str().or_else(|| match current["allOf"].as_array() {
            Some(branches) if branches.len() == 1 => branches[0]["$ref"].as_str(),
            _ => None,
        });
        let found = target.and_then(|text| definition(text.strip_prefix(PREFIX)?));
        match found {
            Some(next) => current = next,
            None => return current,
        }
    }
    current
}

/// The schema of a member of an object: a declared property, else the map's value type.
#[must_use]
pub fn member<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    property(schema, field).or_else(|| additional(schema))
}

/// The schema of a declared property.
#[must_use]
pub fn property<'a>(schema: &'a Value, field: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(field)
}

/// The schema of a map's values.
#[must_use]
pub fn additional(schema: &Value) -> Option<&Value> {
    schema.get("additionalProperties").filter(|value| value.is_object())
}

/// Whether unknown fields are kept below this schema.
#[must_use]
pub fn preserves_unknown(schema: &Value) -> bool {
    schema["x-kubernetes-preserve-unknown-fields"] == true
        || schema["additionalProperties"] == true
        // JSONSchemaProps' `default`, `example` and the like are any JSON in k8s-openapi.
        || schema.as_object().is_some_and(|members| {
            !["type", "properties", "additionalProperties", "items", "x-kubernetes-int-or-string"]
                .iter()
                .any(|known| members.contains_key(*known))
        })
}

/// How a list is merged; `schema` is the list's own, not its resolved type.
#[must_use]
pub fn list_type(schema: &Value) -> ListType {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => ListType::Map(crate::object::strings(&schema["x-kubernetes-list-map-keys"])),
        _ => ListType::Atomic,
    }
}

/// Whether an object is merged as one value.
#[must_use]
pub fn is_atomic_map(schema: &Value) -> bool {
    schema["x-kubernetes-map-type"] == "atomic"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_meets_a_field_of_a_built_in_type() {
        let mut definitions = definitions().clone();
        for (kind, field, ..) in LISTS {
            assert!(field_of(&mut definitions, kind, field).is_some(), "{kind}.{field}");
        }
        for kind in ATOMIC_TYPES {
            assert!(find_mut(&mut definitions, kind).is_some(), "{kind}");
        }
    }

    #[test]
    fn references_are_followed() {
        let pod = reference("io.k8s.api.core.v1.Pod");
        let spec = resolve(member(resolve(&pod), "spec").unwrap());
        let containers = member(spec, "containers").unwrap();
        assert_eq!(list_type(containers), ListType::Map(vec!["name".into()]));
        assert_eq!(resolve(member(resolve(&pod), "metadata").unwrap())["type"], "object");
    }
}
