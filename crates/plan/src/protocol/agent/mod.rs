//! One instance's part in the protocol.
//!
//! [`Protocol::on`] takes a fact in (`absorb`) and then looks at everything it knows (`decide`):
//! what is to be done follows from the state, not from the event, so a fact that comes twice, late
//! or in another order leads to the same end. Each concern is one file.

mod api;
mod candidate;
mod crash;
mod failsafe;
mod follow;
mod handover;
mod history;
mod holder;
mod peers;
mod promise;
mod restore;
mod status;
mod synchronous;

use std::collections::BTreeMap;

use matriarch_pg::Lsn;

use super::command::{Action, Command, OperationId, ReplyToken, RequestId, Right};
use super::directive::{Config, Directive, Timing};
use super::event::{Event, Observation, Outcome, PostgresState, Termination};
use super::identity::{Incarnation, InstanceName, Member, Term};
use super::ledger::Ledger;
use super::message::Question;
use super::moment::{Moment, Span};
use super::position::{History, Position};
use super::view::{Counts, HumanOption, Unique, Waiting, WishOutcome};

use api::Api;
use candidate::{Candidacy, Suspicion};
use holder::Holding;
use peers::Peers;
use restore::Restoration;

/// True unless this clause is switched off by the mutation check.
macro_rules! clause {
    ($protocol:expr, $clause:ident) => {{
        #[cfg(feature = "mutation")]
        {
            $protocol.config.mutation != Some($crate::protocol::mutation::Mutation::$clause)
        }
        #[cfg(not(feature = "mutation"))]
        {
            let _ = &$protocol;
            $crate::protocol::agent::holds(stringify!($clause))
        }
    }};
}
pub(crate) use clause;

/// Every clause holds outside the mutation check. Named, so that two clauses are two expressions.
#[cfg(not(feature = "mutation"))]
pub(crate) const fn holds(_clause: &'static str) -> bool {
    true
}

/// What failed is not begun again sooner: PostgreSQL without a free connection, say, would be asked
/// for one without a pause.
const AGAIN: Span = Span::millis(250);

/// What the instance is doing.
#[derive(Clone, Debug)]
enum Duty {
    /// Follows, waits, or has nothing yet.
    Standby,
    /// Runs for the Lease.
    Candidate(Box<Candidacy>),
    /// Holds the Lease, as far as it knows.
    Holder(Box<Holding>),
    /// Its right has ended: PostgreSQL is being stopped.
    Retiring,
    /// Makes an absent or damaged Lease anew.
    Restoring(Box<Restoration>),
}

/// An operation under way.
#[derive(Clone, Debug)]
struct Operation {
    action: Action,
}

/// Operations of one lane exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Server,
    Names,
    Checkpoint,
    Service,
}

/// A question that is answered once the walreceiver has stopped.
#[derive(Clone, Debug)]
struct PendingReply {
    token: ReplyToken,
    until: Moment,
    term: Term,
}

/// The holder's word that the Lease is ours (rule 18).
#[derive(Clone, Debug)]
struct Word {
    term: Term,
    from: Incarnation,
    lsn: Lsn,
    at: Moment,
}

/// One instance's part in the protocol: a state machine without clock, chance or I/O.
#[derive(Clone, Debug)]
pub struct Protocol {
    config: Config,
    directive: Option<Directive>,
    ledger: Ledger,
    api: Api,
    peers: Peers,
    pg: Option<Observation>,
    operations: BTreeMap<OperationId, Operation>,
    duty: Duty,
    right: Option<Right>,
    armed: bool,
    no_run_before: Moment,
    heard: Moment,
    receiver_paused_until: Moment,
    /// The pause is for positions under this term: a holder of a higher one has ended the election.
    receiver_paused_term: super::Term,
    replies: Vec<PendingReply>,
    word: Option<Word>,
    termination: Option<(Termination, Moment)>,
    suspicion: Option<Suspicion>,
    /// The term that it gave up because it could not be promoted, and when.
    surrendered: Option<(Term, Moment)>,
    retry_at: Moment,
    /// What failed last in each lane, and when it may be begun again.
    failed: BTreeMap<Lane, (Action, Moment)>,
    failures: u32,
    failure: Option<String>,
    /// Why its last candidacy ended without the Lease.
    stood_down: Option<Waiting>,
    waiting: Option<Waiting>,
    human: Vec<HumanOption>,
    switchover: Option<WishOutcome>,
    restarted: Option<WishOutcome>,
    /// Id of the restart in place that is under way.
    restarting: Option<String>,
    unique: Option<Unique>,
    /// Whom the walreceiver follows, as far as this process has set it.
    follows: Option<Option<Member>>,
    /// History of the source of the rewind or clone under way.
    source_history: Option<History>,
    counts: Counts,
    next_id: u64,
    now: Moment,
    out: Vec<Command>,
}

