//! The agent's driver: carries the protocol's commands out in a pod of this world and brings it
//! the facts. It chooses nothing.

use std::collections::{BTreeMap, VecDeque};

use matriarch_plan::protocol::{
    self, Action, Address, Answer, ApiRefusal, Bootstrap, Command, Config, Directive,
    Event as Fact, Incarnation, KeeperEvent, LeaseReading, LeaseWriting, Limits, Peer, Protocol,
    Question, RequestId, Span, Termination,
};

use crate::{
    Micros, SECOND,
    api::{API_LIMIT, ApiRequest, ApiResult},
    machine::{Agent, Expected},
    story,
    world::{Event, Requester, World},
};

/// The pod that has an address of this world.
pub(crate) fn pod_of(address: &Address) -> Option<usize> {
    address.host.parse().ok()
}

/// The address of a pod of this world.
pub(crate) fn address_of(pod: usize) -> Address {
    Address { host: pod.to_string(), postgres_port: 5432, agent_port: 8000 }
}

/// Incarnations are numbers inside this world.
pub(crate) fn number_of(incarnation: &Incarnation) -> u64 {
    incarnation.0.parse().unwrap_or(0)
}

pub(crate) fn incarnation_of(number: u64) -> Incarnation {
    Incarnation(number.to_string())
}

impl World {
    fn live_agent(&mut self, pod: usize, life: u64) -> Option<&mut Agent> {
        self.pods[pod].agent_mut().filter(|agent| agent.life == life)
    }

    /// The keeper starts the agent, once it holds the lock on the volume.
    pub(crate) fn agent_starts(&mut self, pod: usize, number: u64) {
        let volume = self.pods[pod].volume;
        let here = self.pods[pod].container.as_ref();
        if !here.is_some_and(|container| container.number == number && container.agent.is_none()) {
            return;
        }
        let taken = (0..self.pods.len()).any(|other| {
            other != pod
                && self.pods[other].volume == volume
                && !self.volumes[volume].unlocked
                && self.pods[other]
                    .container
                    .as_ref()
                    .is_some_and(|container| container.agent.is_some())
        });
        if taken {
            self.after(SECOND / 2, Event::AgentStarts { pod, container: number });
            return;
        }
        let life = self.fresh();
        let config = self.config(pod, number);
        let ledger = self.volumes[volume].ledger.clone().unwrap_or_default();
        let now = self.clock(pod);
        let protocol = Protocol::new(config, ledger, now);
        let Some(container) = self.pods[pod].container.as_mut() else { return };
        container.agent = Some(Agent {
            life,
            protocol,
            frozen: false,
            held: Vec::new(),
            commands: VecDeque::new(),
            writing: None,
            requests: BTreeMap::new(),
            asked: BTreeMap::new(),
            operation: None,
            beside: Vec::new(),
            next_tick: None,
            directive_seen: None,
            nudged: false,
            endpoint: None,
            pace: (0, 0),
            observed: None,
        });
        story!(self, "{}: agent starts (life {life})", self.pod_name(pod));
        self.after(1000, Event::Observe { pod, life, periodic: true });
        self.after(2000, Event::DirectivePoll { pod, life });
        self.after(3000, Event::AgentTick { pod, life });
        self.tell_of_termination(pod);
    }

    fn config(&mut self, pod: usize, number: u64) -> Config {
        Config {
            name: self.pods[pod].name.as_str().into(),
            pod_uid: self.pods[pod].uid.as_str().into(),
            container_id: format!("k{number}").as_str().into(),
            address: address_of(pod),
            seed: self.random.next(),
            #[cfg(feature = "mutation")]
            mutation: self.settings.mutation,
        }
    }

    /// The agent process dies; PostgreSQL and the keeper go on.
    pub(crate) fn kill_agent(&mut self, pod: usize) {
        let Some(container) = self.pods[pod].container.as_mut() else { return };
        let number = container.number;
        let Some(mut agent) = container.agent.take() else { return };
        story!(self, "{}: agent dies", self.pod_name(pod));
        self.add_counts(&agent.protocol.view());
        // What was being flushed may be on the disk or not.
        if let Some(ledger) = agent.writing.take()
            && self.random.chance(500)
        {
            let volume = self.pods[pod].volume;
            self.volumes[volume].ledger = Some(*ledger);
        }
        self.abandon(pod, &agent);
        let again = self.random.millis(50, 1500);
        self.after(again, Event::AgentStarts { pod, container: number });
    }

