//! Help with a failover: proof of death (rule 20), and taking note of who is primary. The
//! operator promotes nobody; the agents elect.

use crate::InstanceName;
use crate::action::Action;
use crate::memory::HolderNode;
use crate::protocol::proof::{ContainerEvidence, Evidence, NodeEvidence, free, is_damaged};
use crate::protocol::{LeaseRecord, Span, Term, Version};
use crate::report::{Activity, Did, Step, StepReport, Wait};
use crate::steps::{Draft, StageOrder, View};
use crate::world::{EndedContainer, Lease};

/// How soon a Node is looked at again: nothing tells of a taint, in milliseconds.
const LOOK_AGAIN: u64 = 5_000;

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

/// The Lease without its holder, if it is proved dead. The end of a container that kubelet starts
/// again proves nothing: it resumes by rule 8 and has every commit.
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
    let pod = view.instance(holder).and_then(|it| it.pod.known());
    let pod = pod.filter(|pod| pod.identity.uid == named.pod_uid.0);
    if let Some(name) = pod.and_then(|pod| pod.node.clone()) {
        draft.memory.holder_node = Some(HolderNode { pod: named.pod_uid.clone(), name });
    }
    let node = view.world.node_evidence(&draft.memory, &named.pod_uid);
    if !pod.is_some_and(|pod| pod.ready && !pod.deleting) && node != NodeEvidence::OutOfService {
        draft.wake(LOOK_AGAIN, "the pod that the Lease names is not ready: its Node is looked at");
    }
    let starts_again = pod.is_some_and(|pod| pod.running || !(pod.deleting || pod.ended));
    let same = |end: &&EndedContainer| !starts_again && end.container == named.container_id;
    let container =
        view.world.ended.iter().find(same).map_or(ContainerEvidence::NotTerminated, |end| {
            ContainerEvidence::Terminated {
                pod_uid: end.pod.clone(),
                container_id: end.container.clone(),
            }
        });
    let unchanged = Span::millis(lease.unchanged_ms);
    let evidence = Evidence { container, node, unchanged, damaged };
    let version = Version(lease.identity.resource_version.parse().ok()?);
    let (_, record) = free(version, state, &evidence).ok()?;
    Some(record)
}
