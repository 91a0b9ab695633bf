//! kube-apiserver as the agents meet it: the Lease, the EndpointSlice, Instances and pods, with
//! compare-and-swap, outages, refusals and writes whose answer is lost.

use std::collections::BTreeMap;

use matriarch_plan::protocol::{
    Address, ApiRefusal, Base, Incarnation, Lease, LeaseReading, LeaseRecord, LeaseWriting,
    OperationId, RequestId, Synchronous, Term, Version, directive::Switchover,
};

use crate::{
    Micros, SECOND,
    endpoint::{EndpointAnswer, EndpointObject, EndpointRequest},
    network::Node,
    story,
    world::{Event, Requester, World},
};

/// How long an agent waits for the API.
pub(crate) const API_LIMIT: Micros = SECOND;

/// Time until TCP sends again what was not acknowledged (RFC 6298; Linux begins with 200 ms), and
/// how long that time gets before Linux gives up the connection of a process that has closed it.
const RETRANSMIT: Micros = SECOND / 5;
const RETRANSMIT_LONGEST: Micros = 60 * SECOND;

/// The Lease object.
#[derive(Clone, Debug)]
pub(crate) struct LeaseObject {
    pub(crate) version: u64,
    pub(crate) record: LeaseRecord,
    /// The same, read; none if it is empty or makes no sense.
    pub(crate) lease: Option<Lease>,
}

/// What the operator and the user say of one instance, and what its agent reports.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstanceObject {
    pub(crate) serial: u32,
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) address: Option<Address>,
    /// Highest term that its agent has obeyed.
    pub(crate) term: Term,
    pub(crate) fenced: bool,
    pub(crate) leaving: bool,
    pub(crate) excluded: bool,
    /// Id of the restart in place that was asked for last.
    pub(crate) restart: Option<String>,
    pub(crate) bootstrap_primary: bool,
}

/// The API and what it holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Api {
    pub(crate) version: u64,
    pub(crate) lease: Option<LeaseObject>,
    /// Every version of the Lease that ever was, the latest last; old ones can be restored.
    pub(crate) past: Vec<LeaseRecord>,
    pub(crate) endpoint: EndpointObject,
    pub(crate) instances: BTreeMap<u32, InstanceObject>,
    /// Grows with every change of what directives are made of.
    pub(crate) directives: u64,
    pub(crate) switchover: Option<Switchover>,
    pub(crate) synchronous: Option<Synchronous>,
    pub(crate) cluster_gone: bool,
    /// Reached by nobody.
    pub(crate) down: bool,
    /// Refuses requests of these pods.
    pub(crate) refusals: BTreeMap<usize, ApiRefusal>,
    /// Per mille of writes that are applied and not answered, applied late, or answered 5xx.
    pub(crate) lost_answers: u64,
    pub(crate) late_writes: u64,
    pub(crate) errors: u64,
    /// For the named schedules: how the next write of the Lease by this pod goes.
    pub(crate) scripted: BTreeMap<usize, Ambiguity>,
    /// So many of the next writes of the EndpointSlice fail.
    pub(crate) endpoint_failures: u32,
}

/// What becomes of a write whose answer does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ambiguity {
    AppliedUnanswered,
    /// Applied so much later, if its base is still the present version then.
    AppliedLate(Micros),
    NotApplied,
}

/// A request to the API.
#[derive(Clone, Debug)]
pub(crate) enum ApiRequest {
    ReadLease { request: RequestId },
    WriteLease { request: Option<RequestId>, base: Base, record: LeaseRecord },
    Endpoint { operation: OperationId, request: EndpointRequest },
}

impl ApiRequest {
    fn reads(&self) -> bool {
        match self {
            Self::ReadLease { .. } => true,
            Self::Endpoint { request, .. } => {
                matches!(request, EndpointRequest::Read | EndpointRequest::AskLease)
            }
            Self::WriteLease { .. } => false,
        }
    }
}