impl Protocol {
    /// A process begins: with the ledger that the data volume holds (a new one if none was ever
    /// written), at this moment. The driver holds an fcntl lock on the volume before (rule 8).
    pub fn new(config: Config, ledger: Ledger, now: Moment) -> Self {
        let vouched = ledger.vouched.is_some();
        let duration = ledger.lease.as_ref().map_or(Timing::default().duration, |l| l.1.duration);
        let mut protocol = Self {
            directive: None,
            ledger,
            api: Api::new(now),
            peers: Peers::default(),
            pg: None,
            operations: BTreeMap::new(),
            duty: Duty::Standby,
            right: None,
            // A process before this one may have told the keeper of a right.
            armed: true,
            no_run_before: Moment::default(),
            heard: now,
            receiver_paused_until: now,
            failed: BTreeMap::new(),
            receiver_paused_term: super::Term::ZERO,
            replies: Vec::new(),
            word: None,
            termination: None,
            suspicion: None,
            surrendered: None,
            retry_at: now,
            failures: 0,
            failure: None,
            stood_down: None,
            waiting: None,
            human: Vec::new(),
            switchover: None,
            restarted: None,
            restarting: None,
            unique: None,
            follows: None,
            source_history: None,
            counts: Counts::default(),
            next_id: 1,
            now,
            out: Vec::new(),
            config,
        };
        // Rule 3: it may have vouched for the holder just before the restart.
        if vouched && clause!(protocol, VouchSurvivesRestart) {
            protocol.no_run_before = now + duration;
        }
        protocol
    }

    /// Takes a fact in and says what to do, in this order.
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Command> {
        self.now = self.now.max(now);
        self.absorb(event);
        self.decide();
        std::mem::take(&mut self.out)
    }

    fn absorb(&mut self, event: Event) {
        match event {
            Event::Tick => {}
            Event::Directive(directive) => {
                self.peers.know(&self.config.name, &directive.members);
                self.directive = Some(*directive);
            }
            Event::LeaseRead { request, reading } => self.lease_read(request, reading),
            Event::LeaseWritten { request, writing } => self.lease_written(request, writing),
            Event::Answered { request, answer } => self.answered(request, Some(&answer)),
            Event::Unanswered { request } => self.answered(request, None),
            Event::Asked { token, from, question } => self.asked(token, &from, question),
            Event::Observed(observation) => self.observed(*observation),
            Event::Finished { operation, outcome } => self.finished(operation, &outcome),
            Event::Terminating(how) => {
                self.termination.get_or_insert((how, self.now));
            }
        }
    }

    fn decide(&mut self) {
        self.waiting = None;
        if let Some(message) = self.failure.clone().filter(|_| self.now < self.retry_at) {
            self.waiting = Some(Waiting::Retry { message, at: self.retry_at });
        }
        self.human.clear();
        self.know_timelines();
        self.poll_lease();
        self.poll_peers();
        self.answer_pending();
        if self.pg.is_none() {
            self.waiting = Some(Waiting::Observation);
            return;
        }
        match std::mem::replace(&mut self.duty, Duty::Standby) {
            Duty::Standby => self.decide_standby(),
            Duty::Candidate(candidacy) => self.decide_candidate(candidacy),
            Duty::Holder(holding) => self.decide_holder(holding),
            Duty::Retiring => self.decide_retiring(),
            Duty::Restoring(restoration) => self.decide_restoring(restoration),
        }
    }

