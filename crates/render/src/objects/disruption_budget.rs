//! How many instances may be evicted at once.

use matriarch_api::names;
use serde_json::{Value, json};

use crate::setup::Owner;

/// One budget over all instances: eviction of the primary is itself a switchover (rule 18), so no
/// budget of its own stands in the way of a drain for ever (traps W7).
pub fn all(owner: &Owner<'_>) -> Value {
    json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": owner.metadata(&names::pdb(owner.name())),
        "spec": {
            "maxUnavailable": 1,
            "selector": { "matchLabels": owner.pod_selector() },
        },
    })
}