    /// Brings a fact to the protocol and takes its commands.
    pub(crate) fn feed(&mut self, pod: usize, fact: Fact) {
        let now = self.clock(pod);
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        let commands = agent.protocol.on(fact, now);
        agent.commands.extend(commands);
        self.pump(pod);
        self.schedule_tick(pod);
        self.end_if_terminated(pod);
    }

    fn schedule_tick(&mut self, pod: usize) {
        let machine = self.pods[pod].machine;
        let now = self.now;
        let Some(agent) = self.pods[pod].agent() else { return };
        let (life, next) = (agent.life, agent.next_tick);
        let Some((moment, _)) = agent.protocol.poll_timeout() else { return };
        // Timers fire a little late, as they do.
        let at = self.machines[machine].when(moment, now).max(now + 50);
        if next.is_some_and(|next| next > now && next <= at) {
            return;
        }
        if let Some(agent) = self.pods[pod].agent_mut() {
            agent.next_tick = Some(at);
        }
        self.at(at, Event::AgentTick { pod, life });
    }

    pub(crate) fn agent_tick(&mut self, pod: usize, life: u64) {
        let now = self.now;
        let Some(agent) = self.live_agent(pod, life) else { return };
        match agent.next_tick {
            // A later wake-up that an earlier one has made superfluous.
            Some(next) if next > now => return,
            Some(_) => agent.next_tick = None,
            None => {}
        }
        self.feed(pod, Fact::Tick);
    }

    /// Carries out commands in order until one has to be waited for.
    fn pump(&mut self, pod: usize) {
        loop {
            let Some(agent) = self.pods[pod].agent_mut() else { return };
            if agent.writing.is_some() {
                return;
            }
            let life = agent.life;
            let Some(command) = agent.commands.pop_front() else { return };
            self.carry_out(pod, life, command);
        }
    }

    fn carry_out(&mut self, pod: usize, life: u64, command: Command) {
        let from = Requester::Agent(pod, life);
        match command {
            Command::ReadLease { request } => {
                self.await_answer(pod, request, Expected::Reading);
                self.send_to_api(from, ApiRequest::ReadLease { request });
            }
            Command::WriteLease { request, base, record } => {
                self.await_answer(pod, request, Expected::Writing);
                let request = ApiRequest::WriteLease { request: Some(request), base, record };
                self.send_to_api(from, request);
            }
            Command::Ask { request, to, address, question, limit } => {
                self.ask(pod, request, to.as_str(), &address, question, limit);
            }
            Command::Reply { token, answer } => {
                let Some(agent) = self.pods[pod].agent_mut() else { return };
                if let Some((asker, asker_life, request)) = agent.asked.remove(&token) {
                    self.reply_to(pod, asker, asker_life, request, answer);
                }
            }
            Command::WriteLedger(ledger) => {
                if let Some(agent) = self.pods[pod].agent_mut() {
                    agent.writing = Some(ledger);
                }
                let takes = if self.random.chance(30) {
                    self.random.millis(5, 80)
                } else {
                    self.random.between(300, 3000)
                };
                self.after(takes, Event::LedgerDurable { pod, life });
            }
            Command::Arm(right) => self.tell_keeper(pod, KeeperEvent::Armed(right)),
            Command::Run { operation, action } => self.begin(pod, operation, action),
        }
    }

    pub(crate) fn ledger_durable(&mut self, pod: usize, life: u64) {
        let volume = self.pods[pod].volume;
        let Some(agent) = self.live_agent(pod, life) else { return };
        let Some(ledger) = agent.writing.take() else { return };
        self.volumes[volume].ledger = Some(*ledger);
        self.pump(pod);
    }

    fn await_answer(&mut self, pod: usize, request: RequestId, what: Expected) {
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        agent.requests.insert(request, what);
        let life = agent.life;
        self.after(API_LIMIT, Event::ApiTimesOut { pod, life, request });
    }

    fn ask(
        &mut self,
        pod: usize,
        request: RequestId,
        to: &str,
        address: &Address,
        question: Question,
        limit: Span,
    ) {
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        agent.requests.insert(request, Expected::Peer);
        let life = agent.life;
        self.after(limit.0 * 1000, Event::PeerSilent { pod, life, request });
        let Some(peer) = pod_of(address).filter(|&peer| peer < self.pods.len()) else { return };
        // TLS verifies the name; nobody listens where no agent runs.
        if self.pods[peer].name != to
            || !self.pods_linked(pod, peer)
            || self.network.loses(&mut self.random)
        {
            return;
        }
        let delay = self.pod_delay(pod, peer);
        self.after(
            delay,
            Event::PeerAsks { pod: peer, from: pod, from_life: life, request, question },
        );
    }

