//! What goes wrong, drawn by the seed; each kind names the fault schedules it belongs to.

use matriarch_plan::protocol::ApiRefusal;

use crate::{
    Micros, SECOND,
    driver::REFUSALS,
    machine::Freeze,
    network::Node,
    settings::Mode,
    story,
    wal::Place,
    world::{Event, World},
};

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// F1: a machine and the API, one way or both.
    CutApi,
    /// F1: two machines, one way or both.
    CutPeers,
    /// F1: a machine from everything, or everything but the clients.
    Isolate,
    /// F16.
    ApiDown,
    /// F7, F16: answers lost, writes late, errors.
    ApiFlaky,
    /// F16: 401, 403, 404 for one pod.
    ApiRefuses,
    /// F4, F10.
    KillPostmaster,
    KillPostgres,
    /// F7, F10.
    KillAgent,
    KillContainer,
    /// F3.
    FreezeAgent,
    FreezePostmaster,
    FreezeMachine,
    /// F2.
    PowerOff,
    /// F12, F14.
    DeletePod,
    ForceDeletePod,
    LoseVolume,
    DeleteLease,
    RestoreLease,
    DeleteEndpoint,
    /// F1, F5.
    SlowMachine,
    LoseMessages,
    /// F15.
    Switchover,
    Fence,
    Exclude,
    Restart,
    Scale,
    /// F15, F17.
    ChangeSynchronous,
    /// F6, F7, I14.
    OperatorAway,
    /// F4: everything at once.
    StopAll,
}

/// All kinds; a swarm has a weight for each.
pub(crate) const KINDS: [Kind; 30] = [
    Kind::CutApi,
    Kind::CutPeers,
    Kind::Isolate,
    Kind::ApiDown,
    Kind::ApiFlaky,
    Kind::ApiRefuses,
    Kind::KillPostmaster,
    Kind::KillPostgres,
    Kind::KillAgent,
    Kind::KillContainer,
    Kind::FreezeAgent,
    Kind::FreezePostmaster,
    Kind::FreezeMachine,
    Kind::PowerOff,
    Kind::DeletePod,
    Kind::ForceDeletePod,
    Kind::LoseVolume,
    Kind::DeleteLease,
    Kind::RestoreLease,
    Kind::DeleteEndpoint,
    Kind::SlowMachine,
    Kind::LoseMessages,
    Kind::Switchover,
    Kind::Fence,
    Kind::Exclude,
    Kind::Restart,
    Kind::Scale,
    Kind::ChangeSynchronous,
    Kind::OperatorAway,
    Kind::StopAll,
];

/// A fault or its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Draw a kind by the swarm's weights, and the next one after it.
    Draw,
    Strike(Kind),
    // Ends and single steps.
    HealLink(Node, Node),
    ApiUp,
    ApiSteady,
    ApiAccepts(usize),
    ThawAgent(usize),
    ThawPostmaster(usize),
    ThawMachine(usize),
    PowerOn(usize),
    KillPostmaster(usize),
    KillAgent(usize),
    Normal(usize),
    NoLoss,
    Unfence(u32),
    Include(u32),
    OperatorBack,
}

impl World {
    pub(crate) fn strike(&mut self, fault: Fault) {
        match fault {
            Fault::Draw => self.draw_fault(),
            Fault::Strike(kind) => self.strike_kind(kind),
            Fault::HealLink(from, to) => self.network.heal(from, to),
            Fault::ApiUp => {
                self.api.down = false;
                story!(self, "API: back");
            }
            Fault::ApiSteady => self.steady_api(),
            Fault::ApiAccepts(pod) => {
                self.api.refusals.remove(&pod);
            }
            Fault::ThawAgent(pod) => self.thaw_agent(pod),
            Fault::ThawPostmaster(pod) => self.thaw_postmaster(pod),
            Fault::ThawMachine(machine) => self.thaw_machine(machine),
            Fault::PowerOn(machine) => self.power_on(machine),
            Fault::KillPostmaster(pod) => self.kill_postmaster(pod),
            Fault::KillAgent(pod) => self.kill_agent(pod),
            Fault::Normal(machine) => self.network.slow(Node::Machine(machine), 0),
            Fault::NoLoss => self.network.loss = 0,
            Fault::Unfence(serial) => self.fence(serial, false),
            Fault::Include(serial) => self.exclude(serial, false),
            Fault::OperatorBack => self.operator.down = false,
        }
    }

