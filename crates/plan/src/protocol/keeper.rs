//! The keeper's part of rule 5: PID 1 holds the right to write and ends PostgreSQL by itself when
//! the agent does not prolong it.

use serde::{Deserialize, Serialize};

use super::command::Right;
use super::moment::{Moment, Span};

/// How often the keeper looks again while it kills.
const AGAIN: Span = Span::millis(50);

/// What happens to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeeperEvent {
    /// The time of [`Keeper::poll_timeout`] has come.
    Tick,
    /// The agent says how long PostgreSQL may accept writes; none: it is no primary.
    Armed(Option<Right>),
    /// A postmaster was started on the data directory.
    PostmasterStarted,
    /// Every process of the data directory is gone, and reaped.
    ProcessesGone,
}

/// What the keeper does, in this order. The processes of a data directory are those whose
/// `/proc/PID/cwd` is it; never by group (traps H9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeeperCommand {
    /// SIGQUIT to the postmaster.
    QuitPostmaster,
    /// SIGSTOP to the postmaster, so that it starts nothing more.
    FreezePostmaster,
    /// SIGKILL to every process of the data directory but the postmaster, until none is left.
    KillProcesses,
    /// SIGKILL to the postmaster. The keeper then reaps and reports
    /// [`KeeperEvent::ProcessesGone`] once nothing is left.
    KillPostmaster,
}

/// The keeper's state. It outlives the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeper {
    right: Option<Right>,
    running: bool,
    quit: bool,
    killed_at: Option<Moment>,
    /// What the agent said while PostgreSQL was on its way down: holds for the next run.
    next: Option<Option<Right>>,
}

impl Keeper {
    /// Nothing runs and nothing is armed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The right that the agent last gave.
    pub fn right(&self) -> Option<Right> {
        self.right
    }

    /// True if a postmaster may be started: nothing of the data directory is left, and a primary
    /// still has time to write before it would be stopped.
    pub fn may_start(&self, now: Moment) -> bool {
        !self.running && self.right.is_none_or(|right| now < right.quit_at())
    }

    /// Takes a fact and says what to do.
    pub fn on(&mut self, event: KeeperEvent, now: Moment) -> Vec<KeeperCommand> {
        match event {
            KeeperEvent::Tick => {}
            KeeperEvent::Armed(right) => self.arm(right),
            KeeperEvent::PostmasterStarted => self.running = true,
            KeeperEvent::ProcessesGone => {
                self.running = false;
                self.quit = false;
                self.killed_at = None;
                if let Some(right) = self.next.take() {
                    self.right = right;
                }
            }
        }
        self.enforce(now)
    }

    /// When [`KeeperEvent::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let right = self.right.filter(|_| self.running)?;
        Some(match (self.quit, self.killed_at) {
            (_, Some(at)) => at + AGAIN,
            (false, None) => right.quit_at(),
            (true, None) => right.kill_at(),
        })
    }

    /// Once SIGQUIT was sent PostgreSQL is on its way down: a longer right takes nothing back, and
    /// the kill comes when it would have come. It holds once every process is gone.
    fn arm(&mut self, right: Option<Right>) {
        if self.quit && self.running {
            self.next = Some(right);
        } else {
            self.right = right;
        }
    }

    fn enforce(&mut self, now: Moment) -> Vec<KeeperCommand> {
        let Some(right) = self.right.filter(|_| self.running) else { return Vec::new() };
        let mut commands = Vec::new();
        if now >= right.quit_at() && !self.quit {
            self.quit = true;
            commands.push(KeeperCommand::QuitPostmaster);
        }
        if now >= right.kill_at() && self.killed_at.is_none_or(|at| now >= at + AGAIN) {
            self.killed_at = Some(now);
            commands.extend([
                KeeperCommand::FreezePostmaster,
                KeeperCommand::KillProcesses,
                KeeperCommand::KillPostmaster,
            ]);
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed() -> Keeper {
        let mut keeper = Keeper::new();
        let right = Right { from: Moment(1000), duration: Span::seconds(10) };
        assert_eq!(keeper.on(KeeperEvent::Armed(Some(right)), Moment(1000)), vec![]);
        assert_eq!(keeper.on(KeeperEvent::PostmasterStarted, Moment(1001)), vec![]);
        keeper
    }

    #[test]
    fn quits_at_three_quarters_and_kills_all_from_0_85() {
        let mut keeper = armed();
        assert_eq!(keeper.poll_timeout(), Some(Moment(8500)));
        assert_eq!(keeper.on(KeeperEvent::Tick, Moment(8499)), vec![]);
        assert_eq!(keeper.on(KeeperEvent::Tick, Moment(8500)), vec![KeeperCommand::QuitPostmaster]);
        assert_eq!(keeper.poll_timeout(), Some(Moment(9500)));
        let kill = vec![
            KeeperCommand::FreezePostmaster,
            KeeperCommand::KillProcesses,
            KeeperCommand::KillPostmaster,
        ];
        assert_eq!(keeper.on(KeeperEvent::Tick, Moment(9500)), kill);
        assert_eq!(keeper.on(KeeperEvent::Tick, Moment(9520)), vec![]);
        assert_eq!(keeper.on(KeeperEvent::Tick, Moment(9550)), kill, "again until all are gone");
        assert!(!keeper.may_start(Moment(9560)), "nothing starts beside what is left");
        keeper.on(KeeperEvent::ProcessesGone, Moment(9600));
        assert_eq!(keeper.poll_timeout(), None);
        assert!(!keeper.may_start(Moment(9601)), "the right has ended");
        keeper.on(KeeperEvent::Armed(None), Moment(9602));
        assert!(keeper.may_start(Moment(9603)), "as a standby it may");
    }

    #[test]
    fn after_a_thaw_it_quits_and_kills_in_one() {
        let mut keeper = armed();
        assert_eq!(keeper.on(KeeperEvent::Tick, Moment(60_000)).len(), 4);
    }

    #[test]
    fn what_was_said_during_the_stop_holds_for_the_next_run() {
        let mut keeper = armed();
        keeper.on(KeeperEvent::Tick, Moment(8500));
        assert_eq!(keeper.on(KeeperEvent::Armed(None), Moment(8600)), vec![]);
        assert_eq!(keeper.poll_timeout(), Some(Moment(9500)), "this run is killed all the same");
        keeper.on(KeeperEvent::ProcessesGone, Moment(8700));
        assert!(keeper.may_start(Moment(8701)), "a standby may start");
        assert_eq!(keeper.on(KeeperEvent::PostmasterStarted, Moment(60_000)), vec![]);
    }

    #[test]
    fn a_prolonged_right_moves_the_end_and_one_that_comes_too_late_does_not() {
        let mut keeper = armed();
        let longer = Right { from: Moment(5000), duration: Span::seconds(10) };
        keeper.on(KeeperEvent::Armed(Some(longer)), Moment(5100));
        assert_eq!(keeper.poll_timeout(), Some(Moment(12_500)));
        keeper.on(KeeperEvent::Tick, Moment(12_500));
        let late = Right { from: Moment(12_600), duration: Span::seconds(10) };
        keeper.on(KeeperEvent::Armed(Some(late)), Moment(12_700));
        assert_eq!(keeper.poll_timeout(), Some(Moment(13_500)), "it is on its way down");
    }
}
