//! Questions and answers between agents. The drivers carry them as JSON over mTLS; TLS proves the
//! instance's name.

use serde::{Deserialize, Serialize};

use matriarch_pg::{Lsn, SystemId};

use super::identity::{Incarnation, Member, Term, Version};
use super::lease::Lease;
use super::moment::Span;
use super::position::{History, Kinship, Position};

/// What one agent asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// How are you? Every half second among members.
    Status,
    /// Rules 18 and 19: how are you, looked at after this was asked? What an agent saw last may be
    /// half a second old, and the asker has stopped: nobody accepts writes while it waits.
    Position,
    /// Rule 3: I hold this term and the API does not answer me.
    Failsafe {
        /// The asker's term.
        term: Term,
        /// D by which the asker counts.
        duration: Span,
    },
    /// Rules 9 and 16: I want to run for the Lease. A yes means that the walreceiver has stopped
    /// and that the position is final; with `promise` it also means that "I no longer follow this
    /// term" stands in the ledger.
    Election {
        /// The term of L that the asker read.
        term: Term,
        /// The version of L that its swap will be based on.
        version: Version,
        /// With a quorum: a promise is asked for.
        promise: bool,
        /// Rule 16: L is neither free nor expired, so only one that has lost P itself says yes.
        quick: bool,
    },
    /// Rule 18: the Lease is yours. Said by the holder, stopped, that cannot write L itself or has
    /// no time to.
    Handover {
        /// The term that it gives up.
        term: Term,
        /// Who it is.
        from: Incarnation,
        /// End of its WAL.
        lsn: Lsn,
    },
}

/// What the other says: always how it is, and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The answerer.
    pub status: MemberStatus,
    /// Its answer to what was asked.
    pub verdict: Verdict,
}

/// Yes or no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Yes; to a question of [`Question::Status`] or [`Question::Position`] always.
    Yes,
    /// No, because.
    No(Refusal),
}

/// Why an agent says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Refusal {
    /// It knows a higher term.
    HigherTerm,
    /// It has promised against the term (rule 16).
    Promised,
    /// It is primary or runs for the Lease itself.
    Running,
    /// By its own clock the Lease is held.
    Held,
    /// It has itself heard from the primary lately (rule 16).
    NotLost,
    /// It told the holder to go on less than D ago (rule 3).
    Vouched,
    /// It is being rewound or cloned, or has no data: it counts nowhere (rule 22).
    NoCopy,
    /// Another database system.
    OtherSystem,
    /// It does not (yet) have all that is being handed over (rule 18).
    Behind,
    /// It is fenced, leaving, excluded or delayed: no successor.
    Unfit,
    /// Its walreceiver could not be stopped, or its ledger not written, in time.
    NotReady,
    /// The asker is not the holder that it knows of.
    NotHolder,
}

/// What an agent is in the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// Neither of the others.
    #[default]
    Standby,
    /// Runs for the Lease, or a swap of its may still be applied.
    Candidate,
    /// Accepts writes, or may.
    Primary,
    /// Holds the Lease, PostgreSQL down: crashed, stopping, or handing over.
    Down,
}

/// How an agent is, as every answer tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Who; with an empty incarnation while it has no data directory.
    pub member: Member,
    /// Database system, if it has data.
    pub system_id: Option<SystemId>,
    /// Highest term that it knows.
    pub term: Term,
    /// Term that it no longer follows.
    pub promised: Option<Term>,
    /// What it is.
    pub standing: Standing,
    /// Where its last flushed record lies.
    pub position: Position,
    /// Its history, as far as flushed.
    pub history: History,
    /// Its walreceiver streams.
    pub streaming: bool,
    /// It reached the API within two renewal periods.
    pub reads_api: bool,
    /// Time until it may run again after a yes of rule 3; zero if it may.
    pub no_run_for: Span,
    /// It is being rewound or cloned, or has no whole copy.
    pub no_copy: bool,
    /// Fenced, leaving, excluded or delayed: never a successor by itself.
    pub unfit: bool,
    /// Fenced by the user.
    pub fenced: bool,
    /// Greater wins between equal positions.
    pub priority: i32,
    /// Highest Lease version that it has read.
    pub version: Version,
    /// To it that version is damaged (rule 7).
    #[serde(default)]
    pub damaged: bool,
}

impl MemberStatus {
    /// A standby of the cohort of `lease` with a whole copy of its database system, all of it on
    /// `history`, that may be a successor.
    pub(crate) fn is_whole_standby(&self, lease: &Lease, history: &History) -> bool {
        lease.in_cohort(&self.member.incarnation)
            && !self.unfit
            && !self.no_copy
            && self.standing == Standing::Standby
            && self.system_id == Some(lease.system_id)
            && self.history.kinship(self.position.lsn, history) == Kinship::OnIt
    }
}
