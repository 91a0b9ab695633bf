//! The part of JSONPath that printer columns use: fields, indexes, `[*]` and filters for equality.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.path=="value")]`, or `!=`.
    Filter(Vec<Step>, bool, Value),
}

/// The values at a path; none where the path is not understood.
#[must_use]
pub fn find<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
    parse(path).map(|steps| follow(value, &steps)).unwrap_or_default()
}

fn follow<'a>(value: &'a Value, steps: &[Step]) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|one| take(one, step)).collect();
    }
    found
}

fn take<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(field) => value.get(field).into_iter().collect(),
        Step::Index(index) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let at = if *index < 0 {
                items.len().checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX))
            } else {
                usize::try_from(*index).ok()
            };
            at.and_then(|at| items.get(at)).into_iter().collect()
        }
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(members) => members.values().collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        },
        Step::Filter(path, equal, wanted) => value
            .as_array()
            .into_iter()
            .flatten()
            .filter(|item| follow(item, path).iter().any(|found| (*found == wanted) == *equal))
            .collect(),
    }
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let end = closing(after)?;
            steps.push(bracket(&after[..end])?);
            rest = &after[end + 1..];
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let (field, after) = field(rest);
            if field.is_empty() {
                return None;
            }
            steps.push(if field == "*" { Step::All } else { Step::Field(field) });
            rest = after;
        }
    }
    Some(steps)
}

/// A field's name up to the next `.` or `[`; a backslash takes the next character as it is.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '\\' => name.extend(characters.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[index..]),
            other => name.push(other),
        }
    }
    (name, "")
}

/// Where the bracket closes that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut depth = 0_usize;
    for (index, character) in text.char_indices() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(index),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::All);
    }
    if let Ok(index) = text.parse() {
        return Some(Step::Index(index));
    }
    if let Some(filter) = text.strip_prefix("?(").and_then(|text| text.strip_suffix(')')) {
        let (left, right, equal) = if let Some((left, right)) = filter.split_once("==") {
            (left, right, true)
        } else {
            let (left, right) = filter.split_once("!=")?;
            (left, right, false)
        };
        return Some(Step::Filter(parse(left.trim().strip_prefix('@')?)?, equal, literal(right)));
    }
    unquote(text).map(|field| Step::Field(field.to_owned()))
}

fn unquote(text: &str) -> Option<&str> {
    ['\'', '"']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote).and_then(|text| text.strip_suffix(*quote)))
}

fn literal(text: &str) -> Value {
    let text = text.trim();
    match unquote(text) {
        Some(text) => text.into(),
        None => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn printer_columns_find_their_values() {
        let object = json!({"status": {"n": 3, "list": ["a", "b"], "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
            "metadata": {"annotations": {"a.b/c": "x"}}});
        for (path, expected) in [
            (".status.n", vec![json!(3)]),
            ("{.status.list[1]}", vec![json!("b")]),
            (".status.list[-1]", vec![json!("b")]),
            (".status.list[*]", vec![json!("a"), json!("b")]),
            (".status.conditions[?(@.type==\"Ready\")].status", vec![json!("True")]),
            (".status.conditions[?(@.type=='Ready')].status", vec![json!("True")]),
            (".metadata.annotations.a\\.b/c", vec![json!("x")]),
            (".metadata.annotations['a.b/c']", vec![json!("x")]),
            (".absent.x", vec![]),
        ] {
            let found: Vec<Value> = find(&object, path).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
    }
}