/// What the API answers.
#[derive(Clone, Debug)]
pub(crate) enum ApiResult {
    Read { request: RequestId, reading: LeaseReading },
    Written { request: Option<RequestId>, writing: LeaseWriting },
    Endpoint { operation: OperationId, answer: EndpointAnswer },
}

impl World {
    /// Sends a request from a machine.
    pub(crate) fn send_to_api(&mut self, from: Requester, request: ApiRequest) {
        let node = match from {
            Requester::Agent(pod, _) => self.node_of(pod),
            Requester::Operator => Node::Operator,
        };
        if !self.network.open(node, Node::Api) {
            // What goes into a connection that was there before the cut stays in the kernel.
            if self.random.chance(self.swarm.kept) {
                self.after(RETRANSMIT, Event::ApiRetransmits { from, request, pause: RETRANSMIT });
            }
            return;
        }
        if self.network.loses(&mut self.random) {
            return;
        }
        let delay = self.network.delay(&mut self.random, node, Node::Api);
        let slow = if self.random.chance(5) { self.random.millis(20, 600) } else { 300 };
        self.after(delay + slow, Event::ApiArrives { from, node, request });
    }

    /// The kernel of a machine that was cut off sends again what its agent wrote long ago, at twice
    /// the distance each time; nobody listens for the answer any more.
    pub(crate) fn api_retransmits(&mut self, from: Requester, request: ApiRequest, pause: Micros) {
        let Requester::Agent(pod, _) = from else { return };
        let machine = &self.machines[self.pods[pod].machine];
        if !self.pods[pod].alive || !machine.on || pause > RETRANSMIT_LONGEST {
            return;
        }
        if machine.frozen.is_none() && self.network.open(self.node_of(pod), Node::Api) {
            self.after(SECOND / 1000, Event::ApiArrives { from, node: Node::Clients, request });
            return;
        }
        let pause = pause * 2;
        self.after(pause, Event::ApiRetransmits { from, request, pause });
    }

    pub(crate) fn api_arrives(&mut self, from: Requester, node: Node, request: ApiRequest) {
        if self.api.down {
            return;
        }
        if let Requester::Agent(pod, _) = from
            && let Some(&refusal) = self.api.refusals.get(&pod)
        {
            self.answer_api(from, node, refused(&request, refusal));
            return;
        }
        if matches!(request, ApiRequest::Endpoint { .. }) && self.api.endpoint_failures > 0 {
            self.api.endpoint_failures -= 1;
            return;
        }
        let is_write = matches!(request, ApiRequest::WriteLease { .. });
        let scripted = match from {
            Requester::Agent(pod, _) if is_write => self.api.scripted.remove(&pod),
            Requester::Agent(..) | Requester::Operator => None,
        };
        let fate = scripted.or_else(|| self.random_fate(&request));
        match fate {
            None => {
                let result = self.apply(from, request);
                self.answer_api(from, node, result);
            }
            Some(Ambiguity::AppliedUnanswered) => {
                self.apply(from, request);
            }
            Some(Ambiguity::AppliedLate(by)) => {
                self.after(by, Event::ApiArrives { from, node: Node::Clients, request });
            }
            Some(Ambiguity::NotApplied) => {}
        }
    }

    fn random_fate(&mut self, request: &ApiRequest) -> Option<Ambiguity> {
        if request.reads() {
            return self.random.chance(self.api.errors).then_some(Ambiguity::NotApplied);
        }
        if self.random.chance(self.api.lost_answers) {
            Some(Ambiguity::AppliedUnanswered)
        } else if self.random.chance(self.api.late_writes) {
            Some(Ambiguity::AppliedLate(self.random.millis(200, 15_000)))
        } else {
            self.random.chance(self.api.errors).then_some(Ambiguity::NotApplied)
        }
    }

    fn answer_api(&mut self, from: Requester, node: Node, result: ApiResult) {
        if !self.network.open(Node::Api, node) || node == Node::Clients {
            return;
        }
        let delay = self.network.delay(&mut self.random, Node::Api, node);
        self.after(delay, Event::ApiAnswers { from, result: Box::new(result) });
    }