    pub(crate) fn peer_asks(
        &mut self,
        pod: usize,
        from: usize,
        from_life: u64,
        request: RequestId,
        question: Question,
    ) {
        let token = self.new_token();
        let name = self.pods[from].name.as_str().into();
        let Some(agent) = self.pods[pod].agent_mut() else { return };
        agent.asked.insert(token, (from, from_life, request));
        self.feed(pod, Fact::Asked { token, from: name, question });
    }

    fn reply_to(
        &mut self,
        pod: usize,
        asker: usize,
        life: u64,
        request: RequestId,
        answer: Box<Answer>,
    ) {
        if !self.pods_linked(pod, asker) || self.network.loses(&mut self.random) {
            return;
        }
        let delay = self.pod_delay(pod, asker);
        self.after(delay, Event::PeerAnswers { pod: asker, life, request, answer });
    }

    pub(crate) fn peer_answers(
        &mut self,
        pod: usize,
        life: u64,
        request: RequestId,
        answer: Box<Answer>,
    ) {
        let Some(agent) = self.live_agent(pod, life) else { return };
        if agent.requests.remove(&request).is_some() {
            self.feed(pod, Fact::Answered { request, answer });
        }
    }

    pub(crate) fn peer_silent(&mut self, pod: usize, life: u64, request: RequestId) {
        let Some(agent) = self.live_agent(pod, life) else { return };
        if agent.requests.remove(&request).is_some() {
            self.feed(pod, Fact::Unanswered { request });
        }
    }

    pub(crate) fn api_answers(&mut self, from: Requester, result: ApiResult) {
        let Requester::Agent(pod, life) = from else { return };
        let Some(agent) = self.live_agent(pod, life) else { return };
        match result {
            ApiResult::Read { request, reading } => {
                if agent.requests.remove(&request).is_some() {
                    self.feed(pod, Fact::LeaseRead { request: Some(request), reading });
                }
            }
            ApiResult::Written { request: Some(request), writing } => {
                if agent.requests.remove(&request).is_some() {
                    self.feed(pod, Fact::LeaseWritten { request, writing });
                }
            }
            ApiResult::Written { request: None, .. } => {}
            ApiResult::Endpoint { operation, answer } => {
                self.endpoint_answered(pod, operation, answer);
            }
        }
    }

    /// No answer within a second.
    pub(crate) fn api_times_out(&mut self, pod: usize, life: u64, request: RequestId) {
        let Some(agent) = self.live_agent(pod, life) else { return };
        let fact = match agent.requests.remove(&request) {
            Some(Expected::Writing) => {
                Fact::LeaseWritten { request, writing: LeaseWriting::Unknown }
            }
            Some(Expected::Reading) => {
                Fact::LeaseRead { request: Some(request), reading: LeaseReading::NoAnswer }
            }
            Some(Expected::Peer) | None => return,
        };
        self.feed(pod, fact);
    }

    pub(crate) fn watch_delivers(&mut self, pod: usize, life: u64, reading: LeaseReading) {
        if self.live_agent(pod, life).is_some() {
            self.feed(pod, Fact::LeaseRead { request: None, reading });
        }
    }

    /// Does the API answer this pod's agent at all?
    fn reaches_api(&self, pod: usize) -> bool {
        let node = self.node_of(pod);
        !self.api.down
            && self.network.open(node, crate::network::Node::Api)
            && self.network.open(crate::network::Node::Api, node)
            && !self.api.refusals.contains_key(&pod)
    }

    /// Reads the directive and reports the own Instance's status.
    pub(crate) fn directive_poll(&mut self, pod: usize, life: u64) {
        if self.live_agent(pod, life).is_none() {
            return;
        }
        let again = self.random.millis(700, 2500);
        self.after(again, Event::DirectivePoll { pod, life });
        if !self.reaches_api(pod) {
            return;
        }
        self.report_status(pod);
        let latest = self.api.directives;
        let Some(agent) = self.live_agent(pod, life) else { return };
        if agent.directive_seen == Some(latest) {
            return;
        }
        agent.directive_seen = Some(latest);
        let directive = self.directive_for(self.pods[pod].serial);
        self.feed(pod, Fact::Directive(Box::new(directive)));
    }

