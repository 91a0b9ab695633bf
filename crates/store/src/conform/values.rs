//! The value rules of a structural schema, in kube-apiserver's words.

use regex::Regex;
use serde_json::{Number, Value};

use crate::{Cause, schema, schema::ListType};

use super::{join, json_type};

/// Every broken rule. What was broken before and has not changed is let through, as kube-apiserver
/// does, so that a stricter schema does not lock existing objects.
pub(super) fn check(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, object, old, "", &mut causes);
    causes
}

/// The same for a write of the status, of which nothing else is looked at: fields are named below
/// it, and in the words of the messages from it.
pub(super) fn check_status(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let (Some(declared), Some(status)) = (schema::property(schema, "status"), object.get("status"))
    else {
        return Vec::new();
    };
    let mut causes = Vec::new();
    walk(declared, status, old.and_then(|old| old.get("status")), "", &mut causes);
    for cause in &mut causes {
        cause.field = join("status", &cause.field);
    }
    causes
}

fn walk(declared: &Value, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if old == Some(value) {
        return;
    }
    let schema = schema::resolve(declared);
    check_type(schema, value, path, causes);
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    check_enum(schema, value, path, causes);
    if value.is_null() {
        return;
    }
    match value {
        Value::String(text) => check_text(schema, text, path, causes),
        Value::Number(number) => check_number(schema, number, path, causes),
        Value::Array(items) => check_items(schema, items, old, path, causes),
        Value::Object(_) => check_members(schema, value, old, path, causes),
        Value::Null | Value::Bool(_) => {}
    }
    for branch in schema["allOf"].as_array().into_iter().flatten() {
        walk(branch, value, old, path, causes);
    }
    check_branches(schema, value, path, causes);
}

fn fits(branch: &Value, value: &Value, path: &str) -> bool {
    let mut causes = Vec::new();
    walk(branch, value, None, path, &mut causes);
    causes.is_empty()
}

fn check_branches(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let int_or_string = schema["x-kubernetes-int-or-string"] == true;
    if let Some(branches) = schema["anyOf"].as_array().filter(|_| !int_or_string)
        && !branches.iter().any(|branch| fits(branch, value, path))
    {
        let detail = format!("{path} in body must validate at least one schema (anyOf)");
        causes.push(Cause::invalid(path, &shown(value), &detail));
    }
    if let Some(branches) = schema["oneOf"].as_array() {
        let fitting = branches.iter().filter(|branch| fits(branch, value, path)).count();
        if fitting != 1 {
            let found = if fitting == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {fitting} valid alternatives")
            };
            let detail =
                format!("{path} in body must validate one and only one schema (oneOf). {found}");
            causes.push(Cause::invalid(path, &shown(value), &detail));
        }
    }
    if let Some(branch) = schema.get("not")
        && fits(branch, value, path)
    {
        let detail = format!("{path} in body must not validate the schema (not)");
        causes.push(Cause::invalid(path, &shown(value), &detail));
    }
}

fn check_type(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    let expected = if schema["x-kubernetes-int-or-string"] == true {
        "integer,string"
    } else {
        match schema["type"].as_str() {
            Some(expected) => expected,
            None => return,
        }
    };
    let actual = match value {
        Value::Number(number) if is_integer(number) => "integer",
        Value::Bool(_) => "boolean",
        other => json_type(other),
    };
    let fits = expected.split(',').any(|one| one == actual)
        || (expected == "number" && actual == "integer");
    if !fits {
        let detail = format!("{path} in body must be of type {expected}: {actual:?}");
        causes.push(Cause::type_invalid(path, &format!("{actual:?}"), &detail));
    }
}

fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn shown(value: &Value) -> String {
    value.to_string()
}

fn check_enum(schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(allowed) = schema["enum"].as_array() else { return };
    if !allowed.contains(value) {
        let texts: Vec<String> = allowed
            .iter()
            .map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned))
            .collect();
        causes.push(Cause::unsupported(path, &shown(value), &texts));
    }
}

/// Of length and pattern only the first broken one is told.
fn check_text(schema: &Value, text: &str, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count() as u64;
    if let Some(most) = schema["maxLength"].as_u64()
        && length > most
    {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            field: path.to_owned(),
            message: format!("Too long: may not be more than {most} bytes"),
        });
    } else if let Some(least) = schema["minLength"].as_u64()
        && length < least
    {
        let detail = format!("{path} in body should be at least {least} chars long");
        causes.push(Cause::invalid(path, &format!("{text:?}"), &detail));
    } else if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
    {
        let detail = format!("{path} in body should match '{pattern}'");
        causes.push(Cause::invalid(path, &format!("{text:?}"), &detail));
    }
    if let Some(format) = schema["format"].as_str()
        && !fits_format(format, text)
    {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        causes.push(Cause::type_invalid(path, &format!("{text:?}"), &detail));
    }
}

fn fits_format(format: &str, text: &str) -> bool {
    match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => go_duration(text),
        "byte" => {
            text.len().is_multiple_of(4)
                && text
                    .trim_end_matches('=')
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "+/-_".contains(c))
        }
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    }
}

/// Whether the text is a duration of Go, such as `1h30m`.
fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if digits.len() == rest.len() {
            return false;
        }
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().find_map(|unit| {
            let after = digits.strip_prefix(unit)?;
            (after.is_empty() || after.starts_with(|c: char| c.is_ascii_digit() || c == '.'))
                .then_some(after)
        });
        let Some(after) = unit else { return false };
        (rest, any) = (after, true);
    }
    any
}

