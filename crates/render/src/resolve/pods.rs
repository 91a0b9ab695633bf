//! What annotations and the maintenance window say of pods.

use matriarch_api::annotations::{Annotation, RECONCILIATION_DISABLED};
use matriarch_api::cluster::ClusterSpec;

use super::{Findings, Resolved};
use crate::objects::pod;
use crate::setup::Owner;

/// Whether nodes are in maintenance (`spec.nodeMaintenanceWindow`), and what becomes of instances on
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maintenance {
    /// None is.
    No,
    /// They come back, and with them the volumes.
    WaitsForNodes,
    /// Standbys are made anew elsewhere.
    ReplacesVolumes,
}

pub(super) fn maintenance(user: &ClusterSpec) -> Maintenance {
    let window = user.node_maintenance_window.clone().unwrap_or_default();
    match (window.in_progress.unwrap_or(false), window.reuse_pvc.unwrap_or(true)) {
        (false, _) => Maintenance::No,
        (true, true) => Maintenance::WaitsForNodes,
        (true, false) => Maintenance::ReplacesVolumes,
    }
}

/// The user wants pods left as they are.
pub(super) fn are_kept(owner: &Owner<'_>) -> bool {
    owner.given(Annotation::ReconcilePodSpec) == Some(RECONCILIATION_DISABLED)
}

/// Finds what would make no pod.
pub(super) fn check(owner: &Owner<'_>, resolved: &Resolved, findings: &mut Findings) {
    if let Err(why) = pod::try_patch(owner, resolved) {
        findings.annotation(owner, Annotation::PodPatch, why);
    }
    if let Some(text) = owner.given(Annotation::CoredumpFilter)
        && !is_filter(text)
    {
        let example = "write it as the kernel takes it, as in 0x31";
        let message = format!("{text:?} is no mask of memory: {example}");
        findings.annotation(owner, Annotation::CoredumpFilter, message);
    }
}

/// A number as the kernel reads it: decimal, octal with `0`, or hexadecimal with `0x`.
fn is_filter(text: &str) -> bool {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).is_ok(),
        None => text.parse::<u32>().is_ok(),
    }
}
