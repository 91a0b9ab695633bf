//! One run from one seed: a phase of safety with faults, then a phase of liveness without.

use matriarch_plan::protocol::View;

use crate::{
    Micros, SECOND,
    faults::{Fault, Kind},
    invariants::Finding,
    machine::Operation,
    postgres::{Phase, Role},
    random::Random,
    settings::{Mode, Settings, Swarm},
    story,
    world::{Counts, Event, World},
};

/// From the end of the faults, so long until clients can write again.
const WRITABLE_WITHIN: Micros = 90 * SECOND;
/// And so long until every instance follows again.
const WHOLE_WITHIN: Micros = 240 * SECOND;
/// Nothing may change for so long once all is well.
const QUIET: Micros = 20 * SECOND;

/// How one run ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) finding: Option<Finding>,
    pub(crate) story: Vec<String>,
    /// The cluster waits for a human, as it should: copies were destroyed.
    pub(crate) waits_for_human: bool,
    /// Simulated time.
    pub(crate) length: Micros,
}

/// How a run differs from what its seed alone would give.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Variation {
    pub(crate) told: bool,
    pub(crate) model_mutant: Option<crate::settings::ModelMutant>,
    #[cfg(feature = "mutation")]
    pub(crate) mutation: crate::settings::Mutant,
}

/// The liveness phase of a world.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Liveness {
    pub(crate) began: Option<Micros>,
    writable: bool,
    /// Since when all is well, and the term then.
    well: Option<(Micros, u64)>,
    pub(crate) waits_for_human: bool,
    /// Some agent has named what a human may do.
    human_asked: bool,
    pub(crate) over: bool,
    /// A machine that stays off.
    spared: Option<usize>,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, variation: Variation) -> Outcome {
    let mut random = Random::from_seed(seed);
    let mut settings = Settings::draw(&mut random);
    settings.model_mutant = variation.model_mutant;
    #[cfg(feature = "mutation")]
    {
        settings.mutation = variation.mutation;
    }
    let swarm = Swarm::draw(&mut random);
    let mut world = World::new(settings, swarm, random, variation.told);
    story!(
        world,
        "seed {seed}: {} instances, {:?}, maximum lag {:?}, failsafe at most {}",
        world.settings.instances,
        world.settings.mode,
        world.settings.maximum_lag,
        world.settings.failsafe_max
    );
    world.create_cluster();
    world.start_clients(2);
    let first = world.random.millis(15_000, 40_000);
    world.after(first, Event::Fault(Fault::Draw));
    let safety = world.swarm.safety;
    world.run_until(safety);
    world.settle(true);
    world.conclude()
}

impl World {
    /// Faults stop; the cluster must become writable and whole again.
    pub(crate) fn settle(&mut self, may_spare: bool) {
        if self.judge.finding.is_some() || self.ended {
            return;
        }
        self.heal_everything(may_spare);
        self.liveness.began = Some(self.now);
        self.after(SECOND, Event::PhaseCheck);
        let longest = WHOLE_WITHIN + self.patience() + 60 * SECOND;
        let end = self.now + longest;
        while !self.liveness.over && self.judge.finding.is_none() && self.now < end {
            let next = (self.now + 5 * SECOND).min(end);
            self.run_until(next);
        }
    }

    /// What stragglers must wait before they may run, if the former holder may be gone for good.
    fn patience(&self) -> Micros {
        if self.judge.destroyed.is_empty() {
            0
        } else {
            self.settings.failsafe_max.0 * 1000 + 10 * SECOND
        }
    }

    pub(crate) fn conclude(mut self) -> Outcome {
        if self.judge.finding.is_none() && !self.liveness.waits_for_human && !self.ended {
            self.clients.stopped = true;
            let end = self.now + 5 * SECOND;
            self.run_until(end);
            self.account();
        }
        for pod in 0..self.pods.len() {
            if let Some(agent) = self.pods[pod].agent() {
                let view = agent.protocol.view();
                self.add_counts(&view);
            }
        }
        if let Some(finding) = self.judge.finding.clone() {
            story!(self, "{}: {}", finding.invariant, finding.what);
        }
        Outcome {
            counts: self.counts,
            finding: self.judge.finding,
            story: self.story.lines,
            waits_for_human: self.liveness.waits_for_human,
            length: self.now,
        }
    }