    fn draw_fault(&mut self) {
        let (shortest, longest) = self.swarm.pause;
        let pause = self.random.between(shortest, longest);
        if self.now + pause < self.swarm.safety {
            self.after(pause, Event::Fault(Fault::Draw));
        }
        let total: u64 = self.swarm.weights.iter().sum();
        let mut left = self.random.below(total.max(1));
        let mut kind = Kind::KillPostgres;
        for (index, &weight) in self.swarm.weights.iter().enumerate() {
            if left < weight {
                kind = KINDS[index];
                break;
            }
            left -= weight;
        }
        self.counts.faults += 1;
        // Most of what breaks things needs writes in flight.
        self.clients.busy_until = self.now + self.random.millis(200, 3000);
        let soon = self.random.millis(0, 1500);
        self.after(soon, Event::Fault(Fault::Strike(kind)));
        if self.random.chance(150) {
            // A second blow while the first is being dealt with.
            let second = KINDS[self.random.index(KINDS.len())];
            if self.swarm.weights.get(self.random.index(KINDS.len())).is_some_and(|&w| w > 0) {
                let later = self.random.millis(100, 15_000);
                self.after(later, Event::Fault(Fault::Strike(second)));
            }
        }
    }

    /// Mostly the holder's pod, else any.
    fn victim(&mut self) -> Option<usize> {
        let holder = self.holder_pod();
        if holder.is_some() && self.random.chance(550) {
            return holder;
        }
        let alive: Vec<usize> = (0..self.pods.len()).filter(|&pod| self.pods[pod].alive).collect();
        self.random.pick(&alive)
    }

    /// How long something lasts: around the limits of the protocol, or long.
    fn length(&mut self) -> Micros {
        match self.random.below(6) {
            0 => self.random.millis(100, 2500),
            1 => self.random.millis(2500, 6500),
            2 => self.random.millis(6500, 11_000),
            3 => self.random.millis(11_000, 25_000),
            4 => self.random.millis(25_000, 60_000),
            _ => self.random.millis(60_000, 140_000),
        }
    }

    fn strike_kind(&mut self, kind: Kind) {
        if self.liveness.began.is_some() {
            return;
        }
        let Some(pod) = self.victim() else { return };
        let machine = self.pods[pod].machine;
        let node = Node::Machine(machine);
        let length = self.length();
        story!(self, "fault {kind:?} (aims at {})", self.pod_name(pod));
        match kind {
            Kind::CutApi => self.cut_link(node, Node::Api, length),
            Kind::CutPeers => {
                let other = self.random.index(self.machines.len());
                self.cut_link(node, Node::Machine(other), length);
            }
            Kind::Isolate => self.isolate(machine, length),
            Kind::ApiDown => {
                self.api.down = true;
                self.after(length, Event::Fault(Fault::ApiUp));
            }
            Kind::ApiFlaky => {
                self.api.lost_answers = self.random.between(20, 400);
                self.api.late_writes = self.random.between(0, 300);
                self.api.errors = self.random.between(0, 200);
                self.after(length, Event::Fault(Fault::ApiSteady));
            }
            Kind::ApiRefuses => {
                let refusal = self.random.pick(&REFUSALS).unwrap_or(ApiRefusal::Forbidden);
                self.api.refusals.insert(pod, refusal);
                self.after(length, Event::Fault(Fault::ApiAccepts(pod)));
            }
            Kind::KillPostmaster => self.kill_postmaster(pod),
            Kind::KillPostgres => self.kill_server(pod),
            Kind::KillAgent => self.kill_agents(pod, length),
            Kind::KillContainer => self.kill_container(pod),
            Kind::FreezeAgent => self.freeze_agent(pod, length),
            Kind::FreezePostmaster => self.freeze_postmaster(pod, length),
            Kind::FreezeMachine => {
                let clock_runs = self.random.chance(500);
                self.freeze_machine(machine, clock_runs);
                self.after(length, Event::Fault(Fault::ThawMachine(machine)));
            }
            Kind::PowerOff => {
                self.power_off(machine);
                self.after(length, Event::Fault(Fault::PowerOn(machine)));
            }
            other => self.strike_objects(other, pod, length),
        }
    }