    fn observed(&mut self, observation: Observation) {
        if let super::event::Receiver::Streaming { silent } = observation.receiver {
            let heard = Moment(self.now.0.saturating_sub(silent.0));
            self.heard = self.heard.max(heard);
        }
        if self.ledger.system_id.is_none() && observation.system_id.is_some() {
            self.ledger.system_id = observation.system_id;
        }
        self.pg = Some(observation);
        self.adopt_promotion();
    }

    fn finished(&mut self, operation: OperationId, outcome: &Outcome) {
        let Some(done) = self.operations.remove(&operation) else { return };
        let failed = match outcome {
            Outcome::Failed { message } => Some(message.clone()),
            Outcome::Done | Outcome::NewDirectory { .. } | Outcome::Superseded => None,
        };
        let lane = lane(&done.action);
        // The walreceiver is to end for as long as an election lasts, and PostgreSQL may be starting.
        let of_server =
            lane == Lane::Server && !matches!(done.action, Action::Follow { member: None });
        if let Some(message) = failed {
            self.failed.insert(lane, (done.action.clone(), self.now + AGAIN));
            if of_server {
                self.failures = self.failures.saturating_add(1);
                let pause = Span::millis(250).times(1 << self.failures.min(7)).0.min(30_000);
                self.retry_at = self.now + Span::millis(pause);
                self.failure = Some(message);
            }
        } else if *outcome != Outcome::Superseded {
            self.failed.remove(&lane);
            self.unpointed(&done.action);
            if of_server {
                self.failures = 0;
                self.failure = None;
            }
        }
        match &mut self.duty {
            Duty::Holder(holding) => holding.finished(&done.action, outcome, self.now),
            Duty::Standby | Duty::Candidate(_) | Duty::Retiring | Duty::Restoring(_) => {}
        }
        self.restart_finished(&done.action, outcome);
        self.rejoin_finished(&done.action, outcome);
    }

    /// The restart in place that is wished for and neither done nor under way.
    fn wished_restart(&self) -> Option<String> {
        let id = self.directive.as_ref()?.restart.as_ref()?;
        let done = self.restarted.as_ref().is_some_and(|outcome| outcome.id == *id);
        (!done && self.restarting.as_ref() != Some(id)).then(|| id.clone())
    }

    /// A restart is done when PostgreSQL is there again, and begins anew if it could not stop.
    fn restart_finished(&mut self, action: &Action, outcome: &Outcome) {
        let done = *outcome == Outcome::Done;
        match action {
            Action::StartPrimary { .. } | Action::StartStandby { .. } if done => {
                if let Some(id) = self.restarting.take() {
                    self.restarted = Some(WishOutcome { id, refused: None });
                }
            }
            Action::Stop { .. } if !done => self.restarting = None,
            Action::Stop { .. }
            | Action::StartPrimary { .. }
            | Action::StartStandby { .. }
            | Action::Initialize
            | Action::Clone { .. }
            | Action::Follow { .. }
            | Action::Checkpoint
            | Action::Promote { .. }
            | Action::SetNames { .. }
            | Action::Rewind { .. }
            | Action::PointService { .. }
            | Action::UnpointService { .. } => {}
        }
    }

    // ---- what everything else is made of ----

    /// Begins an operation, unless one of its lane is under way or it has failed just now; a stop
    /// supersedes what runs.
    fn run(&mut self, action: Action) -> bool {
        let lane = lane(&action);
        if matches!(action, Action::Stop { .. }) {
            if self.operations.values().any(|o| o.action == action) {
                return false;
            }
            self.operations.retain(|_, o| self::lane(&o.action) != Lane::Server);
        } else if self.busy(lane)
            || self.failed.get(&lane).is_some_and(|(what, at)| *what == action && self.now < *at)
        {
            return false;
        }
        self.next_id += 1;
        let operation = OperationId(self.next_id);
        self.operations.insert(operation, Operation { action: action.clone() });
        self.out.push(Command::Run { operation, action });
        true
    }

