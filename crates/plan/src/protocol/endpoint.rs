//! Writing the EndpointSlice of `-rw` (rule 12a): a driver that carries out
//! [`super::Action::PointService`] goes by this.
//!
//! A write that waits in the buffers of a machine that is cut off arrives once the cut is over, long
//! after another has become primary. So every write names the version it is based on, and writes the
//! holder's term beside the address: no later holder's first write leaves the object as it was.

use serde::{Deserialize, Serialize};

use super::event::LeaseReading;
use super::identity::{PodUid, Term, Version};

/// The EndpointSlice as an agent read or wrote it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReading {
    /// Its resourceVersion.
    pub version: Version,
    /// The term under which its address was written; none if nobody has said.
    pub term: Option<Term>,
}

/// What comes before the holder's write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointing {
    /// Nothing: it is written on this version.
    Write(Version),
    /// A read of L, after that of the EndpointSlice: only if it [grants](is_granted) the address is
    /// this version written on.
    AskLease(Version),
}

impl EndpointReading {
    /// For a holder of this term. Whoever wrote under a higher one has taken L since, or somebody took
    /// L back; and what says nothing proves nothing.
    #[must_use]
    pub fn pointing(&self, term: Term) -> Pointing {
        if self.term.is_some_and(|written| written <= term) {
            Pointing::Write(self.version)
        } else {
            Pointing::AskLease(self.version)
        }
    }
}

/// True if L, as just read, names this pod as holder in this very term.
#[must_use]
pub fn is_granted(reading: &LeaseReading, pod: &PodUid, term: Term) -> bool {
    let LeaseReading::Found { record, .. } = reading else { return false };
    record.decode().ok().flatten().is_some_and(|lease| {
        lease.term == term && lease.holder.is_some_and(|holder| holder.pod_uid == *pod)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(term: Option<u64>) -> EndpointReading {
        EndpointReading { version: Version(7), term: term.map(Term) }
    }

    #[test]
    fn what_a_later_holder_wrote_is_not_written_over_unasked() {
        assert_eq!(reading(Some(3)).pointing(Term(3)), Pointing::Write(Version(7)));
        assert_eq!(reading(Some(2)).pointing(Term(3)), Pointing::Write(Version(7)));
        assert_eq!(reading(Some(4)).pointing(Term(3)), Pointing::AskLease(Version(7)));
        assert_eq!(reading(None).pointing(Term(3)), Pointing::AskLease(Version(7)));
    }

    #[test]
    fn silence_grants_nothing() {
        for reading in [LeaseReading::NoAnswer, LeaseReading::Absent] {
            assert!(!is_granted(&reading, &"u".into(), Term(3)));
        }
    }
}
