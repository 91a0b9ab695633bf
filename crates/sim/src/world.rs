//! The whole world of one run: who there is, the queue of what comes, and the true time.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use matriarch_plan::protocol::{self, OperationId, Question, ReplyToken, RequestId};

use crate::{
    Micros,
    api::{Api, ApiRequest, ApiResult},
    clients::Clients,
    faults::Fault,
    invariants::{Finding, Judge},
    machine::{Machine, Pod, Volume},
    network::{Network, Node},
    operator::Operator,
    postgres::Connection,
    random::Random,
    run::Liveness,
    settings::{Settings, Swarm},
    story::Story,
    wal::{Commit, Place, Wal},
};

/// Who sent a request to the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requester {
    /// An agent process: pod, life of the process.
    Agent(usize, u64),
    Operator,
}

/// What happens next somewhere.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    // PostgreSQL
    ServerUp { pod: usize, run: u64 },
    CommitFlushed { pod: usize, run: u64, lsn: u64 },
    WalArrives { connection: u64, upto: u64 },
    WalFlushed { connection: u64, pod: usize, run: u64, upto: u64 },
    ReplyArrives { connection: u64, upto: u64 },
    CheckpointerTakesNames { pod: usize, run: u64 },
    WalSenderTakesNames { connection: u64 },
    ReceiverRetry { pod: usize, run: u64 },
    ConnectionCheck { connection: u64 },
    Promoted { pod: usize, run: u64 },
    ShutdownCheckpoint { pod: usize, run: u64 },
    ServerGone { pod: usize, run: u64 },
    // clients
    ClientTick { client: usize },
    ClientRequest { client: usize, pod: usize, run: u64, commit: Commit },
    ClientReply { client: usize, commit: Commit, place: Place, promised: usize },
    ProxiesSee { pod: Option<usize> },
    // the API
    ApiArrives { from: Requester, node: Node, request: ApiRequest },
    ApiRetransmits { from: Requester, request: ApiRequest, pause: Micros },
    ApiAnswers { from: Requester, result: Box<ApiResult> },
    ApiTimesOut { pod: usize, life: u64, request: RequestId },
    WatchDelivers { pod: usize, life: u64, reading: Box<protocol::LeaseReading> },
    // agents among themselves
    PeerAsks { pod: usize, from: usize, from_life: u64, request: RequestId, question: Question },
    PeerAnswers { pod: usize, life: u64, request: RequestId, answer: Box<protocol::Answer> },
    PeerSilent { pod: usize, life: u64, request: RequestId },
    // processes of a pod
    ContainerStarts { pod: usize },
    AgentStarts { pod: usize, container: u64 },
    AgentTick { pod: usize, life: u64 },
    LedgerDurable { pod: usize, life: u64 },
    DirectivePoll { pod: usize, life: u64 },
    Observe { pod: usize, life: u64, periodic: bool },
    OperationStep { pod: usize, life: u64, operation: OperationId },
    KeeperTick { pod: usize, container: u64 },
    GraceEnds { pod: usize },
    // the rest
    OperatorPass,
    Fault(Fault),
    PhaseCheck,
}

#[derive(Debug)]
struct Queued {
    at: Micros,
    sequence: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// What one run did, for the closing line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) elections: u64,
    pub(crate) failsafe_rounds: u64,
    pub(crate) quick: u64,
    pub(crate) handovers: u64,
    pub(crate) rewinds: u64,
    pub(crate) clones: u64,
    pub(crate) damaged: u64,
    pub(crate) absent: u64,
    pub(crate) refused: u64,
    pub(crate) promotions: u64,
    pub(crate) faults: u64,
    pub(crate) acknowledged: u64,
    pub(crate) lost_asynchronous: u64,
    pub(crate) events: u64,
}

/// One world.
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) random: Random,
    pub(crate) settings: Settings,
    pub(crate) swarm: Swarm,
    pub(crate) wal: Wal,
    pub(crate) network: Network,
    pub(crate) api: Api,
    pub(crate) machines: Vec<Machine>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) clients: Clients,
    pub(crate) operator: Operator,
    pub(crate) judge: Judge,
    pub(crate) story: Story,
    pub(crate) liveness: Liveness,
    pub(crate) counts: Counts,
    pub(crate) commits: Commit,
    /// The cluster was deleted: nothing is left to judge.
    pub(crate) ended: bool,
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    ids: u64,
}

