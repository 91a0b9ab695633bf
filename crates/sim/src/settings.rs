//! What a world is like: fixed by the seed, or by a named schedule.

use matriarch_plan::protocol::{Span, Synchronous};

use crate::{Micros, SECOND, random::Random};

/// How commits wait for standbys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Asynchronous,
    /// `preferred`, at most so many standbys.
    Preferred(u32),
    /// `required`, so many standbys.
    Required(u32),
}

impl Mode {
    pub(crate) fn synchronous(self) -> Option<Synchronous> {
        let (number, required) = match self {
            Self::Asynchronous => return None,
            Self::Preferred(number) => (number, false),
            Self::Required(number) => (number, true),
        };
        Some(Synchronous { number, required, outside: Vec::new(), max_from_cluster: None })
    }
}

/// What is switched off in this run of the mutation check.
#[cfg(feature = "mutation")]
pub(crate) type Mutant = Option<matriarch_plan::protocol::Mutation>;

/// A rule of the model of PostgreSQL, or of how the agent sets it up, that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelMutant {
    /// A standby acknowledges before it has flushed.
    AcknowledgesBeforeFlush,
    /// A standby streams without a slot, so that it can have two walsenders.
    StreamsWithoutSlot,
    /// The EndpointSlice is written whatever its version is.
    PointsWithoutVersion,
}

/// The cluster of a world.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) instances: usize,
    pub(crate) mode: Mode,
    pub(crate) maximum_lag: Option<u64>,
    pub(crate) failsafe_max: Span,
    pub(crate) promotion: Span,
    /// What the model of PostgreSQL does wrongly.
    pub(crate) model_mutant: Option<ModelMutant>,
    #[cfg(feature = "mutation")]
    pub(crate) mutation: Mutant,
}

impl Settings {
    pub(crate) fn new(instances: usize, mode: Mode) -> Self {
        Self {
            instances,
            mode,
            maximum_lag: Some(1 << 20),
            failsafe_max: Span::seconds(600),
            promotion: Span::seconds(60),
            model_mutant: None,
            #[cfg(feature = "mutation")]
            mutation: None,
        }
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let instances = *[2, 3, 3, 3, 3, 4, 5].get(random.index(7)).unwrap_or(&3);
        let most = u64::try_from(instances).unwrap_or(3) - 1;
        let number = u32::try_from(random.between(1, most.min(2))).unwrap_or(1);
        let mode = match random.below(10) {
            0..=3 => Mode::Asynchronous,
            4..=7 => Mode::Required(number),
            _ => Mode::Preferred(number),
        };
        let mut settings = Self::new(instances, mode);
        if random.chance(250) {
            settings.failsafe_max = Span::seconds(random.between(20, 90));
        }
        if random.chance(150) {
            settings.maximum_lag = None;
        }
        settings
    }
}

/// How often what goes wrong in a world; each seed draws its own.
#[derive(Clone, Debug)]
pub(crate) struct Swarm {
    /// Longest time between two writes of one client, in milliseconds.
    pub(crate) write_interval: u64,
    /// Per mille of writes that are large.
    pub(crate) large_writes: u64,
    /// Per mille of runs of PostgreSQL whose replay lags.
    pub(crate) replay_lag: u64,
    /// Per mille of watch events that are delivered at all.
    pub(crate) watches: u64,
    /// Per mille of what is sent to the API during a cut that arrives once it is over.
    pub(crate) kept: u64,
    /// Per mille of changes of names that take effect and are reported as failed.
    pub(crate) broken_sessions: u64,
    /// Time between faults.
    pub(crate) pause: (Micros, Micros),
    /// Weights of the kinds of fault, in the order of `faults::KINDS`.
    pub(crate) weights: Vec<u64>,
    /// Length of the safety phase.
    pub(crate) safety: Micros,
}

impl Swarm {
    /// Nothing goes wrong by itself.
    pub(crate) fn quiet() -> Self {
        Self {
            write_interval: 300,
            large_writes: 5,
            replay_lag: 0,
            watches: 1000,
            kept: 0,
            broken_sessions: 0,
            pause: (u64::MAX / 4, u64::MAX / 4),
            weights: Vec::new(),
            safety: 120 * SECOND,
        }
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let weights = (0..crate::faults::KINDS.len())
            .map(|_| if random.chance(450) { 0 } else { random.between(1, 10) })
            .collect();
        let shortest = random.between(1, 20);
        Self {
            write_interval: random.between(300, 1500),
            large_writes: random.pick(&[0, 5, 30]).unwrap_or(0),
            replay_lag: random.pick(&[0, 100, 500]).unwrap_or(0),
            watches: random.pick(&[0, 500, 1000, 1000]).unwrap_or(0),
            kept: random.pick(&[0, 300]).unwrap_or(0),
            broken_sessions: random.pick(&[0, 0, 50]).unwrap_or(0),
            pause: (shortest * SECOND, (shortest + random.between(5, 60)) * SECOND),
            weights,
            safety: random.between(590, 640) * SECOND,
        }
    }
}
