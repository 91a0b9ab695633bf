//! Label and field selectors.

use serde_json::Value;

use crate::{Refusal, object};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Above(String, i64),
    Below(String, i64),
}

/// A parsed `labelSelector`. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Parses the text of a query, such as `a=b,c!=d,e in (f,g),!h`.
    ///
    /// # Errors
    /// Refuses what is not a selector.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut requirements = Vec::new();
        for part in split_top(text) {
            let part = part.trim();
            if part.is_empty() {
                continue;
            }
            requirements.push(requirement(part).ok_or_else(|| {
                Refusal::BadRequest(format!(
                    "unable to parse requirement: found {part:?}, expected a label selector"
                ))
            })?);
        }
        Ok(Self { requirements })
    }

    /// The selector of a Service or of `matchLabels`.
    #[must_use]
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(key, value)| Requirement::In(key.to_owned(), vec![value.to_owned()]))
            .collect();
        Self { requirements }
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether the object's labels match.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.requirements.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels[key].is_string(),
            Requirement::Absent(key) => !labels[key].is_string(),
            Requirement::In(key, values) => labels[key]
                .as_str()
                .is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Requirement::NotIn(key, values) => labels[key]
                .as_str()
                .is_none_or(|value| values.iter().all(|unwanted| unwanted != value)),
            Requirement::Above(key, bound) => number(&labels[key]).is_some_and(|n| n > *bound),
            Requirement::Below(key, bound) => number(&labels[key]).is_some_and(|n| n < *bound),
        })
    }
}

fn number(label: &Value) -> Option<i64> {
    label.as_str().and_then(|text| text.parse().ok())
}

/// Splits at commas that are not inside parentheses.
fn split_top(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0_usize);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn requirement(part: &str) -> Option<Requirement> {
    if let Some(key) = part.strip_prefix('!') {
        return Some(Requirement::Absent(label_key(key)?));
    }
    if let Some(open) = part.find('(') {
        let values: Vec<String> = part[open + 1..]
            .strip_suffix(')')?
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect();
        let mut words = part[..open].split_whitespace();
        let key = label_key(words.next()?)?;
        return match (words.next()?, words.next()) {
            ("in", None) => Some(Requirement::In(key, values)),
            ("notin", None) => Some(Requirement::NotIn(key, values)),
            _ => None,
        };
    }
    for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(operator) {
            let (key, values) = (label_key(key)?, vec![label_value(value)?]);
            return Some(if negated {
                Requirement::NotIn(key, values)
            } else {
                Requirement::In(key, values)
            });
        }
    }
    if let Some((key, bound)) = part.split_once('>') {
        return Some(Requirement::Above(label_key(key)?, bound.trim().parse().ok()?));
    }
    if let Some((key, bound)) = part.split_once('<') {
        return Some(Requirement::Below(label_key(key)?, bound.trim().parse().ok()?));
    }
    Some(Requirement::Exists(label_key(part)?))
}

fn label_key(text: &str) -> Option<String> {
    let key = text.trim();
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    (!name.is_empty() && key.len() <= 317 && is_label_text(name) && !key.contains(' '))
        .then(|| key.to_owned())
}

fn label_value(text: &str) -> Option<String> {
    let value = text.trim();
    (value.is_empty() || is_label_text(value)).then(|| value.to_owned())
}

/// Whether the text may be the value of a label (if it is not empty).
#[must_use]
pub fn is_label_text(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A parsed `fieldSelector`. The empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// Parses `metadata.name=x,status.phase!=y`. `known` are the fields beyond
    /// `metadata.name` and `metadata.namespace` that this resource can be selected by.
    ///
    /// # Errors
    /// Refuses a field that the resource cannot be selected by.
    pub fn parse(text: &str, known: &[String]) -> Result<Self, Refusal> {
        Self::parse_or(text, known, |field| format!("field label not supported: {field}"))
    }

    /// The same for a built-in kind, of which only those with fields of their own say it so.
    ///
    /// # Errors
    /// Refuses a field that the resource cannot be selected by.
    pub fn parse_builtin(text: &str, known: &[String]) -> Result<Self, Refusal> {
        if !known.is_empty() {
            return Self::parse(text, known);
        }
        Self::parse_or(text, known, |field| {
            format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            )
        })
    }

    fn parse_or(
        text: &str,
        known: &[String],
        unknown: impl Fn(&str) -> String,
    ) -> Result<Self, Refusal> {
        let mut terms = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (field, value, equal) = if let Some((field, value)) = part.split_once("!=") {
                (field, value, false)
            } else if let Some((field, value)) = part.split_once("==") {
                (field, value, true)
            } else if let Some((field, value)) = part.split_once('=') {
                (field, value, true)
            } else {
                return Err(Refusal::BadRequest(format!(
                    "invalid field selector: {part:?}; can't understand {part:?}"
                )));
            };
            let supported = matches!(field, "metadata.name" | "metadata.namespace")
                || known.iter().any(|one| one == field);
            if !supported {
                return Err(Refusal::BadRequest(unknown(field)));
            }
            terms.push((field.to_owned(), value.replace("\\,", ","), equal));
        }
        Ok(Self { terms })
    }

    /// The one name that is asked for, if it is one: what RBAC's resourceNames are compared with.
    #[must_use]
    pub fn exact_name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|(field, _, equal)| field == "metadata.name" && *equal)
            .map(|(_, value, _)| value.as_str())
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the object's fields match; an absent field is the empty string.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|(field, wanted, equal)| {
            let path: Vec<&str> = field.split('.').collect();
            let actual = match object::at(object, &path) {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            (actual == *wanted) == *equal
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_match_as_kubernetes_says() {
        let object = json!({"metadata": {"labels": {"app": "db", "tier": "1"}}});
        for (text, expected) in [
            ("", true),
            ("app=db", true),
            ("app==db,tier=1", true),
            ("app!=db", false),
            ("absent!=x", true),
            ("app in (web, db)", true),
            ("app notin (db)", false),
            ("absent notin (db)", true),
            ("tier", true),
            ("!tier", false),
            ("!absent", true),
            ("tier>0", true),
            ("tier<1", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&object), expected, "{text}");
        }
        assert!(LabelSelector::parse("a=b=c d").is_err());
        assert!(LabelSelector::parse("a in b").is_err());
    }

    #[test]
    fn field_selectors_refuse_unknown_fields() {
        let known = vec!["status.phase".to_owned()];
        let object = json!({"metadata": {"name": "a"}, "status": {"phase": "Running"}});
        let parse = |text| FieldSelector::parse(text, &known);
        assert!(parse("metadata.name=a,status.phase!=Failed").unwrap().matches(&object));
        assert!(!parse("metadata.name!=a").unwrap().matches(&object));
        assert!(parse("spec.x=1").is_err());
    }
}
