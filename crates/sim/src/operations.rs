//! The operations of an agent on PostgreSQL, the data directory and the EndpointSlice, and what
//! it observes of them.

use std::collections::BTreeSet;

use matriarch_plan::protocol::{
    Action, Event as Fact, Lsn, Member, Observation, OperationId, Outcome, PostgresState, Receiver,
    Span, StandbyNames, StopMode, SystemId, TimelineId, WalSender,
};

use crate::{
    Micros, SECOND,
    driver::{incarnation_of, number_of, pod_of},
    endpoint::Wish,
    machine::{Agent, Operation},
    postgres::{CHECKPOINT_BYTES, Directory, Files, Names, Phase, Role},
    server::{Start, StartRefused},
    story,
    wal::Place,
    world::{Event, World},
};

/// The database system of the simulated cluster.
pub(crate) const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
/// A standby that has not let anybody in after this time recovers: its start is done.
const RECOVERY_BEGUN: Micros = 2 * SECOND;
/// Time between two looks at PostgreSQL while nothing nudges.
const LOOK: Micros = SECOND / 2;
/// Operations that an agent begins within one second at most: one that failed is begun again after
/// a pause.
const PACE: u32 = 20;

fn names_of(names: &StandbyNames) -> Names {
    Names {
        needed: usize::try_from(names.need).unwrap_or(usize::MAX),
        of: names.members.iter().map(number_of).collect(),
    }
}

fn standby_names(names: &Names) -> StandbyNames {
    StandbyNames {
        need: u32::try_from(names.needed).unwrap_or(u32::MAX),
        members: names.of.iter().copied().map(incarnation_of).collect(),
        outside: BTreeSet::new(),
    }
}

fn beside(action: &Action) -> bool {
    matches!(
        action,
        Action::SetNames { .. }
            | Action::Checkpoint
            | Action::PointService { .. }
            | Action::UnpointService { .. }
    )
}

impl World {
    /// The pod to which a member's address leads, if it is that member's.
    fn pod_of_member(&self, member: &Member) -> Option<usize> {
        pod_of(&member.address)
            .filter(|&pod| self.pods.get(pod).is_some_and(|body| body.name == member.name.0))
    }

    /// PostgreSQL or its surroundings changed: the agent looks soon.
    pub(crate) fn nudge(&mut self, pod: usize) {
        let soon = self.random.between(500, 8000);
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        if agent.nudged {
            return;
        }
        agent.nudged = true;
        let life = agent.life;
        self.after(soon, Event::Observe { pod, life, periodic: false });
    }

    pub(crate) fn observe(&mut self, pod: usize, life: u64, periodic: bool) {
        let Some(agent) = self.pods[pod].agent_mut().filter(|agent| agent.life == life) else {
            return;
        };
        if periodic {
            self.after(LOOK, Event::Observe { pod, life, periodic: true });
        } else {
            agent.nudged = false;
        }
        self.look(pod);
        self.advance(pod);
    }

    /// Tells the protocol what PostgreSQL looks like, if that is worth telling.
    fn look(&mut self, pod: usize) {
        let observation = self.observation(pod);
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        if agent.observed.as_ref() == Some(&observation)
            && matches!(observation.state, PostgresState::Stopped { .. } | PostgresState::Empty)
        {
            return;
        }
        agent.observed = Some(observation.clone());
        self.feed(pod, Fact::Observed(Box::new(observation)));
    }

