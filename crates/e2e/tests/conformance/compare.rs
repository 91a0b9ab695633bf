//! Comparing two answers: what must differ (uids, times, versions) is made equal first.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::script::{Compared, Step, Verb};

/// What a server answered.
pub struct Answer {
    pub code: u16,
    pub text: String,
}

/// Values of earlier answers that later requests name, as `${name}`.
#[derive(Default)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    pub fn fill(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{name}}}"), value)
        })
    }

    pub fn capture(&mut self, step: &Step, answer: &Answer) {
        let Some((name, pointer)) = step.capture else { return };
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let found = body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        self.0.insert(name.to_owned(), found.to_owned());
    }
}

/// Where two answers differ.
pub fn differences(step: &Step, expected: &Answer, actual: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if expected.code != actual.code {
        found.push(format!("code: kube-apiserver {}, store {}", expected.code, actual.code));
        found.push(format!("  kube-apiserver: {:.600}", expected.text));
        found.push(format!("  store:          {:.600}", actual.text));
        return found;
    }
    let (left, right) = (documents(step, &expected.text), documents(step, &actual.text));
    if step.compared != Compared::Code {
        differ("", &left, &right, &mut found);
    }
    found
}

/// The JSON of an answer; of a watch, the list of its events.
fn documents(step: &Step, text: &str) -> Value {
    let mut value = if step.verb == Verb::Watch {
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect()
    } else {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    };
    if step.compared == Compared::Reason {
        value = reason(&value);
    }
    normalise(&mut value);
    value
}

/// Of a refusal: what programs look at, without the words.
fn reason(status: &Value) -> Value {
    let causes: Vec<Value> = status["details"]["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| serde_json::json!([cause["reason"], cause["field"]]))
        .collect();
    serde_json::json!({"reason": status["reason"], "causes": causes,
        "name": status["details"]["name"], "kind": status["details"]["kind"]})
}

const MASKED: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "continue",
    "clusterIP",
    "clusterIPs",
];

fn normalise(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let generated = members.get("generateName").and_then(Value::as_str).map(str::to_owned);
            if let Some(prefix) = generated {
                members.insert("name".into(), format!("{prefix}*").into());
            }
            for (field, inner) in members.iter_mut() {
                let masked = MASKED.contains(&field.as_str())
                    && (inner.is_string() || inner.is_array())
                    && *inner != "None";
                if masked {
                    *inner = format!("<{field}>").into();
                } else if field == "message" {
                    *inner = inner.as_str().map(words).unwrap_or_default().into();
                } else if field == "cells" {
                    mask_ages(inner);
                } else {
                    normalise(inner);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A message without uids and versions, which are long runs of hexadecimal digits or numbers.
fn words(text: &str) -> String {
    let first = text.split("\n\u{a0}").next().unwrap_or(text);
    first
        .split(' ')
        .map(|word| {
            let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            let digits = core.chars().all(|c| c.is_ascii_digit()) && !core.is_empty();
            let uid = core.len() == 36 && core.chars().filter(|c| *c == '-').count() == 4;
            if uid || (digits && text.contains("resource version")) { "#" } else { word }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Ages of a second or two are equal.
fn mask_ages(cells: &mut Value) {
    for cell in cells.as_array_mut().into_iter().flatten() {
        let age = cell.as_str().is_some_and(|text| {
            text.len() >= 2
                && text.ends_with('s')
                && text[..text.len() - 1].chars().all(|c| c.is_ascii_digit())
        });
        let time = cell.as_str().is_some_and(|text| text.len() == 20 && text.ends_with('Z'));
        if age || time {
            *cell = "<age>".into();
        }
    }
}

fn differ(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(one), Value::Object(other)) => {
            let empty = Value::Null;
            let fields: std::collections::BTreeSet<&String> =
                one.keys().chain(other.keys()).collect();
            for field in fields {
                let get = |members: &'_ Map<String, Value>| members.get(field).cloned();
                let (left, right) = (get(one), get(other));
                if left.is_some() != right.is_some() {
                    found.push(format!(
                        "{path}/{field}: kube-apiserver {}, store {}",
                        shown(left.as_ref()),
                        shown(right.as_ref())
                    ));
                } else {
                    let (left, right) = (left.as_ref(), right.as_ref());
                    let path = format!("{path}/{field}");
                    differ(&path, left.unwrap_or(&empty), right.unwrap_or(&empty), found);
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (left, right)) in one.iter().zip(other).enumerate() {
                differ(&format!("{path}/{index}"), left, right, found);
            }
        }
        _ if left != right => found.push(format!(
            "{path}: kube-apiserver {}, store {}",
            shown(Some(left)),
            shown(Some(right))
        )),
        _ => {}
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| format!("{:.500}", value.to_string()))
}
