//! A fact and how well it is known.

use serde::{Deserialize, Serialize};

/// A fact as one pass sees it. All facts of a pass are read at its beginning; `World::now` is when.
///
/// "I cannot see X" read as "X is dead", "X is ready" or "X has lag 0" is the commonest bug of
/// operators (reliability.md §1.5), so no conversion to `Option` treats all cases alike: a rule
/// says with [`Seen::known`], [`Seen::is_absent`] or [`Seen::last`] which of them it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seen<T> {
    /// Read in this pass.
    Known(T),
    /// Read in this pass, but it speaks of the past (a report of an agent whose pod is gone).
    Stale(T),
    /// Proved not to be there: the API server answered, and it was not among the answers.
    Absent,
    /// Could not be read.
    Unknown {
        /// Why not, for a person.
        why: String,
    },
}

impl<T> Seen<T> {
    /// The same knowledge of what follows from the fact.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Seen<U> {
        match self {
            Self::Known(value) => Seen::Known(change(value)),
            Self::Stale(value) => Seen::Stale(change(value)),
            Self::Absent => Seen::Absent,
            Self::Unknown { why } => Seen::Unknown { why },
        }
    }

    /// The fact, only if it is of now.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Stale(_) | Self::Absent | Self::Unknown { .. } => None,
        }
    }

    /// The fact, of now or of the past: for display and for choices that only make things safer.
    pub fn last(&self) -> Option<&T> {
        match self {
            Self::Known(value) | Self::Stale(value) => Some(value),
            Self::Absent | Self::Unknown { .. } => None,
        }
    }

    /// True only if it is proved not to be there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// True if it could not be read.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}
