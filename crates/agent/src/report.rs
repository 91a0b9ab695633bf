//! The agent's report: `status` of its Instance, written only when it changed in kind.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{Patch, PatchParams};
use matriarch_api::instance::{
    Address, AgentReport, Failure, InstanceRole, InstanceState, InstanceStatus, InstanceWaiting,
    KeptDirectory, RequestOutcome,
};
use matriarch_api::object::Instance;
use matriarch_pg::control::StandbyFloor;
use matriarch_plan::protocol::view::WishOutcome;
use matriarch_plan::protocol::{PostgresState, Receiver, Role, View};
use tokio::sync::watch;

use crate::driver::context::{Context, with};
use crate::driver::observe::Seen;
use crate::driver::tend::Tended;
use crate::options::{AGENT_PORT, POSTGRES_PORT};
use crate::postgres::data;
use crate::stall;

/// What is being done that PostgreSQL does not show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doing {
    /// Nothing of these.
    #[default]
    Nothing,
    /// initdb.
    Initializing,
    /// A clone.
    Cloning,
    /// pg_rewind.
    Rewinding,
    /// A start.
    Starting,
    /// A promotion.
    Promoting,
    /// A stop.
    Stopping,
}

/// What the report follows from.
pub struct Sources<'a> {
    /// Shared things.
    pub context: &'a Context,
    /// How PostgreSQL is.
    pub seen: &'a Seen,
    /// What the protocol says.
    pub view: &'a View,
    /// What is kept true beside it.
    pub tended: &'a Tended,
    /// What is being done.
    pub doing: Doing,
    /// Why the last operation failed, if it did.
    pub failure: Option<&'a str>,
    /// Why the protocol can do nothing of itself.
    pub waiting: Option<InstanceWaiting>,
    /// What this agent runs from.
    pub agent: AgentReport,
}

/// The report.
#[must_use]
pub fn status(sources: &Sources<'_>) -> InstanceStatus {
    let Sources { context, seen, view, tended, .. } = sources;
    let observation = &seen.observation;
    let options = &context.options;
    let known = context.known.borrow().clone().unwrap_or_default();
    let version = with(&context.installation, |it| it.as_ref().map(|it| it.version.to_string()));
    let (role, running) = match observation.state {
        PostgresState::Primary => (InstanceRole::Primary, true),
        PostgresState::Standby => (InstanceRole::Standby, true),
        PostgresState::Unknown
        | PostgresState::Empty
        | PostgresState::Stopped { .. }
        | PostgresState::Dying
        | PostgresState::Starting
        | PostgresState::Stopping => (InstanceRole::Unknown, false),
    };
    let failure = failure(sources);
    let pending_restart = tended.pending_restart(context.link.postmaster()).to_vec();
    InstanceStatus {
        observed_generation: known.generation,
        incarnation: with(&context.incarnation, |it| it.clone()),
        pod_uid: Some(options.pod_uid.clone()),
        address: Some(Address {
            host: options.address.to_string(),
            postgres_port: POSTGRES_PORT,
            agent_port: AGENT_PORT,
        }),
        postgres_version: version,
        system_id: observation.system_id.map(|it| it.to_string()),
        timeline: observation.timeline.map(|it| it.get()),
        term: Some(view.term.0),
        role,
        state: state(sources, running, failure.is_some()),
        streaming: matches!(observation.receiver, Receiver::Streaming { .. }),
        following: view.following.as_ref().map(|member| member.name.0.clone()),
        loaded_configuration_hash: seen
            .server
            .as_ref()
            .map(|server| server.configuration.clone())
            .filter(|hash| !hash.is_empty()),
        pending_restart_decrease: decrease(context, &pending_restart),
        pending_restart,
        configuration_error: tended
            .configuration_error
            .clone()
            .or_else(|| with(&context.configured, |it| it.rejected.clone().map(|it| it.1))),
        secret_versions: tended.secret_versions.clone(),
        switchover: view.switchover.as_ref().map(outcome).or(known.switchover.clone()),
        restart: view.restart.as_ref().map(outcome).or(known.restart.clone()),
        failure,
        waiting: sources.waiting.clone(),
        agent_version: matriarch_api::VERSION.to_owned(),
        agent: sources.agent.clone(),
        kept_directories: kept(sources),
        tablespaces: tended.tablespaces.clone(),
    }
}

fn outcome(wish: &WishOutcome) -> RequestOutcome {
    RequestOutcome {
        id: wish.id.clone(),
        done: wish.refused.is_none(),
        message: wish.refused.as_ref().map_or(String::new(), stall::in_words),
    }
}

fn kept(sources: &Sources<'_>) -> Vec<KeptDirectory> {
    let unique = sources
        .view
        .unique
        .map(|unique| unique.to.saturating_distance(unique.from))
        .filter(|bytes| *bytes > 0);
    let mut directories: Vec<KeptDirectory> = data::kept(&sources.context.options.root)
        .into_iter()
        .map(|path| KeptDirectory {
            path: path.to_string_lossy().into_owned(),
            reason: "a newer copy took its place".to_owned(),
            unique_wal_bytes: None,
        })
        .collect();
    // Paths sort by time: what was left behind at the last rejoin lies in the newest.
    if let Some(last) = directories.last_mut() {
        last.unique_wal_bytes = unique;
    }
    directories
}

