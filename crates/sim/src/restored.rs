//! What no instance can know: that the Lease it reads was put there by hand, where nobody who could
//! tell is reached (docs/ha-protocol.md, rule 7b). Such a loss is no finding.

use matriarch_plan::protocol::Lease;

use crate::{
    Micros,
    driver::number_of,
    wal::Place,
    world::{Requester, World},
};

impl World {
    /// Notes who takes a Lease that somebody restored, if nobody whom it reaches has read a later
    /// one: what it lacks then is lost, and whose the Lease was goes on until it hears of it.
    pub(crate) fn judge_deception(
        &mut self,
        before: Option<&Lease>,
        after: &Lease,
        by: Option<Requester>,
    ) {
        let pod = match by {
            None => return self.judge.restored = true,
            Some(Requester::Operator) => return,
            Some(Requester::Agent(pod, _)) => pod,
        };
        let restored = std::mem::take(&mut self.judge.restored);
        let own = after.holder.as_ref().map(|holder| number_of(&holder.incarnation));
        let Some(own) = own else { return };
        self.judge.outwitted.remove(&own);
        let another = self.judge.holder != Some(own);
        let (true, Some(before), true) = (restored, before, another) else { return };
        if self.could_be_told(pod, before) {
            return;
        }
        if let Some(place) = self.directory(pod).map(crate::postgres::Directory::flushed_place) {
            self.judge.deceived.push((self.now, place));
        }
        self.judge.outwitted.extend(self.judge.holder);
    }

    /// True if an agent that this one reaches has obeyed a later Lease than this.
    fn could_be_told(&self, pod: usize, lease: &Lease) -> bool {
        (0..self.pods.len()).filter(|&other| other != pod).any(|other| {
            let Some(agent) = self.pods[other].agent() else { return false };
            let ledger = agent.protocol.ledger();
            let last = ledger.lease.as_ref().map(|(_, last)| last);
            let later =
                ledger.term > lease.term || last.is_some_and(|last| lease.contradicts(last));
            later
                && !agent.frozen
                && !self.pod_frozen(other)
                && self.pods_linked(pod, other)
                && self.pods_linked(other, pod)
        })
    }

    /// True if the commit was lost to somebody who was deceived.
    pub(crate) fn is_waived(&self, at: Micros, commit: Place) -> bool {
        self.judge
            .deceived
            .iter()
            .any(|&(when, place)| at <= when && !self.wal.holds(place, commit))
    }

    /// True if another took the Lease from this one without being able to know.
    pub(crate) fn is_outwitted(&self, pod: usize) -> bool {
        self.judge.outwitted.contains(&self.incarnation(pod))
    }
}
