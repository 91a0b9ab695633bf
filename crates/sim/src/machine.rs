//! Machines with their clocks, volumes, pods, and the processes of a pod.

use std::collections::{BTreeMap, VecDeque};

use matriarch_plan::protocol::{
    Action, Command, EndpointReading, Keeper, KeeperCommand, KeeperEvent, Ledger, Moment,
    OperationId, Protocol, ReplyToken, RequestId,
};

use crate::{
    Micros,
    postgres::{Directory, Role, Server},
    story,
    wal::Place,
    world::{Event, World},
};

/// A machine that stands still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freeze {
    pub(crate) since: Micros,
    /// Does its clock go on (a starved machine) or stand still too (a paused VM, traps H12)?
    pub(crate) clock_runs: bool,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) on: bool,
    pub(crate) frozen: Option<Freeze>,
    /// When it last went on after a freeze, and whether its clock had gone on meanwhile.
    pub(crate) thawed: Option<(Micros, bool)>,
    /// What happens to it when it thaws.
    pub(crate) held: Vec<Event>,
    /// Its clock showed `reading` at the true time `since`, and runs at `rate` millionths.
    reading: u64,
    since: Micros,
    rate: u64,
    /// Tainted out-of-service by a human, who vouches that it is off.
    pub(crate) out_of_service: bool,
    /// Its Node object is gone.
    pub(crate) node_gone: bool,
}

impl Machine {
    pub(crate) fn new(reading: u64, rate: u64) -> Self {
        Self {
            on: true,
            frozen: None,
            thawed: None,
            held: Vec::new(),
            reading,
            since: 0,
            rate,
            out_of_service: false,
            node_gone: false,
        }
    }

    /// CLOCK_BOOTTIME in microseconds.
    fn micros(&self, now: Micros) -> u64 {
        let now = match self.frozen {
            Some(freeze) if !freeze.clock_runs => freeze.since,
            _ => now,
        };
        let passed = u128::from(now.saturating_sub(self.since)) * u128::from(self.rate) / 1_000_000;
        self.reading + u64::try_from(passed).unwrap_or(u64::MAX)
    }

    pub(crate) fn clock(&self, now: Micros) -> Moment {
        Moment(self.micros(now) / 1000)
    }

    /// What the clock showed at an earlier true time of this boot.
    pub(crate) fn clock_at(&self, then: Micros) -> Moment {
        if then >= self.since {
            return self.clock(then);
        }
        Moment(self.reading.saturating_sub(self.since - then) / 1000)
    }

    /// The true time at which its clock will show `moment`, if nothing stops it.
    pub(crate) fn when(&self, moment: Moment, now: Micros) -> Micros {
        let wanted = moment.0.saturating_mul(1000);
        let shown = self.micros(now);
        if wanted <= shown {
            return now;
        }
        let passed = u128::from(wanted - shown) * 1_000_000 / u128::from(self.rate) + 1;
        now + u64::try_from(passed).unwrap_or(u64::MAX / 4)
    }

    /// The clock starts anew at `reading`: a reboot.
    pub(crate) fn boot(&mut self, now: Micros, reading: u64) {
        self.reading = reading;
        self.since = now;
        self.on = true;
        self.frozen = None;
        self.thawed = None;
    }

    pub(crate) fn thaw(&mut self, now: Micros) {
        if let Some(freeze) = self.frozen {
            self.reading = self.micros(now);
            self.since = now;
            self.frozen = None;
            self.thawed = Some((now, freeze.clock_runs));
        }
    }
}

/// A volume with what is on it.
#[derive(Debug, Default)]
pub(crate) struct Volume {
    pub(crate) lost: bool,
    /// Two pods can have it: their lock does not reach from machine to machine.
    pub(crate) unlocked: bool,
    pub(crate) directory: Option<Directory>,
    /// Directories that were moved aside: who, and up to where.
    pub(crate) aside: Vec<(u64, Place)>,
    pub(crate) ledger: Option<Ledger>,
}

/// What a request of an agent waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Reading,
    Writing,
    Peer,
}

/// An operation that an agent carries out.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: OperationId,
    pub(crate) action: Action,
    /// How far it is; the meaning is the action's.
    pub(crate) stage: u8,
    /// When a stop becomes harsher, or a copy is done.
    pub(crate) due: Micros,
    /// From which run of the source's server a copy is made, and as what that runs.
    pub(crate) source: Option<(u64, Role)>,
}

/// An agent process.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) life: u64,
    pub(crate) protocol: Protocol,
    pub(crate) frozen: bool,
    pub(crate) held: Vec<Event>,
    pub(crate) commands: VecDeque<Command>,
    /// The ledger that is being flushed; nothing behind it may begin.
    pub(crate) writing: Option<Box<Ledger>>,
    pub(crate) requests: BTreeMap<RequestId, Expected>,
    pub(crate) asked: BTreeMap<ReplyToken, (usize, u64, RequestId)>,
    /// The operation on the postmaster or the directory.
    pub(crate) operation: Option<Operation>,
    /// Operations that run beside it.
    pub(crate) beside: Vec<Operation>,
    pub(crate) next_tick: Option<Micros>,
    pub(crate) directive_seen: Option<u64>,
    pub(crate) nudged: bool,
    /// The EndpointSlice as it last read or wrote it.
    pub(crate) endpoint: Option<EndpointReading>,
    pub(crate) observed: Option<matriarch_plan::protocol::Observation>,
    /// The simulated second that passes, and the operations begun in it.
    pub(crate) pace: (Micros, u32),
}

