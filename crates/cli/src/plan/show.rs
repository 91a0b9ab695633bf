//! What would be done, as a person reads it.

use matriarch_api::Cluster;
use matriarch_plan::{Action, Finding, Plan, Wanted, World};
use matriarch_render::story;
use serde_json::Value;

use super::file::Change;

/// What was worked out.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// The Cluster as it would be.
    pub cluster: Cluster,
    /// There is none of this name now.
    pub is_new: bool,
    /// What differs.
    pub changes: Vec<Change>,
    /// Fields that the API does not know.
    pub dropped: Vec<String>,
    /// Why the API server has not judged the change, if so.
    pub unchecked: Option<String>,
    /// What would be done without the change.
    pub before: Option<Plan>,
    /// The world with the change in it.
    pub world: World,
    /// What would be done.
    pub plan: Plan,
    /// Why the operator would hold the plan back.
    pub findings: Vec<Finding>,
    /// What was taken for true without having been seen.
    pub assumed: Vec<String>,
}

/// The whole forecast.
pub fn render(foreseen: &Foreseen) -> String {
    let name = foreseen.cluster.name();
    let mut text = format!("Cluster {}/{name}\n", foreseen.cluster.namespace());
    let verb = if foreseen.is_new { "It would be made new.\n" } else { "" };
    text.push_str(verb);
    differences(foreseen, &mut text);
    for finding in &foreseen.findings {
        text.push_str(&format!(
            "\nThe operator would hold this plan back: {} ({})\n",
            finding.message, finding.rule
        ));
    }
    now(foreseen, &mut text);
    follows(foreseen, &mut text);
    if !foreseen.assumed.is_empty() || foreseen.unchecked.is_some() {
        text.push_str("\nNot looked at:\n");
        for assumed in foreseen.unchecked.iter().chain(&foreseen.assumed) {
            text.push_str(&format!("- {assumed}\n"));
        }
    }
    text.push_str("\nNothing was written.\n");
    text
}

fn differences(foreseen: &Foreseen, text: &mut String) {
    if foreseen.changes.is_empty() {
        text.push_str("\nThe Cluster is like that already.\n");
    } else if !foreseen.is_new {
        text.push_str("\nWhat changes:\n");
        let shown = |value: &Option<Value>| {
            value.as_ref().map_or("(absent)".to_owned(), ToString::to_string)
        };
        for change in &foreseen.changes {
            let (before, after) = (shown(&change.before), shown(&change.after));
            text.push_str(&format!("- {}: {before} -> {after}\n", change.path));
        }
    }
    for path in &foreseen.dropped {
        text.push_str(&format!("! {path} is no field of this API and would be dropped\n"));
    }
}

fn now(foreseen: &Foreseen, text: &mut String) {
    let stages = &foreseen.plan.stages;
    if stages.is_empty() {
        text.push_str("\nThe operator would do nothing now.\n");
    } else {
        text.push_str("\nThe operator would now, one stage after the other:\n");
    }
    let anyway: Vec<&Action> =
        foreseen.before.iter().flat_map(|plan| plan.stages.iter().flatten()).collect();
    for (number, stage) in stages.iter().enumerate() {
        for action in stage {
            let mark = if action.disrupts() { "!" } else { "-" };
            let also = if anyway.contains(&action) { " (without the change too)" } else { "" };
            text.push_str(&format!("{mark} {}. {action}{also}\n", number + 1));
        }
    }
    let events = story::events(&foreseen.plan.report);
    for event in &events {
        text.push_str(&format!("  {}: {}\n", event.reason, event.note));
    }
}

/// What is awaited after these actions, and what the plan does not do yet because it goes step by
/// step.
fn follows(foreseen: &Foreseen, text: &mut String) {
    let mut lines: Vec<String> = Vec::new();
    for blocked in story::blocked_by(&foreseen.plan.report) {
        let message = blocked.message.unwrap_or_default();
        lines.push(format!("{message} ({})", blocked.reason.unwrap_or_default()));
    }
    lines.extend(replacements(foreseen));
    lines.extend(loading(foreseen));
    if let Some(wake) = &foreseen.plan.wake {
        let seconds = wake.after_ms.div_ceil(1_000);
        lines.push(format!("the operator looks again after {seconds} s: {}", wake.why));
    }
    if lines.is_empty() {
        return;
    }
    text.push_str("\nWhat follows:\n");
    for line in lines {
        text.push_str(&format!("- {line}\n"));
    }
    let options = story::human_options(foreseen.cluster.name(), &foreseen.plan.report);
    for option in options {
        let action = option.action.unwrap_or_default();
        let consequence = option.consequence.unwrap_or_default();
        text.push_str(&format!("  you may: {action} ({consequence})\n"));
    }
}

/// Pods that are not as the spec would say: the operator replaces one at a time, the primary last.
fn replacements(foreseen: &Foreseen) -> Option<String> {
    let Wanted::Valid(spec) = &foreseen.world.wanted else { return None };
    let now: Vec<&str> = foreseen
        .plan
        .stages
        .iter()
        .flatten()
        .filter_map(|action| {
            let Action::DeletePod { instance, .. } = action else { return None };
            Some(instance.as_str())
        })
        .collect();
    let holder = foreseen.world.holder();
    let mut stale: Vec<&matriarch_plan::InstanceName> = foreseen
        .world
        .instances
        .iter()
        .filter(|(name, instance)| {
            let pod = instance.pod.known();
            let remembered = foreseen.plan.memory.members.get(*name);
            remembered.is_some_and(|member| !member.leaving)
                && pod.is_some_and(|pod| !spec.pod_stamp.changed_since(&pod.stamp).is_empty())
                && !now.contains(&name.as_str())
        })
        .map(|(name, _)| name)
        .collect();
    if stale.is_empty() {
        return None;
    }
    stale.sort_by_key(|name| Some(*name) == holder);
    let names: Vec<&str> = stale.iter().map(|name| name.as_str()).collect();
    let how = if holder.is_some_and(|holder| stale.contains(&holder)) {
        match spec.update_method {
            matriarch_plan::spec::UpdateMethod::Switchover
                if foreseen.world.instances.len() > 1 =>
            {
                ", the primary last, after a switchover"
            }
            matriarch_plan::spec::UpdateMethod::Switchover
            | matriarch_plan::spec::UpdateMethod::Restart => ", the primary last, by a restart",
        }
    } else {
        ""
    };
    Some(format!("pods are replaced one at a time: {}{how}", names.join(", ")))
}

/// Instances that load another configuration. Whether PostgreSQL must restart for it, it tells
/// itself once it has seen it.
fn loading(foreseen: &Foreseen) -> Option<String> {
    let Wanted::Valid(spec) = &foreseen.world.wanted else { return None };
    let unloaded: Vec<&str> = foreseen
        .world
        .instances
        .iter()
        .filter(|(_, instance)| {
            instance.report.known().is_some_and(|said| {
                said.configuration_hash.as_ref() != Some(&spec.configuration_hash)
            })
        })
        .map(|(name, _)| name.as_str())
        .collect();
    (!unloaded.is_empty()).then(|| {
        format!(
            "these load the configuration: {}; if PostgreSQL then says that a parameter needs a \
             restart, they are restarted one at a time, the primary last",
            unloaded.join(", ")
        )
    })
}
