//! The EndpointSlice of `-rw` in the API, and how an agent writes it (rule 12a).

use matriarch_plan::protocol::{
    EndpointReading, LeaseReading, OperationId, Outcome, Pointing, Term, Version, endpoint,
};

use crate::{
    Micros, SECOND,
    api::ApiRequest,
    settings::ModelMutant,
    world::{Event, Requester, World},
};

/// How long an agent waits for each answer.
const LIMIT: Micros = SECOND;
/// How often one operation begins anew after a conflict.
const ATTEMPTS: u8 = 3;

/// The object.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EndpointObject {
    version: u64,
    term: Option<Term>,
    /// Where it leads.
    pub(crate) pod: Option<usize>,
    changed: Micros,
}

/// A request about it.
#[derive(Clone, Debug)]
pub(crate) enum EndpointRequest {
    Read,
    AskLease,
    /// None: whatever its version is.
    Set {
        base: Option<Version>,
        term: Term,
        pod: usize,
    },
    Clear {
        base: Version,
        pod: usize,
    },
}

/// What the API answers.
#[derive(Clone, Debug)]
pub(crate) enum EndpointAnswer {
    Seen(EndpointReading, Option<usize>),
    Lease(LeaseReading),
    Written(EndpointReading),
    Conflict,
    Refused,
}

/// What an operation on it is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Point { to: usize, term: Term },
    Unpoint { away: usize },
}

impl EndpointObject {
    fn reading(&self) -> EndpointReading {
        EndpointReading { version: Version(self.version), term: self.term }
    }
}

impl World {
    pub(crate) fn apply_to_endpoint(&mut self, request: &EndpointRequest) -> EndpointAnswer {
        let present = self.api.endpoint.reading().version;
        match *request {
            EndpointRequest::Read => {
                EndpointAnswer::Seen(self.api.endpoint.reading(), self.api.endpoint.pod)
            }
            EndpointRequest::AskLease => EndpointAnswer::Lease(self.lease_reading()),
            EndpointRequest::Set { base, term, pod } => {
                if base.is_some_and(|base| base != present) {
                    return EndpointAnswer::Conflict;
                }
                self.check_endpoint(pod);
                self.set_endpoint(Some(pod), Some(term));
                EndpointAnswer::Written(self.api.endpoint.reading())
            }
            EndpointRequest::Clear { base, pod } => {
                if base != present {
                    return EndpointAnswer::Conflict;
                }
                if self.api.endpoint.pod == Some(pod) {
                    self.set_endpoint(None, self.api.endpoint.term);
                }
                EndpointAnswer::Written(self.api.endpoint.reading())
            }
        }
    }

    /// What changes nothing makes no new version, as with the real API.
    pub(crate) fn set_endpoint(&mut self, pod: Option<usize>, term: Option<Term>) {
        let before = self.api.endpoint;
        if before.pod == pod && before.term == term {
            return;
        }
        self.api.version += 1;
        self.api.endpoint = EndpointObject { version: self.api.version, term, pod, ..before };
        if before.pod == pod {
            return;
        }
        // kube-proxy waits a second after the end of its last sync (traps H1).
        let since = self.now.saturating_sub(before.changed);
        self.api.endpoint.changed = self.now;
        let soon = self.random.millis(26, 76);
        let delay = if since < SECOND { (SECOND - since).max(soon) } else { soon };
        self.after(delay, Event::ProxiesSee { pod });
    }

    /// I5: a write of the EndpointSlice leads clients away from the holder, to one that is not. Whose
    /// Lease was taken back goes on until it hears of it; and before the holder's first write in its
    /// term one of the former holder's may still arrive, which the holder's own then replaces (12a).
    fn check_endpoint(&mut self, pod: usize) {
        let Some(holder) = self.holder_pod() else { return };
        let written = self.lease().is_some_and(|lease| self.api.endpoint.term == Some(lease.term));
        let taken_back = self.judge.restored || self.is_outwitted(pod);
        if holder != pod && self.api.endpoint.pod == Some(holder) && written && !taken_back {
            let (from, to) = (self.pod_name(holder), self.pod_name(pod));
            self.find("I5", format!("-rw is led from the holder {from} to {to}"));
        }
    }

