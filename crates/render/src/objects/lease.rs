//! The cluster's Lease, as it is made once: empty.

use matriarch_api::names;
use matriarch_plan::protocol::LeaseRecord;
use matriarch_plan::protocol::lease::ANNOTATIONS;
use matriarch_plan::world::Identity;
use serde_json::{Value, json};

use crate::resolve::Resolved;
use crate::setup::Owner;

/// The empty Lease. Without a cohort, agents treat it as absent (traps H6); it has no holder.
pub fn empty(owner: &Owner<'_>, resolved: &Resolved) -> Value {
    let seconds = resolved.template.lease.duration_ms.div_ceil(1_000).max(1);
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": owner.metadata(&names::lease(owner.name())),
        "spec": { "leaseDurationSeconds": seconds, "leaseTransitions": 0 },
    })
}

/// A patch that writes the Lease free: its holder is proved dead (rule 20). It holds for the version
/// that was judged and no other; term, cohort and quorum stay.
pub fn free(owner: &Owner<'_>, guard: &Identity, record: &LeaseRecord) -> Value {
    let annotations: serde_json::Map<String, Value> = ANNOTATIONS
        .iter()
        .map(|name| (owner.setup.identity.key(name), json!(record.annotations.get(*name))))
        .collect();
    json!({
        "metadata": {
            "uid": guard.uid,
            "resourceVersion": guard.resource_version,
            "annotations": annotations,
        },
        "spec": { "holderIdentity": null },
    })
}
