//! One instance's part in the protocol.

use super::command::{Command, RequestId};
use super::directive::{Config, Directive};
use super::event::{Event, Observation};
use super::ledger::Ledger;
use super::moment::{Moment, Span};
use super::view::View;

/// How often the Lease is read.
const LEASE_POLL: Span = Span::seconds(1);

/// One instance's part in the protocol: a state machine without clock, chance or I/O.
#[derive(Clone, Debug)]
pub struct Protocol {
    config: Config,
    directive: Option<Directive>,
    ledger: Ledger,
    pg: Option<Observation>,
    next_read: Moment,
    next_id: u64,
}

impl Protocol {
    /// A process begins: with the ledger that the data volume holds (a new one if none was ever
    /// written), at this moment. The driver holds an fcntl lock on the volume before (rule 8).
    pub fn new(config: Config, ledger: Ledger, now: Moment) -> Self {
        Self { config, directive: None, ledger, pg: None, next_read: now, next_id: 1 }
    }

    /// Takes a fact in and says what to do, in this order.
    pub fn on(&mut self, event: Event, now: Moment) -> Vec<Command> {
        match event {
            Event::Directive(directive) => self.directive = Some(*directive),
            Event::Observed(observation) => self.pg = Some(*observation),
            Event::Tick
            | Event::LeaseRead { .. }
            | Event::LeaseWritten { .. }
            | Event::Answered { .. }
            | Event::Unanswered { .. }
            | Event::Asked { .. }
            | Event::Finished { .. }
            | Event::Terminating(_) => {}
        }
        if now < self.next_read {
            return Vec::new();
        }
        self.next_read = now + LEASE_POLL;
        self.next_id += 1;
        vec![Command::ReadLease { request: RequestId(self.next_id) }]
    }

    /// When [`Event::Tick`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Moment, &'static str)> {
        Some((self.next_read, "read the Lease"))
    }

    /// The durable memory as last said to be written.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What status shows.
    pub fn view(&self) -> View {
        View {
            incarnation: self.ledger.incarnation.clone(),
            term: self.ledger.term,
            history: self.ledger.history.clone(),
            ..View::default()
        }
    }

    /// Who this is.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