    fn strike_objects(&mut self, kind: Kind, pod: usize, length: Micros) {
        let machine = self.pods[pod].machine;
        let serial = self.pods[pod].serial;
        match kind {
            Kind::DeletePod => {
                let grace = self.random.pick(&[5, 30, 1800]).unwrap_or(30);
                self.delete_pod(pod, grace * SECOND, false);
            }
            Kind::ForceDeletePod => self.delete_pod(pod, 2 * SECOND, true),
            Kind::LoseVolume => self.lose_volume_if_bearable(pod),
            Kind::DeleteLease => self.delete_lease(),
            Kind::RestoreLease => self.restore_lease(),
            Kind::DeleteEndpoint => self.set_endpoint(None, None),
            Kind::SlowMachine => {
                let by = self.random.millis(20, 900);
                self.network.slow(Node::Machine(machine), by);
                self.after(length, Event::Fault(Fault::Normal(machine)));
            }
            Kind::LoseMessages => {
                self.network.loss = self.random.between(50, 500);
                self.after(length, Event::Fault(Fault::NoLoss));
            }
            Kind::Switchover => {
                let serials: Vec<u32> = self.api.instances.keys().copied().collect();
                let to = if self.random.chance(500) { self.random.pick(&serials) } else { None };
                self.wish_switchover(to);
            }
            Kind::Fence => {
                self.fence(serial, true);
                self.after(length, Event::Fault(Fault::Unfence(serial)));
            }
            Kind::Exclude => {
                self.exclude(serial, true);
                self.after(length, Event::Fault(Fault::Include(serial)));
            }
            Kind::Restart => self.restart(serial),
            Kind::Scale => self.scale(),
            Kind::ChangeSynchronous => self.change_synchronous(),
            Kind::OperatorAway => {
                self.operator.down = true;
                self.after(length, Event::Fault(Fault::OperatorBack));
            }
            Kind::StopAll => self.stop_all(),
            _ => {}
        }
    }

    fn cut_link(&mut self, a: Node, b: Node, length: Micros) {
        if a == b {
            return;
        }
        let (there, back) = match self.random.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        for (cut, from, to) in [(there, a, b), (back, b, a)] {
            if cut {
                self.network.cut(from, to);
                self.after(length, Event::Fault(Fault::HealLink(from, to)));
            }
        }
    }

    fn isolate(&mut self, machine: usize, length: Micros) {
        let node = Node::Machine(machine);
        let mut others = vec![Node::Api];
        others.extend((0..self.machines.len()).filter(|&m| m != machine).map(Node::Machine));
        if self.random.chance(500) {
            others.push(Node::Clients);
        }
        if self.random.chance(300) {
            // All but one member.
            let spared = self.random.index(others.len());
            others.remove(spared);
        }
        for other in others {
            self.network.cut_both(node, other);
            self.after(length, Event::Fault(Fault::HealLink(node, other)));
            self.after(length, Event::Fault(Fault::HealLink(other, node)));
        }
    }

    pub(crate) fn steady_api(&mut self) {
        self.api.lost_answers = 0;
        self.api.late_writes = 0;
        self.api.errors = 0;
    }

    /// Once, or again and again so that the keeper is alone for a while.
    fn kill_agents(&mut self, pod: usize, length: Micros) {
        self.kill_agent(pod);
        if self.random.chance(300) {
            let mut at = 1_600_000;
            while at < length.min(20 * SECOND) {
                self.after(at, Event::Fault(Fault::KillAgent(pod)));
                at += 700_000;
            }
        }
    }

    pub(crate) fn freeze_agent(&mut self, pod: usize, length: Micros) {
        if let Some(agent) = self.pods[pod].agent_mut() {
            agent.frozen = true;
            self.after(length, Event::Fault(Fault::ThawAgent(pod)));
        }
    }

    pub(crate) fn thaw_agent(&mut self, pod: usize) {
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        agent.frozen = false;
        let held = std::mem::take(&mut agent.held);
        for event in held {
            self.after(0, event);
        }
    }

