//! The patches of the wire: JSON patch, merge patch and strategic merge patch.

use json_patch::PatchOperation;
use serde_json::Value;

use crate::{Refusal, object, schema};

/// A parsed patch.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Vec<PatchOperation>),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' merge by the keys of lists.
    Strategic(Value),
}

impl Patch {
    /// Parses a JSON patch.
    ///
    /// # Errors
    /// Refuses what is none.
    pub fn json(body: Value) -> Result<Self, Refusal> {
        serde_json::from_value(body)
            .map(Self::Json)
            .map_err(|error| Refusal::BadRequest(format!("error decoding patch: {error}")))
    }

    /// Applies the patch; `schema` tells the merge keys of a strategic one.
    ///
    /// # Errors
    /// Refuses operations that do not fit the object.
    pub fn apply(&self, target: &mut Value, schema: &Value) -> Result<(), Refusal> {
        match self {
            Self::Json(operations) => json_patch::patch(target, operations).map_err(|_| {
                Refusal::Unprocessable(
                    "the server rejected our request due to an error in our request".to_owned(),
                )
            }),
            Self::Merge(patch) => {
                merge(target, patch);
                Ok(())
            }
            Self::Strategic(patch) => strategic(target, patch, schema),
        }
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    let members = object::members(target);
    for (field, change) in changes {
        if change.is_null() {
            object::remove(members, field);
        } else {
            merge(members.entry(field.clone()).or_insert(Value::Null), change);
        }
    }
}

const DIRECTIVE: &str = "$patch";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";
const RETAIN_KEYS: &str = "$retainKeys";

/// Strategic merge: like a merge patch, but lists with a merge key are merged by it.
fn strategic(target: &mut Value, patch: &Value, declared: &Value) -> Result<(), Refusal> {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match changes.get(DIRECTIVE).and_then(Value::as_str) {
        Some("replace") => {
            let mut whole = changes.clone();
            object::remove(&mut whole, DIRECTIVE);
            *target = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(object::Members::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            return Err(Refusal::BadRequest(format!("unknown patch type found: {other}")));
        }
    }
    let schema = schema::resolve(declared);
    let members = object::members(target);
    let originals = members.clone();
    if let Some(Value::Array(retained)) = changes.get(RETAIN_KEYS) {
        members.retain(|field, _| retained.iter().any(|kept| kept == field));
    }
    for (field, change) in changes {
        if let Some(list) = field.strip_prefix(DELETE_PRIMITIVES) {
            remove_primitives(members, list, change);
        } else if field.starts_with('$') {
            // Directives are carried out with the field that they are about.
        } else if change.is_null() {
            object::remove(members, field);
        } else {
            let inner = schema::member(schema, field).unwrap_or(&Value::Null);
            let slot = members.entry(field.clone()).or_insert(Value::Null);
            match change {
                Value::Array(items) => merge_list(slot, items, inner)?,
                Value::Object(_) => strategic(slot, change, inner)?,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    *slot = change.clone();
                }
            }
        }
    }
    order_lists(members, &originals, changes, schema);
    Ok(())
}

fn remove_primitives(members: &mut object::Members, field: &str, removed: &Value) {
    let removed = removed.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(Value::Array(items)) = members.get_mut(field) {
        items.retain(|item| !removed.contains(item));
    }
}

fn merge_list(slot: &mut Value, items: &[Value], declared: &Value) -> Result<(), Refusal> {
    let merges = declared["x-kubernetes-patch-strategy"]
        .as_str()
        .is_some_and(|strategy| strategy.split(',').any(|one| one == "merge"));
    let replaces = items.iter().any(|item| item[DIRECTIVE] == "replace");
    if !merges || replaces {
        let whole = items.iter().filter(|item| item[DIRECTIVE] != "replace").cloned().collect();
        *slot = Value::Array(whole);
        return Ok(());
    }
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    let Value::Array(present) = slot else { return Ok(()) };
    let original = present.clone();
    let Some(merge_key) = declared["x-kubernetes-patch-merge-key"].as_str() else {
        for item in items {
            if !present.contains(item) {
                present.push(item.clone());
            }
        }
        arrange(present, items, &original, None);
        return Ok(());
    };
    for item in items {
        let wanted = &item[merge_key];
        if wanted.is_null() {
            return Err(Refusal::BadRequest(format!(
                "map: {item} does not contain declared merge key: {merge_key}"
            )));
        }
        if item[DIRECTIVE] == "delete" {
            present.retain(|one| one[merge_key] != *wanted);
        } else if let Some(one) = present.iter_mut().find(|one| one[merge_key] == *wanted) {
            strategic(one, item, &declared["items"])?;
        } else {
            let mut one = Value::Object(object::Members::new());
            strategic(&mut one, item, &declared["items"])?;
            present.push(one);
        }
    }
    arrange(present, items, &original, Some(merge_key));
    Ok(())
}

/// `$setElementOrder/<list>`: listed items stand in that order.
fn order_lists(
    members: &mut object::Members,
    originals: &object::Members,
    changes: &object::Members,
    schema: &Value,
) {
    for (directive, order) in changes {
        let Some(field) = directive.strip_prefix(SET_ORDER) else { continue };
        let (Some(order), Some(Value::Array(items))) = (order.as_array(), members.get_mut(field))
        else {
            continue;
        };
        let key = schema::member(schema, field)
            .and_then(|list| list["x-kubernetes-patch-merge-key"].as_str());
        let original = originals.get(field).and_then(Value::as_array);
        arrange(items, order, original.map(Vec::as_slice).unwrap_or_default(), key);
    }
}

/// Puts the items of a merged list in order: those that the patch names as it names them, the
/// others between them, each only before those that it stood before in the original.
fn arrange(merged: &mut Vec<Value>, order: &[Value], original: &[Value], key: Option<&str>) {
    let place = |list: &[Value], item: &Value| {
        list.iter().position(|one| match key {
            Some(key) => one[key] == item[key],
            None => one == item,
        })
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        std::mem::take(merged).into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(original, item));
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    while let (Some(one), Some(other)) = (named.peek(), others.peek()) {
        let before = match (place(original, other), place(original, one)) {
            (Some(other), Some(one)) => other < one,
            _ => false,
        };
        merged.extend(if before { others.next() } else { named.next() });
    }
    merged.extend(named);
    merged.extend(others);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod_patch(patch: Value, mut pod: Value) -> Value {
        let schema = schema::reference("io.k8s.api.core.v1.Pod");
        Patch::Strategic(patch).apply(&mut pod, &schema).unwrap();
        pod
    }

    #[test]
    fn a_strategic_patch_merges_containers_by_name() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}});
        let patch = json!({"spec": {"containers": [
            {"name": "a", "image": "2"}, {"name": "c"}, {"name": "b", "$patch": "delete"}
        ]}});
        let expected =
            json!({"spec": {"containers": [{"name": "a", "image": "2"}, {"name": "c"}]}});
        assert_eq!(pod_patch(patch, pod), expected);
    }

    #[test]
    fn a_strategic_patch_replaces_atomic_lists_and_merges_sets() {
        let pod = json!({"metadata": {"finalizers": ["a/b"]},
            "spec": {"tolerations": [{"key": "x"}]}});
        let patch = json!({"metadata": {"finalizers": ["c/d"]},
            "spec": {"tolerations": [{"key": "y"}]}});
        let patched = pod_patch(patch, pod);
        // What the patch brings comes first, as kube-apiserver has it (conformance: "of which one
        // is added").
        assert_eq!(patched["metadata"]["finalizers"], json!(["c/d", "a/b"]));
        assert_eq!(patched["spec"]["tolerations"], json!([{"key": "y"}]));
        let removed = pod_patch(
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/b"]}}),
            patched,
        );
        assert_eq!(removed["metadata"]["finalizers"], json!(["c/d"]));
    }

    #[test]
    fn a_merge_patch_removes_by_null() {
        let mut object = json!({"a": {"b": 1, "c": 2}});
        Patch::Merge(json!({"a": {"b": null, "d": {"e": null}}}))
            .apply(&mut object, &Value::Null)
            .unwrap();
        assert_eq!(object, json!({"a": {"c": 2, "d": {}}}));
    }

    #[test]
    fn what_a_strategic_patch_adds_comes_first() {
        let metadata = |list: Value| json!({"metadata": {"finalizers": list}});
        let merged = pod_patch(metadata(json!(["b"])), metadata(json!(["a"])));
        assert_eq!(merged, metadata(json!(["b", "a"])));
        let merged = pod_patch(metadata(json!(["b", "c"])), metadata(json!(["a", "c"])));
        assert_eq!(merged, metadata(json!(["b", "a", "c"])));
    }
}