/// A running container: PID 1 and what it has started.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) number: u64,
    pub(crate) keeper: Keeper,
    pub(crate) keeper_next: Option<Micros>,
    pub(crate) agent: Option<Agent>,
}

/// A pod.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) serial: u32,
    pub(crate) uid: String,
    pub(crate) machine: usize,
    pub(crate) volume: usize,
    /// Its sandbox is there: the kubelet runs its container.
    pub(crate) alive: bool,
    /// Its object is in the API.
    pub(crate) object: bool,
    /// Has had SIGTERM: its grace.
    pub(crate) terminating: Option<Micros>,
    /// Its end is only a matter of the kubelet's time.
    pub(crate) ends: bool,
    /// PostgreSQL does not start on its volume: another major version's data, say.
    pub(crate) start_fails: bool,
    pub(crate) container: Option<Container>,
    /// Containers that the kubelet has reported as terminated.
    pub(crate) terminated: Option<u64>,
    pub(crate) restarts: u64,
    pub(crate) server: Option<Server>,
}

impl Pod {
    pub(crate) fn agent(&self) -> Option<&Agent> {
        self.container.as_ref().and_then(|container| container.agent.as_ref())
    }

    pub(crate) fn agent_mut(&mut self) -> Option<&mut Agent> {
        self.container.as_mut().and_then(|container| container.agent.as_mut())
    }
}

impl World {
    /// What this pod's machine's clock shows.
    pub(crate) fn clock(&self, pod: usize) -> Moment {
        self.machines[self.pods[pod].machine].clock(self.now)
    }

    /// The kubelet starts the container of a pod.
    pub(crate) fn container_starts(&mut self, pod: usize) {
        let machine = self.pods[pod].machine;
        let body = &self.pods[pod];
        if !body.alive
            || body.container.is_some()
            || body.terminating.is_some()
            || !self.machines[machine].on
            || self.volumes[body.volume].lost
        {
            return;
        }
        let number = self.fresh();
        self.pods[pod].container =
            Some(Container { number, keeper: Keeper::new(), keeper_next: None, agent: None });
        story!(self, "{}: container k{number} starts", self.pod_name(pod));
        let takes = self.random.millis(20, 150);
        self.after(takes, Event::AgentStarts { pod, container: number });
    }

    /// PID 1 is dead, and with it everything in the container.
    pub(crate) fn kill_container(&mut self, pod: usize) {
        let Some(number) = self.pods[pod].container.as_ref().map(|container| container.number)
        else {
            return;
        };
        story!(self, "{}: container k{number} dies", self.pod_name(pod));
        self.kill_agent(pod);
        self.kill_server(pod);
        self.pods[pod].container = None;
        self.pods[pod].terminated = Some(number);
        self.pods[pod].restarts += 1;
        if self.pods[pod].alive && self.pods[pod].terminating.is_none() {
            let back_off = self.random.millis(500, 6000);
            self.after(back_off, Event::ContainerStarts { pod });
        }
        self.end_if_terminated(pod);
    }

    /// The keeper hears something and acts.
    pub(crate) fn tell_keeper(&mut self, pod: usize, event: KeeperEvent) {
        let now = self.clock(pod);
        let Some(container) = self.pods[pod].container.as_mut() else { return };
        let commands = container.keeper.on(event, now);
        for command in commands {
            match command {
                KeeperCommand::QuitPostmaster => self.stop_immediate(pod),
                // SIGSTOP before the rest only keeps it from starting more in between.
                KeeperCommand::FreezePostmaster | KeeperCommand::KillProcesses => {}
                KeeperCommand::KillPostmaster => self.kill_server(pod),
            }
        }
        self.schedule_keeper(pod);
    }

    fn schedule_keeper(&mut self, pod: usize) {
        let machine = self.pods[pod].machine;
        let now = self.now;
        let Some(container) = self.pods[pod].container.as_mut() else { return };
        let number = container.number;
        let Some(moment) = container.keeper.poll_timeout() else { return };
        let at = self.machines[machine].when(moment, now);
        if container.keeper_next.is_some_and(|next| next > now && next <= at) {
            return;
        }
        container.keeper_next = Some(at);
        self.at(at, Event::KeeperTick { pod, container: number });
    }

    pub(crate) fn keeper_tick(&mut self, pod: usize, number: u64) {
        let now = self.now;
        let Some(container) = self.pods[pod].container.as_mut() else { return };
        if container.number != number {
            return;
        }
        if container.keeper_next.is_some_and(|next| next <= now) {
            container.keeper_next = None;
        }
        self.tell_keeper(pod, KeeperEvent::Tick);
    }

    /// The last process of a run has gone and was reaped.
    pub(crate) fn processes_gone(&mut self, pod: usize) {
        self.tell_keeper(pod, KeeperEvent::ProcessesGone);
        self.nudge(pod);
        self.end_if_terminated(pod);
    }

    pub(crate) fn postmaster_exited(&mut self, pod: usize) {
        self.nudge(pod);
    }
}
