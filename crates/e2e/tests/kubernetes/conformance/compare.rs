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
    order_causes(&mut value);
    if step.compared == Compared::Reason {
        value = reason(&value);
    } else if step.compared == Compared::Cells {
        value = cells(&value);
    }
    normalise(&mut value);
    value
}

/// Causes in one order and each once. kube-apiserver walks Go's maps, whose order is random, and
/// repeats a cause for each layer that looks at metadata. The message repeats the causes: of it only
/// what stands around them is left.
fn order_causes(status: &mut Value) {
    let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) else {
        return;
    };
    causes.sort_by_key(ToString::to_string);
    causes.dedup();
    let texts: Vec<String> = causes
        .iter()
        .map(|cause| {
            let text = |field: &str| cause[field].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("field"), text("message"))
        })
        .collect();
    if status["reason"] == "Invalid"
        && let Some(message) = status["message"].as_str()
    {
        let rest = texts.iter().fold(message.to_owned(), |rest, text| rest.replacen(text, "…", 1));
        status["message"] = rest.into();
    }
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

/// Of a table: what kubectl prints. Descriptions of the columns of built-in kinds are prose that
/// nothing reads.
fn cells(table: &Value) -> Value {
    let list = |field: &str| table[field].as_array().into_iter().flatten();
    let columns: Vec<Value> = list("columnDefinitions")
        .map(|column| serde_json::json!([column["name"], column["type"], column["priority"]]))
        .collect();
    let rows: Vec<Value> =
        list("rows").map(|row| serde_json::json!({"cells": row["cells"]})).collect();
    serde_json::json!({"kind": table["kind"], "columns": columns, "rows": rows})
}

const MASKED: &[&str] = &[
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "time",
    "lastTransitionTime",
    "lastPhaseTransitionTime",
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
                // An empty text says something: there is no next page.
                let masked = MASKED.contains(&field.as_str())
                    && (inner.is_string() && *inner != "" || inner.is_array())
                    && *inner != "None";
                if field == "managedFields" {
                    order_managers(inner);
                }
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

/// Entries of managedFields by name: they stand in the order of their times, whose seconds begin
/// elsewhere for each server. A test of `store` is about that order.
fn order_managers(entries: &mut Value) {
    for list in entries.as_array_mut().into_iter() {
        list.sort_by_key(|entry| {
            ["operation", "manager", "apiVersion", "subresource"]
                .map(|field| entry[field].to_string())
        });
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
            let versions = ["resource version", "ResourceVersion"];
            let version = digits && versions.iter().any(|about| text.contains(about));
            if uid || version { "#" } else { word }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Ages of a second or two are equal, and so is what a server chooses by chance.
fn mask_ages(cells: &mut Value) {
    for cell in cells.as_array_mut().into_iter().flatten() {
        let age = cell.as_str().is_some_and(|text| {
            text.len() >= 2
                && text.ends_with('s')
                && text[..text.len() - 1].chars().all(|c| c.is_ascii_digit())
        });
        let time = cell.as_str().is_some_and(|text| text.len() == 20 && text.ends_with('Z'));
        // The script's one generated name, and addresses that the server chooses.
        let chosen = cell.as_str().is_some_and(|text| {
            text.starts_with("gen-") || text.parse::<std::net::Ipv4Addr>().is_ok()
        });
        if age || time {
            *cell = "<age>".into();
        } else if chosen {
            *cell = "<chosen>".into();
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
