//! Instances that are made anew on new volumes because a person says so: of a pod that its volumes
//! are of no use, or of the nodes that they are in maintenance and will not come back with what is on
//! them.

use crate::report::{Block, Did, ReplacementBlock, StepReport, Wait};
use crate::steps::{Draft, View};
use crate::world::{InstanceName, Pod};

/// Tells one instance to leave; a new one takes its place under another name. One at a time, and
/// never the primary: the others clone from it.
pub fn choose(view: &View<'_>, draft: &mut Draft, report: &mut StepReport) {
    let wished: Vec<(InstanceName, &'static str)> = draft
        .memory
        .members
        .iter()
        .filter(|(_, member)| !member.leaving)
        .filter_map(|(name, _)| {
            let pod = view.instance(name)?.pod.known().filter(|pod| !pod.deleting)?;
            Some((name.clone(), reason(view, pod)?))
        })
        .collect();
    if wished.is_empty() {
        return;
    }
    let Some(holder) = view.holder().filter(|holder| view.is_ready(holder)) else {
        report.waits.push(Wait::Election);
        return;
    };
    let target = draft.memory.switchover.as_ref().and_then(|wish| wish.to.as_ref());
    let mut leaves = draft.memory.members.values().any(|member| member.leaving);
    let mut chosen = Vec::new();
    for (name, why) in wished {
        if name == *holder || Some(&name) == target {
            report.blocked.push(blocked(name, ReplacementBlock::Primary));
        } else if view.spec.retain_volumes {
            report.blocked.push(blocked(name, ReplacementBlock::RetainedVolumes));
        } else if !leaves {
            leaves = true;
            chosen.push((name, why));
        }
    }
    for (name, why) in chosen {
        if let Some(member) = draft.memory.members.get_mut(&name) {
            member.leaving = true;
            report.did.push(Did::ReplaceInstance(name, why.to_owned()));
        }
    }
}

fn blocked(instance: InstanceName, why: ReplacementBlock) -> Block {
    Block::Replacement { instance, why }
}

fn reason(view: &View<'_>, pod: &Pod) -> Option<&'static str> {
    if pod.unrecoverable {
        return Some("its pod is annotated as unrecoverable");
    }
    // Never bound to a node, and the scheduler says why: its volume is where no pod may go now.
    let stranded = pod.node.is_none() && !pod.running && pod.trouble.is_some();
    (view.spec.replaces_stranded && stranded)
        .then_some("its volume is on a node in maintenance, and volumes are not to be used again")
}