    /// What a process of the protocol has done, when it ends.
    pub(crate) fn add_counts(&mut self, view: &View) {
        let done = view.counts;
        let counts = &mut self.counts;
        counts.elections += u64::from(done.elections);
        counts.quick += u64::from(done.quick);
        counts.failsafe_rounds += u64::from(done.failsafe_rounds);
        counts.handovers += u64::from(done.handovers);
        counts.rewinds += u64::from(done.rewinds);
        counts.clones += u64::from(done.clones);
        counts.damaged += u64::from(done.damaged);
        counts.absent += u64::from(done.created);
        counts.refused += u64::from(done.refused);
    }

    /// Faults stop for a core: all machines, or all but one that is not needed.
    fn heal_everything(&mut self, may_spare: bool) {
        story!(self, "the faults end");
        self.network.heal_all();
        self.api.down = false;
        self.api.refusals.clear();
        self.api.scripted.clear();
        self.steady_api();
        self.operator.down = false;
        self.api.switchover = None;
        for instance in self.api.instances.values_mut() {
            instance.fenced = false;
            instance.excluded = false;
            instance.restart = None;
        }
        self.api.directives += 1;
        let spared = if may_spare { self.spare_machine() } else { None };
        self.swarm.weights.clear();
        for machine in 0..self.machines.len() {
            self.thaw_machine(machine);
            if spared != Some(machine) {
                self.power_on(machine);
            }
        }
        if let Some(machine) = spared {
            self.power_off(machine);
        }
        self.liveness.spared = spared;
        for pod in 0..self.pods.len() {
            self.thaw_agent(pod);
            self.strike(Fault::ThawPostmaster(pod));
        }
    }

    /// A machine without the holder that the rest can do without.
    fn spare_machine(&mut self) -> Option<usize> {
        let weight = |kind: Kind| {
            crate::faults::KINDS
                .iter()
                .position(|&other| other == kind)
                .and_then(|index| self.swarm.weights.get(index))
                .copied()
                .unwrap_or(0)
        };
        // Without a whole Lease every instance has to answer.
        let risky =
            weight(Kind::DeleteLease) + weight(Kind::RestoreLease) + weight(Kind::LoseVolume);
        let standbys = match self.settings.mode {
            Mode::Required(number) => usize::try_from(number).unwrap_or(1),
            Mode::Asynchronous | Mode::Preferred(_) => 1,
        };
        let members = self.api.instances.values().filter(|own| !own.leaving).count();
        if risky > 0 || members < standbys + 2 || !self.random.chance(300) {
            return None;
        }
        let lease = self.lease()?;
        // Whoever may have to be asked for the past stays.
        let holder = self.holder_pod()?;
        if lease.quorum.is_some() && self.server(holder).is_none() {
            return None;
        }
        let away = self.pods[holder].machine;
        // An instance without a pod has its volume there, and gets its next pod nowhere else.
        let place = |serial: &u32| {
            self.pods.iter().rfind(|pod| pod.serial == *serial).map(|pod| pod.machine)
        };
        let on = |machine: usize| {
            self.api.instances.keys().filter(|serial| place(serial) == Some(machine)).count()
        };
        // A machine may carry two of five instances.
        let used: Vec<usize> = self
            .pods
            .iter()
            .filter(|pod| pod.alive && pod.machine != away)
            .map(|pod| pod.machine)
            .filter(|&machine| members > standbys + on(machine))
            .collect();
        self.random.pick(&used)
    }

