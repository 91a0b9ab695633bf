//! Whose the timelines are that its WAL lies on (rules 10 and 13).

use matriarch_pg::{Lsn, TimelineId};

use crate::protocol::event::PostgresState;
use crate::protocol::lease::Lease;
use crate::protocol::ledger::LastRole;
use crate::protocol::position::History;

use super::{Lane, Protocol, clause};

impl Protocol {
    /// Gives the timelines that a promotion of ours began their term (rule 13), also when the agent
    /// was replaced in between or has to follow another since (seed 10009: the data was on a timeline
    /// that the ledger did not know). A promotion that was cut off may have left one before the last,
    /// which begins earlier (seed 6292: a standby that had gone beyond that fork was taken for one
    /// that can follow).
    pub(super) fn adopt_promotion(&mut self) {
        let (Some(pg), Some(term)) = (&self.pg, self.ledger.promoting) else { return };
        if !pg.knows_timelines() {
            return;
        }
        let ended = match pg.state {
            PostgresState::Primary => true,
            PostgresState::Stopped { .. } | PostgresState::Standby => {
                self.ledger.role == LastRole::Standby && !self.busy(Lane::Server)
            }
            PostgresState::Unknown
            | PostgresState::Empty
            | PostgresState::Dying
            | PostgresState::Starting
            | PostgresState::Stopping => return,
        };
        let me = self.me();
        let begun = self.ledger.history.missing(&pg.timelines).to_vec();
        if begun.is_empty() && !ended {
            return;
        }
        for (timeline, begins) in begun {
            self.ledger.history.promote(timeline, term, begins, me.clone());
        }
        if ended {
            self.ledger.promoting = None;
        }
        self.save();
    }

    /// Its WAL lies on a timeline of which it does not know who began it.
    pub(super) fn on_unknown_timeline(&self) -> bool {
        self.ledger.promoting.is_none()
            && self.pg.as_ref().is_some_and(|pg| {
                pg.knows_timelines() && !self.ledger.history.missing(&pg.timelines).is_empty()
            })
            && clause!(self, TimelinesAreKnown)
    }

    /// A walreceiver that lost its connection makes a new one by itself, and goes on with whatever
    /// timeline it finds there: the source was promoted again meanwhile, or follows another. What it
    /// flushes is acknowledged, and a position by the old history would hide that (seed 13898).
    pub(super) fn know_timelines(&mut self) {
        if !self.on_unknown_timeline() || self.ledger.rejoining {
            return;
        }
        let Some(pg) = &self.pg else { return };
        let last = self.ledger.lease.as_ref().map(|(_, last)| last);
        let told = self.api.lease.iter().chain(last).map(|l| self.history_told(l, &pg.timelines));
        let peers = self.fresh().map(|(_, status)| status.history.clone());
        let found = told.chain(peers).find(|it| it.missing(&pg.timelines).is_empty());
        if let Some(history) = found {
            self.ledger.history = history;
            self.save();
        }
    }

    /// The history that L tells. Between the swap and the promotion that is the holder's before it;
    /// what follows on it is the holder's, if it was received from there.
    fn history_told(&self, lease: &Lease, timelines: &[(TimelineId, Lsn)]) -> History {
        let mut history = lease.history.clone();
        let holder = lease.holder.as_ref().map(|holder| &holder.incarnation);
        let followed = self.followed().map(|member| member.incarnation);
        if let Some(by) =
            holder.filter(|by| !lease.history_published && followed.as_ref() == Some(by))
        {
            for &(timeline, begins) in lease.history.missing(timelines) {
                history.promote(timeline, lease.term, begins, by.clone());
            }
        }
        history
    }
}
