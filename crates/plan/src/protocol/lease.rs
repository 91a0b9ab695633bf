//! The Lease, typed, and its form in the Kubernetes object.
//!
//! The object's own fields hold what other tools read (holder, transitions, duration); everything
//! else is in annotations of ours. Decoding never panics on foreign text: a Lease that makes no
//! sense is [`LeaseError`], which the protocol treats as unreadable, and one without a cohort is
//! empty, which it treats as absent (traps H6).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use matriarch_pg::{Lsn, SystemId};

use super::identity::{ContainerId, Incarnation, InstanceName, Member, PodUid, Term};
use super::moment::Span;
use super::position::{History, Position};
use super::quorum::Quorum;

/// Who holds the Lease: the incarnation, and the process that runs on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Name of the instance.
    pub name: InstanceName,
    /// Id of its data directory.
    pub incarnation: Incarnation,
    /// Uid of the pod that runs on it.
    pub pod_uid: PodUid,
    /// Id of the pod's container.
    pub container_id: ContainerId,
}

/// Whose word freed the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseProof {
    /// The holder itself, PostgreSQL stopped.
    Holder,
    /// The operator, with proof of death (rule 20).
    Operator,
}

/// Why a Lease without a holder has none. A holder that is merely missing (somebody cleared the
/// field by hand) is no release: such a Lease counts as held until it has been unchanged for D.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Who held it.
    pub by: Incarnation,
    /// Whose word it is.
    pub proof: ReleaseProof,
    /// To whom it is handed, if to somebody.
    pub handover: Option<Handover>,
}

/// `handover` of the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The successor.
    pub to: Incarnation,
    /// End of the former holder's WAL: the successor must have it.
    pub lsn: Lsn,
}

/// The cluster's Lease (L).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// P; none if free.
    pub holder: Option<Holder>,
    /// `leaseTransitions`.
    pub term: Term,
    /// D, `leaseDurationSeconds` (to the millisecond in an annotation).
    pub duration: Span,
    /// The database system.
    pub system_id: SystemId,
    /// The holder's history.
    pub history: History,
    /// False from the swap until the holder has promoted and published its history: nobody can
    /// judge before whether it may follow.
    pub history_published: bool,
    /// The holder's position at its last renewal.
    pub position: Position,
    /// Members that may run at once; the holder is one.
    pub cohort: Vec<Member>,
    /// Members that may not.
    pub stragglers: Vec<Member>,
    /// Quorum {w, M} that every acknowledged commit satisfies; none in asynchronous mode.
    pub quorum: Option<Quorum>,
    /// Without a quorum: where the holder's WAL ended when the last one was given up. What was
    /// acknowledged under that one lies before it (rule 14f).
    pub quorum_until: Option<Position>,
    /// Set when the holder is none.
    pub release: Option<Release>,
    /// How often the term was re-asserted against promises (rule 16): doubles the promisers'
    /// patience each time.
    pub reassertions: u32,
    /// Grows with every write that changes more than the position: within a term it tells an older
    /// state that somebody restored from a true one (rule 7b).
    pub edition: u64,
}

/// What tells states of a Lease apart, and an older one that somebody restored (rule 7b).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseMark {
    /// Its term.
    pub term: Term,
    /// Its edition within the term.
    pub edition: u64,
    /// Whose it is, or was.
    pub by: Option<Incarnation>,
}

impl LeaseMark {
    /// True if it cannot come after `known` in the term that both are of: it is older under the same
    /// holder, or another one holds the term (seed 6568: who took back an old Lease that named it
    /// gave a term for the second time).
    pub fn contradicts(&self, known: &Self) -> bool {
        let older = self.edition < known.edition && self.by == known.by;
        let other = self.by.is_some() && known.by.is_some() && self.by != known.by;
        self.term == known.term && (older || other)
    }
}

impl Lease {
    /// Whose it is, or whose it was until it was released.
    pub fn last_holder(&self) -> Option<&Incarnation> {
        let holder = self.holder.as_ref().map(|h| &h.incarnation);
        holder.or(self.release.as_ref().map(|r| &r.by))
    }

    /// Where the last quorum was given up, unless an instance with this history, flushed up to
    /// `flushed`, has all that was acknowledged under it.
    pub fn quorum_not_reached(&self, history: &History, flushed: Lsn) -> Option<Position> {
        let until = self.quorum_until.filter(|_| self.quorum.is_none());
        until.filter(|until| !history.contains(*until, flushed))
    }

