//! Making an object fit its schema: unknown fields, defaults, and the rules of values.

use kube_cel::{RootContext, Validator};
use serde_json::Value;

use crate::{
    Cause, FieldValidation, Refusal, ResourceType, Subresource, Target, WriteOptions, event,
    object, registry::ScalePaths, schema,
};

mod values;

/// Reads the body of a request: kind, unknown fields, defaults.
pub(crate) fn decode(
    resource: &ResourceType,
    target: &Target<'_>,
    mut body: Value,
    options: &WriteOptions,
) -> Result<(Value, Vec<String>), Refusal> {
    check_kind(resource, target, &mut body)?;
    let version = resource.version(&target.resource.version).ok_or(Refusal::NoResource)?;
    if resource.builtin.is_some() {
        object::drop_nulls(&mut body);
        if let Some(problem) = mistyped(&version.schema, &body, &resource.kind) {
            return Err(Refusal::BadRequest(cannot_handle(resource, target, &problem)));
        }
    }
    let mut unknown = Vec::new();
    prune(&version.schema, &mut body, "", &mut unknown);
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        let found: Vec<String> =
            unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
        match options.field_validation {
            FieldValidation::Strict => {
                let problem = format!("strict decoding error: {}", found.join(", "));
                return Err(Refusal::BadRequest(cannot_handle(resource, target, &problem)));
            }
            FieldValidation::Warn => warnings = found,
            FieldValidation::Ignore => {}
        }
    }
    if resource.builtin.is_none() {
        default(&version.schema, &mut body);
    }
    let mut kept = event::keep(resource, body);
    object::members(&mut kept).insert("apiVersion".into(), kept_version(resource).into());
    Ok((kept, warnings))
}

