//! Objects seen through their schema: which fields one has, how two differ, how one is merged
//! into another. These are the rules of server-side apply.

use serde_json::{Map, Value};

use crate::{fields::FieldSet, object, schema, schema::ListType};

/// How two objects differ.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Fields of the new one alone.
    pub added: FieldSet,
    /// Fields whose value changed.
    pub modified: FieldSet,
    /// Fields of the old one alone.
    pub removed: FieldSet,
}

impl Comparison {
    /// Fields that the new object has differently.
    #[must_use]
    pub fn changed(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

/// How a value is taken apart.
enum Shape<'a> {
    /// Not at all.
    Leaf,
    /// By its members.
    Members(&'a Value),
    /// By its items.
    Items(&'a Value, ListType),
}

fn shape<'a>(declared: &'a Value, value: &Value) -> Shape<'a> {
    let schema = schema::resolve(declared);
    match value {
        Value::Object(_)
            if !schema::is_atomic_map(schema)
                && !schema::is_atomic_map(declared)
                && schema["x-kubernetes-int-or-string"] != true =>
        {
            Shape::Members(schema)
        }
        Value::Array(_) => match schema::list_type(declared) {
            ListType::Atomic => Shape::Leaf,
            kind => Shape::Items(declared, kind),
        },
        _ => Shape::Leaf,
    }
}

fn inner<'a>(schema: &'a Value, field: &str) -> &'a Value {
    schema::member(schema, field).unwrap_or(&Value::Null)
}

/// The step to an item of a set or map list.
fn item_step(kind: &ListType, declared: &Value, item: &Value) -> String {
    match kind {
        ListType::Map(keys) => {
            let mut named = Map::new();
            let mut sorted = keys.clone();
            sorted.sort();
            let item_schema = schema::resolve(&declared["items"]);
            for key in sorted {
                let value = match &item[&key] {
                    // A key that is left out has its default.
                    Value::Null => default_of(item_schema, &key),
                    given => given.clone(),
                };
                named.insert(key, value);
            }
            format!("k:{}", Value::Object(named))
        }
        ListType::Set | ListType::Atomic => format!("v:{item}"),
    }
}