    /// True if they differ in nothing but the position.
    pub fn is_like(&self, other: &Self) -> bool {
        *self == Self { position: self.position, edition: self.edition, ..other.clone() }
    }

    /// True if it cannot come after `known` in the term that both are of.
    pub fn contradicts(&self, known: &Self) -> bool {
        self.mark().contradicts(&known.mark())
    }

    /// What tells its states apart.
    pub fn mark(&self) -> LeaseMark {
        LeaseMark { term: self.term, edition: self.edition, by: self.last_holder().cloned() }
    }

    /// Members and stragglers.
    pub fn everyone(&self) -> impl Iterator<Item = &Member> {
        self.cohort.iter().chain(&self.stragglers)
    }

    /// True if this incarnation holds it.
    pub fn held_by(&self, incarnation: &Incarnation) -> bool {
        self.holder.as_ref().is_some_and(|h| &h.incarnation == incarnation)
    }

    /// To whom it is handed.
    pub fn handover(&self) -> Option<&Handover> {
        self.release.as_ref().and_then(|r| r.handover.as_ref())
    }

    /// True if this incarnation may run at once.
    pub fn in_cohort(&self, incarnation: &Incarnation) -> bool {
        self.cohort.iter().any(|m| &m.incarnation == incarnation)
    }

    /// The entry of this incarnation, member or straggler.
    pub fn entry(&self, incarnation: &Incarnation) -> Option<&Member> {
        self.everyone().find(|m| &m.incarnation == incarnation)
    }
}

/// The Lease as the drivers carry it to and from the API: fields of `coordination.k8s.io/v1`, and
/// annotations by the part of their name after the identity's prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// `spec.holderIdentity`; empty means absent.
    pub holder_identity: String,
    /// `spec.leaseTransitions`.
    pub transitions: u64,
    /// `spec.leaseDurationSeconds`.
    pub duration_seconds: u32,
    /// Annotations of ours without their prefix; a driver writes these and removes those of
    /// [`ANNOTATIONS`] that are missing here.
    pub annotations: BTreeMap<String, String>,
}

const SYSTEM_ID: &str = "system-id";
const HISTORY: &str = "history";
const POSITION: &str = "position";
const COHORT: &str = "cohort";
const STRAGGLERS: &str = "stragglers";
const QUORUM: &str = "quorum";
const QUORUM_UNTIL: &str = "quorum-until";
const HOLDER: &str = "holder";
const RELEASE: &str = "release";
const UNPUBLISHED: &str = "history-unpublished";
const DURATION: &str = "duration-ms";
const REASSERTIONS: &str = "reassertions";
const EDITION: &str = "edition";

/// Every annotation that a Lease may carry, without the prefix.
pub const ANNOTATIONS: [&str; 13] = [
    SYSTEM_ID,
    HISTORY,
    POSITION,
    COHORT,
    STRAGGLERS,
    QUORUM,
    QUORUM_UNTIL,
    HOLDER,
    RELEASE,
    DURATION,
    REASSERTIONS,
    UNPUBLISHED,
    EDITION,
];

/// Members and stragglers that a Lease may name at most: it has to fit into annotations.
pub const MAX_MEMBERS: usize = 128;

