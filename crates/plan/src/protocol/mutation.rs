//! The mutation check: each clause of the rules can be switched off, and the simulator must notice.

use serde::{Deserialize, Serialize};

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A clause that is switched off. Exists only under the feature `mutation`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Mutation {
            $($(#[$doc])* $name,)*
        }

        impl Mutation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }
    };
}

mutations! {
    /// Rule 1: PostgreSQL runs on although the right has ended (the agent's part; the keeper is
    /// not armed).
    RightEnds,
    /// Rule 2: a primary that reads another holder or a higher term does not stop.
    StopOnHigherTerm,
    /// Rule 3: members of unresolved cohort writes are not asked.
    FailsafeAsksAttempted,
    /// Rule 3: one yes is enough.
    FailsafeNeedsAll,
    /// Rule 3: a yes sets no `noRunBefore`.
    FailsafeBindsMember,
    /// Rule 3: F does not end failsafe while stragglers are silent.
    FailsafeMax,
    /// Rule 3: a member that reads the API does not end failsafe after 30 s.
    FailsafeGivesWay,
    /// Rule 3: a restarted member forgets that it vouched.
    VouchSurvivesRestart,
    /// Rule 4: a member that does not stream stays in the cohort.
    CohortDropsSilent,
    /// Rule 7: L counts as expired after D/2.
    ExpiryAfterDuration,
    /// Rule 7: a damaged L is obeyed.
    DamagedIsNotObeyed,
    /// Rule 7: an older state of the same term is obeyed.
    DamagedEdition,
    /// Rules 2 and 7: a holder does not heed a peer that knows of another one.
    HigherTermIsHeard,
    /// Rule 7: a holder makes L anew without asking its members.
    RestoreAsksMembers,
    /// Rule 7: what a peer says of a damaged L is not heeded.
    DamagedIsTold,
    /// Rule 7: an absent L is created without everybody's answer.
    AbsentNeedsEverybody,
    /// Rule 7: an L made anew in synchronous mode has no quorum.
    AbsentKeepsQuorum,
    /// Rule 8: another pod on the volume takes L at once.
    RetakeSamePod,
    /// Rule 8: L is taken again with the same term although a member promised against it.
    RetakeAgainstPromises,
    /// Rule 8: WAL that does not reach L's last position is good enough.
    RetakeReachesPosition,
    /// Rules 9 and 12: a holder whose volume went back counts as a copy, and starts where it is.
    SnapshotIsNoCopy,
    /// Rule 8: a restarted holder starts before it has written L.
    RetakeWritesFirst,
    /// Rule 9: `noRunBefore` is ignored by the candidate and in its answers.
    RunAfterVouch,
    /// Rule 9: a straggler runs like a member.
    StragglerWaits,
    /// Rule 9: a known higher term does not stop a candidate.
    CandidateHeedsTerm,
    /// Rule 9: one promise less than |M| − w + 1 is enough.
    PromisesIntersect,
    /// Rule 9: a position behind a promiser's is good enough.
    BestOfPromisers,
    /// Rule 9: the bound on lag is ignored.
    LagBound,
    /// Rule 9: what the last quorum held is lost like anything else.
    QuorumUntil,
    /// Rule 9: WAL that leaves L's history is good enough.
    CandidateOnHistory,
    /// Rule 10: positions are compared by LSN alone.
    PositionByTerm,
    /// Rule 11: the swap drops the quorum of the past.
    TakeKeepsQuorum,
    /// Rule 11: the swap does not raise the term.
    TakeRaisesTerm,
    /// Rule 12: the timeline number is left to PostgreSQL.
    TimelineAboveAll,
    /// Rule 12: a holder that cannot promote keeps L.
    PromotionTimeout,
    /// Rule 13: histories are not compared before a walreceiver starts.
    FollowChecksHistory,
    /// Rule 13: a position on a timeline of unknown term counts by the old history.
    TimelinesAreKnown,
    /// Rule 13: the walreceiver runs on while histories are compared.
    FollowStopsFirst,
    /// Rule 13: a server that lets no session in yet goes on as it was started.
    StartingIsStartedAnew,
    /// Rule 14a: the new names satisfy the new quorum only.
    ShiftSatisfiesBoth,
    /// Rule 14b: the shift does not wait until the names are in force.
    ShiftSeesInForce,
    /// Rule 14c: what was acknowledged before is not awaited on the new set.
    ShiftCatchesUp,
    /// Rule 14d: the shift goes on before L.quorum is written.
    ShiftPublishes,
    /// Rule 14: `preferred` gives the promise up before L says so.
    NoneBeforeRelax,
    /// Rule 15: names are set after it accepts writes.
    NamesBeforeWrites,
    /// Rule 15: who does not know yet what is asked for starts as primary.
    StartKnowsDirective,
    /// Rules 14d and 15: a restart in place forgets a quorum whose write is not answered.
    StartsForAttempted,
    /// Rule 16: a promise is not written into the ledger.
    PromiseIsDurable,
    /// Rule 16: a promiser goes on following.
    PromiserStopsReceiver,
    /// Rule 16: members that still hear P promise too.
    QuickNeedsLoss,
    /// Rule 16: P does not re-assert its term.
    Reassert,
    /// Rule 18: a pod that is to end stops although its successor does not stream yet.
    StopWaitsForStream,
    /// Rules 4 and 18: who has caught up waits for the next renewal until it is in the cohort.
    JoinersAreWrittenAtOnce,
    /// Rule 18: a pod that is to end stops although somebody streams that it has not heard of.
    StrangersAreWaitedFor,
    /// Rule 18: L is released before the successor has everything.
    HandoverWaitsForSuccessor,
    /// Rule 18: PostgreSQL starts again although a release may still be applied.
    ReleaseStaysStopped,
    /// Rule 18: the successor does not check that it has the final LSN.
    SuccessorVerifies,
    /// Rule 19: the Lease is handed on while processes of the data directory are left.
    CrashAllGone,
    /// Rule 19: without a quorum a successor that lacks WAL takes over.
    CrashSuccessorHasAll,
    /// Rule 22: a diverged instance follows without a rewind.
    RejoinRewinds,
    /// Rule 22: an instance in the middle of a rewind or clone promises.
    RejoiningPromisesNothing,
    /// Rule 21: a fenced instance runs for the Lease.
    FencedStaysDown,
}