    fn observation(&mut self, pod: usize) -> Observation {
        if self.server(pod).is_none()
            && let Some(directory) = self.directory_mut(pod)
        {
            // The agent flushes pg_wal before it reads its end.
            directory.flushed = directory.written;
        }
        if self.server(pod).is_some()
            && self.random.chance(10)
            && let Some(directory) = self.directory_mut(pod)
        {
            directory.checkpoint = directory.flushed;
        }
        let state = self.postgres_state(pod);
        // In the middle of a rewind the segments of pg_wal are being replaced: nothing is sure to be
        // found there.
        let whole = self.directory(pod).filter(|directory| directory.files == Files::Whole);
        let Some(directory) = whole else {
            return Observation { state, ..Observation::default() };
        };
        // While it refuses sessions, what it receives is not seen; without a walreceiver it has what
        // it had when it was down.
        let refuses = state == PostgresState::Starting;
        if refuses && self.server(pod).is_some_and(|server| server.upstream.is_some()) {
            return Observation { state, system_id: Some(SYSTEM), ..Observation::default() };
        }
        let down = self.server(pod).is_none() || refuses;
        let needed = if down { directory.consistent_from } else { 0 };
        let end = directory.flushed.max(needed);
        let place = self.wal.settle(Place { branch: directory.branch, lsn: end });
        let timelines = self.wal.history(place.branch).into_iter().enumerate().filter_map(
            |(index, (number, begins))| {
                Some((TimelineId::new(number)?, Lsn(if index == 0 { 0 } else { begins })))
            },
        );
        let timelines = timelines.collect();
        Observation {
            state,
            system_id: Some(SYSTEM),
            timeline: TimelineId::new(self.wal.timeline(place.branch)),
            timelines,
            flushed: Some(Lsn(end)),
            replayed: Some(Lsn(end)),
            since_checkpoint: Some(end.saturating_sub(directory.checkpoint)),
            receiver: self.receiver(pod),
            walsenders: self.walsenders(pod),
        }
    }

    fn postgres_state(&self, pod: usize) -> PostgresState {
        match (self.server(pod), self.directory(pod)) {
            (None, None) => PostgresState::Empty,
            (None, Some(directory)) if directory.files == Files::Incomplete => PostgresState::Empty,
            (None, Some(directory)) => PostgresState::Stopped { clean: !directory.in_production },
            (Some(server), _) => match (server.phase, server.role) {
                (Phase::Starting, _) => PostgresState::Starting,
                (Phase::Running | Phase::Promoting, Role::Standby) => PostgresState::Standby,
                (Phase::Running | Phase::Promoting, Role::Primary) => PostgresState::Primary,
                (Phase::Stopping | Phase::Quitting, _) => PostgresState::Stopping,
                (Phase::Orphaned, _) => PostgresState::Dying,
            },
        }
    }

    fn receiver(&self, pod: usize) -> Receiver {
        let Some(server) = self.server(pod) else { return Receiver::None };
        if server.role != Role::Standby || server.phase != Phase::Running || server.receiver_stopped
        {
            return Receiver::None;
        }
        match server.receiver {
            Some(_) => {
                let machine = &self.machines[self.pods[pod].machine];
                let silent = machine.clock(self.now).since(machine.clock_at(server.receiver_heard));
                Receiver::Streaming { silent }
            }
            None if server.upstream.is_none() => Receiver::None,
            None => Receiver::Connecting,
        }
    }

    fn walsenders(&self, pod: usize) -> Vec<WalSender> {
        let Some(server) = self.server(pod) else { return Vec::new() };
        if server.role != Role::Primary {
            return Vec::new();
        }
        self.connections
            .values()
            .filter(|link| link.primary == pod && link.primary_run == server.run)
            .map(|link| WalSender {
                incarnation: incarnation_of(link.incarnation),
                streaming: link.acknowledged > 0,
                flushed: Lsn(link.acknowledged),
            })
            .collect()
    }

    /// Begins an operation; one on the postmaster or directory supersedes the one before.
    pub(crate) fn begin(&mut self, pod: usize, id: OperationId, action: Action) {
        let now = self.now;
        story!(self, "{}: begins {}", self.pod_name(pod), told(&action));
        let operation = Operation { id, action, stage: 0, due: now, source: None };
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        let life = agent.life;
        let second = now / SECOND;
        agent.pace = if agent.pace.0 == second { (second, agent.pace.1 + 1) } else { (second, 1) };
        if agent.pace.1 > PACE {
            let what = format!("{} begins {PACE} operations within a second", self.pod_name(pod));
            return self.find("pace", what);
        }
        if beside(&operation.action) {
            agent.beside.push(operation.clone());
        } else if let Some(old) = agent.operation.replace(operation.clone()) {
            self.give_up(pod, &old);
            self.feed(pod, Fact::Finished { operation: old.id, outcome: Outcome::Superseded });
        }
        // A fact fed just now may have superseded this operation already.
        if self.is_current(pod, id) {
            self.after(
                self.start_delay(&operation.action),
                Event::OperationStep { pod, life, operation: id },
            );
        }
    }

