//! Positions and histories, by term and not by timeline number.
//!
//! Two instances that promote without having seen each other take the same timeline number, so a
//! number proves nothing; the term in which a branch of history began does.

use matriarch_pg::{Lsn, TimelineId};
use serde::{Deserialize, Serialize};

use super::identity::{Incarnation, Term};

/// Where an instance's last flushed record lies; ordered by term first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Term in which the branch that holds the last flushed record began.
    pub term: Term,
    /// End of that record.
    pub lsn: Lsn,
}

impl Default for Position {
    fn default() -> Self {
        Self { term: Term::ZERO, lsn: Lsn::INVALID }
    }
}

/// One timeline of a history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Branch {
    /// PostgreSQL's number.
    pub timeline: TimelineId,
    /// Term in which the promotion that began it was decided.
    pub term: Term,
    /// Where it leaves its parent.
    pub begins: Lsn,
    /// Who was promoted. A Lease that somebody took back to an older state may give one term to
    /// two instances, and both may begin at the same place.
    pub by: Incarnation,
}

/// The timelines that lead to an instance's WAL, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(pub Vec<Branch>);

/// How one history lies to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kinship {
    /// All that it has lies on the other: it can follow.
    OnIt,
    /// It has records that the other does not; they share what ends at this position.
    Left(Lsn),
    /// Nothing in common is known.
    Unrelated,
}

impl History {
    /// Branches kept at most: history before them ended long before any WAL that is still kept.
    pub const KEPT: usize = 64;

    /// The history of a database just made in this term.
    pub fn root(term: Term, by: Incarnation) -> Self {
        Self(vec![Branch { timeline: TimelineId::FIRST, term, begins: Lsn::INVALID, by }])
    }

    /// The newest branch.
    pub fn last(&self) -> Option<&Branch> {
        self.0.last()
    }

    /// The greatest timeline number in it.
    pub fn greatest_timeline(&self) -> TimelineId {
        self.0.iter().map(|b| b.timeline).max().unwrap_or(TimelineId::FIRST)
    }

    /// Those of `timelines` (oldest first, each with where it begins) that follow the last one that
    /// this history knows.
    pub fn missing<'a>(&self, timelines: &'a [(TimelineId, Lsn)]) -> &'a [(TimelineId, Lsn)] {
        let knows = |it: &(TimelineId, Lsn)| {
            self.0.iter().any(|branch| branch.timeline == it.0 && branch.begins == it.1)
        };
        let known = timelines.iter().rposition(knows).map_or(0, |last| last + 1);
        timelines.get(known..).unwrap_or_default()
    }

    /// Adds a branch that leaves the present one at `begins`; what lies beyond is forgotten.
    pub fn promote(&mut self, timeline: TimelineId, term: Term, begins: Lsn, by: Incarnation) {
        self.0.retain(|b| b.begins <= begins && b.timeline != timeline);
        self.0.push(Branch { timeline, term, begins, by });
        if self.0.len() > Self::KEPT {
            let surplus = self.0.len() - Self::KEPT;
            self.0.drain(..surplus);
        }
    }

    /// The part of it that holds records up to `flushed`: branches that begin at or beyond it are
    /// where recovery aims, not what is there.
    pub fn realised(&self, flushed: Lsn) -> Self {
        Self(
            self.0
                .iter()
                .enumerate()
                .filter(|(i, b)| *i == 0 || b.begins < flushed)
                .map(|(_, b)| b.clone())
                .collect(),
        )
    }

    /// Position of an instance with this history that has flushed up to `flushed`.
    pub fn position(&self, flushed: Lsn) -> Position {
        let term = self
            .0
            .iter()
            .rev()
            .find(|b| b.begins < flushed)
            .or(self.0.first())
            .map_or(Term::ZERO, |b| b.term);
        Position { term, lsn: flushed }
    }

    /// How an instance with this history, flushed up to `flushed`, lies to `other` (rule 13).
    pub fn kinship(&self, flushed: Lsn, other: &Self) -> Kinship {
        let own = self.realised(flushed);
        let Some(start) = common_start(&own.0, &other.0) else { return Kinship::Unrelated };
        let (a, b) = (&own.0[start.0..], &other.0[start.1..]);
        let shared = a.iter().zip(b).take_while(|(x, y)| x == y).count();
        if shared == 0 {
            return Kinship::Unrelated;
        }
        let own_ends = a.get(shared).map_or(flushed, |b| b.begins);
        let other_ends = b.get(shared).map(|b| b.begins);
        match other_ends {
            None if a.len() == shared => Kinship::OnIt,
            None => Kinship::Left(own_ends),
            Some(fork) if a.len() == shared && flushed <= fork => Kinship::OnIt,
            Some(fork) => Kinship::Left(own_ends.min(fork)),
        }
    }

    /// True if the record that ends at `position` lies in this history, flushed up to `flushed`. No
    /// position at all, which the very first Lease shows, lies in every history.
    pub fn contains(&self, position: Position, flushed: Lsn) -> bool {
        if position == Position::default() {
            return true;
        }
        if position.lsn > flushed {
            return false;
        }
        self.position(position.lsn).term == position.term
    }
}