    /// Begins an operation on it, or ends one that has no answer; `stage` counts its requests.
    pub(crate) fn write_endpoint(&mut self, pod: usize, id: OperationId, wish: Option<Wish>) {
        let now = self.now;
        let Some(operation) = self.operation(pod, id) else { return };
        if operation.stage > 0 {
            if now >= operation.due {
                self.fail(pod, id, "no answer from the API");
            }
            return;
        }
        match wish {
            None => self.fail(pod, id, "no such address"),
            Some(wish) => self.try_endpoint(pod, id, wish),
        }
    }

    /// By what the agent remembers; what is taken out is always read first.
    fn try_endpoint(&mut self, pod: usize, id: OperationId, wish: Wish) {
        let remembered = self.pods[pod].agent().and_then(|agent| agent.endpoint);
        match (wish, remembered) {
            (Wish::Point { .. }, Some(reading)) => self.point_endpoint(pod, id, wish, reading),
            (Wish::Point { .. }, None) | (Wish::Unpoint { .. }, _) => {
                self.ask_endpoint(pod, id, EndpointRequest::Read);
            }
        }
    }

    fn point_endpoint(&mut self, pod: usize, id: OperationId, wish: Wish, seen: EndpointReading) {
        let Wish::Point { to, term } = wish else { return };
        if self.settings.model_mutant == Some(ModelMutant::PointsWithoutVersion) {
            let request = EndpointRequest::Set { base: None, term, pod: to };
            return self.ask_endpoint(pod, id, request);
        }
        match seen.pointing(term) {
            Pointing::Write(base) => {
                let request = EndpointRequest::Set { base: Some(base), term, pod: to };
                self.ask_endpoint(pod, id, request);
            }
            Pointing::AskLease(_) => self.ask_endpoint(pod, id, EndpointRequest::AskLease),
        }
    }

    fn ask_endpoint(&mut self, pod: usize, id: OperationId, request: EndpointRequest) {
        let Some(life) = self.pods[pod].agent().map(|agent| agent.life) else { return };
        let stage = self.operation(pod, id).map_or(0, |operation| operation.stage);
        self.set_stage(pod, id, stage.saturating_add(1), self.now + LIMIT);
        let request = ApiRequest::Endpoint { operation: id, request };
        self.send_to_api(Requester::Agent(pod, life), request);
        self.again(pod, id, LIMIT);
    }

    pub(crate) fn endpoint_answered(
        &mut self,
        pod: usize,
        id: OperationId,
        answer: EndpointAnswer,
    ) {
        let Some(operation) = self.operation(pod, id) else { return };
        let stage = operation.stage;
        let action = operation.action.clone();
        let Some(wish) = crate::operations::wish(&action) else { return };
        match answer {
            EndpointAnswer::Seen(reading, leads) => {
                self.remember_endpoint(pod, Some(reading));
                match wish {
                    Wish::Point { .. } => self.point_endpoint(pod, id, wish, reading),
                    Wish::Unpoint { away } if leads == Some(away) => {
                        let request = EndpointRequest::Clear { base: reading.version, pod: away };
                        self.ask_endpoint(pod, id, request);
                    }
                    Wish::Unpoint { .. } => self.finish(pod, id, Outcome::Done),
                }
            }
            EndpointAnswer::Lease(reading) => {
                let own = self.pods[pod].uid.as_str().into();
                let base = self.pods[pod].agent().and_then(|agent| agent.endpoint);
                match (wish, base) {
                    (Wish::Point { to, term }, Some(base))
                        if endpoint::is_granted(&reading, &own, term) =>
                    {
                        let base = Some(base.version);
                        let request = EndpointRequest::Set { base, term, pod: to };
                        self.ask_endpoint(pod, id, request);
                    }
                    _ => self.fail(pod, id, "another has taken the Lease"),
                }
            }
            EndpointAnswer::Written(reading) => {
                self.remember_endpoint(pod, Some(reading));
                self.finish(pod, id, Outcome::Done);
            }
            EndpointAnswer::Conflict => {
                self.remember_endpoint(pod, None);
                if stage < ATTEMPTS * 3 {
                    self.try_endpoint(pod, id, wish);
                } else {
                    self.fail(pod, id, "others write it all the time");
                }
            }
            EndpointAnswer::Refused => self.fail(pod, id, "the API refused"),
        }
    }

    fn remember_endpoint(&mut self, pod: usize, reading: Option<EndpointReading>) {
        if let Some(agent) = self.pods[pod].agent_mut() {
            agent.endpoint = reading;
        }
    }
}