/// The formats of numbers are not looked at, as in kube-apiserver.
fn check_number(schema: &Value, number: &Number, path: &str, causes: &mut Vec<Cause>) {
    let Some(value) = number.as_f64() else { return };
    if let Some(least) = schema["minimum"].as_f64() {
        let exclusive = schema["exclusiveMinimum"] == true;
        if value < least || (exclusive && value <= least) {
            let words = if exclusive { "greater than" } else { "greater than or equal to" };
            let detail = format!("{path} in body should be {words} {}", schema["minimum"]);
            causes.push(Cause::invalid(path, &number.to_string(), &detail));
        }
    }
    if let Some(most) = schema["maximum"].as_f64() {
        let exclusive = schema["exclusiveMaximum"] == true;
        if value > most || (exclusive && value >= most) {
            let words = if exclusive { "less than" } else { "less than or equal to" };
            let detail = format!("{path} in body should be {words} {}", schema["maximum"]);
            causes.push(Cause::invalid(path, &number.to_string(), &detail));
        }
    }
    if let Some(step) = schema["multipleOf"].as_f64()
        && (value / step).fract() != 0.0
    {
        let detail = format!("{path} in body should be a multiple of {}", schema["multipleOf"]);
        causes.push(Cause::invalid(path, &number.to_string(), &detail));
    }
}

fn too_many(path: &str, count: usize, most: u64) -> Cause {
    Cause {
        reason: "FieldValueTooMany",
        field: path.to_owned(),
        message: format!(
            "Too many: {count}: must have at most {most} item{}",
            if most == 1 { "" } else { "s" }
        ),
    }
}

fn check_items(
    schema: &Value,
    items: &[Value],
    old: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    if let Some(most) = schema["maxItems"].as_u64()
        && items.len() as u64 > most
    {
        causes.push(too_many(path, items.len(), most));
    }
    if let Some(least) = schema["minItems"].as_u64()
        && (items.len() as u64) < least
    {
        let detail = format!("{path} in body should have at least {least} items");
        causes.push(Cause::invalid(path, &items.len().to_string(), &detail));
    }
    let keys = schema::list_type(schema);
    for (index, item) in items.iter().enumerate() {
        let before = match &keys {
            ListType::Map(keys) => {
                let same = |other: &&Value| keys.iter().all(|key| other[key] == item[key]);
                old.and_then(Value::as_array).and_then(|list| list.iter().find(same))
            }
            ListType::Atomic | ListType::Set => None,
        };
        walk(&schema["items"], item, before, &format!("{path}[{index}]"), causes);
    }
}

/// Items that stand twice in sets, and keys that do in map lists.
pub(super) fn check_lists(schema: &Value, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    find_duplicates(schema, object, "", &mut causes);
    causes
}

fn find_duplicates(declared: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let schema = schema::resolve(declared);
    match value {
        Value::Object(members) => {
            for (field, inner) in members {
                if path.is_empty() && field == "metadata" {
                    continue;
                }
                if let Some(declared) = schema::member(schema, field) {
                    find_duplicates(declared, inner, &join(path, field), causes);
                }
            }
        }
        Value::Array(items) => {
            let what = |item: &Value| match schema::list_type(schema) {
                ListType::Atomic => None,
                ListType::Set => Some(item.clone()),
                ListType::Map(keys) => Some(
                    keys.iter()
                        .filter_map(|key| Some((key.clone(), item.get(key)?.clone())))
                        .collect(),
                ),
            };
            let whats: Vec<Option<Value>> = items.iter().map(what).collect();
            for (index, item) in items.iter().enumerate() {
                let before = whats[..index].iter().filter(|one| **one == whats[index]).count();
                // The third of three is not told any more.
                if let Some(what) = &whats[index]
                    && before == 1
                {
                    causes.push(Cause::duplicate(format!("{path}[{index}]"), &shown(what)));
                }
                find_duplicates(&schema["items"], item, &format!("{path}[{index}]"), causes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn check_members(
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    let Value::Object(members) = value else { return };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !members.contains_key(required) {
            causes.push(Cause::required(join(path, required), ""));
        }
    }
    if let Some(most) = schema["maxProperties"].as_u64()
        && members.len() as u64 > most
    {
        causes.push(too_many(path, members.len(), most));
    }
    if let Some(least) = schema["minProperties"].as_u64()
        && (members.len() as u64) < least
    {
        let detail = format!("{path} in body should have at least {least} properties");
        causes.push(Cause::invalid(path, &members.len().to_string(), &detail));
    }
    for (field, inner) in members {
        if path.is_empty() && matches!(field.as_str(), "metadata" | "apiVersion" | "kind") {
            continue;
        }
        let Some(declared) = schema::member(schema, field) else { continue };
        let before = old.and_then(|old| old.get(field));
        walk(declared, inner, before, &join(path, field), causes);
    }
}

/// The type that a schema has where one of its rules stands; `path` is where the rule points to,
/// which may lie below.
pub(super) fn type_of_rule(schema: &Value, path: &str, rule: &str) -> String {
    let mut found = String::new();
    let mut current = schema::resolve(schema);
    let plain = |text: &str| text.replace('_', "");
    let mut steps = path.split(['.', '[']).filter(|step| !step.is_empty());
    loop {
        let rules = current["x-kubernetes-validations"].as_array().into_iter().flatten();
        // Underscores of field names are doubled in rules that were compiled.
        if rules.into_iter().any(|one| one["rule"].as_str().map(plain) == Some(plain(rule))) {
            found = current["type"].as_str().unwrap_or_default().to_owned();
        }
        let Some(step) = steps.next() else { return found };
        let inner = match step.strip_suffix(']') {
            Some(_) if current["type"] == "array" => Some(&current["items"]),
            Some(key) => schema::member(current, key),
            None => schema::member(current, step),
        };
        let Some(inner) = inner else { return found };
        current = schema::resolve(inner);
    }
}