    /// Every second of the liveness phase.
    pub(crate) fn phase_check(&mut self) {
        if self.liveness.over {
            return;
        }
        self.after(SECOND, Event::PhaseCheck);
        let Some(began) = self.liveness.began else { return };
        let since = self.now - began;
        self.liveness.human_asked |= (0..self.pods.len()).any(|pod| {
            self.pods[pod].agent().is_some_and(|agent| !agent.protocol.view().human.is_empty())
        });
        let writable = self.now.saturating_sub(self.clients.last_answer) < 4 * SECOND
            && self.clients.last_answer > began;
        if writable && !self.liveness.writable {
            self.liveness.writable = true;
            story!(self, "writable again after {:.1} s", since as f64 / 1e6);
        }
        let patience = self.patience();
        if !self.liveness.writable && since > WRITABLE_WITHIN + patience {
            self.stuck("not writable");
            return;
        }
        let whole = writable && self.whole();
        let term = self.term();
        match (whole, self.liveness.well) {
            (true, None) => self.liveness.well = Some((self.now, term)),
            (true, Some((at, before))) => self.quiet(at, before, term),
            (false, Some((at, before))) if since > 60 * SECOND && before != term => {
                let what = format!("term {before} became {term} although nothing was wrong");
                self.find("I15", what);
                let _ = at;
            }
            (false, _) => {
                self.liveness.well = None;
                if since > WHOLE_WITHIN + patience {
                    self.stuck("not whole");
                }
            }
        }
    }

    fn quiet(&mut self, at: Micros, before: u64, term: u64) {
        if before != term {
            self.liveness.well = Some((self.now, term));
        } else if self.now - at >= QUIET {
            story!(self, "all is well");
            self.liveness.over = true;
        }
    }

    /// Not writable or not whole in time: right only if copies are gone and a human is asked.
    fn stuck(&mut self, how: &str) {
        self.liveness.over = true;
        let human = !self.judge.destroyed.is_empty() && self.liveness.human_asked;
        if human {
            self.liveness.waits_for_human = true;
            story!(self, "{how}: waits for a human");
            return;
        }
        let states = self.states();
        self.find("I4", format!("{how}: {states}"));
    }

    /// How every live pod is, for a finding.
    pub(crate) fn states(&self) -> String {
        let states: Vec<String> = (0..self.pods.len())
            .filter(|&pod| self.pods[pod].alive)
            .map(|pod| self.state_of(pod))
            .collect();
        states.join("; ")
    }

    fn state_of(&self, pod: usize) -> String {
        let server = self
            .server(pod)
            .map_or("down".to_owned(), |server| format!("{:?} {:?}", server.role, server.phase));
        match self.pods[pod].agent() {
            Some(agent) => {
                let view = agent.protocol.view();
                let running: Vec<String> = agent
                    .operation
                    .iter()
                    .chain(&agent.beside)
                    .map(|Operation { id, .. }| id.0.to_string())
                    .collect();
                format!(
                    "{} {server}, {:?} waits for {:?}, operations [{}]",
                    self.pods[pod].name,
                    view.role,
                    view.waiting,
                    running.join(",")
                )
            }
            None => format!("{} {server}, no agent", self.pods[pod].name),
        }
    }

    /// The holder serves, the endpoint leads to it, and everybody else streams from it.
    pub(crate) fn whole(&self) -> bool {
        let Some(holder) = self.holder_pod() else { return false };
        if self.api.endpoint.pod != Some(holder)
            || !self.server(holder).is_some_and(crate::postgres::Server::takes_writes)
        {
            return false;
        }
        self.api.instances.values().all(|instance| {
            let pod = self.pods.iter().rposition(|pod| pod.serial == instance.serial);
            let Some(pod) = pod else { return false };
            if instance.leaving {
                return false;
            }
            pod == holder
                || self.liveness.spared == Some(self.pods[pod].machine)
                || self.server(pod).is_some_and(|server| {
                    server.role == Role::Standby
                        && server.phase == Phase::Running
                        && server
                            .receiver
                            .and_then(|link| self.connections.get(&link))
                            .is_some_and(|link| link.primary == holder)
                })
        })
    }
}
