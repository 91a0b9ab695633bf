//! Handing the Lease over on request: the operator asks, the holder does it (rule 18).

use crate::memory::{Switchover, SwitchoverReason};
use crate::report::{Activity, Block, Did, Step, StepReport, Wait};
use crate::steps::{Draft, View};
use crate::world::{InstanceName, State};

/// How long a holder that goes on as primary may say "not yet" before the request is given up,
/// in milliseconds: long enough for a standby that restarts, short enough for a person to wait.
const PATIENCE_MS: i64 = 30_000;

/// Starts, follows and ends switchovers.
pub fn step(view: &View<'_>, draft: &mut Draft) {
    let mut report = StepReport::new(Step::Switchover);
    if let Some(wish) = draft.memory.switchover.clone() {
        follow(view, draft, &wish, &mut report);
    } else if let Some(to) = &view.world.requested_primary {
        start(view, draft, to, &mut report);
    }
    draft.report(report);
}

fn start(view: &View<'_>, draft: &mut Draft, to: &InstanceName, report: &mut StepReport) {
    let refuse = match view.holder() {
        None => Some("nobody holds the Lease, or it cannot be read"),
        Some(holder) if holder == to => return,
        Some(_) => unfit(view, draft, to),
    };
    if let Some(why) = refuse {
        let to = Some(to.clone());
        report.did.push(Did::AbandonSwitchover { to: to.clone(), why: why.to_owned() });
        report.blocked.push(Block::NoSuccessor { to, why: why.to_owned() });
        return;
    }
    let Some(from) = view.holder().cloned() else { return };
    draft.activity(Activity::SwitchingOver);
    draft.wake(5_000, "a switchover has begun");
    report.did.push(Did::StartSwitchover {
        from: from.clone(),
        to: Some(to.clone()),
        reason: SwitchoverReason::User,
    });
    draft.memory.switchover = Some(Switchover {
        id: format!("user-{}", view.world.now_ms),
        from,
        to: Some(to.clone()),
        since_ms: view.world.now_ms,
        reason: SwitchoverReason::User,
    });
}

fn unfit(view: &View<'_>, draft: &Draft, to: &InstanceName) -> Option<&'static str> {
    match draft.memory.members.get(to) {
        None => Some("it is no instance of this cluster"),
        Some(member) if member.leaving => Some("it is being removed"),
        Some(_) if view.spec.fenced.contains(to) => Some("it is fenced"),
        Some(_) if !view.is_ready(to) => Some("it is not ready"),
        Some(_) => None,
    }
}

fn follow(view: &View<'_>, draft: &mut Draft, wish: &Switchover, report: &mut StepReport) {
    let waited_ms = view.world.now_ms.saturating_sub(wish.since_ms);
    let wait = |message: &str| Wait::Handover {
        from: wish.from.clone(),
        to: wish.to.clone(),
        message: message.to_owned(),
    };
    match view.holder() {
        Some(holder) if *holder != wish.from => {
            draft.memory.switchover = None;
            report.did.push(Did::EndSwitchover { primary: holder.clone() });
            return;
        }
        Some(_) => {}
        None => {
            draft.activity(Activity::SwitchingOver);
            draft.wake(5_000, "a switchover is under way");
            report.waits.push(wait("the Lease is free, or cannot be read"));
            return;
        }
    }
    let seen = view.instance(&wish.from).and_then(|instance| instance.report.known());
    let answer = seen.and_then(|seen| seen.switchover.as_ref()).filter(|done| done.id == wish.id);
    let resumed = seen.is_some_and(|seen| seen.state == State::Running);
    let refused = answer.filter(|answer| !answer.done && !answer.message.is_empty() && resumed);
    let gone = !draft.memory.members.contains_key(&wish.from);
    let late = waited_ms > view.spec.switchover_ms.saturating_add(PATIENCE_MS);
    if gone || late || (refused.is_some() && waited_ms > PATIENCE_MS) {
        let why = refused.map_or("it took too long", |answer| answer.message.as_str()).to_owned();
        report.did.push(Did::AbandonSwitchover { to: wish.to.clone(), why: why.clone() });
        report.blocked.push(Block::NoSuccessor { to: wish.to.clone(), why });
        draft.memory.switchover = None;
        return;
    }
    draft.activity(Activity::SwitchingOver);
    draft.wake(5_000, "a switchover is under way");
    report.waits.push(wait(answer.map_or("", |answer| answer.message.as_str())));
}