    fn start_delay(&self, action: &Action) -> Micros {
        match action {
            Action::PointService { .. } | Action::UnpointService { .. } => 100,
            _ => 300,
        }
    }

    fn is_current(&self, pod: usize, id: OperationId) -> bool {
        self.pods[pod].agent().is_some_and(|agent| {
            agent.operation.as_ref().is_some_and(|operation| operation.id == id)
                || agent.beside.iter().any(|operation| operation.id == id)
        })
    }

    /// What a copy that is given up in the middle leaves behind.
    fn give_up(&mut self, pod: usize, old: &Operation) {
        if matches!(old.action, Action::Clone { .. } | Action::Initialize) && old.stage > 0 {
            self.drop_incomplete(pod);
        }
    }

    /// The agent died: its helper programs die with it.
    pub(crate) fn abandon(&mut self, pod: usize, agent: &Agent) {
        if let Some(operation) = agent.operation.clone() {
            self.give_up(pod, &operation);
        }
    }

    fn drop_incomplete(&mut self, pod: usize) {
        let volume = self.pods[pod].volume;
        let slot = &mut self.volumes[volume].directory;
        if slot.as_ref().is_some_and(|directory| directory.files == Files::Incomplete) {
            *slot = None;
        }
    }

    pub(crate) fn finish(&mut self, pod: usize, id: OperationId, outcome: Outcome) {
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        if agent.operation.as_ref().is_some_and(|operation| operation.id == id) {
            agent.operation = None;
        } else {
            let before = agent.beside.len();
            agent.beside.retain(|operation| operation.id != id);
            if agent.beside.len() == before {
                return;
            }
        }
        story!(self, "{}: operation {} ends: {}", self.pod_name(pod), id.0, ended(&outcome));
        let observation = self.observation(pod);
        if let Some(agent) = self.pods[pod].agent_mut() {
            agent.observed = Some(observation.clone());
        }
        self.feed(pod, Fact::Observed(Box::new(observation)));
        self.feed(pod, Fact::Finished { operation: id, outcome });
        self.end_if_terminated(pod);
    }

    pub(crate) fn fail(&mut self, pod: usize, id: OperationId, message: &str) {
        self.finish(pod, id, Outcome::Failed { message: message.to_owned() });
    }

    /// Carries every operation of a pod on as far as the world is now.
    fn advance(&mut self, pod: usize) {
        let Some(agent) = self.pods[pod].agent() else { return };
        let life = agent.life;
        let current: Vec<(OperationId, u8)> = agent
            .operation
            .iter()
            .chain(&agent.beside)
            .map(|operation| (operation.id, operation.stage))
            .collect();
        for (id, stage) in current {
            if stage > 0 {
                self.operation_step(pod, life, id);
            }
        }
    }

    pub(crate) fn operation(&mut self, pod: usize, id: OperationId) -> Option<&mut Operation> {
        let agent = self.pods[pod].agent_mut()?;
        match agent.operation.as_ref() {
            Some(operation) if operation.id == id => agent.operation.as_mut(),
            _ => agent.beside.iter_mut().find(|operation| operation.id == id),
        }
    }

    pub(crate) fn set_stage(&mut self, pod: usize, id: OperationId, stage: u8, due: Micros) {
        if let Some(operation) = self.operation(pod, id) {
            operation.stage = stage;
            operation.due = due;
        }
    }

    pub(crate) fn again(&mut self, pod: usize, id: OperationId, after: Micros) {
        let Some(life) = self.pods[pod].agent().map(|agent| agent.life) else { return };
        self.after(after, Event::OperationStep { pod, life, operation: id });
    }

