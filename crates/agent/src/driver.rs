//! The event loop: feeds the protocol's state machine and carries out its commands in their order.
//! It chooses nothing.

pub mod context;
pub mod directive;
pub mod link;
pub mod observe;
pub mod operation;
pub mod slots;
pub mod tend;
pub mod upgrade;
pub mod wal;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher;
use matriarch_api::causes::chain;
use matriarch_api::instance::InstanceStatus;
use matriarch_plan::protocol::{
    Action, Address, Answer, Base, Command, Event, InstanceName, LeaseReading, LeaseRecord,
    LeaseWriting, Lsn, Moment, OperationId, Outcome, PostgresState, Protocol, Question, ReplyToken,
    RequestId, Role, Span, Termination,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::Ended;
use crate::endpoint::ReadWriteEndpoint;
use crate::error::Error;
use crate::health::{Health, ServerHealth};
use crate::keeper::message::{BootTime, Request};
use crate::lease::LeaseClient;
use crate::ledger::LedgerFile;
use crate::metrics::{self, Figures};
use crate::peers::client::Peers;
use crate::peers::server::IncomingQuestion;
use crate::report::{self, Doing, Sources};
use crate::stall::{self, Stall};
use context::{Context, with};
use directive::directive;
use link::{Hello, News};
use observe::Seen;
use tend::Tended;
use upgrade::Upgrade;

/// How often a running PostgreSQL is looked at.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// The protocol hears of an unchanged PostgreSQL at least this often.
const REPEAT: Duration = Duration::from_millis(900);
/// After a failure the Lease is not watched again before.
const WATCH_AGAIN: Duration = Duration::from_secs(1);
/// The clock is looked at this often whatever was asked for: a machine may have slept.
const TICK: Duration = Duration::from_millis(200);
/// How often the keeper hears that the agent lives.
const ALIVE_PERIOD: Duration = Duration::from_secs(5);
/// How long a pod that is to end goes on with a rewind.
const REWIND_GRACE: Duration = Duration::from_secs(60);
/// How long the own pod may take to be read on SIGTERM (traps H3).
const POD_LIMIT: Duration = Duration::from_millis(100);
/// A server that takes no new session for so long, though it did, is given up.
const HUNG_LIMIT: Duration = Duration::from_secs(10);

/// What comes to the loop.
pub enum Input {
    /// A fact for the protocol.
    Event(Event),
    /// From the keeper.
    News(News),
    /// A peer asks.
    Question(IncomingQuestion),
    /// PostgreSQL was looked at.
    Seen(Box<Seen>),
    /// An operation ended.
    Finished(OperationId, Outcome, Box<Seen>),
    /// The server does not take sessions any more.
    Hung,
}

/// A request to the Lease, carried out one after the other.
enum LeaseRequest {
    Read(RequestId),
    Write(RequestId, Base, LeaseRecord),
    /// What the watch brought; none when the Lease is gone.
    Seen(Option<Box<Lease>>),
}

/// Everything that is published to other tasks.
pub struct Outlets {
    /// For the probes.
    pub health: watch::Sender<Health>,
    /// For `/status` and `matriarch agent status`.
    pub status: watch::Sender<Bytes>,
    /// For the Instance's status.
    pub report: watch::Sender<InstanceStatus>,
    /// For the metrics.
    pub figures: watch::Sender<Figures>,
    /// For what is kept true beside the protocol.
    pub seen: watch::Sender<Seen>,
    /// This instance is primary by the protocol.
    pub holder: watch::Sender<bool>,
}

/// The loop.
pub struct Driver {
    context: Context,
    protocol: Protocol,
    ledger: LedgerFile,
    peers: Peers,
    endpoint: ReadWriteEndpoint,
    inputs: mpsc::UnboundedSender<Input>,
    lease: mpsc::UnboundedSender<LeaseRequest>,
    outlets: Outlets,
    tended: watch::Receiver<Tended>,
    upgrade: watch::Sender<Upgrade>,
    /// What the keeper speaks, and that it is not to be asked to become this program.
    keeper_protocol: u8,
    keeper_stays: bool,
    positions: Arc<Mutex<BTreeMap<String, Lsn>>>,
    operation: Option<(OperationId, JoinHandle<()>)>,
    last_service: Option<Action>,
    /// The last of those failed.
    service_fails: Arc<AtomicBool>,
    doing: Doing,
    failure: Option<String>,
    /// What is told of why the protocol waits.
    stall: Stall,
    replies: BTreeMap<ReplyToken, oneshot::Sender<Answer>>,
    next_token: u64,
    seen: Seen,
    told: Option<(matriarch_plan::protocol::Observation, tokio::time::Instant)>,
    looking: bool,
    look_again: bool,
    /// Questions that wait for the next look, and those that the running one answers: it began
    /// after them.
    asked: Vec<IncomingQuestion>,
    answering: Vec<IncomingQuestion>,
    terminating: Option<Instant>,
    writes: u32,
    /// Holder and term of the Lease that was sent last.
    sent: (String, u64),
    /// The outcome of the write under way is worth a line.
    telling: bool,
    renewals: u64,
}

/// What the loop is made of.
pub struct Parts {
    /// Shared things.
    pub context: Context,
    /// The state machine.
    pub protocol: Protocol,
    /// Its memory.
    pub ledger: LedgerFile,
    /// The way to other agents.
    pub peers: Peers,
    /// The `-rw` EndpointSlice.
    pub endpoint: ReadWriteEndpoint,
    /// For tasks that answer.
    pub inputs: mpsc::UnboundedSender<Input>,
    /// What is published.
    pub outlets: Outlets,
    /// What is kept true beside the protocol.
    pub tended: watch::Receiver<Tended>,
    /// How the upgrade of this agent stands.
    pub upgrade: watch::Sender<Upgrade>,
    /// How the keeper found things.
    pub keeper: Hello,
    /// Positions of the other members, by name.
    pub positions: Arc<Mutex<BTreeMap<String, Lsn>>>,
}

/// The protocol's time.
#[must_use]
pub fn now() -> Moment {
    BootTime::now().moment()
}

impl Driver {
    /// Ready to run.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (lease, requests) = mpsc::unbounded_channel();
        let client = LeaseClient::new(&parts.context.options, parts.context.identity);
        let stall = Stall::new(stall::Names {
            cluster: parts.context.options.cluster.clone(),
            instance: parts.context.options.instance.clone(),
            quorum: parts.context.identity.key("quorum"),
        });
        tokio::spawn(serve_lease(client, requests, parts.inputs.clone()));
        tokio::spawn(watch_lease(parts.context.clone(), lease.clone()));
        Self {
            context: parts.context,
            protocol: parts.protocol,
            ledger: parts.ledger,
            peers: parts.peers,
            endpoint: parts.endpoint,
            inputs: parts.inputs,
            lease,
            outlets: parts.outlets,
            tended: parts.tended,
            upgrade: parts.upgrade,
            keeper_protocol: parts.keeper.protocol,
            keeper_stays: parts.keeper.stays,
            positions: parts.positions,
            operation: None,
            last_service: None,
            service_fails: Arc::default(),
            doing: Doing::Nothing,
            failure: None,
            stall,
            replies: BTreeMap::new(),
            next_token: 0,
            seen: Seen::default(),
            told: None,
            looking: false,
            look_again: false,
            asked: Vec::new(),
            answering: Vec::new(),
            terminating: None,
            writes: 0,
            sent: (String::new(), 0),
            telling: false,
            renewals: 0,
        }
    }

    /// Runs until the pod ends.
    ///
    /// # Errors
    /// If the ledger cannot be written or the keeper is gone.
    pub async fn run(
        mut self,
        mut inputs: mpsc::UnboundedReceiver<Input>,
        terminating: bool,
    ) -> Result<Ended, Error> {
        let mut known = self.context.known.clone();
        known.mark_changed();
        let mut looks = tokio::time::interval(LOOK_PERIOD);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut alive = tokio::time::interval(ALIVE_PERIOD);
        let mut tended = self.tended.clone();
        self.look();
        if terminating {
            self.terminate();
        }
        loop {
            let wait = self
                .protocol
                .poll_timeout()
                .map_or(TICK, |(due, _)| Duration::from_millis(due.since(now()).0).min(TICK));
            tokio::select! {
                biased;
                input = inputs.recv() => match input {
                    Some(input) => self.take(input)?,
                    None => return Err(Error::KeeperGone),
                },
                changed = known.changed() => {
                    if changed.is_ok() { self.directive()?; }
                }
                changed = tended.changed() => {
                    if changed.is_ok() { self.directive()?; }
                }
                _ = looks.tick() => {
                    if self.context.link.postmaster().is_running() { self.look(); }
                }
                _ = alive.tick() => self.context.link.tell(Request::Alive),
                () = tokio::time::sleep(wait) => self.feed(Event::Tick)?,
            }
            self.publish();
            if self.may_leave() {
                self.context.link.tell(Request::Leave);
                return Ok(Ended::Pod);
            }
            self.renew_keeper();
            if self.exchanges() {
                return Ok(Ended::Replaced);
            }
        }
    }

    fn take(&mut self, input: Input) -> Result<(), Error> {
        match input {
            Input::Event(event) => {
                if let Event::LeaseWritten { writing, .. } = &event {
                    let written = matches!(writing, LeaseWriting::Written(_));
                    if std::mem::take(&mut self.telling) {
                        let what = if written { "was written" } else { "was not written" };
                        tracing::info!(?writing, "the Lease {what}");
                    }
                    self.writes = self.writes.saturating_sub(1);
                    self.renewals += u64::from(written);
                }
                if let Event::Answered { answer, .. } = &event {
                    let status = &answer.status;
                    with(&self.positions, |it| {
                        it.insert(status.member.name.0.clone(), status.position.lsn);
                    });
                }
                self.feed(event)
            }
            Input::News(News::Gone) => Err(self.keeper_gone()),
            Input::News(News::Terminate) => {
                self.terminate();
                Ok(())
            }
            Input::News(News::Postmaster(_)) => {
                self.look();
                Ok(())
            }
            Input::Question(incoming) => match incoming.question {
                // Decided by what is true now: the asker has stopped and waits for this.
                Question::Position | Question::Handover { .. } => {
                    self.asked.push(incoming);
                    self.look();
                    Ok(())
                }
                Question::Status | Question::Failsafe { .. } | Question::Election { .. } => {
                    self.hear(incoming)
                }
            },
            Input::Seen(seen) => {
                self.looking = false;
                self.saw(*seen)?;
                for incoming in std::mem::take(&mut self.answering) {
                    self.hear(incoming)?;
                }
                if std::mem::take(&mut self.look_again) {
                    self.look();
                }
                Ok(())
            }
            Input::Finished(operation, outcome, seen) => self.finished(operation, outcome, *seen),
            Input::Hung => {
                tracing::error!("PostgreSQL takes no sessions any more: it is ended");
                self.context.link.tell(Request::Fence { grace: Duration::from_millis(300) });
                Ok(())
            }
        }
    }

    fn hear(&mut self, incoming: IncomingQuestion) -> Result<(), Error> {
        let IncomingQuestion { from, question, reply } = incoming;
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        // Those whose askers have gone away are forgotten.
        self.replies.retain(|_, reply| !reply.is_closed());
        self.replies.insert(token, reply);
        self.feed(Event::Asked { token, from, question })
    }

    /// Nobody would stop PostgreSQL in time any more: this agent does, and ends.
    fn keeper_gone(&self) -> Error {
        if let link::Postmaster::Running { pid } = self.context.link.postmaster()
            && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        }
        Error::KeeperGone
    }

    fn finished(
        &mut self,
        operation: OperationId,
        outcome: Outcome,
        seen: Seen,
    ) -> Result<(), Error> {
        if self.operation.as_ref().is_some_and(|(id, _)| *id == operation) {
            self.operation = None;
            self.doing = Doing::Nothing;
        }
        match &outcome {
            Outcome::Failed { message } => self.failure = Some(message.clone()),
            Outcome::Done | Outcome::NewDirectory { .. } => self.failure = None,
            Outcome::Superseded => {}
        }
        self.told = None;
        self.saw(seen)?;
        self.feed(Event::Finished { operation, outcome })
    }

    /// The protocol hears of a directive once there are certificates, because a clone needs them at
    /// once. A start from the ledger alone waits for them by itself (`operation::start`).
    fn directive(&mut self) -> Result<(), Error> {
        let Some(known) = self.context.known.borrow().clone() else { return Ok(()) };
        crate::logs::set_level(&known.spec.log_level);
        if !self.tended.borrow().certificates {
            return Ok(());
        }
        let directive = directive(&known, &self.context.options.instance);
        self.feed(Event::Directive(Box::new(directive)))
    }

    fn saw(&mut self, seen: Seen) -> Result<(), Error> {
        // A look that an operation has overtaken tells how it was before: PostgreSQL that has been
        // started since would be started again.
        if seen.began < self.seen.began {
            return Ok(());
        }
        let observation = seen.observation.clone();
        self.outlets.seen.send_replace(seen.clone());
        self.seen = seen;
        let same = self
            .told
            .as_ref()
            .is_some_and(|(told, at)| *told == observation && at.elapsed() < REPEAT);
        if same {
            return Ok(());
        }
        self.told = Some((observation.clone(), tokio::time::Instant::now()));
        self.feed(Event::Observed(Box::new(observation)))
    }

    fn look(&mut self) {
        if self.looking {
            self.look_again = true;
            return;
        }
        self.looking = true;
        self.answering.append(&mut self.asked);
        let (context, inputs) = (self.context.clone(), self.inputs.clone());
        let stopping = self.doing == Doing::Stopping;
        tokio::spawn(async move {
            let seen = observe::look(&context, stopping).await;
            let _ended = inputs.send(Input::Seen(Box::new(seen)));
        });
    }

    fn feed(&mut self, event: Event) -> Result<(), Error> {
        for command in self.protocol.on(event, now()) {
            self.carry_out(command)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::ReadLease { request } => {
                let _ended = self.lease.send(LeaseRequest::Read(request));
            }
            Command::WriteLease { request, base, record } => {
                self.writes += 1;
                self.tell_of_write(&record);
                let _ended = self.lease.send(LeaseRequest::Write(request, base, record));
            }
            Command::Ask { request, to, address, question, limit } => {
                self.ask(request, to, address, question, limit);
            }
            Command::Reply { token, answer } => {
                if let Some(reply) = self.replies.remove(&token) {
                    // The asker may have given up.
                    let _late = reply.send(*answer);
                }
            }
            Command::WriteLedger(ledger) => self.ledger.write(&ledger).map_err(Error::Ledger)?,
            Command::Arm(Some(right)) => self.context.link.tell(Request::Arm(right)),
            Command::Arm(None) => self.context.link.tell(Request::Disarm),
            Command::Run { operation, action } => self.begin(operation, action),
        }
        Ok(())
    }

    /// Another holder or another term is worth a line; a renewal is none.
    fn tell_of_write(&mut self, record: &LeaseRecord) {
        let news = (record.holder_identity.clone(), record.transitions);
        if self.sent != news {
            tracing::info!(holder = news.0, term = news.1, "writes the Lease");
            self.sent = news;
            self.telling = true;
        }
    }

    fn ask(
        &self,
        request: RequestId,
        to: InstanceName,
        address: Address,
        question: Question,
        limit: Span,
    ) {
        let (peers, inputs) = (self.peers.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let limit = Duration::from_millis(limit.0);
            let event = match peers.ask(&to, &address, &question, limit).await {
                Ok(answer) => Event::Answered { request, answer: Box::new(answer) },
                Err(error) => {
                    tracing::debug!(peer = to.as_str(), error = chain(&error), "no answer");
                    Event::Unanswered { request }
                }
            };
            let _ended = inputs.send(Input::Event(event));
        });
    }

    fn begin(&mut self, operation: OperationId, action: Action) {
        // The Service is made sure of with every renewal, which is no news.
        let repeated = self.last_service.as_ref() == Some(&action);
        if is_of_service(&action) {
            self.last_service = Some(action.clone());
        }
        if !repeated {
            tracing::info!(?action, "begin");
        }
        let doing = match &action {
            Action::Initialize => Doing::Initializing,
            Action::Clone { .. } => Doing::Cloning,
            Action::Rewind { .. } => Doing::Rewinding,
            Action::StartPrimary { .. } | Action::StartStandby { .. } => Doing::Starting,
            Action::Promote { .. } => Doing::Promoting,
            Action::Stop { .. } => Doing::Stopping,
            Action::Follow { .. } => Doing::Nothing,
            Action::Checkpoint
            | Action::SetNames { .. }
            | Action::PointService { .. }
            | Action::UnpointService { .. } => {
                self.begin_beside(operation, action, repeated);
                return;
            }
        };
        if let Some((before, task)) = self.operation.take() {
            task.abort();
            let event = Event::Finished { operation: before, outcome: Outcome::Superseded };
            let _ended = self.inputs.send(Input::Event(event));
        }
        self.doing = doing;
        if matches!(action, Action::Promote { .. } | Action::StartPrimary { .. }) {
            let endpoint = self.endpoint.clone();
            tokio::spawn(async move { endpoint.look().await });
        }
        let (context, inputs) = (self.context.clone(), self.inputs.clone());
        let task = tokio::task::spawn_local(async move {
            let outcome = operation::run(&context, &action).await;
            tracing::info!(?action, ?outcome, "end");
            let seen = observe::look(&context, false).await;
            let _ended = inputs.send(Input::Finished(operation, outcome, Box::new(seen)));
        });
        self.operation = Some((operation, task));
    }

    fn begin_beside(&self, operation: OperationId, action: Action, repeated: bool) {
        let (context, inputs) = (self.context.clone(), self.inputs.clone());
        let endpoint = self.endpoint.clone();
        let failing = self.service_fails.clone();
        tokio::task::spawn_local(async move {
            let outcome = match &action {
                Action::PointService { to, term } => {
                    let pointed = endpoint.point_to(&to.host, to.postgres_port, *term).await;
                    pointed.map_err(|it| chain(&it))
                }
                Action::UnpointService { away } => {
                    endpoint.remove(&away.host).await.map_err(|it| chain(&it))
                }
                other => match operation::run(&context, other).await {
                    Outcome::Failed { message } => Err(message),
                    Outcome::Done | Outcome::NewDirectory { .. } | Outcome::Superseded => Ok(()),
                },
            };
            let outcome =
                outcome.map_or_else(|message| Outcome::Failed { message }, |()| Outcome::Done);
            let fails = outcome != Outcome::Done;
            // Told once, and once that it is over: it is tried again all the time.
            if !repeated || fails != failing.load(Ordering::Relaxed) {
                tracing::info!(?action, ?outcome, "end");
            }
            if is_of_service(&action) {
                failing.store(fails, Ordering::Relaxed);
            }
            let seen = observe::look(&context, false).await;
            let _ended = inputs.send(Input::Finished(operation, outcome, Box::new(seen)));
        });
    }

    /// SIGTERM: what is known of the own pod decides how short the way is (traps H3).
    fn terminate(&mut self) {
        if self.terminating.is_some() {
            return;
        }
        self.terminating = Some(Instant::now());
        let (context, inputs) = (self.context.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
                kube::Api::namespaced(context.client.clone(), &context.options.namespace);
            let read = pods.get_opt(&context.options.instance);
            let termination = match tokio::time::timeout(POD_LIMIT, read).await {
                Ok(Ok(Some(pod))) => match pod.metadata.deletion_grace_period_seconds {
                    Some(seconds) => Termination::Graceful {
                        grace: Span::seconds(u64::try_from(seconds).unwrap_or(0)),
                    },
                    // Not deleted: the container alone is asked to end, with the pod's own grace.
                    None => Termination::Graceful {
                        grace: Span::seconds(
                            pod.spec
                                .and_then(|spec| spec.termination_grace_period_seconds)
                                .and_then(|seconds| u64::try_from(seconds).ok())
                                .unwrap_or(30),
                        ),
                    },
                },
                Ok(Ok(None)) => Termination::Gone,
                Ok(Err(_)) | Err(_) => Termination::Unknown,
            };
            tracing::info!(?termination, "the pod is asked to end");
            let _ended = inputs.send(Input::Event(Event::Terminating(termination)));
        });
    }

    /// PostgreSQL is down, nothing is under way that is worth waiting for, and the protocol has
    /// nothing to give away.
    fn may_leave(&self) -> bool {
        !self.context.link.postmaster().is_running()
            && (self.operation.is_none() || self.gives_up())
            && self.writes == 0
            && self.protocol.may_leave()
    }

    /// A copy that is not whole is of no use to the next pod: it begins anew, and who deletes this
    /// one does not wait for it, up to half an hour. What a rewind leaves behind has to be cloned, so
    /// it gets the time that most need.
    fn gives_up(&self) -> bool {
        match self.doing {
            Doing::Initializing | Doing::Cloning => true,
            Doing::Rewinding => self.terminating.is_some_and(|at| at.elapsed() > REWIND_GRACE),
            Doing::Nothing | Doing::Promoting | Doing::Stopping | Doing::Starting => false,
        }
    }

    fn publish(&mut self) {
        let view = self.protocol.view();
        self.outlets.holder.send_if_modified(|holder| {
            let primary = view.role == Role::Primary;
            std::mem::replace(holder, primary) != primary
        });
        let health = self.health(&view);
        let fenced = health.fenced;
        self.outlets.health.send_if_modified(|present| {
            let changed = *present != health;
            *present = health;
            changed
        });
        let tended = self.tended.borrow().clone();
        let report = report::status(&Sources {
            context: &self.context,
            seen: &self.seen,
            view: &view,
            tended: &tended,
            doing: self.doing,
            failure: self.failure.as_deref(),
            waiting: self.stall.look(&view, std::time::Instant::now()),
            agent: self.upgrade.borrow().report.clone(),
        });
        let document = serde_json::json!({
            "instance": self.context.options.instance,
            "report": report,
            "protocol": view,
            "observation": self.seen.observation,
        });
        self.outlets.status.send_replace(Bytes::from(document.to_string()));
        self.outlets.report.send_if_modified(|present| {
            let changed = *present != report;
            *present = report;
            changed
        });
        self.outlets.figures.send_replace(metrics::figures(
            &view,
            &self.seen,
            fenced,
            self.renewals,
        ));
    }

    fn health(&self, view: &matriarch_plan::protocol::View) -> Health {
        let observation = &self.seen.observation;
        let server = match observation.state {
            PostgresState::Primary | PostgresState::Standby => ServerHealth::Answering,
            PostgresState::Starting | PostgresState::Stopping | PostgresState::Dying => {
                ServerHealth::Refusing
            }
            PostgresState::Unknown | PostgresState::Empty | PostgresState::Stopped { .. } => {
                ServerHealth::Down
            }
        };
        Health {
            server,
            fenced: view.role == Role::Fenced,
            standby: observation.state == PostgresState::Standby,
            streaming: matches!(
                observation.receiver,
                matriarch_plan::protocol::Receiver::Streaming { .. }
            ),
            lag: observation
                .flushed
                .zip(observation.replayed)
                .map(|(flushed, replayed)| flushed.saturating_distance(replayed)),
            ..Health::default()
        }
    }
}