    fn busy(&self, lane: Lane) -> bool {
        self.operations.values().any(|o| self::lane(&o.action) == lane)
    }

    fn stopping(&self) -> bool {
        self.operations.values().any(|o| matches!(o.action, Action::Stop { .. }))
    }

    fn request(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    /// Writes the ledger; durable before whatever is said after it.
    fn save(&mut self) {
        self.ledger.sequence += 1;
        self.out.push(Command::WriteLedger(Box::new(self.ledger.clone())));
    }

    /// Takes over a right and tells the keeper.
    fn arm(&mut self, right: Right) {
        self.right = Some(right);
        self.armed = true;
        if clause!(self, RightEnds) {
            self.out.push(Command::Arm(Some(right)));
        } else {
            self.out.push(Command::Arm(None));
        }
    }

    /// No right any more, and PostgreSQL is no primary: the keeper need not watch it.
    fn disarm(&mut self) {
        self.right = None;
        if self.armed {
            self.armed = false;
            self.out.push(Command::Arm(None));
        }
    }

    fn right_lasts(&self) -> bool {
        self.right.is_some_and(|right| self.now < right.quit_at())
    }

    fn me(&self) -> Incarnation {
        self.ledger.incarnation.clone().unwrap_or_default()
    }

    fn member(&self) -> Member {
        Member {
            name: self.config.name.clone(),
            incarnation: self.me(),
            address: self.config.address.clone(),
        }
    }

    fn timing(&self) -> Timing {
        self.directive.as_ref().map_or_else(Timing::default, |d| d.timing)
    }

    fn state(&self) -> PostgresState {
        self.pg.as_ref().map_or(PostgresState::Unknown, |pg| pg.state)
    }

    fn flushed(&self) -> Lsn {
        self.pg.as_ref().and_then(|pg| pg.flushed).unwrap_or(Lsn::INVALID)
    }

    fn history(&self) -> History {
        self.ledger.history.realised(self.flushed())
    }

    fn position(&self) -> Position {
        self.ledger.history.position(self.flushed())
    }

    /// Nobody's successor: barred, or leaving.
    fn unfit(&self) -> bool {
        self.leaving() || self.barred()
    }

    /// Fenced, excluded, delayed or to end: no candidate.
    fn barred(&self) -> bool {
        self.directive
            .as_ref()
            .is_some_and(|d| d.fenced || d.excluded || d.delayed || d.cluster_gone)
            || self.termination.is_some()
    }

    /// It is to be removed: a candidate only where nobody who stays has what it has.
    fn leaving(&self) -> bool {
        self.directive.as_ref().is_some_and(|d| d.leaving)
    }

    fn fenced(&self) -> bool {
        self.directive.as_ref().is_some_and(|d| d.fenced)
    }

    /// Less than one in `range` of pseudo-random milliseconds, from the seed and the counter.
    fn jitter(&mut self, range: u64) -> Span {
        self.next_id += 1;
        let mut x = self.config.seed ^ self.next_id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Span::millis((x ^ (x >> 31)) % range.max(1))
    }

    /// Sends a question.
    fn ask(&mut self, to: &InstanceName, question: Question, limit: Span) -> Option<RequestId> {
        let address = self.address_of(to)?;
        let request = self.request();
        self.out.push(Command::Ask { request, to: to.clone(), address, question, limit });
        Some(request)
    }
}

fn lane(action: &Action) -> Lane {
    match action {
        Action::Initialize
        | Action::StartPrimary { .. }
        | Action::StartStandby { .. }
        | Action::Follow { .. }
        | Action::Stop { .. }
        | Action::Promote { .. }
        | Action::Rewind { .. }
        | Action::Clone { .. } => Lane::Server,
        Action::SetNames { .. } => Lane::Names,
        Action::Checkpoint => Lane::Checkpoint,
        Action::PointService { .. } | Action::UnpointService { .. } => Lane::Service,
    }
}