    pub(crate) fn operation_step(&mut self, pod: usize, life: u64, id: OperationId) {
        if self.pods[pod].agent().is_none_or(|agent| agent.life != life) {
            return;
        }
        let Some(operation) = self.operation(pod, id).cloned() else { return };
        match &operation.action {
            Action::Initialize => self.initialize(pod, &operation),
            Action::StartPrimary { .. } if self.pods[pod].start_fails => {
                self.fail(pod, operation.id, "PostgreSQL does not start");
            }
            Action::StartPrimary { names } => {
                let names = names_of(names);
                self.start(pod, &operation, Start { role: Role::Primary, names, upstream: None });
            }
            Action::StartStandby { follow } => {
                let upstream = follow.as_ref().and_then(|member| self.pod_of_member(member));
                let start = Start { role: Role::Standby, names: Names::default(), upstream };
                self.start(pod, &operation, start);
            }
            Action::Follow { member } => {
                let upstream = member.as_ref().and_then(|member| self.pod_of_member(member));
                self.change_upstream(pod, &operation, upstream);
            }
            Action::Stop { mode, limit } => self.stop(pod, &operation, *mode, *limit),
            Action::Checkpoint => self.make_checkpoint(pod, &operation),
            Action::Promote { above, names } => {
                self.promote_step(pod, &operation, above.get(), &names_of(names));
            }
            Action::SetNames { names } => self.set_names_step(pod, &operation, names),
            Action::Rewind { from } => self.rewind(pod, &operation, &from.clone()),
            Action::Clone { from } => self.clone_step(pod, &operation, &from.clone()),
            Action::PointService { .. } | Action::UnpointService { .. } => {
                self.write_endpoint(pod, id, wish(&operation.action));
            }
        }
    }

    fn initialize(&mut self, pod: usize, operation: &Operation) {
        if operation.stage == 0 {
            if self.directory(pod).is_some() {
                self.fail(pod, operation.id, "the directory is not empty");
                return;
            }
            let takes = self.random.millis(500, 1500);
            self.set_stage(pod, operation.id, 1, self.now + takes);
            self.again(pod, operation.id, takes);
        } else if self.now >= operation.due {
            let incarnation = self.fresh();
            let branch = self.wal.fork(None, 1, incarnation);
            let lsn = self.wal.append(branch, 16 << 20);
            let volume = self.pods[pod].volume;
            self.volumes[volume].directory = Some(Directory {
                incarnation,
                branch,
                written: lsn,
                flushed: lsn,
                files: Files::Whole,
                in_production: false,
                known_timeline: 1,
                checkpoint: lsn,
                consistent_from: 0,
            });
            self.new_directory(pod, operation.id, incarnation);
        }
    }

    fn new_directory(&mut self, pod: usize, id: OperationId, incarnation: u64) {
        let incarnation = incarnation_of(incarnation);
        self.finish(pod, id, Outcome::NewDirectory { incarnation, system_id: SYSTEM });
    }

    fn start(&mut self, pod: usize, operation: &Operation, start: Start) {
        let id = operation.id;
        let role = start.role;
        if operation.stage == 0 {
            match self.start_server(pod, start) {
                Ok(()) => {
                    let run = self.server(pod).map_or(0, |server| server.run);
                    self.set_stage(pod, id, 1, run);
                    self.tell_keeper(pod, matriarch_plan::protocol::KeeperEvent::PostmasterStarted);
                }
                Err(StartRefused::NotWhole) => self.fail(pod, id, "no whole data directory"),
                Err(StartRefused::StillRunning) => {
                    self.fail(pod, id, "lock file postmaster.pid already exists");
                }
            }
            return;
        }
        // `due` holds the run that was started.
        match self.server(pod) {
            Some(server) if server.run == operation.due => {
                let recovers = server.phase == Phase::Starting && role == Role::Standby;
                let begun = self.now >= server.started + RECOVERY_BEGUN;
                if server.role == role && (server.phase == Phase::Running || (recovers && begun)) {
                    self.finish(pod, id, Outcome::Done);
                }
            }
            _ => self.fail(pod, id, "PostgreSQL exited"),
        }
    }