fn default_of(schema: &Value, key: &str) -> Value {
    match schema::property(schema, key).and_then(|property| property.get("default")) {
        Some(default) => default.clone(),
        // The one built-in key with a default: `protocol` of ports.
        None if key == "protocol" => "TCP".into(),
        None => Value::Null,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The fields that an object has.
#[must_use]
pub fn field_set(declared: &Value, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    let mut path = Vec::new();
    collect(declared, value, &mut path, &mut set);
    set
}

fn collect(declared: &Value, value: &Value, path: &mut Vec<String>, set: &mut FieldSet) {
    match shape(declared, value) {
        Shape::Leaf => set.insert(path),
        Shape::Members(schema) => {
            for (field, value) in value.as_object().into_iter().flatten() {
                path.push(format!("f:{field}"));
                collect(inner(schema, field), value, path, set);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || schema::property(schema, field).is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Shape::Items(list, kind) => {
            for item in value.as_array().into_iter().flatten() {
                path.push(item_step(&kind, list, item));
                collect(&list["items"], item, path, set);
                set.insert(path);
                path.pop();
            }
        }
    }
}

/// How `new` differs from `old`.
#[must_use]
pub fn compare(declared: &Value, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    differ(declared, Some(old), Some(new), &mut Vec::new(), &mut comparison);
    comparison
}

fn differ(
    declared: &Value,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    out: &mut Comparison,
) {
    let apart = apart(declared, old, new, path, out);
    match (old, new) {
        (None, Some(_)) => out.added.insert(path),
        (Some(_), None) => out.removed.insert(path),
        (Some(old), Some(new)) if !apart && old != new => out.modified.insert(path),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// Compares what is inside; `false` where the values are compared as wholes.
fn apart(
    declared: &Value,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<String>,
    out: &mut Comparison,
) -> bool {
    if old.is_none_or(is_empty) && new.is_none_or(is_empty) {
        return false;
    }
    let of_kind = |value: Option<&Value>, kind: fn(&Value) -> bool| {
        value.is_none_or(|value| value.is_null() || kind(value))
    };
    let Some(sample) = new.filter(|value| !value.is_null()).or(old) else { return false };
    match shape(declared, sample) {
        Shape::Members(schema)
            if of_kind(old, Value::is_object) && of_kind(new, Value::is_object) =>
        {
            let mut fields: Vec<&String> = [old, new]
                .iter()
                .filter_map(|value| value.and_then(Value::as_object))
                .flat_map(Map::keys)
                .collect();
            fields.sort();
            fields.dedup();
            for field in fields {
                path.push(format!("f:{field}"));
                let get =
                    |value: Option<&'_ Value>| value.and_then(|value| value.get(field)).cloned();
                let (left, right) = (get(old), get(new));
                differ(inner(schema, field), left.as_ref(), right.as_ref(), path, out);
                path.pop();
            }
            true
        }
        Shape::Items(list, kind)
            if of_kind(old, Value::is_array) && of_kind(new, Value::is_array) =>
        {
            let (left, right) = (items(old), items(new));
            let find = |side: &[Value], step: &str| {
                side.iter().find(|item| item_step(&kind, list, item) == step).cloned()
            };
            let mut steps: Vec<String> =
                left.iter().chain(right).map(|item| item_step(&kind, list, item)).collect();
            steps.sort();
            steps.dedup();
            for step in steps {
                let (before, after) = (find(left, &step), find(right, &step));
                path.push(step);
                differ(&list["items"], before.as_ref(), after.as_ref(), path, out);
                path.pop();
            }
            true
        }
        Shape::Leaf | Shape::Members(_) | Shape::Items(..) => false,
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Merges an applied configuration into an object.
pub fn merge(declared: &Value, target: &mut Value, applied: &Value) {
    match shape(declared, applied) {
        Shape::Members(schema) if target.is_object() || target.is_null() => {
            let members = object::members(target);
            for (field, value) in applied.as_object().into_iter().flatten() {
                let slot = members.entry(field.clone()).or_insert(Value::Null);
                merge(inner(schema, field), slot, value);
            }
        }
        Shape::Items(list, kind) if target.is_array() => {
            let Value::Array(present) = target else { return };
            merge_items(list, &kind, present, items(Some(applied)));
        }
        Shape::Leaf | Shape::Members(_) | Shape::Items(..) => target.clone_from(applied),
    }
}

/// The applied items in their order, with the others where they stood between them.
fn merge_items(list: &Value, kind: &ListType, present: &mut Vec<Value>, applied: &[Value]) {
    let step = |item: &Value| item_step(kind, list, item);
    let wanted: Vec<String> = applied.iter().map(step).collect();
    let mut merged = Vec::new();
    let mut next = 0;
    for item in present.drain(..) {
        let Some(at) = wanted.iter().position(|one| *one == step(&item)) else {
            merged.push(item);
            continue;
        };
        // Everything applied up to this one comes before what follows it here.
        while next <= at {
            merged.push(applied[next].clone());
            next += 1;
        }
        if let Some(slot) = merged.iter_mut().find(|one| step(one) == wanted[at]) {
            let mut whole = item;
            merge(&list["items"], &mut whole, &applied[at]);
            *slot = whole;
        }
    }
    merged.extend(applied[next..].iter().cloned());
    *present = merged;
}

/// Removes the fields of a set.
pub fn remove(declared: &Value, target: &mut Value, set: &FieldSet) {
    match shape(declared, target) {
        Shape::Leaf => {}
        Shape::Members(schema) => {
            let members = object::members(target);
            members.retain(|field, _| !set.has(&format!("f:{field}")));
            for (field, value) in members {
                if let Some(below) = set.below(&format!("f:{field}")) {
                    remove(inner(schema, field), value, below);
                }
            }
        }
        Shape::Items(list, kind) => {
            let Value::Array(present) = target else { return };
            present.retain(|item| !set.has(&item_step(&kind, list, item)));
            for item in present {
                if let Some(below) = set.below(&item_step(&kind, list, item)) {
                    remove(&list["items"], item, below);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_are_compared_and_merged_by_name() {
        let pod = schema::reference("io.k8s.api.core.v1.Pod");
        let old = json!({"spec": {"containers": [{"name": "a", "image": "1"}]}});
        let new = json!({"spec": {"containers": [{"name": "b", "image": "1"}, {"name": "a", "image": "2"}]}});
        let comparison = compare(&pod, &old, &new);
        assert_eq!(comparison.modified.paths(), [".spec.containers[name=\"a\"].image"]);
        assert_eq!(
            comparison.added.paths(),
            [
                ".spec.containers[name=\"b\"]",
                ".spec.containers[name=\"b\"].image",
                ".spec.containers[name=\"b\"].name"
            ]
        );
        let mut merged = old;
        merge(&pod, &mut merged, &new);
        assert_eq!(merged, new);
        let set = field_set(&pod, &json!({"spec": {"containers": [{"name": "b"}]}}));
        remove(&pod, &mut merged, &set);
        assert_eq!(merged["spec"]["containers"], json!([{"name": "a", "image": "2"}]));
    }
}
