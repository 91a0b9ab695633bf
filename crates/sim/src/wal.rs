//! What write-ahead logs hold, for every copy in the world at once.
//!
//! A *branch* is the WAL that one data directory wrote as primary since its promotion (or since
//! initdb). Only one directory ever writes on a branch, so (branch, LSN) names content: two copies
//! that stand at the same pair are equal up to it, whatever timeline numbers they show.

/// Which branch; an index into [`Wal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Branch(pub(crate) usize);

/// Which client write; unique in a world, 0 is none.
pub(crate) type Commit = u64;

/// The end of some copy's WAL: content, not numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) branch: Branch,
    pub(crate) lsn: u64,
}

#[derive(Clone, Debug)]
struct BranchWal {
    parent: Option<Place>,
    timeline: u32,
    end: u64,
    /// The directory that writes on it.
    owner: u64,
}

/// All branches of a world.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wal {
    branches: Vec<BranchWal>,
}

impl Wal {
    /// A new branch from `parent` (none: initdb) under a timeline number, written by directory `owner`.
    pub(crate) fn fork(&mut self, parent: Option<Place>, timeline: u32, owner: u64) -> Branch {
        let end = parent.map_or(0, |at| at.lsn);
        let parent = parent.map(|at| self.settle(at));
        self.branches.push(BranchWal { parent, timeline, end, owner });
        Branch(self.branches.len() - 1)
    }

    fn of(&self, branch: Branch) -> &BranchWal {
        &self.branches[branch.0]
    }

    pub(crate) fn owner(&self, branch: Branch) -> u64 {
        self.of(branch).owner
    }

    pub(crate) fn timeline(&self, branch: Branch) -> u32 {
        self.of(branch).timeline
    }

    /// Where the branch begins; 0 for the first one.
    pub(crate) fn start(&self, branch: Branch) -> u64 {
        self.of(branch).parent.map_or(0, |at| at.lsn)
    }

    /// Appends a record of `length` bytes and returns its end.
    pub(crate) fn append(&mut self, branch: Branch, length: u64) -> u64 {
        let wal = &mut self.branches[branch.0];
        wal.end += length.max(1);
        wal.end
    }

    /// The machine lost what was not flushed: the branch ends at `lsn` again.
    pub(crate) fn truncate(&mut self, branch: Branch, lsn: u64) {
        let start = self.start(branch);
        let wal = &mut self.branches[branch.0];
        wal.end = wal.end.min(lsn.max(start));
    }

    /// The same content under the branch that wrote its last byte: a place at the very start of a
    /// branch belongs to the parent.
    pub(crate) fn settle(&self, place: Place) -> Place {
        let mut at = place;
        while let Some(parent) = self.of(at.branch).parent {
            if at.lsn > parent.lsn {
                break;
            }
            at = Place { branch: parent.branch, lsn: at.lsn };
        }
        at
    }

    /// Does a copy that ends at `have` hold everything up to `want`?
    pub(crate) fn holds(&self, have: Place, want: Place) -> bool {
        let want = self.settle(want);
        let mut at = have;
        loop {
            if at.branch == want.branch {
                return want.lsn <= at.lsn;
            }
            match self.of(at.branch).parent {
                Some(parent) => {
                    at = Place { branch: parent.branch, lsn: parent.lsn.min(at.lsn) };
                }
                None => return false,
            }
        }
    }

    /// Timeline numbers of a branch's past with the LSN where each begins, oldest first.
    pub(crate) fn history(&self, branch: Branch) -> Vec<(u32, u64)> {
        let mut steps = vec![(self.timeline(branch), self.start(branch))];
        let mut at = branch;
        while let Some(parent) = self.of(at).parent {
            steps.push((self.timeline(parent.branch), self.start(parent.branch)));
            at = parent.branch;
        }
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (Wal, Branch, Branch, Branch) {
        let mut wal = Wal::default();
        let first = wal.fork(None, 1, 1);
        for _ in 1..=10 {
            wal.append(first, 10);
        }
        let left = wal.fork(Some(Place { branch: first, lsn: 60 }), 2, 2);
        let right = wal.fork(Some(Place { branch: first, lsn: 80 }), 2, 3);
        wal.append(left, 10);
        wal.append(right, 10);
        (wal, first, left, right)
    }

    #[test]
    fn a_copy_holds_its_parents_up_to_the_fork_only() {
        let (wal, first, left, right) = world();
        let left_end = Place { branch: left, lsn: 70 };
        assert!(wal.holds(left_end, Place { branch: first, lsn: 60 }));
        assert!(!wal.holds(left_end, Place { branch: first, lsn: 61 }));
        assert!(!wal.holds(left_end, Place { branch: right, lsn: 81 }));
    }

    #[test]
    fn equal_timeline_numbers_are_not_equal_content() {
        let (wal, _, left, right) = world();
        assert_eq!(wal.timeline(left), wal.timeline(right));
        assert!(
            !wal.holds(Place { branch: left, lsn: 70 }, Place { branch: right, lsn: 85 }),
            "the numbers agree, the content does not"
        );
    }

    #[test]
    fn a_place_at_the_start_of_a_branch_belongs_to_its_parent() {
        let (wal, first, left, _) = world();
        assert_eq!(wal.settle(Place { branch: left, lsn: 60 }), Place { branch: first, lsn: 60 });
    }

    #[test]
    fn a_power_loss_takes_commits_away() {
        let (mut wal, first, _, _) = world();
        wal.truncate(first, 95);
        assert_eq!(wal.append(first, 10), 105, "it is written anew from there");
    }
}