/// The Lease object makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// An annotation that must be there is not.
    #[error("annotation {0} is missing")]
    Missing(&'static str),
    /// An annotation has another form.
    #[error("annotation {name} cannot be read")]
    Annotation {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// holderIdentity and the annotation disagree: somebody else wrote one of them.
    #[error("holderIdentity {field:?} is not the holder {annotation:?} of the annotation")]
    HolderDiffers {
        /// The object's field.
        field: String,
        /// The annotation.
        annotation: String,
    },
    /// More members than can be.
    #[error("{0} members are more than a Lease can name")]
    TooManyMembers(usize),
    /// A quorum that nothing can satisfy.
    #[error("a quorum of {need} of {of} cannot be")]
    Quorum {
        /// w.
        need: u32,
        /// |M|.
        of: usize,
    },
}

impl LeaseRecord {
    /// The Lease as the operator makes it, before the first instance: to be treated as absent.
    pub fn empty(duration: Span) -> Self {
        Self {
            holder_identity: String::new(),
            transitions: 0,
            duration_seconds: duration_seconds(duration),
            annotations: BTreeMap::new(),
        }
    }

    /// What an object of `coordination.k8s.io/v1` says in its spec (`holderIdentity`,
    /// `leaseTransitions`, `leaseDurationSeconds`) and in those annotations that begin with `prefix`.
    pub fn of_object<'a>(
        holder: Option<&str>,
        transitions: Option<i32>,
        duration_seconds: Option<i32>,
        annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
        prefix: &str,
    ) -> Self {
        let ours = |(key, value): (&String, &String)| {
            let suffix = key.strip_prefix(prefix).filter(|suffix| ANNOTATIONS.contains(suffix))?;
            Some((suffix.to_owned(), value.clone()))
        };
        Self {
            holder_identity: holder.unwrap_or_default().to_owned(),
            transitions: u64::try_from(transitions.unwrap_or_default()).unwrap_or_default(),
            duration_seconds: u32::try_from(duration_seconds.unwrap_or_default())
                .unwrap_or_default(),
            annotations: annotations.into_iter().filter_map(ours).collect(),
        }
    }

    /// Writes a Lease into the object's form.
    pub fn encode(lease: &Lease) -> Self {
        let mut annotations = BTreeMap::new();
        put(&mut annotations, SYSTEM_ID, &lease.system_id);
        put(&mut annotations, HISTORY, &lease.history);
        put(&mut annotations, POSITION, &lease.position);
        put(&mut annotations, COHORT, &lease.cohort);
        put(&mut annotations, STRAGGLERS, &lease.stragglers);
        put(&mut annotations, DURATION, &lease.duration);
        if let Some(quorum) = &lease.quorum {
            put(&mut annotations, QUORUM, quorum);
        }
        if let Some(position) = &lease.quorum_until {
            put(&mut annotations, QUORUM_UNTIL, position);
        }
        if let Some(holder) = &lease.holder {
            put(&mut annotations, HOLDER, holder);
        }
        if let Some(release) = &lease.release {
            put(&mut annotations, RELEASE, release);
        }
        if !lease.history_published {
            put(&mut annotations, UNPUBLISHED, &true);
        }
        if lease.reassertions > 0 {
            put(&mut annotations, REASSERTIONS, &lease.reassertions);
        }
        put(&mut annotations, EDITION, &lease.edition);
        Self {
            holder_identity: lease.holder.as_ref().map_or(String::new(), |h| h.name.0.clone()),
            transitions: lease.term.0,
            duration_seconds: duration_seconds(lease.duration),
            annotations,
        }
    }

    /// Reads the object's form; none if it is empty, which is to be treated as absent.
    ///
    /// # Errors
    /// If somebody else wrote something that makes no sense.
    pub fn decode(&self) -> Result<Option<Lease>, LeaseError> {
        let Some(cohort) = self.optional::<Vec<Member>>(COHORT)? else { return Ok(None) };
        if cohort.is_empty() {
            return Ok(None);
        }
        let stragglers = self.optional::<Vec<Member>>(STRAGGLERS)?.unwrap_or_default();
        if cohort.len() + stragglers.len() > MAX_MEMBERS {
            return Err(LeaseError::TooManyMembers(cohort.len() + stragglers.len()));
        }
        let holder = self.holder()?;
        let quorum = self.optional::<Quorum>(QUORUM)?;
        if let Some(q) = &quorum
            && (q.need == 0 || q.need as usize > q.of.len())
        {
            return Err(LeaseError::Quorum { need: q.need, of: q.of.len() });
        }
        Ok(Some(Lease {
            release: if holder.is_none() { self.optional(RELEASE)? } else { None },
            holder,
            term: Term(self.transitions),
            duration: self
                .optional(DURATION)?
                .unwrap_or(Span::seconds(u64::from(self.duration_seconds))),
            system_id: self.required(SYSTEM_ID)?,
            history: self.required(HISTORY)?,
            history_published: !self.optional::<bool>(UNPUBLISHED)?.unwrap_or(false),
            position: self.required(POSITION)?,
            cohort,
            stragglers,
            quorum,
            quorum_until: self.optional(QUORUM_UNTIL)?,
            reassertions: self.optional(REASSERTIONS)?.unwrap_or(0),
            edition: self.optional(EDITION)?.unwrap_or(0),
        }))
    }

    fn holder(&self) -> Result<Option<Holder>, LeaseError> {
        let annotation = self.optional::<Holder>(HOLDER)?;
        match annotation {
            None if self.holder_identity.is_empty() => Ok(None),
            Some(holder) if holder.name.0 == self.holder_identity => Ok(Some(holder)),
            other => Err(LeaseError::HolderDiffers {
                field: self.holder_identity.clone(),
                annotation: other.map_or(String::new(), |h| h.name.0),
            }),
        }
    }

    fn optional<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, LeaseError> {
        self.annotations
            .get(name)
            .map(|text| serde_json::from_str(text))
            .transpose()
            .map_err(|source| LeaseError::Annotation { name, source })
    }

    fn required<T: DeserializeOwned>(&self, name: &'static str) -> Result<T, LeaseError> {
        self.optional(name)?.ok_or(LeaseError::Missing(name))
    }
}

