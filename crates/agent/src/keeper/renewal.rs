//! Re-execution of the keeper in place: the process and its children live on, the program is another
//! one. Wanted when an agent of another version speaks another protocol.
//!
//! What the keeper knows goes through one variable of the environment to the next program, which is
//! first asked whether it can read that: a keeper that could not go on would end the container.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use matriarch_plan::protocol::{ContainerId, Keeper as RuleFive};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, WaitStatus};
use serde::{Deserialize, Serialize};

use super::message::{BootTime, Ending, Notice};
use super::processes::DirectoryId;
use super::{Keeper, Postmaster, ending, pid_of, say};

/// How the next program learns what this one knows.
const VARIABLE: &str = "MATRIARCH_KEEPER_STATE";
/// Word after `keeper` with which a program is asked whether it could go on.
pub const CHECK: &str = "check";

/// How far a renewal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Nobody has asked for it.
    #[default]
    None,
    /// The next program is asked whether it can go on; this process tells.
    Checking(Pid),
    /// It can. The agent is being ended, because its socket ends with this program.
    Ready,
    /// It cannot, or was not to be executed.
    Failed,
}

/// What one program tells the next. Fields are only added, each with a default.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    container: ContainerId,
    rule_five: RuleFive,
    #[serde(default)]
    postmaster: Option<Running>,
    #[serde(default)]
    terminating: bool,
    #[serde(default)]
    leaving: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Running {
    pid: i32,
    directory: DirectoryId,
    #[serde(default)]
    fence: Option<u64>,
    #[serde(default)]
    by_rule_five: bool,
    #[serde(default)]
    killing: bool,
    /// Code or signal, and when it was reaped.
    #[serde(default)]
    ended: Option<(bool, u8, u64)>,
}

impl From<&Postmaster> for Running {
    fn from(it: &Postmaster) -> Self {
        let ended = it.ending.map(|(ending, at)| match ending {
            Ending::Code(code) => (false, code, at.0),
            Ending::Signal(signal) => (true, signal, at.0),
        });
        Self {
            pid: it.pid.as_raw_nonzero().get(),
            directory: it.directory,
            fence: it.fence.map(|at| at.0),
            by_rule_five: it.by_rule_five,
            killing: it.killing,
            ended,
        }
    }
}

impl Running {
    fn postmaster(&self) -> Option<Postmaster> {
        let ending = self.ended.map(|(signalled, value, at)| {
            let ending = if signalled { Ending::Signal(value) } else { Ending::Code(value) };
            (ending, BootTime(at))
        });
        Some(Postmaster {
            fence: self.fence.map(BootTime),
            by_rule_five: self.by_rule_five,
            killing: self.killing,
            ending,
            ..Postmaster::new(Pid::from_raw(self.pid)?, self.directory)
        })
    }
}

fn handed_on() -> Option<String> {
    std::env::var(VARIABLE).ok()
}

/// The id of the container, if this program goes on where another one was.
pub(super) fn container() -> Option<ContainerId> {
    serde_json::from_str::<State>(&handed_on()?).ok().map(|state| state.container)
}

/// Says by its exit code whether this program could go on with what it is told.
#[must_use]
pub fn check() -> ExitCode {
    let known = handed_on().and_then(|text| serde_json::from_str::<State>(&text).ok());
    let whole =
        known.is_some_and(|state| state.postmaster.is_none_or(|it| it.postmaster().is_some()));
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The command that becomes an agent or a check: without what is meant for the keeper.
pub(super) fn without_state(command: &mut Command) -> &mut Command {
    command.env_remove(VARIABLE)
}

impl Keeper {
    /// Takes over what the program before this one knew. Its lock on the volume has stayed: it
    /// belongs to the process.
    pub(super) fn take_over(&mut self) {
        let Some(state) = handed_on().and_then(|text| serde_json::from_str::<State>(&text).ok())
        else {
            return;
        };
        self.rule_five = state.rule_five;
        self.postmaster = state.postmaster.and_then(|it| it.postmaster());
        self.terminating = state.terminating;
        self.leaving = state.leaving;
        self.lock_volume();
        say("info", "the keeper goes on as another program");
    }

    fn state(&self) -> String {
        let state = State {
            container: self.container.clone(),
            rule_five: self.rule_five,
            postmaster: self.postmaster.as_ref().map(Running::from),
            terminating: self.terminating,
            leaving: self.leaving,
        };
        serde_json::to_string(&state).unwrap_or_default()
    }

    fn next(&self) -> Option<Command> {
        let (program, arguments) = self.options.keeper.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments).env(VARIABLE, self.state());
        Some(command)
    }

    /// The agent wishes for a keeper of its own version: can that one go on?
    pub(super) fn begin_renewal(&mut self) {
        if self.renewal != Renewal::None {
            return;
        }
        let Some(mut command) = self.next() else { return };
        let asked = command.arg(CHECK).stdin(Stdio::null()).spawn();
        self.renewal = match asked.map(|child| pid_of(child.id())) {
            Ok(Some(pid)) => Renewal::Checking(pid),
            Ok(None) | Err(_) => self.renewal_failed("its program cannot be started"),
        };
    }

    /// A child has ended: it may be the one that was asked.
    pub(super) fn checked(&mut self, pid: Pid, status: WaitStatus) {
        if self.renewal != Renewal::Checking(pid) {
            return;
        }
        self.renewal = match ending(status) {
            Ending::Code(0) => {
                self.end_agent();
                Renewal::Ready
            }
            Ending::Code(_) | Ending::Signal(_) => {
                self.renewal_failed("its program does not understand this one")
            }
        };
    }

    fn renewal_failed(&self, why: &str) -> Renewal {
        say("error", &format!("the keeper is not renewed: {why}"));
        Renewal::Failed
    }

    /// Becomes the next program, if that is due. Returns only if it is not, or cannot be done.
    pub(super) fn renew(&mut self) {
        let early = self.postmaster.as_ref().is_some_and(|it| !it.early.is_empty());
        if self.renewal != Renewal::Ready || self.agent.is_some() || early {
            return;
        }
        let Some(mut command) = self.next() else { return };
        let inherits = |flags| {
            let lock = self.lock.as_ref();
            lock.is_none_or(|lock| fcntl_setfd(lock.as_fd(), flags).is_ok())
        };
        // The lock on the volume would end with its descriptor.
        let failed = if !inherits(FdFlags::empty()) {
            "the lock on the volume cannot be handed on".to_owned()
        } else {
            say("info", "the keeper becomes another program");
            command.exec().to_string()
        };
        inherits(FdFlags::CLOEXEC);
        self.renewal = self.renewal_failed(&failed);
    }

    /// What the agent is told of it.
    pub(super) fn hello(&self) -> Notice {
        let running = self.postmaster.as_ref();
        Notice::Hello {
            postmaster: running.map_or(0, |it| it.pid.as_raw_nonzero().get().unsigned_abs()),
            right: self.rule_five.right(),
            terminating: self.terminating,
            locked: self.lock.is_some(),
            protocol: super::message::PROTOCOL,
            stays: self.renewal == Renewal::Failed,
            renewed: handed_on().is_some(),
        }
    }
}
