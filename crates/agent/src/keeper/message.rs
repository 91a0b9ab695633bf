//! What keeper and agent say to each other: messages of one fixed size over a socket pair.
//!
//! The agent may be replaced by a newer or an older program while PostgreSQL and the keeper run on.
//! So this format only grows: an unknown kind is ignored, and the first message says what the keeper
//! speaks.

use std::time::Duration;

use matriarch_plan::protocol::{Moment, Right, Span};

/// What this version speaks. It grows when an agent needs more of its keeper than a message that may be
/// ignored: then the agent has the keeper re-executed (`renewal`).
pub const PROTOCOL: u8 = 1;

/// Bytes of every message.
pub const SIZE: usize = 32;

/// Time of `CLOCK_BOOTTIME`, in nanoseconds since the machine's start. Unlike the monotonic clock
/// it advances while a machine sleeps (traps H12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub u64);

impl BootTime {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Self(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// This much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }

    /// Time from `earlier` to this; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// As the protocol has it.
    #[must_use]
    pub fn moment(self) -> Moment {
        Moment(self.0 / 1_000_000)
    }
}

/// A duration in nanoseconds, at most what fits.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A signal that the agent may have sent to the postmaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostmasterSignal {
    /// Smart shutdown: waits for clients.
    Smart,
    /// Fast shutdown: ends clients.
    Fast,
    /// Immediate shutdown: crash recovery at the next start.
    Immediate,
    /// Reads the configuration anew.
    Reload,
    /// SIGUSR1: promotion or log rotation was asked for by a file.
    Wake,
}

impl PostmasterSignal {
    const ALL: [Self; 5] = [Self::Smart, Self::Fast, Self::Immediate, Self::Reload, Self::Wake];

    /// The signal.
    #[must_use]
    pub fn signal(self) -> rustix::process::Signal {
        match self {
            Self::Smart => rustix::process::Signal::TERM,
            Self::Fast => rustix::process::Signal::INT,
            Self::Immediate => rustix::process::Signal::QUIT,
            Self::Reload => rustix::process::Signal::HUP,
            Self::Wake => rustix::process::Signal::USR1,
        }
    }
}

/// What the agent asks of the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start PostgreSQL as the start file says.
    Start,
    /// Signal the postmaster, if it runs.
    Signal(PostmasterSignal),
    /// PostgreSQL may accept writes for as long as this right lasts; the times of rule 5 are
    /// counted from it.
    Arm(Right),
    /// PostgreSQL is no primary: no limit.
    Disarm,
    /// An immediate stop: SIGQUIT now, kill after `grace`.
    Fence {
        /// Time between SIGQUIT and the kill.
        grace: Duration,
    },
    /// The agent is alive. An agent that is silent for long is killed and started anew.
    Alive,
    /// The pod may end once PostgreSQL has stopped.
    Leave,
    /// The keeper is to become the program that the agent is.
    Renew,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(u8),
    /// It was killed by this signal.
    Signal(u8),
}

/// What the keeper tells the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// First message to every agent: how things stand.
    Hello {
        /// The running postmaster, 0 if none.
        postmaster: u32,
        /// The right that it has, if it has one.
        right: Option<Right>,
        /// The pod has been asked to end.
        terminating: bool,
        /// The keeper holds the lock on the data volume.
        locked: bool,
        /// What it speaks: [`PROTOCOL`] of its version.
        protocol: u8,
        /// It was asked to become another program, and could not.
        stays: bool,
        /// It goes on where another program was: a signal that came just then is lost.
        renewed: bool,
    },
    /// PostgreSQL was started.
    Started {
        /// Its postmaster.
        pid: u32,
    },
    /// PostgreSQL could not be started: an error number of the system, or [`NOT_LOCKED`],
    /// [`ALREADY_RUNNING`], [`BAD_START_FILE`].
    StartFailed {
        /// The number.
        error: u32,
    },
    /// The postmaster has ended, was reaped, and no process of its data directory is left.
    Exited {
        /// How.
        ending: Ending,
        /// The keeper's own doing (rule 5).
        by_rule_five: bool,
    },
    /// The pod is asked to end.
    Terminate,
}

/// [`Notice::StartFailed`]: another process holds the lock on the data volume.
pub const NOT_LOCKED: u32 = 1_000_001;
/// [`Notice::StartFailed`]: PostgreSQL, or a process of its data directory, is still there.
pub const ALREADY_RUNNING: u32 = 1_000_002;
/// [`Notice::StartFailed`]: the start file is unreadable.
pub const BAD_START_FILE: u32 = 1_000_003;

fn pack(kind: u8, detail: u8, flags: u8, a: u64, b: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[0] = kind;
    bytes[1] = detail;
    bytes[2] = flags;
    bytes[8..16].copy_from_slice(&a.to_le_bytes());
    bytes[16..24].copy_from_slice(&b.to_le_bytes());
    bytes
}

