//! Reading and writing the parts that every object has.

use serde_json::{Map, Value};

/// A JSON object's members.
pub type Members = Map<String, Value>;

/// The object's name, empty if it has none.
#[must_use]
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The object's namespace, empty if it has none.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// The object's uid, empty before it is created.
#[must_use]
pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// The object's resourceVersion, empty before it is created.
#[must_use]
pub fn resource_version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default()
}

/// Whether deletion of the object has been asked for.
#[must_use]
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The finalizers of the object.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<String> {
    strings(&object["metadata"]["finalizers"])
}

/// The strings of a JSON list; anything else in it is left out.
#[must_use]
pub fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .map(|items| items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
        .unwrap_or_default()
}

/// The value at a path of field names, `Null` where there is none.
#[must_use]
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(value, |inner, field| &inner[*field])
}

/// The members of `value`, which becomes an object if it is none.
pub fn members(value: &mut Value) -> &mut Members {
    if !value.is_object() {
        *value = Value::Object(Members::new());
    }
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made an object above")
        }
    }
}

/// The members of the object at `field`, made if it is not there.
pub fn child<'a>(value: &'a mut Value, field: &str) -> &'a mut Members {
    members(members(value).entry(field.to_owned()).or_insert(Value::Null))
}

/// The metadata of an object, made if it is not there.
pub fn metadata(object: &mut Value) -> &mut Members {
    child(object, "metadata")
}

/// The items of the list at a path of field names; nothing is made where there is none.
pub fn items_mut<'a>(value: &'a mut Value, path: &[&str]) -> impl Iterator<Item = &'a mut Value> {
    let found = path.iter().try_fold(value, |inner, field| inner.get_mut(*field));
    found.and_then(Value::as_array_mut).into_iter().flatten()
}

/// Writes `value` at a path of field names, making the objects on the way.
pub fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut inner = object;
    for field in parents {
        inner = members(inner).entry((*field).to_owned()).or_insert(Value::Null);
    }
    members(inner).insert((*last).to_owned(), value);
}

/// Writes `value` at a path unless something other than null is there.
pub fn set_default(object: &mut Value, path: &[&str], value: Value) {
    if at(object, path).is_null() {
        set(object, path, value);
    }
}

/// Removes a member, keeping the order of the others.
pub fn remove(members: &mut Members, field: &str) -> Option<Value> {
    members.shift_remove(field)
}

/// Makes a field of `to` what it is in `from`, also when it is absent there.
pub fn copy_field(from: &Value, to: &mut Members, field: &str) {
    match from.get(field) {
        Some(value) => {
            to.insert(field.to_owned(), value.clone());
        }
        None => {
            remove(to, field);
        }
    }
}

/// Removes every null member of objects, at any depth, as Go's decoder does for absent fields.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, inner| !inner.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
