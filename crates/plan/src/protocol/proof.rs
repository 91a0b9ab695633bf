//! Rule 20: when the operator may free the Lease of a holder that cannot speak for itself.

use serde::{Deserialize, Serialize};

use super::identity::{ContainerId, PodUid, Term, Version};
use super::lease::{Lease, LeaseMark, LeaseRecord, Release, ReleaseProof};
use super::moment::Span;

/// What kubelet reported of the holder's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerEvidence {
    /// Terminated: this container of this pod.
    Terminated {
        /// The pod.
        pod_uid: PodUid,
        /// The container.
        container_id: ContainerId,
    },
    /// Anything else: running, waiting, no pod object, not known.
    NotTerminated,
}

/// What is known of the node that the holder's pod was bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeEvidence {
    /// Tainted `node.kubernetes.io/out-of-service`: somebody vouches that it is off.
    OutOfService,
    /// Its object is gone, known from a fresh read. Deleting an object stops no container.
    Gone,
    /// It is there, ready or not, or nothing is known.
    NotProved,
}

/// All that the operator may judge by. Silence, NotReady and a force-deleted pod have no place here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The container.
    pub container: ContainerEvidence,
    /// The node.
    pub node: NodeEvidence,
    /// For how long the operator has seen this very version of the Lease.
    pub unchanged: Span,
    /// The API lost its past, as [`is_damaged`] tells.
    pub damaged: bool,
}

/// Rule 7b for the operator, which has no ledger: the Lease is older than what it has read itself,
/// or than the highest term that the status of any Instance shows.
#[must_use]
pub fn is_damaged(lease: &LeaseMark, last: Option<&LeaseMark>, obeyed: Term) -> bool {
    let past = last.is_some_and(|last| lease.term < last.term || lease.contradicts(last));
    past || lease.term < obeyed
}

/// Why the Lease is not freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotProved {
    /// It has no holder.
    Free,
    /// It is an old state that somebody restored: whom it names is no holder.
    Damaged,
    /// Another container than the one that stands in this version was terminated: a restarted
    /// holder has written another.
    OtherContainer,
    /// The node is gone, but the Lease is not yet expired.
    NotExpired,
    /// Nothing proves anything.
    NoEvidence,
}

/// Decides for this version of the Lease. The record that comes back must be written on exactly
/// this version and no other.
///
/// # Errors
/// The reason why the holder may still run.
pub fn free(
    version: Version,
    lease: &Lease,
    evidence: &Evidence,
) -> Result<(Version, LeaseRecord), NotProved> {
    let holder = lease.holder.as_ref().ok_or(NotProved::Free)?;
    if evidence.damaged {
        return Err(NotProved::Damaged);
    }
    let by_container = match &evidence.container {
        ContainerEvidence::Terminated { pod_uid, container_id } => {
            if *pod_uid == holder.pod_uid && *container_id == holder.container_id {
                Ok(())
            } else {
                Err(NotProved::OtherContainer)
            }
        }
        ContainerEvidence::NotTerminated => Err(NotProved::NoEvidence),
    };
    let by_node = match evidence.node {
        NodeEvidence::OutOfService => Ok(()),
        NodeEvidence::Gone if evidence.unchanged >= lease.duration => Ok(()),
        NodeEvidence::Gone => Err(NotProved::NotExpired),
        NodeEvidence::NotProved => Err(NotProved::NoEvidence),
    };
    match (by_container, by_node) {
        (Ok(()), _) | (_, Ok(())) => {}
        (Err(_), Err(NotProved::NotExpired)) => return Err(NotProved::NotExpired),
        (Err(reason), Err(_)) => return Err(reason),
    }
    let release =
        Release { by: holder.incarnation.clone(), proof: ReleaseProof::Operator, handover: None };
    let edition = lease.edition.saturating_add(1);
    let freed = Lease { holder: None, release: Some(release), edition, ..lease.clone() };
    Ok((version, LeaseRecord::encode(&freed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::identity::{Address, Member, Term};
    use crate::protocol::lease::Holder;
    use crate::protocol::position::{History, Position};
    use matriarch_pg::SystemId;

    fn lease() -> Lease {
        Lease {
            holder: Some(Holder {
                name: "c-1".into(),
                incarnation: "i".into(),
                pod_uid: "pod".into(),
                container_id: "second".into(),
            }),
            term: Term(3),
            duration: Span::seconds(10),
            system_id: SystemId(1),
            history: History::root(Term(1), "i".into()),
            history_published: true,
            position: Position::default(),
            cohort: vec![Member {
                name: "c-1".into(),
                incarnation: "i".into(),
                address: Address::default(),
            }],
            stragglers: vec![],
            quorum: None,
            release: None,
            quorum_until: None,
            reassertions: 0,
            edition: 4,
        }
    }

    fn decide(
        container: Option<&str>,
        node: NodeEvidence,
        unchanged: u64,
    ) -> Result<(), NotProved> {
        let container = container.map_or(ContainerEvidence::NotTerminated, |id| {
            ContainerEvidence::Terminated { pod_uid: "pod".into(), container_id: id.into() }
        });
        let unchanged = Span::seconds(unchanged);
        let evidence = Evidence { container, node, unchanged, damaged: false };
        free(Version(5), &lease(), &evidence).map(|(version, record)| {
            assert_eq!(version, Version(5));
            assert_eq!(record.holder_identity, "");
        })
    }

    #[test]
    fn only_the_container_that_stands_in_this_version_proves_death() {
        assert_eq!(decide(Some("second"), NodeEvidence::NotProved, 0), Ok(()));
        assert_eq!(
            decide(Some("first"), NodeEvidence::NotProved, 600),
            Err(NotProved::OtherContainer)
        );
        assert_eq!(decide(None, NodeEvidence::NotProved, 600), Err(NotProved::NoEvidence));
    }

    #[test]
    fn an_old_state_frees_nobody() {
        let (last, older) = (lease().mark(), Lease { edition: 3, ..lease() }.mark());
        assert!(is_damaged(&older, Some(&last), Term(0)) && is_damaged(&last, None, Term(4)));
        assert!(!is_damaged(&last, Some(&older), Term(3)) && !is_damaged(&last, None, Term(3)));
        let evidence = Evidence {
            container: ContainerEvidence::NotTerminated,
            node: NodeEvidence::OutOfService,
            unchanged: Span::seconds(600),
            damaged: true,
        };
        assert_eq!(free(Version(5), &lease(), &evidence), Err(NotProved::Damaged));
    }

    #[test]
    fn a_node_that_is_gone_proves_nothing_before_expiry() {
        assert_eq!(decide(None, NodeEvidence::Gone, 9), Err(NotProved::NotExpired));
        assert_eq!(decide(None, NodeEvidence::Gone, 10), Ok(()));
        assert_eq!(decide(None, NodeEvidence::OutOfService, 0), Ok(()));
    }
}