fn number(bytes: &[u8; SIZE], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Request {
    /// The bytes on the socket.
    #[must_use]
    pub fn encode(self) -> [u8; SIZE] {
        match self {
            Self::Start => pack(1, 0, 0, 0, 0),
            Self::Signal(signal) => {
                let index = PostmasterSignal::ALL.iter().position(|one| *one == signal);
                pack(2, u8::try_from(index.unwrap_or(0)).unwrap_or(0), 0, 0, 0)
            }
            Self::Arm(right) => pack(3, 0, 0, right.from.0, right.duration.0),
            Self::Fence { grace } => pack(4, 0, 0, nanoseconds(grace), 0),
            Self::Alive => pack(5, 0, 0, 0, 0),
            Self::Leave => pack(6, 0, 0, 0, 0),
            Self::Disarm => pack(7, 0, 0, 0, 0),
            Self::Renew => pack(8, 0, 0, 0, 0),
        }
    }

    /// Reads a message; none for a kind that this keeper does not know.
    #[must_use]
    pub fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let (a, b) = (number(bytes, 8), number(bytes, 16));
        match bytes[0] {
            1 => Some(Self::Start),
            2 => PostmasterSignal::ALL.get(usize::from(bytes[1])).copied().map(Self::Signal),
            3 => Some(Self::Arm(Right { from: Moment(a), duration: Span(b) })),
            4 => Some(Self::Fence { grace: Duration::from_nanos(a) }),
            5 => Some(Self::Alive),
            6 => Some(Self::Leave),
            7 => Some(Self::Disarm),
            8 => Some(Self::Renew),
            _ => None,
        }
    }
}

impl Notice {
    /// The bytes on the socket.
    #[must_use]
    pub fn encode(self) -> [u8; SIZE] {
        match self {
            Self::Hello { postmaster, right, terminating, locked, protocol, stays, renewed } => {
                let flags = u8::from(right.is_some())
                    | (u8::from(terminating) << 1)
                    | (u8::from(locked) << 2)
                    | (u8::from(stays) << 3)
                    | (u8::from(renewed) << 4);
                let (from, duration) = right.map_or((0, 0), |it| (it.from.0, it.duration.0));
                let mut bytes = pack(1, protocol, flags, from, duration);
                bytes[24..28].copy_from_slice(&postmaster.to_le_bytes());
                bytes
            }
            Self::Started { pid } => pack(2, 0, 0, u64::from(pid), 0),
            Self::StartFailed { error } => pack(3, 0, 0, u64::from(error), 0),
            Self::Exited { ending, by_rule_five } => {
                let (signalled, value) = match ending {
                    Ending::Code(code) => (0, code),
                    Ending::Signal(signal) => (1, signal),
                };
                pack(4, value, signalled | (u8::from(by_rule_five) << 1), 0, 0)
            }
            Self::Terminate => pack(5, 0, 0, 0, 0),
        }
    }

    /// Reads a message; none for a kind that this agent does not know.
    #[must_use]
    pub fn decode(bytes: &[u8; SIZE]) -> Option<Self> {
        let (a, b, flags) = (number(bytes, 8), number(bytes, 16), bytes[2]);
        match bytes[0] {
            1 => Some(Self::Hello {
                postmaster: small(number(bytes, 24)),
                right: (flags & 1 != 0).then_some(Right { from: Moment(a), duration: Span(b) }),
                terminating: flags & 2 != 0,
                locked: flags & 4 != 0,
                protocol: bytes[1],
                stays: flags & 8 != 0,
                renewed: flags & 16 != 0,
            }),
            2 => Some(Self::Started { pid: small(a) }),
            3 => Some(Self::StartFailed { error: small(a) }),
            4 => Some(Self::Exited {
                ending: if flags & 1 != 0 {
                    Ending::Signal(bytes[1])
                } else {
                    Ending::Code(bytes[1])
                },
                by_rule_five: flags & 2 != 0,
            }),
            5 => Some(Self::Terminate),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let mut requests = vec![
            Request::Start,
            Request::Arm(Right { from: Moment(7), duration: Span(10_000) }),
            Request::Disarm,
            Request::Fence { grace: Duration::from_millis(1) },
            Request::Alive,
            Request::Leave,
            Request::Renew,
        ];
        requests.extend(PostmasterSignal::ALL.map(Request::Signal));
        for request in requests {
            assert_eq!(Request::decode(&request.encode()), Some(request));
        }
    }

    #[test]
    fn every_notice_is_read_as_it_was_written() {
        for notice in [
            Notice::Hello {
                postmaster: 7,
                right: None,
                terminating: true,
                locked: false,
                protocol: 3,
                stays: true,
                renewed: false,
            },
            Notice::Hello {
                postmaster: 0,
                right: Some(Right { from: Moment(9), duration: Span(8) }),
                terminating: false,
                locked: true,
                protocol: PROTOCOL,
                stays: false,
                renewed: true,
            },
            Notice::Started { pid: 3 },
            Notice::StartFailed { error: NOT_LOCKED },
            Notice::Exited { ending: Ending::Code(1), by_rule_five: false },
            Notice::Exited { ending: Ending::Signal(9), by_rule_five: true },
            Notice::Terminate,
        ] {
            assert_eq!(Notice::decode(&notice.encode()), Some(notice));
        }
    }

    #[test]
    fn a_message_of_a_later_version_is_ignored() {
        assert_eq!(Request::decode(&[200; SIZE]), None);
        assert_eq!(Notice::decode(&[200; SIZE]), None);
    }
}
