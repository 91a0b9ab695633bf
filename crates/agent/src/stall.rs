//! What a person is told when the protocol can do nothing of itself for a while.

use std::time::{Duration, Instant};

use matriarch_api::cluster::HumanOption as Told;
use matriarch_api::instance::InstanceWaiting;
use matriarch_api::reasons::{failure, waiting as reasons};
use matriarch_plan::protocol::View;
use matriarch_plan::protocol::identity::InstanceName;
use matriarch_plan::protocol::view::{HumanOption, Waiting};

/// Elections pass through most of these states; only what lasts is worth a write.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a cluster is called in the commands that are offered.
#[derive(Clone, Debug)]
pub struct Names {
    /// The Cluster's name.
    pub cluster: String,
    /// The own instance's name.
    pub instance: String,
    /// The annotation of the Lease that holds the quorum.
    pub quorum: String,
}

/// Since when the same thing is waited for.
#[derive(Debug)]
pub struct Stall {
    names: Names,
    present: Option<InstanceWaiting>,
    since: Option<Instant>,
}

impl Stall {
    /// Nothing yet.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self { names, present: None, since: None }
    }

    /// What is to be told now.
    pub fn look(&mut self, view: &View, now: Instant) -> Option<InstanceWaiting> {
        let found = waiting(view, &self.names);
        if found != self.present {
            self.present = found;
            self.since = Some(now);
        }
        let lasts = self.since.is_some_and(|since| now.duration_since(since) >= PATIENCE);
        self.present.clone().filter(|_| lasts)
    }
}

fn waiting(view: &View, names: &Names) -> Option<InstanceWaiting> {
    let waiting = view.waiting.as_ref()?;
    // A cluster that is being made, or is electing, has no source for a while.
    if *waiting == Waiting::NoSource && view.human.is_empty() {
        return None;
    }
    Some(InstanceWaiting {
        reason: reason(waiting)?.to_owned(),
        message: in_words(waiting),
        human_options: view.human.iter().map(|option| told(option, waiting, names)).collect(),
    })
}

/// None for what passes by itself or is reported elsewhere (fences, failed operations).
fn reason(waiting: &Waiting) -> Option<&'static str> {
    Some(match waiting {
        Waiting::LeaseAbsent => reasons::LEASE_ABSENT,
        Waiting::LeaseDamaged => reasons::LEASE_DAMAGED,
        Waiting::OtherSystem => failure::OTHER_SYSTEM,
        Waiting::Straggler { .. } => reasons::STRAGGLER,
        Waiting::HigherTerm(_) => reasons::HIGHER_TERM,
        Waiting::PeerRuns(_) => reasons::PEER_RUNS,
        Waiting::Promises { .. } => reasons::QUORUM_MISSING,
        Waiting::BehindPromiser(_) | Waiting::BehindQuorum { .. } => reasons::BEHIND,
        Waiting::LeftHistory => reasons::LEFT_HISTORY,
        Waiting::Lag { .. } => reasons::LAG,
        Waiting::CouldNotPromote => reasons::COULD_NOT_PROMOTE,
        Waiting::Unanswered(_) => reasons::UNANSWERED,
        Waiting::CopyGivenUp(_) => reasons::COPY_GIVEN_UP,
        Waiting::NoSource => reasons::NO_SOURCE,
        Waiting::NoSuccessor => reasons::NO_SUCCESSOR,
        Waiting::Directive
        | Waiting::Observation
        | Waiting::LeaseUnreadable
        | Waiting::Held { .. }
        | Waiting::HandedTo(_)
        | Waiting::Vouched { .. }
        | Waiting::Fenced
        | Waiting::Unfit
        | Waiting::PeerVouched(_)
        | Waiting::BetterPeer(_)
        | Waiting::NoCopy
        | Waiting::OtherPod { .. }
        | Waiting::Successor(_)
        | Waiting::UnresolvedWrite
        | Waiting::Retry { .. } => return None,
    })
}

/// Why an agent does not do what it might, for a person.
#[must_use]
pub fn in_words(waiting: &Waiting) -> String {
    match waiting {
        Waiting::Directive => "the operator has not told it anything yet".to_owned(),
        Waiting::Observation => "it has not looked at PostgreSQL yet".to_owned(),
        Waiting::LeaseUnreadable => "the Lease cannot be read".to_owned(),
        Waiting::LeaseAbsent => "the Lease was deleted; it is made anew once every instance has \
             answered and none of them runs as primary"
            .to_owned(),
        Waiting::LeaseDamaged => "the Lease shows an older state than one that was obeyed, as if \
             somebody had restored it; its holder or the best instance makes it anew"
            .to_owned(),
        Waiting::Held { .. } => "another instance holds the Lease".to_owned(),
        Waiting::HandedTo(_) => "the Lease was handed to another instance".to_owned(),
        Waiting::Vouched { .. } => "it has just told the primary to go on".to_owned(),
        Waiting::Fenced => "it is fenced".to_owned(),
        Waiting::Unfit => "it is leaving, or is not to take over".to_owned(),
        Waiting::OtherSystem => "its data directory is of another PostgreSQL cluster than the one \
             that the Lease names, and nothing is started on it; put the right volume back, or \
             delete this one so that it is copied anew"
            .to_owned(),
        Waiting::Straggler { .. } => "it was away and may lack commits that were acknowledged \
             meanwhile; it runs only if the Lease does not change for longer than a primary can \
             go on alone"
            .to_owned(),
        Waiting::HigherTerm(name) => format!("{name} knows of a later primary"),
        Waiting::PeerRuns(name) => format!("{name} runs as primary, or may"),
        Waiting::PeerVouched(name) => format!("{name} has just told the primary to go on"),
        Waiting::BetterPeer(name) => format!("{name} has more, and goes first"),
        Waiting::Promises { have, need, .. } => format!(
            "acknowledged commits may be on instances that do not answer: {have} of the {need} \
             that are needed to find all of them have answered"
        ),
        Waiting::BehindPromiser(name) => format!("{name} has commits that this instance lacks"),
        Waiting::BehindQuorum { bytes } => format!(
            "it lacks {bytes} bytes that hold commits which were acknowledged synchronously"
        ),
        Waiting::LeftHistory => "its WAL is not on the history of the last primary".to_owned(),
        Waiting::Lag { bytes, bound } => format!(
            "it is {bytes} bytes behind the last primary, and spec.failover.maximumLag admits \
             {bound}"
        ),
        Waiting::NoCopy => "it has no whole copy of the data".to_owned(),
        Waiting::CouldNotPromote => "it could not be promoted and leaves it to others".to_owned(),
        Waiting::OtherPod { .. } => "another pod on its volume held the Lease".to_owned(),
        Waiting::Unanswered(names) => {
            format!("the Lease is to be made anew, and {} did not answer", list(names))
        }
        Waiting::CopyGivenUp(names) => format!(
            "the Lease is to be made anew, and acknowledged commits may be on {} alone, in a copy \
             that it gave up for a new one",
            list(names)
        ),
        Waiting::NoSource => "there is no primary that it could follow or copy".to_owned(),
        Waiting::Successor(name) => format!("{name} has not received everything yet"),
        Waiting::NoSuccessor => "no instance is fit to take over".to_owned(),
        Waiting::UnresolvedWrite => "it does not know yet what became of a write".to_owned(),
        Waiting::Retry { message, .. } => message.clone(),
    }
}

