//! Sets of fields, as managedFields writes them (FieldsV1).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of paths into an object. Steps are FieldsV1's: `f:name`, `k:{"name":"x"}`, `v:"x"`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    steps: BTreeMap<String, Node>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    /// Whether the path that ends here is in the set.
    member: bool,
    below: FieldSet,
}

impl FieldSet {
    /// Reads FieldsV1; what is not an object is the empty set.
    #[must_use]
    pub fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        for (step, inner) in fields.as_object().into_iter().flatten() {
            if step == "." {
                continue;
            }
            let below = Self::parse(inner);
            let member = inner.get(".").is_some() || below.is_empty();
            set.steps.insert(step.clone(), Node { member, below });
        }
        set
    }

    /// Writes FieldsV1.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut fields = Map::new();
        for (step, node) in &self.steps {
            let mut inner = match node.below.to_value() {
                Value::Object(inner) => inner,
                _ => Map::new(),
            };
            if node.member && !inner.is_empty() {
                let mut with_self = Map::new();
                with_self.insert(".".into(), Value::Object(Map::new()));
                with_self.extend(inner);
                inner = with_self;
            }
            fields.insert(step.clone(), Value::Object(inner));
        }
        Value::Object(fields)
    }

    /// Whether no path is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.values().all(|node| !node.member && node.below.is_empty())
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[String]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut set = self;
        for step in parents {
            set = &mut set.steps.entry(step.clone()).or_default().below;
        }
        set.steps.entry(last.clone()).or_default().member = true;
    }

    /// Paths in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (step, theirs) in &other.steps {
            let ours = all.steps.entry(step.clone()).or_default();
            ours.member |= theirs.member;
            ours.below = ours.below.union(&theirs.below);
        }
        all
    }

    /// Paths that are here but not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |ours, theirs| ours && !theirs, true)
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |ours, theirs| ours && theirs, false)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool, alone: bool) -> Self {
        let mut result = Self::default();
        for (step, ours) in &self.steps {
            let node = match other.steps.get(step) {
                Some(theirs) => Node {
                    member: keep(ours.member, theirs.member),
                    below: ours.below.combine(&theirs.below, keep, alone),
                },
                None if alone => ours.clone(),
                None => continue,
            };
            if node.member || !node.below.is_empty() {
                result.steps.insert(step.clone(), node);
            }
        }
        result
    }

    /// Without a path and everything below it.
    pub fn remove_below(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.steps.remove(*first);
        } else if let Some(node) = self.steps.get_mut(*first) {
            node.below.remove_below(rest);
            if !node.member && node.below.is_empty() {
                self.steps.remove(*first);
            }
        }
    }

    /// Only what is at or below these first steps.
    pub fn retain_first(&mut self, steps: &[&str]) {
        self.steps.retain(|step, _| steps.contains(&step.as_str()));
    }

    /// The set with every parent of a path in it as well.
    #[must_use]
    pub fn with_parents(&self) -> Self {
        let steps = self
            .steps
            .iter()
            .filter(|(_, node)| node.member || !node.below.is_empty())
            .map(|(step, node)| {
                (step.clone(), Node { member: true, below: node.below.with_parents() })
            })
            .collect();
        Self { steps }
    }

    /// Whether the path of one step is in the set.
    #[must_use]
    pub fn has(&self, step: &str) -> bool {
        self.steps.get(step).is_some_and(|node| node.member)
    }

    /// What is below a step.
    #[must_use]
    pub fn below(&self, step: &str) -> Option<&Self> {
        self.steps.get(step).map(|node| &node.below)
    }

    /// Every path as conflict messages show it: `.spec.list[name="x"].field`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths("", &mut paths);
        paths
    }

    fn collect_paths(&self, prefix: &str, paths: &mut Vec<String>) {
        for (step, node) in &self.steps {
            let path = format!("{prefix}{}", shown(step));
            if node.member {
                paths.push(path.clone());
            }
            node.below.collect_paths(&path, paths);
        }
    }
}

fn shown(step: &str) -> String {
    if let Some(field) = step.strip_prefix("f:") {
        return format!(".{field}");
    }
    if let Some(value) = step.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let keys: Value = step
        .strip_prefix("k:")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let pairs: Vec<String> = keys
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!("[{}]", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_and_written_alike() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
            "f:spec": {"f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:image": {}}}}});
        let set = FieldSet::parse(&fields);
        assert_eq!(set.to_value(), fields);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.a",
                ".spec.list[name=\"x\"]",
                ".spec.list[name=\"x\"].image"
            ]
        );
        assert!(set.difference(&set).is_empty());
        assert_eq!(set.intersection(&set), set);
    }
}