    fn change_upstream(&mut self, pod: usize, operation: &Operation, upstream: Option<usize>) {
        if operation.stage == 0 {
            if self.server(pod).is_none_or(|server| server.frozen) {
                self.fail(pod, operation.id, "PostgreSQL does not run");
                return;
            }
            // What is not seen in force is not done: it lets no session in yet.
            if self.server(pod).is_some_and(|server| server.phase == Phase::Starting) {
                self.fail(pod, operation.id, "the database system is starting up");
                return;
            }
            self.follow(pod, upstream);
            let takes = self.random.millis(1, 20);
            self.set_stage(pod, operation.id, 1, self.now + takes);
            self.again(pod, operation.id, takes);
        } else if self.now >= operation.due {
            self.finish(pod, operation.id, Outcome::Done);
        }
    }

    fn stop(&mut self, pod: usize, operation: &Operation, mode: StopMode, limit: Span) {
        let id = operation.id;
        let Some(server) = self.server(pod) else {
            self.finish(pod, id, Outcome::Done);
            return;
        };
        let orphaned = server.phase == Phase::Orphaned;
        let limit = limit.0 * 1000;
        match (operation.stage, mode) {
            (0, StopMode::Smart | StopMode::Fast) => {
                self.stop_fast(pod);
                self.set_stage(pod, id, 1, self.now + limit);
                self.again(pod, id, limit.max(10_000));
            }
            (0, StopMode::Short) => {
                self.stop_short(pod);
                self.set_stage(pod, id, 2, self.now + limit);
                self.again(pod, id, 10_000);
            }
            (0, StopMode::Immediate) => {
                self.stop_immediate(pod);
                let rest = self.random.millis(5, 40);
                self.set_stage(pod, id, 3, self.now + rest);
                self.again(pod, id, rest);
            }
            (1, _) if self.now >= operation.due || orphaned => {
                self.stop_immediate(pod);
                self.set_stage(pod, id, 3, self.now + SECOND);
                self.again(pod, id, SECOND);
            }
            (2, _) => {
                if self.now >= operation.due || self.somebody_has_all(pod) {
                    self.kill_server(pod);
                }
                self.again(pod, id, 10_000);
            }
            (3, _) if self.now >= operation.due => {
                self.kill_server(pod);
                self.again(pod, id, 1000);
            }
            _ => {}
        }
    }

    /// Has a standby that streams flushed all that this primary has?
    fn somebody_has_all(&self, pod: usize) -> bool {
        let Some(end) = self.directory(pod).map(|directory| directory.written) else { return true };
        self.connections.values().any(|link| link.primary == pod && link.acknowledged >= end)
    }

    fn make_checkpoint(&mut self, pod: usize, operation: &Operation) {
        if operation.stage == 0 {
            let takes = self.random.millis(20, 500);
            self.set_stage(pod, operation.id, 1, self.now + takes);
            self.again(pod, operation.id, takes);
        } else if self.now >= operation.due {
            let running = self.server(pod).is_some_and(crate::postgres::Server::takes_writes);
            if !running {
                self.fail(pod, operation.id, "no connection");
                return;
            }
            let Some(branch) = self.directory(pod).map(|directory| directory.branch) else {
                return;
            };
            let lsn = self.wal.append(branch, CHECKPOINT_BYTES);
            if let Some(directory) = self.directory_mut(pod) {
                directory.ends_with_checkpoint(lsn);
            }
            self.send_wal(pod);
            self.finish(pod, operation.id, Outcome::Done);
        }
    }

