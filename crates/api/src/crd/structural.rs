//! From schemars' schema to the structural schema that a CustomResourceDefinition wants.
//!
//! No references and no choices are left; descriptions are kept for our own fields and dropped
//! below types of Kubernetes, because a CRD with all of them is too large for the annotation that
//! `kubectl apply` writes (traps K1).

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// Definitions of Kubernetes' types begin with this.
const KUBERNETES: &str = "io.k8s.";

/// Kubernetes' definition of a quantity, and the pattern that its Go code accepts.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
/// A quantity as text.
pub const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Types of Kubernetes that one field manager owns as a whole; k8s-openapi's schemas do not say so
/// (traps K8).
const ATOMIC: [&str; 10] = [
    "io.k8s.api.core.v1.ConfigMapKeySelector",
    "io.k8s.api.core.v1.FileKeySelector",
    "io.k8s.api.core.v1.LocalObjectReference",
    "io.k8s.api.core.v1.NodeSelector",
    "io.k8s.api.core.v1.NodeSelectorTerm",
    "io.k8s.api.core.v1.ObjectFieldSelector",
    "io.k8s.api.core.v1.ResourceFieldSelector",
    "io.k8s.api.core.v1.SecretKeySelector",
    "io.k8s.api.core.v1.TypedLocalObjectReference",
    "io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector",
];

/// Keywords that are taken over as they are.
const KEPT: [&str; 12] = [
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "pattern",
    "required",
    "uniqueItems",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
];

/// Formats that a kube-apiserver knows and that say more than the type.
const FORMATS: [&str; 5] = ["date-time", "byte", "double", "int32", "int64"];

/// The structural schema of a type.
pub fn structural<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
    let root = settings.into_generator().into_root_schema_for::<T>().to_value();
    let none = Map::new();
    let definitions = root.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    Value::Object(Resolver { definitions }.node(&root, false))
}

struct Resolver<'a> {
    definitions: &'a Map<String, Value>,
}

impl Resolver<'_> {
    /// `foreign`: inside a type of Kubernetes.
    fn node(&self, node: &Value, foreign: bool) -> Map<String, Value> {
        let Some(keywords) = node.as_object() else {
            return anything();
        };
        let mut out = self.referred(keywords, foreign);
        self.scalars(keywords, &mut out);
        if let Some(properties) = keywords.get("properties").and_then(Value::as_object) {
            let resolved = properties
                .iter()
                .map(|(name, node)| (name.clone(), Value::Object(self.node(node, foreign))))
                .collect();
            out.insert("properties".to_owned(), Value::Object(resolved));
        }
        for keyword in ["items", "additionalProperties"] {
            match keywords.get(keyword) {
                Some(Value::Bool(false)) | None => {}
                Some(node) => {
                    out.insert(keyword.to_owned(), Value::Object(self.node(node, foreign)));
                }
            }
        }
        match keywords.get("description") {
            Some(description) if !foreign => {
                out.insert("description".to_owned(), one_line(description));
            }
            Some(_) | None => {}
        }
        if out.is_empty() { anything() } else { out }
    }

    /// What a reference, an optional reference or a choice between words amounts to.
    fn referred(&self, keywords: &Map<String, Value>, foreign: bool) -> Map<String, Value> {
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str) {
            return self.definition(reference, foreign);
        }
        for keyword in ["anyOf", "oneOf", "allOf"] {
            let Some(choices) = keywords.get(keyword).and_then(Value::as_array) else { continue };
            let choices: Vec<_> = choices.iter().filter(|choice| !is_null(choice)).collect();
            if let [one] = choices.as_slice() {
                return self.node(one, foreign);
            }
            let words: Vec<Value> = choices.iter().flat_map(|choice| words(choice)).collect();
            return Map::from_iter([
                ("type".to_owned(), json!("string")),
                ("enum".to_owned(), Value::Array(words)),
            ]);
        }
        Map::new()
    }

    fn definition(&self, reference: &str, foreign: bool) -> Map<String, Value> {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let Some(definition) = self.definitions.get(name) else {
            return anything();
        };
        let foreign = foreign || name.starts_with(KUBERNETES);
        let mut out = self.node(definition, foreign);
        if ATOMIC.contains(&name) {
            out.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        if name == QUANTITY {
            out.insert("pattern".to_owned(), json!(QUANTITY_PATTERN));
        }
        out
    }

    fn scalars(&self, keywords: &Map<String, Value>, out: &mut Map<String, Value>) {
        match keywords.get("type") {
            Some(Value::Array(types)) => {
                if let Some(one) = types.iter().find(|name| name.as_str() != Some("null")) {
                    out.insert("type".to_owned(), one.clone());
                }
            }
            Some(one) => {
                out.insert("type".to_owned(), one.clone());
            }
            None => {}
        }
        let words = words(&Value::Object(keywords.clone()));
        if !words.is_empty() {
            out.insert("type".to_owned(), json!("string"));
            out.insert("enum".to_owned(), Value::Array(words));
        }
        for keyword in KEPT {
            if let Some(value) = keywords.get(keyword) {
                out.insert(keyword.to_owned(), value.clone());
            }
        }
        if let Some(format) = keywords.get("format").and_then(Value::as_str) {
            if FORMATS.contains(&format) {
                out.insert("format".to_owned(), json!(format));
            }
            let (low, high) = bounds(format);
            for (keyword, bound) in [("minimum", low), ("maximum", high)] {
                if let Some(bound) = bound {
                    out.insert(keyword.to_owned(), json!(bound));
                }
            }
        }
    }
}