fn list(names: &[InstanceName]) -> String {
    names.iter().map(InstanceName::as_str).collect::<Vec<_>>().join(", ")
}

fn told(option: &HumanOption, waiting: &Waiting, names: &Names) -> Told {
    let Names { cluster, instance, quorum } = names;
    let (action, consequence) = match (option, waiting) {
        (HumanOption::BringBack(name), _) => (
            format!("bring {name} back: its node, its pod, its volume"),
            "The cluster goes on by itself, and nothing is lost".to_owned(),
        ),
        (HumanOption::AcceptLoss, Waiting::LeftHistory) => (
            format!("kubectl delete lease {cluster}"),
            "The best of all instances makes it anew; what only the last primary had is lost"
                .to_owned(),
        ),
        (HumanOption::AcceptLoss, Waiting::BehindQuorum { bytes }) => (
            format!("kubectl annotate lease {cluster} {quorum}-until-"),
            format!("{instance} takes over; commits in {bytes} bytes of WAL are lost"),
        ),
        (HumanOption::AcceptLoss, _) => (
            format!("kubectl annotate lease {cluster} {quorum}-"),
            "The best instance that answers takes over; commits that only the others have are lost"
                .to_owned(),
        ),
        (HumanOption::RaiseMaximumLag(bytes), _) => (
            format!(
                "kubectl patch cluster {cluster} --type merge \
                 --patch '{{\"spec\":{{\"failover\":{{\"maximumLag\":{bytes}}}}}}}'"
            ),
            format!("{instance} takes over; up to {bytes} bytes of WAL are lost"),
        ),
        (HumanOption::Unfence, _) => (
            format!("kubectl matriarch fencing off {cluster} {instance}"),
            "PostgreSQL starts there".to_owned(),
        ),
        (HumanOption::NameHolder, _) => (
            "give up the volume of an instance that cannot come back: kubectl delete pvc NAME"
                .to_owned(),
            "It begins without data and answers; what only it had is lost".to_owned(),
        ),
    };
    Told { action: Some(action), consequence: Some(consequence) }
}

#[cfg(test)]
mod tests {
    use matriarch_plan::protocol::moment::Moment;

    use super::*;

    fn names() -> Names {
        Names {
            cluster: "c".to_owned(),
            instance: "c-2".to_owned(),
            quorum: "matriarch.dev/quorum".to_owned(),
        }
    }

    #[test]
    fn what_passes_by_itself_is_not_told() {
        let view = View { waiting: Some(Waiting::Held { until: Moment(1) }), ..View::default() };
        assert_eq!(waiting(&view, &names()), None);
    }

    #[test]
    fn a_missing_quorum_is_told_with_what_can_be_done() {
        let view = View {
            waiting: Some(Waiting::Promises { have: 1, need: 2, missing: Vec::new() }),
            human: vec![HumanOption::BringBack("c-1".into()), HumanOption::AcceptLoss],
            ..View::default()
        };
        let told = waiting(&view, &names()).unwrap_or_default();
        assert_eq!(told.reason, "QuorumMissing");
        assert!(told.message.contains("1 of the 2"), "{}", told.message);
        let actions: Vec<_> =
            told.human_options.iter().filter_map(|it| it.action.as_deref()).collect();
        assert_eq!(
            actions,
            [
                "bring c-1 back: its node, its pod, its volume",
                "kubectl annotate lease c matriarch.dev/quorum-"
            ]
        );
    }

    #[test]
    fn only_what_lasts_is_told() {
        let mut stall = Stall::new(names());
        let begun = Instant::now();
        let later = begun + PATIENCE;
        let view = View { waiting: Some(Waiting::LeftHistory), ..View::default() };
        assert_eq!(stall.look(&view, begun), None);
        assert_eq!(stall.look(&view, later).unwrap_or_default().reason, "LeftHistory");
        assert_eq!(stall.look(&View::default(), later), None);
        assert_eq!(stall.look(&view, later), None, "it begins anew");
    }
}