    fn apply(&mut self, from: Requester, request: ApiRequest) -> ApiResult {
        match request {
            ApiRequest::ReadLease { request } => {
                ApiResult::Read { request, reading: self.lease_reading() }
            }
            ApiRequest::WriteLease { request, base, record } => {
                let writing = self.write_lease(from, base, record);
                ApiResult::Written { request, writing }
            }
            ApiRequest::Endpoint { operation, request } => {
                ApiResult::Endpoint { operation, answer: self.apply_to_endpoint(&request) }
            }
        }
    }

    /// L, unless it is absent or empty.
    pub(crate) fn lease(&self) -> Option<&Lease> {
        self.api.lease.as_ref().and_then(|object| object.lease.as_ref())
    }

    /// The term that stands in L, also in one that is empty; 0 if L is absent.
    pub(crate) fn term(&self) -> u64 {
        self.api.lease.as_ref().map_or(0, |object| object.record.transitions)
    }

    pub(crate) fn lease_reading(&self) -> LeaseReading {
        match &self.api.lease {
            Some(object) => LeaseReading::Found {
                version: Version(object.version),
                record: object.record.clone(),
            },
            None => LeaseReading::Absent,
        }
    }

    fn write_lease(&mut self, from: Requester, base: Base, record: LeaseRecord) -> LeaseWriting {
        match (base, &self.api.lease) {
            (Base::Version(version), Some(object)) if object.version == version.0 => {}
            (Base::Absent, None) => {}
            (Base::Version(_), None) => return LeaseWriting::Refused(ApiRefusal::NotFound),
            (Base::Version(_) | Base::Absent, Some(_)) => return LeaseWriting::Conflict,
        }
        let version = self.put_lease(record, Some(from));
        LeaseWriting::Written(Version(version))
    }

    /// Puts a Lease there, whoever does it, and lets the watches know.
    pub(crate) fn put_lease(&mut self, record: LeaseRecord, by: Option<Requester>) -> u64 {
        let lease = record.decode().ok().flatten();
        let before = self.lease().cloned();
        self.api.version += 1;
        let version = self.api.version;
        self.judge_lease(before.as_ref(), lease.as_ref(), by);
        self.api.past.push(record.clone());
        self.api.lease = Some(LeaseObject { version, record, lease });
        self.tell_watches();
        version
    }

    /// Somebody deletes the Lease by hand.
    pub(crate) fn delete_lease(&mut self) {
        self.api.version += 1;
        self.api.lease = None;
        story!(self, "the Lease is deleted by hand");
        self.tell_watches();
    }

    fn tell_watches(&mut self) {
        if self.swarm.watches == 0 || self.api.down {
            return;
        }
        for pod in 0..self.pods.len() {
            let Some(life) = self.pods[pod].agent().map(|agent| agent.life) else { continue };
            let node = self.node_of(pod);
            if !self.network.open(Node::Api, node)
                || self.api.refusals.contains_key(&pod)
                || !self.random.chance(self.swarm.watches)
            {
                continue;
            }
            let slow = if self.random.chance(20) {
                self.random.millis(100, 4000)
            } else {
                self.random.millis(2, 30)
            };
            let reading = Box::new(self.lease_reading());
            self.after(slow, Event::WatchDelivers { pod, life, reading });
        }
    }
}

fn refused(request: &ApiRequest, refusal: ApiRefusal) -> ApiResult {
    match request {
        ApiRequest::ReadLease { request } => {
            ApiResult::Read { request: *request, reading: LeaseReading::Refused(refusal) }
        }
        ApiRequest::WriteLease { request, .. } => {
            ApiResult::Written { request: *request, writing: LeaseWriting::Refused(refusal) }
        }
        ApiRequest::Endpoint { operation, .. } => {
            ApiResult::Endpoint { operation: *operation, answer: EndpointAnswer::Refused }
        }
    }
}