/// Rounded up, at least 1: the API refuses 0, and readers of the field must not wait too short.
fn duration_seconds(duration: Span) -> u32 {
    u32::try_from(duration.0.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
}

fn put<T: Serialize>(annotations: &mut BTreeMap<String, String>, name: &str, value: &T) {
    let text = serde_json::to_string(value).expect("plain data with text keys serialises");
    annotations.insert(name.to_owned(), text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::identity::Address;
    use proptest::prelude::*;

    fn lease() -> Lease {
        let member = |name: &str| Member {
            name: name.into(),
            incarnation: format!("{name}-i").as_str().into(),
            address: Address { host: "127.0.0.1".into(), postgres_port: 5432, agent_port: 8000 },
        };
        Lease {
            holder: Some(Holder {
                name: "c-1".into(),
                incarnation: "c-1-i".into(),
                pod_uid: "u".into(),
                container_id: "k".into(),
            }),
            term: Term(7),
            duration: Span(10_500),
            system_id: SystemId(u64::MAX),
            history: History::root(Term(1), "c-1-i".into()),
            history_published: true,
            position: Position { term: Term(1), lsn: Lsn(0x1000) },
            cohort: vec![member("c-1"), member("c-2")],
            stragglers: vec![member("c-3")],
            quorum: Some(Quorum { need: 2, of: ["c-1-i".into(), "c-2-i".into()].into() }),
            release: None,
            quorum_until: None,
            reassertions: 2,
            edition: 9,
        }
    }

    #[test]
    fn a_lease_survives_the_object() {
        let held = lease();
        assert_eq!(LeaseRecord::encode(&held).decode().unwrap(), Some(held.clone()));
        let free = Lease {
            holder: None,
            release: Some(Release {
                by: "c-1-i".into(),
                proof: ReleaseProof::Holder,
                handover: Some(Handover { to: "c-2-i".into(), lsn: Lsn(5) }),
            }),
            quorum: None,
            quorum_until: Some(Position { term: Term(6), lsn: Lsn(5) }),
            reassertions: 0,
            ..held
        };
        assert_eq!(LeaseRecord::encode(&free).decode().unwrap(), Some(free));
    }

    #[test]
    fn an_older_state_or_another_holder_contradicts_what_is_known_of_a_term() {
        let known = lease();
        let older = Lease { edition: 8, quorum: None, ..known.clone() };
        assert!(older.contradicts(&known) && !known.contradicts(&older));
        assert!(!known.contradicts(&known));
        let mut other = Lease { edition: 99, ..known.clone() };
        other.holder.as_mut().unwrap().incarnation = "c-2-i".into();
        assert!(other.contradicts(&known) && known.contradicts(&other), "a term has one holder");
        other.term = known.term.next();
        assert!(!other.contradicts(&known) && !known.contradicts(&other));
        let moved = Lease { position: Position::default(), edition: 0, ..known.clone() };
        assert!(moved.is_like(&known) && !older.is_like(&known));
    }

    #[test]
    fn a_lease_without_cohort_is_empty_and_a_foreign_holder_is_an_error() {
        assert_eq!(LeaseRecord::empty(Span::seconds(10)).decode().unwrap(), None);
        let mut record = LeaseRecord::encode(&lease());
        record.holder_identity = "somebody".into();
        assert!(matches!(record.decode(), Err(LeaseError::HolderDiffers { .. })));
        record.holder_identity.clear();
        assert!(record.decode().is_err(), "clearing the field by hand frees nothing");
        let mut record = LeaseRecord::encode(&lease());
        record.annotations.insert(QUORUM.into(), "{\"need\":3,\"of\":[\"a\"]}".into());
        assert!(matches!(record.decode(), Err(LeaseError::Quorum { need: 3, of: 1 })));
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(
            holder in ".{0,12}",
            annotations in proptest::collection::btree_map(
                proptest::sample::select(ANNOTATIONS.map(str::to_owned).to_vec()),
                "[\\[\\]{}\",:a-z0-9/-]{0,40}",
                0..8,
            ),
        ) {
            let record = LeaseRecord {
                holder_identity: holder,
                transitions: u64::MAX,
                duration_seconds: 0,
                annotations,
            };
            let _ = record.decode();
        }
    }
}
