//! Is an object as it should be: everything that is wanted is there. What others have added, and
//! what the API server has filled in, is left alone.

use serde_json::Value;

/// True if every field of `wanted` is in `live` with the same value. Empty maps, lists and nulls
/// count as absent, as the API server stores them; lists are compared in order and length.
pub fn conforms(wanted: &Value, live: &Value) -> bool {
    match wanted {
        Value::Object(fields) => fields
            .iter()
            .all(|(name, value)| conforms(value, live.get(name).unwrap_or(&Value::Null))),
        Value::Array(items) if items.is_empty() => is_nothing(live),
        Value::Array(items) => live.as_array().is_some_and(|others| {
            others.len() == items.len()
                && items.iter().zip(others).all(|(item, other)| conforms(item, other))
        }),
        Value::Null => is_nothing(live),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => wanted == live,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_others_added_is_no_difference() {
        let wanted = json!({"a": 1, "l": [{"x": 1}], "e": []});
        assert!(conforms(&wanted, &json!({"a": 1, "b": 2, "l": [{"x": 1, "y": 2}]})));
    }

    #[test]
    fn what_is_missing_or_changed_is_a_difference() {
        let wanted = json!({"a": 1, "l": [{"x": 1}]});
        for live in [
            json!({"l": [{"x": 1}]}),
            json!({"a": 2, "l": [{"x": 1}]}),
            json!({"a": 1, "l": []}),
            json!({"a": 1, "l": [{"x": 1}, {"x": 2}]}),
        ] {
            assert!(!conforms(&wanted, &live), "{live}");
        }
    }
}