    fn promote_step(&mut self, pod: usize, operation: &Operation, above: u32, names: &Names) {
        if operation.stage == 0 {
            if self.promote(pod, above, names) {
                self.set_stage(pod, operation.id, 1, self.now);
            } else {
                self.fail(pod, operation.id, "not a running standby");
            }
            return;
        }
        match self.server(pod).map(|server| (server.role, server.phase)) {
            Some((Role::Primary, Phase::Running)) => {
                self.finish(pod, operation.id, Outcome::Done);
            }
            Some((_, Phase::Promoting)) => {}
            _ => self.fail(pod, operation.id, "PostgreSQL exited during promotion"),
        }
    }

    /// Goes by the steps of `StandbyNames::next_towards`, each in force before the next.
    fn set_names_step(&mut self, pod: usize, operation: &Operation, target: &StandbyNames) {
        let id = operation.id;
        let Some(server) = self.server(pod) else {
            self.fail(pod, id, "no connection");
            return;
        };
        let now = standby_names(&server.names);
        if operation.stage > 0 && !self.names_in_force(pod) {
            return;
        }
        let wanted = StandbyNames { outside: BTreeSet::new(), ..target.clone() };
        let Some(next) = now.next_towards(&wanted) else {
            if self.names_in_force(pod) {
                self.finish(pod, id, Outcome::Done);
            } else {
                self.set_stage(pod, id, 1, self.now);
            }
            return;
        };
        if self.set_names(pod, &names_of(&next)) {
            if self.random.chance(self.swarm.broken_sessions) {
                self.fail(pod, id, "the session broke after it had set them");
                return;
            }
            self.set_stage(pod, id, 1, self.now);
            self.again(pod, id, 500);
        } else {
            self.fail(pod, id, "no connection");
        }
    }

    /// A source that can be read from: its PostgreSQL runs and answers here.
    fn readable(&self, pod: usize, from: usize) -> bool {
        !self.pod_frozen(from)
            && self.pods_linked(pod, from)
            && self.pods_linked(from, pod)
            && self
                .server(from)
                .is_some_and(|server| !server.frozen && server.phase == Phase::Running)
    }

    fn rewind(&mut self, pod: usize, operation: &Operation, from: &Member) {
        let id = operation.id;
        let source = self.pod_of_member(from).filter(|&source| {
            self.readable(pod, source)
                && self.server(source).is_some_and(|server| server.role == Role::Primary)
        });
        let incarnation = self.directory(pod).map_or(0, |directory| directory.incarnation);
        let Some(source) = source else {
            self.fail(pod, id, "the source cannot be read");
            return;
        };
        if operation.stage == 0 {
            let whole = self.directory(pod).is_some_and(|own| own.files == Files::Whole);
            if self.server(pod).is_some() || !whole {
                self.fail(pod, id, "the target is not a stopped whole directory");
                return;
            }
            if self.same_timeline_number(pod, source) {
                // pg_rewind says "no rewind required" and does nothing, whatever the content: the
                // driver must not call that done.
                self.fail(pod, id, "source and target are on the same timeline");
                return;
            }
            self.check_rewind(pod, source);
            self.keep_aside(pod);
            let copied = self.directory(source).map_or(0, |theirs| theirs.flushed);
            if let Some(directory) = self.directory_mut(pod) {
                directory.files = Files::Rewinding;
                directory.consistent_from = copied;
            }
            let takes = self.random.millis(400, 5000);
            self.set_stage(pod, id, 1, self.now + takes);
            self.again(pod, id, takes);
        } else if self.now >= operation.due {
            let Some(theirs) = self.directory(source).cloned() else { return };
            if let Some(directory) = self.directory_mut(pod) {
                // The segments are copied first, and the source writes on until the end.
                let copied = std::mem::replace(&mut directory.consistent_from, theirs.flushed);
                directory.branch = theirs.branch;
                directory.written = copied;
                directory.flushed = copied;
                directory.known_timeline = theirs.known_timeline;
                directory.files = Files::Whole;
                directory.in_production = true;
                directory.checkpoint = theirs.checkpoint;
            }
            story!(self, "{}: i{incarnation} is rewound", self.pod_name(pod));
            self.finish(pod, id, Outcome::Done);
        }
    }