fn decrease(context: &Context, pending_restart: &[String]) -> bool {
    if pending_restart.is_empty() {
        return false;
    }
    let wished = with(&context.configured, |it| it.floor);
    let running: Option<StandbyFloor> =
        crate::driver::wal::control(&context.options.root).ok().map(|control| control.floor);
    let (Some(wished), Some(running)) = (wished, running) else { return false };
    wished.at_least(&running) != wished
}

fn state(sources: &Sources<'_>, running: bool, failed: bool) -> InstanceState {
    match sources.doing {
        Doing::Initializing => return InstanceState::Initializing,
        Doing::Cloning => return InstanceState::Cloning,
        Doing::Rewinding => return InstanceState::Rewinding,
        Doing::Promoting => return InstanceState::Promoting,
        Doing::Stopping => return InstanceState::Stopping,
        Doing::Starting if !running => return InstanceState::Starting,
        Doing::Starting | Doing::Nothing => {}
    }
    if running {
        return InstanceState::Running;
    }
    if sources.view.role == Role::Fenced {
        return InstanceState::Fenced;
    }
    if failed {
        return InstanceState::Failed;
    }
    match sources.seen.observation.state {
        PostgresState::Starting => InstanceState::Starting,
        PostgresState::Stopping | PostgresState::Dying => InstanceState::Stopping,
        PostgresState::Stopped { .. } => InstanceState::Stopped,
        PostgresState::Empty => InstanceState::Waiting,
        PostgresState::Unknown => InstanceState::Unknown,
        PostgresState::Standby | PostgresState::Primary => InstanceState::Running,
    }
}

fn failure(sources: &Sources<'_>) -> Option<Failure> {
    if let Some(text) = sources.failure {
        // Operations put their reason in front.
        let (reason, message) = text.split_once(": ").unwrap_or(("StartFailed", text));
        return Some(Failure { reason: reason.to_owned(), message: message.to_owned() });
    }
    sources
        .tended
        .failure
        .as_ref()
        .map(|failed| Failure { reason: failed.reason.to_owned(), message: failed.message.clone() })
}

/// How long one write may take.
const LIMIT: Duration = Duration::from_secs(5);
/// A report that has not changed is written again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// For so long a write that had no answer may still arrive, from the buffers of a machine that was
/// cut off: until then the report is written again sooner.
const LATE: Duration = Duration::from_secs(60);

/// Writes every new report, until the agent ends.
pub async fn publish(context: Context, mut reports: watch::Receiver<InstanceStatus>) {
    let api: Api<Instance> =
        Api::namespaced_with(context.client.clone(), &context.options.namespace, &context.identity);
    let mut written: Option<InstanceStatus> = None;
    // When a write failed that may still arrive, after others.
    let mut late: Option<Instant> = None;
    loop {
        let report = reports.borrow_and_update().clone();
        if written.as_ref() != Some(&report) && context.known.borrow().is_some() {
            let mut document = serde_json::json!({ "status": report });
            clear(&mut document, written.as_ref());
            let parameters = PatchParams::default();
            let patch = Patch::Merge(&document);
            let write = api.patch_status(&context.options.instance, &parameters, &patch);
            match tokio::time::timeout(LIMIT, write).await {
                Ok(Ok(_)) => written = Some(report),
                failed => {
                    let error = failed.map(|refused| refused.err());
                    tracing::debug!(?error, "cannot write the report");
                    late = Some(Instant::now());
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            }
        }
        let changed = reports.changed();
        // What others did to the object is put right even if nothing changed here.
        let soon = late.is_some_and(|at| at.elapsed() < LATE);
        match tokio::time::timeout(if soon { LIMIT } else { AGAIN }, changed).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => written = None,
        }
    }
}

/// In a merge patch what is absent stays: what is no longer said is said to be null, and keys of
/// maps that are gone likewise.
fn clear(document: &mut serde_json::Value, before: Option<&InstanceStatus>) {
    const OPTIONAL: [&str; 14] = [
        "incarnation",
        "podUid",
        "address",
        "postgresVersion",
        "systemId",
        "timeline",
        "term",
        "following",
        "loadedConfigurationHash",
        "configurationError",
        "switchover",
        "restart",
        "failure",
        "waiting",
    ];
    let Some(status) = document.get_mut("status").and_then(serde_json::Value::as_object_mut) else {
        return;
    };
    for name in OPTIONAL {
        status.entry(name).or_insert(serde_json::Value::Null);
    }
    if let Some(agent) = status.get_mut("agent").and_then(serde_json::Value::as_object_mut) {
        for name in ["sha256", "failure", "keeper"] {
            agent.entry(name).or_insert(serde_json::Value::Null);
        }
    }
    let versions = status.get_mut("secretVersions").and_then(serde_json::Value::as_object_mut);
    if let (Some(versions), Some(before)) = (versions, before) {
        for name in before.secret_versions.keys() {
            versions.entry(name.as_str()).or_insert(serde_json::Value::Null);
        }
    }
}