    pub(crate) fn freeze_postmaster(&mut self, pod: usize, length: Micros) {
        if let Some(server) = self.pods[pod].server.as_mut() {
            server.frozen = true;
            self.after(length, Event::Fault(Fault::ThawPostmaster(pod)));
        }
    }

    fn thaw_postmaster(&mut self, pod: usize) {
        if let Some(server) = self.pods[pod].server.as_mut() {
            server.frozen = false;
            let run = server.run;
            self.after(1000, Event::ReceiverRetry { pod, run });
        }
    }

    pub(crate) fn freeze_machine(&mut self, machine: usize, clock_runs: bool) {
        let since = self.now;
        let body = &mut self.machines[machine];
        if body.on && body.frozen.is_none() {
            body.frozen = Some(Freeze { since, clock_runs });
            story!(self, "machine {machine} freezes (clock runs: {clock_runs})");
        }
    }

    pub(crate) fn thaw_machine(&mut self, machine: usize) {
        if self.machines[machine].frozen.is_none() {
            return;
        }
        self.machines[machine].thaw(self.now);
        story!(self, "machine {machine} thaws");
        // What was due meanwhile happens now, in any order within some milliseconds.
        let held = std::mem::take(&mut self.machines[machine].held);
        for event in held {
            let within = self.random.between(0, 3000);
            self.after(within, event);
        }
    }

    pub(crate) fn power_off(&mut self, machine: usize) {
        if !self.machines[machine].on {
            return;
        }
        story!(self, "machine {machine} loses power");
        for pod in 0..self.pods.len() {
            if self.pods[pod].machine != machine {
                continue;
            }
            if let Some(container) = self.pods[pod].container.take() {
                if let Some(agent) = &container.agent {
                    self.add_counts(&agent.protocol.view());
                    self.abandon(pod, agent);
                }
                self.pods[pod].terminated = Some(container.number);
            }
            self.pods[pod].server = None;
            let volume = self.pods[pod].volume;
            self.forget_unflushed(volume);
        }
        self.machines[machine].on = false;
        self.machines[machine].frozen = None;
        self.machines[machine].held.clear();
        if self.random.chance(150) {
            self.machines[machine].out_of_service = true;
        } else if self.random.chance(150) {
            self.machines[machine].node_gone = true;
        }
    }

    pub(crate) fn power_on(&mut self, machine: usize) {
        if self.machines[machine].on {
            return;
        }
        let reading = self.random.between(1_000_000, 30_000_000);
        let now = self.now;
        self.machines[machine].boot(now, reading);
        self.machines[machine].out_of_service = false;
        self.machines[machine].node_gone = false;
        story!(self, "machine {machine} boots");
        for pod in 0..self.pods.len() {
            if self.pods[pod].machine == machine && self.pods[pod].alive {
                if self.pods[pod].terminating.is_some() {
                    self.pods[pod].alive = false;
                    self.pods[pod].object = false;
                    continue;
                }
                let takes = self.random.millis(500, 8000);
                self.after(takes, Event::ContainerStarts { pod });
            }
        }
    }

    pub(crate) fn delete_pod(&mut self, pod: usize, grace: Micros, force: bool) {
        if force {
            self.pods[pod].object = false;
            // A force-deleted pod soon has no token any more (traps H3).
            if self.random.chance(500) {
                self.api.refusals.insert(pod, ApiRefusal::Unauthorized);
            }
        }
        if self.machines[self.pods[pod].machine].on {
            self.terminate(pod, grace);
        }
    }

    /// A loss that the promise covers: never more copies at once than k.
    fn lose_volume_if_bearable(&mut self, pod: usize) {
        let recent =
            self.judge.destroyed.iter().any(|&(at, _)| self.now.saturating_sub(at) < 120 * SECOND);
        if recent || self.judge.destroyed.len() >= 2 {
            return;
        }
        self.lose_volume(pod);
    }

    pub(crate) fn lose_volume(&mut self, pod: usize) {
        let volume = self.pods[pod].volume;
        if self.volumes[volume].lost {
            return;
        }
        story!(self, "{}: its volume is lost", self.pod_name(pod));
        let place: Option<Place> =
            self.volumes[volume].directory.as_ref().map(crate::postgres::Directory::flushed_place);
        let now = self.now;
        if let Some(place) = place {
            self.judge.destroyed.push((now, place));
        }
        self.pods[pod].terminating = Some(0);
        self.kill_container(pod);
        self.pods[pod].alive = false;
        self.pods[pod].object = false;
        self.volumes[volume].lost = true;
        self.volumes[volume].directory = None;
        self.volumes[volume].ledger = None;
    }

