//! The exchange of this agent for the one that the directive names, while PostgreSQL runs on.

use std::time::{Duration, Instant};

use matriarch_api::causes::chain;
use matriarch_api::instance::{AgentBinary, AgentFailure, AgentReport};
use tokio::sync::{mpsc, watch};

use super::context::Context;
use super::link::{Hello, News};
use super::{Driver, Input};
use crate::binary::exchange::Files;
use crate::binary::{self, Found};
use crate::keeper::message::{PROTOCOL, Request};

/// For so long a new agent is on trial: the former one is kept.
const TRIAL: Duration = Duration::from_secs(15);
/// First and longest pause before another attempt to get a binary.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How the exchange stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upgrade {
    /// For the Instance's status.
    pub report: AgentReport,
    /// SHA-256 of the binary that lies ready.
    pub ready: Option<String>,
}

/// Starts everything that an exchange consists of; the driver makes the exchange itself.
#[must_use]
pub fn start(
    context: &Context,
    keeper: Hello,
    inputs: &mpsc::UnboundedSender<Input>,
) -> watch::Sender<Upgrade> {
    let mut upgrade = Upgrade::default();
    upgrade.report.keeper = of_keeper(keeper.protocol);
    let upgrade = watch::Sender::new(upgrade);
    tokio::spawn(follow(context.clone(), upgrade.clone()));
    if keeper.renewed {
        tokio::spawn(look_for_lost_signal(context.clone(), inputs.clone()));
    }
    upgrade
}

/// Keeps what the directive says in mind, for as long as the agent lives.
async fn follow(context: Context, upgrade: watch::Sender<Upgrade>) {
    let root = context.options.root.clone();
    let looking = tokio::task::spawn_blocking(move || binary::look(&root));
    let found = looking.await.unwrap_or_default();
    if found.own.is_none() {
        tracing::warn!("the agent cannot read its own program, and is not replaced");
    }
    let trial = Files::new(&context.options.root).on_trial();
    upgrade.send_modify(|it| {
        it.report.sha256.clone_from(&found.own);
        it.report.trial = trial;
        it.report.failure.clone_from(&found.refused);
    });
    if trial {
        tokio::spawn(settle(context.clone(), upgrade.clone()));
    }
    Follower { context, upgrade, found }.run().await;
}

/// What status says of a keeper that speaks another protocol.
fn of_keeper(protocol: u8) -> Option<String> {
    (protocol != PROTOCOL).then(|| {
        format!(
            "the keeper speaks version {protocol} of their protocol and the agent version {PROTOCOL}: \
             what only one of them knows has no effect until the keeper is renewed or the pod is \
             replaced"
        )
    })
}

/// A keeper that became another program may have lost the signal that the pod is to end: asks the API
/// until it answers.
async fn look_for_lost_signal(context: Context, inputs: mpsc::UnboundedSender<Input>) {
    let pods: kube::Api<k8s_openapi::api::core::v1::Pod> =
        kube::Api::namespaced(context.client.clone(), &context.options.namespace);
    loop {
        match pods.get_opt(&context.options.instance).await {
            Ok(pod) => {
                if pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()) {
                    let _ended = inputs.send(Input::News(News::Terminate));
                }
                return;
            }
            Err(error) => tracing::debug!(%error, "cannot read the own pod"),
        }
        tokio::time::sleep(PAUSE.0).await;
    }
}

/// Ends the trial once this agent has lived for a while.
async fn settle(context: Context, upgrade: watch::Sender<Upgrade>) {
    tokio::time::sleep(TRIAL).await;
    match Files::new(&context.options.root).settle() {
        Ok(()) => tracing::info!("this agent has proved itself: the former program is removed"),
        Err(error) => tracing::warn!(%error, "cannot remove the former program"),
    }
    upgrade.send_modify(|it| it.report.trial = false);
}

fn failure_of(sha256: &str, error: &binary::Error) -> AgentFailure {
    AgentFailure {
        sha256: sha256.to_owned(),
        reason: error.reason().to_owned(),
        message: chain(error),
    }
}

struct Follower {
    context: Context,
    upgrade: watch::Sender<Upgrade>,
    found: Found,
}

