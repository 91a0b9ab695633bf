//! Help with a failover: proof of death (rule 20), and taking note of who is primary. The
//! operator promotes nobody; the agents elect.

use crate::InstanceName;
use crate::action::Action;
use crate::protocol::proof::{ContainerEvidence, Evidence, NodeEvidence, free, is_damaged};
use crate::protocol::{LeaseRecord, Span, Term, Version};
use crate::report::{Activity, Did, Step, StepReport, Wait};
use crate::steps::{Draft, StageOrder, View};
use crate::world::{EndedContainer, Lease};

/// Frees the Lease of a holder whose container is proved terminated.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Failover);
    let Some(lease) = view.world.lease.known().filter(|lease| lease.filled) else {
        draft.report(report);
        return;
    };
    let Some(holder) = &lease.holder else {
        let all_fenced = draft.memory.members.keys().all(|name| view.spec.fenced.contains(name));
        if !all_fenced {
            report.waits.push(Wait::Election);
            draft.activity(Activity::FailingOver);
        }
        draft.report(report);
        return;
    };
    if let Some(before) = draft.memory.last_primary.replace(holder.clone())
        && before != *holder
        && draft.memory.switchover.as_ref().is_none_or(|wish| wish.from != before)
    {
        report.did.push(Did::SeePrimary { before, now: holder.clone() });
    }
    if let Some(record) = freed(view, lease, holder, draft) {
        let guard = lease.identity.clone();
        report.did.push(Did::FreeLease(holder.clone()));
        let action = Action::FreeLease { guard, holder: holder.clone(), record };
        draft.act(StageOrder::Foundation, action);
        draft.activity(Activity::FailingOver);
    }
    draft.report(report);
}

/// The Lease without its holder, if it is proved dead and is not started again: a container that
/// kubelet starts again resumes by rule 8 and has every commit.
fn freed(
    view: &View<'_>,
    lease: &Lease,
    holder: &InstanceName,
    draft: &mut Draft,
) -> Option<LeaseRecord> {
    let state = lease.state.as_ref()?;
    let reports = view.world.instances.values().filter_map(|it| it.report.last());
    let obeyed = reports.map(|report| report.term).max().unwrap_or_default();
    let mark = state.mark();
    let damaged = is_damaged(&mark, draft.memory.lease.as_ref(), Term(obeyed));
    if !damaged {
        draft.memory.lease = Some(mark);
    }
    let named = state.holder.as_ref()?;
    let starts_again = view.instance(holder).and_then(|it| it.pod.known()).is_some_and(|pod| {
        pod.identity.uid == named.pod_uid.0 && (pod.running || !(pod.deleting || pod.ended))
    });
    if starts_again {
        return None;
    }
    let same = |end: &&EndedContainer| end.container == named.container_id;
    let container =
        view.world.ended.iter().find(same).map_or(ContainerEvidence::NotTerminated, |end| {
            ContainerEvidence::Terminated {
                pod_uid: end.pod.clone(),
                container_id: end.container.clone(),
            }
        });
    let evidence =
        Evidence { container, node: NodeEvidence::NotProved, unchanged: Span::ZERO, damaged };
    let version = Version(lease.identity.resource_version.parse().ok()?);
    let (_, record) = free(version, state, &evidence).ok()?;
    Some(record)
}