    /// Somebody restores an older state of the Lease (a backup of etcd, a GitOps tree).
    pub(crate) fn restore_lease(&mut self) {
        let older: Vec<usize> = (0..self.api.past.len())
            .rev()
            .filter(|&index| self.api.past[index].transitions > 0)
            .take(60)
            .collect();
        let Some(index) = self.random.pick(&older) else { return };
        let record = self.api.past[index].clone();
        story!(self, "an old state of the Lease is restored (term {})", record.transitions);
        self.put_lease(record, None);
    }

    pub(crate) fn fence(&mut self, serial: u32, fenced: bool) {
        if let Some(instance) = self.api.instances.get_mut(&serial) {
            instance.fenced = fenced;
            self.api.directives += 1;
            story!(self, "user: c-{serial} fenced: {fenced}");
        }
    }

    /// The operator wants PostgreSQL of one instance restarted in place.
    pub(crate) fn restart(&mut self, serial: u32) {
        if let Some(instance) = self.api.instances.get_mut(&serial) {
            self.api.directives += 1;
            instance.restart = Some(format!("restart-{}", self.api.directives));
            story!(self, "operator: PostgreSQL of c-{serial} is to restart");
        }
    }

    pub(crate) fn exclude(&mut self, serial: u32, excluded: bool) {
        if let Some(instance) = self.api.instances.get_mut(&serial) {
            instance.excluded = excluded;
            self.api.directives += 1;
        }
    }

    pub(crate) fn scale(&mut self) {
        let present = self.api.instances.values().filter(|own| !own.leaving).count();
        let needed = match self.settings.mode {
            Mode::Asynchronous => 2,
            Mode::Preferred(number) | Mode::Required(number) => {
                usize::try_from(number).unwrap_or(1) + 1
            }
        };
        if present > needed && self.random.chance(500) {
            let holder = self.holder_pod().map(|pod| self.pods[pod].serial);
            let last = self
                .api
                .instances
                .values()
                .rev()
                .find(|own| !own.leaving && Some(own.serial) != holder)
                .map(|own| own.serial);
            if let Some(instance) = last.and_then(|serial| self.api.instances.get_mut(&serial)) {
                instance.leaving = true;
                self.api.directives += 1;
                story!(self, "user: scales down, {last:?} leaves");
            }
        } else if present < 5 {
            story!(self, "user: scales up");
            self.add_instance();
        }
    }

    /// The user changes how many standbys commits wait for, or whether they do.
    pub(crate) fn change_synchronous(&mut self) {
        // The API refuses more than the instances that stay can give.
        let present = self.api.instances.values().filter(|own| !own.leaving).count();
        let most = u64::try_from(present).unwrap_or(3).saturating_sub(1).max(1);
        let number = u32::try_from(self.random.between(1, most.min(2))).unwrap_or(1);
        let mode = match self.settings.mode {
            Mode::Asynchronous => Mode::Asynchronous,
            Mode::Preferred(_) => Mode::Preferred(number),
            Mode::Required(_) => Mode::Required(number),
        };
        self.set_mode(mode);
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.settings.mode = mode;
        self.note_mode(mode, false);
        self.api.synchronous = mode.synchronous();
        self.api.directives += 1;
        story!(self, "user: asks for {mode:?}");
    }

    fn stop_all(&mut self) {
        for pod in 0..self.pods.len() {
            if self.pods[pod].alive && self.pods[pod].container.is_some() {
                let at = self.random.millis(0, 3000);
                match self.random.below(3) {
                    0 => self.kill_container(pod),
                    1 => self.after(at, Event::Fault(Fault::KillPostmaster(pod))),
                    _ => {
                        let machine = self.pods[pod].machine;
                        self.power_off(machine);
                        let back = self.length();
                        self.after(back, Event::Fault(Fault::PowerOn(machine)));
                    }
                }
            }
        }
    }
}