impl World {
    pub(crate) fn new(settings: Settings, swarm: Swarm, random: Random, told: bool) -> Self {
        Self {
            now: 0,
            random,
            swarm,
            wal: Wal::default(),
            network: Network::default(),
            api: Api::default(),
            machines: Vec::new(),
            volumes: Vec::new(),
            pods: Vec::new(),
            connections: BTreeMap::new(),
            clients: Clients::default(),
            operator: Operator::default(),
            judge: Judge::default(),
            story: Story { told, lines: Vec::new() },
            liveness: Liveness::default(),
            counts: Counts::default(),
            commits: 0,
            ended: false,
            queue: BinaryHeap::new(),
            sequence: 0,
            ids: 0,
            settings,
        }
    }

    /// A number that was not used before in this world.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(crate) fn at(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Queued { at, sequence: self.sequence, event }));
    }

    /// Runs until `end` or the first finding.
    pub(crate) fn run_until(&mut self, end: Micros) {
        while self.judge.finding.is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= end => {}
                _ => break,
            }
            let Some(Reverse(next)) = self.queue.pop() else { break };
            self.now = next.at;
            self.counts.events += 1;
            self.dispatch(next.event);
        }
        self.now = self.now.max(end);
    }

    /// The first finding ends a run: what comes after it is not worth judging.
    pub(crate) fn find(&mut self, invariant: &'static str, what: String) {
        if self.judge.finding.is_none() {
            crate::story!(self, "FINDING {invariant}: {what}");
            self.judge.finding = Some(Finding { invariant, what, at: self.now });
        }
    }

    fn dispatch(&mut self, event: Event) {
        if let Some(event) = self.hold_if_frozen(event) {
            self.dispatch_postgres(event);
        }
    }

    /// Keeps an event back while the machine or process that it happens on is frozen.
    fn hold_if_frozen(&mut self, event: Event) -> Option<Event> {
        let (pod, agent) = self.place_of(&event);
        let Some(pod) = pod else { return Some(event) };
        let machine = self.pods[pod].machine;
        if self.machines[machine].frozen.is_some() {
            self.machines[machine].held.push(event);
            return None;
        }
        if agent
            && let Some(process) = self.pods[pod].agent_mut()
            && process.frozen
        {
            process.held.push(event);
            return None;
        }
        Some(event)
    }

    /// On which pod's machine an event happens, and whether in its agent.
    fn place_of(&self, event: &Event) -> (Option<usize>, bool) {
        match event {
            Event::ServerUp { pod, .. }
            | Event::CommitFlushed { pod, .. }
            | Event::WalFlushed { pod, .. }
            | Event::CheckpointerTakesNames { pod, .. }
            | Event::ReceiverRetry { pod, .. }
            | Event::Promoted { pod, .. }
            | Event::ShutdownCheckpoint { pod, .. }
            | Event::ServerGone { pod, .. }
            | Event::ClientRequest { pod, .. }
            | Event::ContainerStarts { pod }
            | Event::AgentStarts { pod, .. }
            | Event::KeeperTick { pod, .. }
            | Event::GraceEnds { pod } => (Some(*pod), false),
            Event::WalArrives { connection, .. } => {
                (self.connections.get(connection).map(|link| link.standby), false)
            }
            Event::ReplyArrives { connection, .. } | Event::WalSenderTakesNames { connection } => {
                (self.connections.get(connection).map(|link| link.primary), false)
            }
            Event::ApiTimesOut { pod, .. }
            | Event::WatchDelivers { pod, .. }
            | Event::PeerAsks { pod, .. }
            | Event::PeerAnswers { pod, .. }
            | Event::PeerSilent { pod, .. }
            | Event::AgentTick { pod, .. }
            | Event::LedgerDurable { pod, .. }
            | Event::DirectivePoll { pod, .. }
            | Event::Observe { pod, .. }
            | Event::OperationStep { pod, .. } => (Some(*pod), true),
            Event::ApiAnswers { from: Requester::Agent(pod, _), .. } => (Some(*pod), true),
            Event::ApiAnswers { from: Requester::Operator, .. }
            | Event::ConnectionCheck { .. }
            | Event::ClientTick { .. }
            | Event::ClientReply { .. }
            | Event::ProxiesSee { .. }
            | Event::ApiArrives { .. }
            | Event::ApiRetransmits { .. }
            | Event::OperatorPass
            | Event::Fault(_)
            | Event::PhaseCheck => (None, false),
        }
    }

    fn dispatch_postgres(&mut self, event: Event) {
        match event {
            Event::ServerUp { pod, run } => {
                self.server_up(pod, run);
                self.nudge(pod);
            }
            Event::CommitFlushed { pod, run, lsn } => self.commit_flushed(pod, run, lsn),
            Event::WalArrives { connection, upto } => self.wal_arrives(connection, upto),
            Event::WalFlushed { connection, pod, run, upto } => {
                self.wal_flushed(connection, pod, run, upto);
            }
            Event::ReplyArrives { connection, upto } => self.reply_arrives(connection, upto),
            Event::CheckpointerTakesNames { pod, run } => {
                self.checkpointer_takes_names(pod, run);
                self.nudge(pod);
            }
            Event::WalSenderTakesNames { connection } => {
                let pod = self.connections.get(&connection).map(|link| link.primary);
                self.walsender_takes_names(connection);
                if let Some(pod) = pod {
                    self.nudge(pod);
                }
            }
            Event::ReceiverRetry { pod, run } => self.receiver_retry(pod, run),
            Event::ConnectionCheck { connection } => self.connection_check(connection),
            Event::Promoted { pod, run } => {
                self.promoted(pod, run);
                self.nudge(pod);
            }
            Event::ShutdownCheckpoint { pod, run } => self.shutdown_checkpoint(pod, run),
            Event::ServerGone { pod, run } => self.server_gone(pod, run),
            Event::ClientTick { client } => self.client_tick(client),
            Event::ClientRequest { client, pod, run, commit } => {
                self.client_request(client, pod, run, commit);
            }
            Event::ClientReply { client, commit, place, promised } => {
                self.client_reply(client, commit, place, promised);
            }
            Event::ProxiesSee { pod } => self.proxies_see(pod),
            other => self.dispatch_processes(other),
        }
    }

    fn dispatch_processes(&mut self, event: Event) {
        match event {
            Event::ApiArrives { from, node, request } => self.api_arrives(from, node, request),
            Event::ApiRetransmits { from, request, pause } => {
                self.api_retransmits(from, request, pause);
            }
            Event::ApiAnswers { from, result } => self.api_answers(from, *result),
            Event::ApiTimesOut { pod, life, request } => self.api_times_out(pod, life, request),
            Event::WatchDelivers { pod, life, reading } => self.watch_delivers(pod, life, *reading),
            Event::PeerAsks { pod, from, from_life, request, question } => {
                self.peer_asks(pod, from, from_life, request, question);
            }
            Event::PeerAnswers { pod, life, request, answer } => {
                self.peer_answers(pod, life, request, answer);
            }
            Event::PeerSilent { pod, life, request } => self.peer_silent(pod, life, request),
            Event::ContainerStarts { pod } => self.container_starts(pod),
            Event::AgentStarts { pod, container } => self.agent_starts(pod, container),
            Event::AgentTick { pod, life } => self.agent_tick(pod, life),
            Event::LedgerDurable { pod, life } => self.ledger_durable(pod, life),
            Event::DirectivePoll { pod, life } => self.directive_poll(pod, life),
            Event::Observe { pod, life, periodic } => self.observe(pod, life, periodic),
            Event::OperationStep { pod, life, operation } => {
                self.operation_step(pod, life, operation);
            }
            Event::KeeperTick { pod, container } => self.keeper_tick(pod, container),
            Event::GraceEnds { pod } => self.grace_ends(pod),
            Event::OperatorPass => self.operator_pass(),
            Event::Fault(fault) => self.strike(fault),
            Event::PhaseCheck => self.phase_check(),
            _ => {}
        }
    }

    // Where things are.

    pub(crate) fn node_of(&self, pod: usize) -> Node {
        Node::Machine(self.pods[pod].machine)
    }

    pub(crate) fn pod_name(&self, pod: usize) -> String {
        self.pods[pod].name.clone()
    }

    pub(crate) fn pod_frozen(&self, pod: usize) -> bool {
        self.machines[self.pods[pod].machine].frozen.is_some()
    }

    /// Can the first pod send to the second? Asks cuts alone.
    pub(crate) fn pods_linked(&self, from: usize, to: usize) -> bool {
        self.network.open(self.node_of(from), self.node_of(to))
    }

    pub(crate) fn pod_delay(&mut self, from: usize, to: usize) -> Micros {
        let (from, to) = (self.node_of(from), self.node_of(to));
        self.network.delay(&mut self.random, from, to)
    }

    pub(crate) fn new_token(&mut self) -> ReplyToken {
        ReplyToken(self.fresh())
    }
}