impl Follower {
    async fn run(mut self) {
        let mut known = self.context.known.clone();
        let mut pause = PAUSE.0;
        let mut tried: Option<(String, Instant)> = None;
        loop {
            let wanted = known.borrow_and_update().as_ref().and_then(|it| it.spec.agent.clone());
            match wanted.filter(|wanted| self.is_due(wanted)) {
                None => {}
                // Another directive is tried at once, the same one only after a pause.
                Some(wanted)
                    if tried.as_ref().is_some_and(|(sha256, at)| {
                        *sha256 == wanted.sha256 && at.elapsed() < pause
                    }) => {}
                Some(wanted) => {
                    let again = tried.as_ref().is_some_and(|(it, _)| *it == wanted.sha256);
                    pause = if again { (pause * 2).min(PAUSE.1) } else { PAUSE.0 };
                    self.prepare(&wanted).await;
                    tried = Some((wanted.sha256, Instant::now()));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE.0) => {}
                changed = known.changed() => if changed.is_err() { return },
            }
        }
    }

    /// It is another one, was not refused, and does not lie ready yet.
    fn is_due(&self, wanted: &AgentBinary) -> bool {
        let Some(own) = &self.found.own else { return false };
        if *own == wanted.sha256 {
            self.tell(|it| it.failure = None);
            return false;
        }
        // The former file is all there is to go back to, until this agent has proved itself.
        if self.upgrade.borrow().report.trial {
            return false;
        }
        if let Some(refused) = self.found.refused.as_ref().filter(|it| it.sha256 == wanted.sha256) {
            self.tell(|it| it.failure = Some(refused.clone()));
            return false;
        }
        self.upgrade.borrow().ready.as_ref() != Some(&wanted.sha256)
    }

    fn tell(&self, change: impl FnOnce(&mut AgentReport)) {
        self.upgrade.send_if_modified(|it| {
            let before = it.report.clone();
            change(&mut it.report);
            it.report != before
        });
    }

    async fn prepare(&mut self, wanted: &AgentBinary) {
        let root = &self.context.options.root;
        tracing::info!(version = wanted.version, sha256 = wanted.sha256, "fetches a new program");
        self.upgrade.send_modify(|it| it.ready = None);
        match binary::prepare(root, wanted).await {
            Ok(()) => {
                tracing::info!(sha256 = wanted.sha256, "the new program lies ready");
                self.tell(|it| it.failure = None);
                self.upgrade.send_modify(|it| it.ready = Some(wanted.sha256.clone()));
            }
            Err(error) => {
                let failure = failure_of(&wanted.sha256, &error);
                tracing::warn!(reason = failure.reason, "{}", failure.message);
                if !error.may_pass() {
                    binary::refuse(root, &failure);
                    self.found.refused = Some(failure.clone());
                }
                self.tell(|it| it.failure = Some(failure));
            }
        }
    }
}

impl Driver {
    /// Has a keeper that speaks another protocol become the program of this agent, once that has
    /// proved itself. It is asked once; then it ends this agent, or stays as it is.
    pub(super) fn renew_keeper(&mut self) {
        let other = self.keeper_protocol != PROTOCOL && !self.keeper_stays;
        if !other || self.upgrade.borrow().report.trial || !self.is_calm() {
            return;
        }
        tracing::info!(keeper = self.keeper_protocol, agent = PROTOCOL, "renews the keeper");
        self.keeper_stays = true;
        self.context.link.tell(Request::Renew);
    }

    fn is_calm(&self) -> bool {
        self.operation.is_none()
            && self.writes == 0
            && self.replies.values().all(tokio::sync::oneshot::Sender::is_closed)
            && self.asked.is_empty()
            && self.answering.is_empty()
            && self.terminating.is_none()
            && self.protocol.is_calm()
    }

    /// Puts the new program into the place of this one if it lies ready, is still wanted, and the
    /// protocol is calm. True if that was done: this process is to end.
    pub(super) fn exchanges(&self) -> bool {
        let Some(ready) = self.upgrade.borrow().ready.clone() else { return false };
        let known = self.context.known.borrow().clone();
        let wanted = known.and_then(|it| it.spec.agent.as_ref().map(|it| it.sha256.clone()));
        if wanted.as_ref() != Some(&ready) || !self.is_calm() {
            return false;
        }
        match Files::new(&self.context.options.root).exchange() {
            Ok(()) => {
                tracing::info!(sha256 = ready, "the new program takes over");
                true
            }
            Err(error) => {
                let error = binary::Error::Exchange(error);
                tracing::warn!(error = chain(&error), "the new program does not take over");
                self.upgrade.send_modify(|it| {
                    it.ready = None;
                    it.report.failure = Some(failure_of(&ready, &error));
                });
                false
            }
        }
    }
}