fn is_of_service(action: &Action) -> bool {
    matches!(action, Action::PointService { .. } | Action::UnpointService { .. })
}

/// Brings changes of the Lease at once that the reads would bring within a second. It proves
/// nothing: it may be late, and where it ends or is refused the reads go on.
async fn watch_lease(context: Context, requests: mpsc::UnboundedSender<LeaseRequest>) {
    let api: kube::Api<Lease> =
        kube::Api::namespaced(context.client.clone(), &context.options.namespace);
    let name = matriarch_api::names::lease(&context.options.cluster);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stream = watcher::watcher(api, config).boxed();
    while let Some(event) = stream.next().await {
        let seen = match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                Some(Box::new(lease))
            }
            Ok(watcher::Event::Delete(_)) => None,
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::debug!(%error, "watch of the Lease");
                tokio::time::sleep(WATCH_AGAIN).await;
                continue;
            }
        };
        if requests.send(LeaseRequest::Seen(seen)).is_err() {
            return;
        }
    }
}

async fn serve_lease(
    mut client: LeaseClient,
    mut requests: mpsc::UnboundedReceiver<LeaseRequest>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    while let Some(request) = requests.recv().await {
        let event = match request {
            LeaseRequest::Read(request) => {
                Event::LeaseRead { request: Some(request), reading: client.read().await }
            }
            LeaseRequest::Write(request, base, record) => {
                Event::LeaseWritten { request, writing: client.write(base, &record).await }
            }
            LeaseRequest::Seen(lease) => {
                let reading = lease.map_or(LeaseReading::Absent, |it| client.seen(*it));
                Event::LeaseRead { request: None, reading }
            }
        };
        if inputs.send(Input::Event(event)).is_err() {
            return;
        }
    }
}

/// Opens a new session now and then while PostgreSQL runs: sessions that are there go on when the
/// postmaster hangs, but no client gets a new one.
pub async fn watch_for_hanging(
    context: Context,
    seen: watch::Receiver<Seen>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    let mut good: Option<BootTime> = None;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let answering = matches!(
            seen.borrow().observation.state,
            PostgresState::Primary | PostgresState::Standby
        );
        if !answering || !context.link.postmaster().is_running() {
            good = None;
            continue;
        }
        match context.new_session().await {
            Ok(_) => good = Some(BootTime::now()),
            // A refusal is an answer: no slots left, for one.
            Err(error) if error.is_answer() => good = Some(BootTime::now()),
            Err(_) => {
                let hung = good.is_some_and(|at| BootTime::now().since(at) > HUNG_LIMIT);
                if hung {
                    good = None;
                    let _ended = inputs.send(Input::Hung);
                }
            }
        }
    }
}