/// Bounds of an integer type: what the server accepts, the operator must be able to read.
fn bounds(format: &str) -> (Option<i64>, Option<i64>) {
    match format {
        "int32" => (Some(i64::from(i32::MIN)), Some(i64::from(i32::MAX))),
        "uint8" => (Some(0), Some(i64::from(u8::MAX))),
        "uint16" => (Some(0), Some(i64::from(u16::MAX))),
        "uint32" => (Some(0), Some(i64::from(u32::MAX))),
        // Integers of Kubernetes end with i64 themselves.
        "uint64" => (Some(0), None),
        _ => (None, None),
    }
}

/// Words of an enum or constant.
fn words(node: &Value) -> Vec<Value> {
    if let Some(word) = node.get("const").filter(|word| word.is_string()) {
        return vec![word.clone()];
    }
    node.get("enum")
        .and_then(Value::as_array)
        .map(|words| words.iter().filter(|word| word.is_string()).cloned().collect())
        .unwrap_or_default()
}

fn is_null(node: &Value) -> bool {
    node.get("type").and_then(Value::as_str) == Some("null")
}

/// A node of which nothing is known.
fn anything() -> Map<String, Value> {
    Map::from_iter([("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true))])
}

fn one_line(description: &Value) -> Value {
    let words: Vec<&str> = description.as_str().unwrap_or_default().split_whitespace().collect();
    Value::String(words.join(" "))
}

/// All paths below a schema with their nodes, depth first: `a.b`, `list[]`, `map{}`.
pub fn walk<'a>(path: &str, node: &'a Value, visit: &mut dyn FnMut(&str, &'a Value)) {
    visit(path, node);
    if let Some(properties) = node.get("properties").and_then(Value::as_object) {
        for (name, child) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(&path, child, visit);
        }
    }
    if let Some(items) = node.get("items") {
        walk(&format!("{path}[]"), items, visit);
    }
    if let Some(values) = node.get("additionalProperties") {
        walk(&format!("{path}{{}}"), values, visit);
    }
}

/// The node at a path, as [`walk`] names it.
pub fn node_mut<'a>(root: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut node = root;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let name = part.trim_end_matches("[]").trim_end_matches("{}").trim_end_matches("[]");
        if !name.is_empty() {
            node = node.get_mut("properties")?.get_mut(name)?;
        }
        let mut rest = &part[name.len()..];
        while !rest.is_empty() {
            let (keyword, after) = match rest.strip_prefix("[]") {
                Some(after) => ("items", after),
                None => ("additionalProperties", rest.strip_prefix("{}")?),
            };
            node = node.get_mut(keyword)?;
            rest = after;
        }
    }
    Some(node)
}