    /// `status.incarnation`, `status.address` and `status.term`, when they changed.
    fn report_status(&mut self, pod: usize) {
        let incarnation = self.volumes[self.pods[pod].volume]
            .directory
            .as_ref()
            .filter(|directory| directory.files != crate::postgres::Files::Incomplete)
            .map(|directory| incarnation_of(directory.incarnation));
        let address = address_of(pod);
        let serial = self.pods[pod].serial;
        let term = self.pods[pod].agent().map(|agent| agent.protocol.ledger().term);
        let Some(instance) = self.api.instances.get_mut(&serial) else { return };
        instance.term = term.unwrap_or(instance.term);
        if instance.incarnation != incarnation || instance.address.as_ref() != Some(&address) {
            instance.incarnation = incarnation;
            instance.address = Some(address);
            self.api.directives += 1;
        }
    }

    pub(crate) fn directive_for(&self, serial: u32) -> Directive {
        let own = self.api.instances.get(&serial).cloned().unwrap_or_default();
        Directive {
            members: self
                .api
                .instances
                .values()
                .map(|instance| Peer {
                    name: instance_name(instance.serial).as_str().into(),
                    incarnation: instance.incarnation.clone(),
                    address: instance.address.clone(),
                    leaving: instance.leaving,
                })
                .collect(),
            bootstrap: if own.bootstrap_primary { Bootstrap::Initdb } else { Bootstrap::Clone },
            bootstrap_primary: own.bootstrap_primary,
            fenced: own.fenced,
            leaving: own.leaving,
            cluster_gone: self.api.cluster_gone,
            excluded: own.excluded,
            delayed: false,
            switchover: self.api.switchover.clone(),
            restart: own.restart.clone(),
            synchronous: self.api.synchronous.clone(),
            timing: protocol::Timing::default(),
            limits: Limits {
                maximum_lag: self.settings.maximum_lag,
                failsafe_max: self.settings.failsafe_max,
                failover_delay: Span::ZERO,
                priority: 0,
            },
            delays: protocol::Delays {
                stop: Span::seconds(60),
                smart: None,
                switchover: Span::seconds(20),
                promotion: self.settings.promotion,
            },
        }
    }

    /// SIGTERM reaches the pod.
    pub(crate) fn terminate(&mut self, pod: usize, grace: Micros) {
        if self.pods[pod].terminating.is_some() || !self.pods[pod].alive {
            return;
        }
        self.pods[pod].terminating = Some(grace);
        story!(self, "{}: SIGTERM, {} s of grace", self.pod_name(pod), grace / SECOND);
        self.after(grace, Event::GraceEnds { pod });
        self.tell_of_termination(pod);
        self.end_if_terminated(pod);
    }

    /// What the agent finds out about the end of its pod, also one that has just started.
    fn tell_of_termination(&mut self, pod: usize) {
        let Some(grace) = self.pods[pod].terminating else { return };
        let answered = self.reaches_api(pod) && !self.api.refusals.contains_key(&pod);
        let termination = if !answered {
            Termination::Unknown
        } else if self.pods[pod].object {
            Termination::Graceful { grace: Span(grace / 1000) }
        } else {
            Termination::Gone
        };
        self.feed(pod, Fact::Terminating(termination));
    }

    /// The container is left once PostgreSQL is down and the protocol has nothing more to do.
    pub(crate) fn end_if_terminated(&mut self, pod: usize) {
        let body = &self.pods[pod];
        if body.terminating.is_none() || body.ends || !body.alive || body.server.is_some() {
            return;
        }
        let may_leave = match body.container.as_ref().map(|container| &container.agent) {
            Some(Some(agent)) => {
                // A copy that is being made is given up.
                let copies = |it: &crate::machine::Operation| {
                    matches!(it.action, Action::Clone { .. } | Action::Initialize)
                };
                agent.operation.as_ref().is_none_or(copies) && agent.protocol.may_leave()
            }
            // The keeper waits for the next agent.
            Some(None) => false,
            None => true,
        };
        if may_leave {
            self.pods[pod].ends = true;
            let rest = self.random.millis(400, 1200);
            self.after(rest, Event::GraceEnds { pod });
        }
    }

    pub(crate) fn grace_ends(&mut self, pod: usize) {
        if self.pods[pod].terminating.is_none() || !self.pods[pod].alive {
            return;
        }
        self.kill_container(pod);
        self.pods[pod].alive = false;
        self.pods[pod].object = false;
        story!(self, "{}: pod has ended", self.pod_name(pod));
    }
}

/// The name of the instance with this serial.
pub(crate) fn instance_name(serial: u32) -> String {
    format!("c-{serial}")
}

/// A refusal to draw from.
pub(crate) const REFUSALS: [ApiRefusal; 3] =
    [ApiRefusal::Unauthorized, ApiRefusal::Forbidden, ApiRefusal::NotFound];