/// Reads the configuration of a server-side apply: fields that the schema does not know are
/// refused, and nothing is filled in.
pub(crate) fn configuration(
    resource: &ResourceType,
    target: &Target<'_>,
    mut body: Value,
) -> Result<Value, Refusal> {
    check_kind(resource, target, &mut body)?;
    let version = resource.version(&target.resource.version).ok_or(Refusal::NoResource)?;
    object::drop_nulls(&mut body);
    let named = object::name(&body);
    if !named.is_empty() && named != target.name {
        return Err(Refusal::BadRequest(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let refuse = |problem: &str| {
        Refusal::Plain(format!(
            "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {problem}",
            object::namespace(&body),
            object::name(&body),
            resource.group,
            target.resource.version,
            resource.kind,
        ))
    };
    if let Some(problem) = mistyped(&version.schema, &body, &resource.kind) {
        return Err(refuse(&problem));
    }
    let mut unknown = Vec::new();
    prune(&version.schema, &mut body.clone(), "", &mut unknown);
    if let Some(path) = unknown.first() {
        return Err(refuse(&format!(".{path}: field not declared in schema")));
    }
    let metadata = object::metadata(&mut body);
    metadata.insert("name".into(), target.name.into());
    if resource.namespaced {
        metadata.insert("namespace".into(), target.namespace.into());
    }
    object::remove(metadata, "managedFields");
    let mut kept = event::keep(resource, body);
    object::members(&mut kept).insert("apiVersion".into(), kept_version(resource).into());
    Ok(kept)
}

/// `apiVersion` of kept objects.
fn kept_version(resource: &ResourceType) -> String {
    match resource.storage().0.as_str() {
        "" => "v1".to_owned(),
        group => format!("{group}/{}", resource.storage_version()),
    }
}

fn cannot_handle(resource: &ResourceType, target: &Target<'_>, problem: &str) -> String {
    let kind = &resource.kind;
    format!(
        "{kind} in version {:?} cannot be handled as a {kind}: {problem}",
        target.resource.version
    )
}

fn check_kind(
    resource: &ResourceType,
    target: &Target<'_>,
    body: &mut Value,
) -> Result<(), Refusal> {
    let expected = resource.api_version(&target.resource.version);
    let Value::Object(members) = body else {
        return Err(Refusal::BadRequest(cannot_handle(resource, target, "not a JSON object")));
    };
    for (field, wanted) in [("apiVersion", &expected), ("kind", &resource.kind)] {
        match members.get(field).and_then(Value::as_str) {
            // The typed decoders of built-in kinds fill in what the path says.
            None | Some("") if resource.builtin.is_some() => {
                members.insert(field.into(), wanted.as_str().into());
            }
            Some(given) if given == wanted => {}
            None | Some("") => {
                let shown = Value::Object(members.clone());
                return Err(Refusal::BadRequest(format!(
                    "Object '{}' is missing in '{shown}'",
                    if field == "kind" { "Kind" } else { "apiVersion" }
                )));
            }
            Some(given) if field == "apiVersion" => {
                return Err(Refusal::BadRequest(format!(
                    "the API version in the data ({given}) does not match the expected API version ({wanted})"
                )));
            }
            Some(given) => {
                return Err(Refusal::BadRequest(format!(
                    "{given} in version {:?} cannot be handled as a {wanted}: converting ({given}) to ({wanted}): unknown conversion",
                    target.resource.version
                )));
            }
        }
    }
    Ok(())
}

/// Go's words for a value of the wrong type in a built-in kind.
fn mistyped(declared: &Value, value: &Value, path: &str) -> Option<String> {
    let schema = schema::resolve(declared);
    if schema["x-kubernetes-int-or-string"] == true {
        return (!(value.is_string() || value.is_number())).then(|| {
            format!("json: cannot unmarshal {} into Go struct field {path}", json_type(value))
        });
    }
    let expected = match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(_))
        | (Some("array"), Value::Array(_))
        | (Some("string"), Value::String(_))
        | (Some("boolean"), Value::Bool(_))
        | (Some("number"), Value::Number(_))
        | (None, _) => None,
        (Some("integer"), Value::Number(number)) if number.is_i64() || number.is_u64() => None,
        (Some(expected), _) => Some(expected),
    };
    if let Some(expected) = expected {
        let go = match expected {
            "object" => "struct",
            "array" => "slice",
            "boolean" => "bool",
            "integer" => "int32",
            other => other,
        };
        return Some(format!(
            "json: cannot unmarshal {} into Go struct field {path} of type {go}",
            json_type(value)
        ));
    }
    match value {
        Value::Object(members) => members.iter().find_map(|(field, inner)| {
            mistyped(schema::member(schema, field)?, inner, &format!("{path}.{field}"))
        }),
        Value::Array(items) => items.iter().find_map(|item| mistyped(&schema["items"], item, path)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Removes fields that the schema does not know, and names them.
fn prune(declared: &Value, value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let schema = schema::resolve(declared);
    match value {
        Value::Object(members) => {
            let keeps =
                schema::preserves_unknown(schema) || schema["x-kubernetes-int-or-string"] == true;
            let known = |field: &str| {
                keeps
                    || schema::member(schema, field).is_some()
                    || (path.is_empty() || schema["x-kubernetes-embedded-resource"] == true)
                        && matches!(field, "apiVersion" | "kind" | "metadata")
            };
            let mut gone: Vec<String> =
                members.keys().filter(|field| !known(field)).cloned().collect();
            gone.sort();
            for field in gone {
                unknown.push(join(path, &field));
                object::remove(members, &field);
            }
            for (field, inner) in members {
                if path.is_empty() && field == "metadata" {
                    let metadata = schema::definition(schema::OBJECT_META).unwrap_or(&Value::Null);
                    prune(metadata, inner, "metadata", unknown);
                } else if let Some(declared) = schema::member(schema, field) {
                    prune(declared, inner, &join(path, field), unknown);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(&schema["items"], item, &format!("{path}[{index}]"), unknown);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

/// Fills in the defaults of a structural schema; null is replaced where it is not allowed.
pub(crate) fn default(declared: &Value, value: &mut Value) {
    let schema = schema::resolve(declared);
    match value {
        Value::Object(members) => {
            for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
                let Some(wanted) = inner.get("default") else {
                    // A null that the schema does not allow and has no default for is dropped.
                    if members.get(field).is_some_and(Value::is_null)
                        && inner["nullable"] != true
                        && inner.get("type").is_some()
                    {
                        object::remove(members, field);
                    }
                    continue;
                };
                let absent = match members.get(field) {
                    None => true,
                    Some(Value::Null) => inner["nullable"] != true,
                    Some(_) => false,
                };
                if absent {
                    members.insert(field.clone(), wanted.clone());
                }
            }
            for (field, inner) in members {
                if let Some(declared) = schema::member(schema, field) {
                    default(declared, inner);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                default(&schema["items"], item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The rules of values: the schema's for custom resources, Kubernetes' own for built-in kinds.
pub(crate) fn check(
    resource: &ResourceType,
    target: &Target<'_>,
    object: &Value,
    old: Option<&Value>,
    validator: &Validator,
) -> Vec<Cause> {
    let Some(version) = resource.version(&target.resource.version) else { return Vec::new() };
    if let Some(kind) = resource.builtin {
        return crate::rules::check(kind, object, old);
    }
    let schema = &version.schema;
    let status = target.subresource == Subresource::Status;
    let mut causes = if status {
        values::check_status(schema, object, old)
    } else {
        values::check(schema, object, old)
    };
    if let Some(paths) = &version.scale {
        causes.extend(scale_causes(paths, object, status));
    }
    // A list that was wrong before may stay so.
    if old.is_none_or(|old| values::check_lists(schema, old).is_empty()) {
        causes.extend(values::check_lists(schema, object));
    }
    let Some(rules) = &version.rules else { return causes };
    if causes.iter().any(blocks_rules) {
        causes.push(Cause::invalid(
            "<nil>",
            "null",
            "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ));
        return causes;
    }
    let context = RootContext {
        api_version: resource.api_version(&version.name),
        api_group: resource.group.clone(),
        kind: resource.kind.clone(),
    };
    let refused =
        validator.validate_compiled_with_context(rules, object, old, Some(&context)).err();
    for error in refused.into_iter().flatten() {
        causes.push(rule_cause(schema, &error));
    }
    causes
}

/// Whether rules would meet values that they cannot be run on.
fn blocks_rules(cause: &Cause) -> bool {
    matches!(
        cause.reason,
        "FieldValueNotSupported"
            | "FieldValueRequired"
            | "FieldValueTooLong"
            | "FieldValueTooMany"
            | "FieldValueTypeInvalid"
    )
}

/// What the paths of the scale subresource must lead to, whatever the schema says.
fn scale_causes(paths: &ScalePaths, object: &Value, status: bool) -> Vec<Cause> {
    let mut numbers = vec![&paths.status_replicas];
    if !status {
        numbers.insert(0, &paths.spec_replicas);
    }
    let found = |path: &str| {
        let fields: Vec<&str> = path.split('.').filter(|field| !field.is_empty()).collect();
        object::at(object, &fields).clone()
    };
    let mistyped = |path: &str, value: &Value, zero: &str, wanted: &str| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let actual = match value {
            Value::Number(_) if value.is_i64() => "int64",
            Value::Number(_) => "float64",
            Value::Object(_) => "map[string]interface {}",
            Value::Array(_) => "[]interface {}",
            other => json_type(other),
        };
        let detail =
            format!("{path} accessor error: {text} is of the type {actual}, expected {wanted}");
        Cause::invalid(path, zero, &detail)
    };
    let mut causes = Vec::new();
    for path in numbers {
        let value = found(path);
        match value.as_i64() {
            None if value.is_null() => {}
            None => causes.push(mistyped(path, &value, "0", "int64")),
            Some(count) if count < 0 => causes.push(Cause::invalid(
                path,
                &count.to_string(),
                "should be a non-negative integer",
            )),
            Some(count) if count > i64::from(i32::MAX) => causes.push(Cause::invalid(
                path,
                &count.to_string(),
                &format!("should be less than or equal to {}", i32::MAX),
            )),
            Some(_) => {}
        }
    }
    if let Some(path) = &paths.label_selector {
        let value = found(path);
        if !value.is_null() && !value.is_string() {
            causes.push(mistyped(path, &value, "\"\"", "string"));
        }
    }
    causes
}

/// A broken rule. The value that it repeats is the type of what the rule stands at.
fn rule_cause(schema: &Value, error: &kube_cel::ValidationError) -> Cause {
    let field = error.field_path.clone();
    let shown = format!("{:?}", values::type_of_rule(schema, &field, &error.rule));
    match error.reason.as_deref() {
        Some("FieldValueForbidden") => Cause::forbidden(field, &error.message),
        Some("FieldValueRequired") => Cause::required(field, &error.message),
        Some("FieldValueDuplicate") => Cause::duplicate(field, &shown),
        _ => Cause::invalid(
            if field.is_empty() { "<nil>".to_owned() } else { field },
            &shown,
            &error.message,
        ),
    }
}
