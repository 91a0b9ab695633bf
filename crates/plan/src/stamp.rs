//! What a pod was made from, and whether one made now would be made from something else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What a pod was, or would be, made from (docs/decisions/agent-upgrade.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStamp {
    /// Hash over the whole pod, apart from its names. Another operator may render the same wishes
    /// as another pod.
    pub pod: String,
    /// Hash over each field of the user's spec. Of a pod that is there: every field that was set when
    /// it was made. Of one to be made: the fields that shape pods, empty if not set.
    pub fields: BTreeMap<String, String>,
}

impl PodStamp {
    /// Fields that the user has changed since `made`, for which a pod made now would be another.
    /// What another operator alone would make otherwise is none: it restarts no database (I14).
    #[must_use]
    pub fn changed_since(&self, made: &Self) -> Vec<&str> {
        if self.pod == made.pod {
            return Vec::new();
        }
        let before = |name: &String| made.fields.get(name).map_or("", String::as_str);
        let changed = self.fields.iter().filter(|(name, hash)| before(name) != hash.as_str());
        changed.map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(pod: &str, fields: &[(&str, &str)]) -> PodStamp {
        let fields = fields.iter().map(|(name, hash)| ((*name).into(), (*hash).into())).collect();
        PodStamp { pod: pod.to_owned(), fields }
    }

    #[test]
    fn a_pod_is_outdated_only_if_the_user_and_the_pod_have_changed() {
        let now = stamp("b", &[("env", "1"), ("resources", ""), ("new", "")]);
        // The same wishes, rendered by another operator: also where that knows one field more.
        assert!(now.changed_since(&stamp("a", &[("env", "1"), ("instances", "3")])).is_empty());
        // A change that makes no other pod.
        assert!(now.changed_since(&stamp("b", &[("env", "2")])).is_empty());
        assert_eq!(now.changed_since(&stamp("a", &[("env", "2")])), ["env"]);
        assert_eq!(
            now.changed_since(&stamp("a", &[("env", "1"), ("resources", "x")])),
            ["resources"]
        );
        // A field that an earlier operator did not know, and that is set since.
        let later = stamp("b", &[("env", "1"), ("new", "x")]);
        assert_eq!(later.changed_since(&stamp("a", &[("env", "1")])), ["new"]);
        // Nobody knows what it was made from.
        assert_eq!(now.changed_since(&PodStamp::default()), ["env"]);
    }
}