/// Where the two lists first agree on a branch: the oldest ones may have been dropped from either.
fn common_start(own: &[Branch], other: &[Branch]) -> Option<(usize, usize)> {
    own.iter().enumerate().find_map(|(i, b)| other.iter().position(|o| o == b).map(|j| (i, j)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(n: u32) -> TimelineId {
        TimelineId::new(n).unwrap()
    }

    fn history(branches: &[(u32, u64, u64)]) -> History {
        History(
            branches
                .iter()
                .map(|&(n, term, begins)| Branch {
                    timeline: timeline(n),
                    term: Term(term),
                    begins: Lsn(begins),
                    by: "i".into(),
                })
                .collect(),
        )
    }

    /// The holder of the very first Lease may not learn that its write was applied: rule 8 lets it
    /// go on at once, and its volume has not gone back.
    #[test]
    fn no_position_lies_in_every_history() {
        let history = History::root(Term(1), "i".into());
        assert!(history.contains(Position::default(), Lsn(0x0100_0028)));
        assert!(!history.contains(Position { term: Term(2), lsn: Lsn(5) }, Lsn(0x0100_0028)));
    }

    #[test]
    fn position_is_that_of_the_last_flushed_record_not_of_the_aim() {
        let h = history(&[(1, 1, 0), (2, 5, 1000)]);
        assert_eq!(h.position(Lsn(900)), Position { term: Term(1), lsn: Lsn(900) });
        assert_eq!(h.position(Lsn(1000)), Position { term: Term(1), lsn: Lsn(1000) });
        assert_eq!(h.position(Lsn(1001)), Position { term: Term(5), lsn: Lsn(1001) });
    }

    #[test]
    fn equal_numbers_of_different_terms_are_a_divergence() {
        let a = history(&[(1, 1, 0), (2, 5, 1000)]);
        let b = history(&[(1, 1, 0), (2, 6, 900)]);
        assert_eq!(a.kinship(Lsn(1100), &b), Kinship::Left(Lsn(900)));
        assert_eq!(a.kinship(Lsn(950), &b), Kinship::Left(Lsn(900)));
        assert_eq!(a.kinship(Lsn(900), &b), Kinship::OnIt);
        assert_eq!(b.kinship(Lsn(1100), &a), Kinship::Left(Lsn(900)));
    }

    #[test]
    fn two_promotions_of_one_term_at_one_place_are_a_divergence() {
        let a = history(&[(1, 1, 0), (2, 5, 1000)]);
        let mut b = a.clone();
        b.0[1].by = "another".into();
        assert_eq!(a.kinship(Lsn(1100), &b), Kinship::Left(Lsn(1000)));
        assert_eq!(a.kinship(Lsn(1000), &b), Kinship::OnIt);
    }

    #[test]
    fn an_ancestor_follows_and_a_descendant_has_left() {
        let old = history(&[(1, 1, 0)]);
        let new = history(&[(1, 1, 0), (2, 5, 1000)]);
        assert_eq!(old.kinship(Lsn(1000), &new), Kinship::OnIt);
        assert_eq!(old.kinship(Lsn(1001), &new), Kinship::Left(Lsn(1000)));
        assert_eq!(new.kinship(Lsn(2000), &old), Kinship::Left(Lsn(1000)));
        assert_eq!(new.kinship(Lsn(2000), &new), Kinship::OnIt);
        assert_eq!(history(&[(1, 2, 0)]).kinship(Lsn(5), &old), Kinship::Unrelated);
    }

    /// Seed 6292: of two promotions in one term the first was cut off.
    #[test]
    fn what_a_cut_off_promotion_left_belongs_to_the_history() {
        let mut own = history(&[(1, 1, 0), (2, 5, 1000)]);
        let found = [(1, 0), (2, 1000), (3, 1500), (4, 1600)].map(|(n, at)| (timeline(n), Lsn(at)));
        assert_eq!(own.missing(&found), &found[2..]);
        assert_eq!(own.missing(&found[..2]), &[]);
        let standby = own.clone();
        for &(number, begins) in &found[2..] {
            own.promote(number, Term(6), begins, "i".into());
        }
        assert_eq!(own, history(&[(1, 1, 0), (2, 5, 1000), (3, 6, 1500), (4, 6, 1600)]));
        assert_eq!(standby.kinship(Lsn(1600), &own), Kinship::Left(Lsn(1500)));
        assert_eq!(standby.kinship(Lsn(1500), &own), Kinship::OnIt);
    }

    #[test]
    fn a_larger_lsn_on_another_history_contains_nothing() {
        let h = history(&[(1, 1, 0), (2, 6, 900)]);
        assert!(h.contains(Position { term: Term(1), lsn: Lsn(900) }, Lsn(5000)));
        assert!(!h.contains(Position { term: Term(1), lsn: Lsn(901) }, Lsn(5000)));
        assert!(!h.contains(Position { term: Term(6), lsn: Lsn(6000) }, Lsn(5000)));
    }
}
