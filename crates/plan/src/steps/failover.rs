//! Help with a failover: proof of death (rule 20), and taking note of who is primary. The
//! operator promotes nobody; the agents elect.

use crate::action::Action;
use crate::report::{Activity, Did, Step, StepReport, Wait};
use crate::steps::{Draft, StageOrder, View};

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
    let pod = view.instance(holder).and_then(|instance| instance.pod.known());
    // A container that kubelet starts again resumes by rule 8 and has every commit; only one that
    // will not be started again is freed of its Lease.
    let proved = pod.is_some_and(|pod| {
        let dead = lease.container.as_ref().is_some_and(|id| pod.terminated.contains(id));
        dead && !pod.running && (pod.deleting || pod.ended)
    });
    if proved && let Some(incarnation) = lease.incarnation.clone() {
        let guard = lease.identity.clone();
        report.did.push(Did::FreeLease(holder.clone()));
        let action = Action::FreeLease { guard, holder: holder.clone(), incarnation };
        draft.act(StageOrder::Foundation, action);
        draft.activity(Activity::FailingOver);
    }
    draft.report(report);
}