    fn same_timeline_number(&self, pod: usize, source: usize) -> bool {
        let (Some(own), Some(theirs)) = (self.directory(pod), self.directory(source)) else {
            return false;
        };
        let own = self.wal.settle(own.written_place());
        self.wal.timeline(own.branch) == self.wal.timeline(theirs.branch)
    }

    /// Remembers what the directory held that is about to be given up.
    fn keep_aside(&mut self, pod: usize) {
        let volume = self.pods[pod].volume;
        if let Some(directory) = &self.volumes[volume].directory {
            let kept = (directory.incarnation, directory.written_place());
            self.volumes[volume].aside.push(kept);
        }
    }

    fn clone_step(&mut self, pod: usize, operation: &Operation, from: &Member) {
        let id = operation.id;
        let source = self.pod_of_member(from).filter(|&source| self.readable(pod, source));
        // A base backup ends with its connection, and one of a standby with its promotion.
        let run = source.and_then(|it| self.server(it)).map(|server| (server.run, server.role));
        let other = operation.source.is_some() && operation.source != run;
        let Some(source) = source.filter(|_| !other) else {
            self.drop_incomplete(pod);
            self.fail(pod, id, "the source cannot be read");
            return;
        };
        if operation.stage == 0 {
            if self.server(pod).is_some() {
                self.fail(pod, id, "PostgreSQL runs");
                return;
            }
            self.check_clone(pod);
            self.keep_aside(pod);
            let incarnation = self.fresh();
            let volume = self.pods[pod].volume;
            let Some(theirs) = self.directory(source).cloned() else { return };
            self.volumes[volume].directory =
                Some(Directory { incarnation, files: Files::Incomplete, ..theirs });
            let takes = self.random.millis(1000, 12_000);
            self.set_stage(pod, id, 1, self.now + takes);
            if let Some(operation) = self.operation(pod, id) {
                operation.source = run;
            }
            self.again(pod, id, takes);
        } else if self.now >= operation.due {
            let Some(theirs) = self.directory(source).cloned() else { return };
            let Some(directory) = self.directory_mut(pod) else { return };
            let incarnation = directory.incarnation;
            *directory =
                Directory { incarnation, files: Files::Whole, in_production: true, ..theirs };
            directory.written = directory.flushed;
            self.new_directory(pod, id, incarnation);
        }
    }
}

/// What an operation on the EndpointSlice is to do; none if its address is nobody's.
pub(crate) fn wish(action: &Action) -> Option<Wish> {
    match action {
        Action::PointService { to, term } => pod_of(to).map(|to| Wish::Point { to, term: *term }),
        Action::UnpointService { away } => pod_of(away).map(|away| Wish::Unpoint { away }),
        _ => None,
    }
}

fn told(action: &Action) -> String {
    match action {
        Action::Initialize => "initdb".to_owned(),
        Action::StartPrimary { names } => format!("start as primary, {}", names_of(names).text()),
        Action::StartStandby { follow } => {
            format!("start as standby of {}", named(follow.as_ref()))
        }
        Action::Follow { member } => format!("follow {}", named(member.as_ref())),
        Action::Stop { mode, limit } => format!("stop {mode:?} within {limit}"),
        Action::Checkpoint => "checkpoint".to_owned(),
        Action::Promote { above, names } => {
            format!("promote above timeline {}, {}", above.get(), names_of(names).text())
        }
        Action::SetNames { names } => format!("set names {}", names_of(names).text()),
        Action::Rewind { from } => format!("rewind onto {}", from.name),
        Action::Clone { from } => format!("clone {}", from.name),
        Action::PointService { to, .. } => format!("point -rw to {}", to.host),
        Action::UnpointService { away } => format!("take {} out of -rw", away.host),
    }
}

fn named(member: Option<&Member>) -> &str {
    member.map_or("nobody", |member| member.name.as_str())
}

fn ended(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::NewDirectory { incarnation, .. } => format!("new directory i{incarnation}"),
        Outcome::Failed { message } => format!("failed: {message}"),
        Outcome::Superseded => "superseded".to_owned(),
    }
}
