//! Who is who.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text! {
    /// Name of an Instance object, which is the name of its pod.
    InstanceName
}
text! {
    /// Random id made with a data directory: a new volume under an old name is somebody else.
    Incarnation
}
text! {
    /// `metadata.uid` of a pod.
    PodUid
}
text! {
    /// Id of a container's life, made by the keeper: a process cannot learn the runtime's.
    ContainerId
}

impl ContainerId {
    /// What stands before the id in the container's last words.
    const MARK: &str = "container ";

    /// What the keeper leaves in the file that kubelet reads when this very container ends
    /// (`terminationMessagePath`), with the reason of an end that was not asked for.
    #[must_use]
    pub fn last_words(&self, reason: Option<&str>) -> String {
        let mark = Self::MARK;
        reason.map_or_else(
            || format!("{mark}{}\n", self.0),
            |reason| format!("{mark}{}\n{reason}\n", self.0),
        )
    }

    /// The id out of the message that kubelet reports of a terminated container.
    #[must_use]
    pub fn from_last_words(message: &str) -> Option<Self> {
        let id = message.lines().find_map(|line| line.strip_prefix(Self::MARK))?.trim();
        (!id.is_empty()).then(|| Self(id.to_owned()))
    }
}

/// The Lease's `leaseTransitions`: grows whenever the right to write changes hands or is
/// re-asserted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Term(pub u64);

impl Term {
    /// Before the first holder.
    pub const ZERO: Self = Self(0);

    /// The following term.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `metadata.resourceVersion` of the Lease, as a number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Version(pub u64);

/// Where an instance can be reached: its pod's address, never a Service (traps H13).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// IP address.
    pub host: String,
    /// PostgreSQL's port.
    pub postgres_port: u16,
    /// The agent's port.
    pub agent_port: u16,
}

/// An instance as the others know it: an entry of the cohort or of the stragglers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Its name; TLS verifies this, not the address.
    pub name: InstanceName,
    /// The id of its data directory.
    pub incarnation: Incarnation,
    /// Where it was last known to be.
    pub address: Address,
}
