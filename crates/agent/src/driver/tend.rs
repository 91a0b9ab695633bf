//! What is kept true beside the protocol: certificates, passwords, slots, the configuration, the
//! EndpointSlice of a holder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, SecretKeySelector};
use kube::Api;
use matriarch_api::causes::chain;
use matriarch_api::instance::{InstanceSpec, Tablespace, TablespaceReport};
use matriarch_api::reasons::failure;
use matriarch_plan::protocol::{Lsn, PostgresState, Receiver};
use tokio::sync::watch;

use super::context::{Context, Failed, with};
use super::link::Postmaster;
use super::observe::Seen;
use super::operation;
use super::slots::SlotCopies;
use super::wal;
use crate::access::Passwords;
use crate::certificates::{self, Material};
use crate::configuration::Accepted;
use crate::keeper::message::{PostmasterSignal, Request};
use crate::ldap;
use crate::options::TablespacePlace;
use crate::peers::client::Peers;
use crate::peers::server::ServerTls;
use crate::postgres::{initdb, server, tablespaces};

/// How often everything is looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// Secrets are read again after this time even if nobody said that they changed.
const SECRETS_PERIOD: Duration = Duration::from_secs(600);

/// A primary's tablespaces that are as they should be are looked at again after this time.
const TABLESPACES_PERIOD: Duration = Duration::from_secs(30);

/// What the report says of these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tended {
    /// Secret name → version in use.
    pub secret_versions: BTreeMap<String, String>,
    /// What is wrong, if something is.
    pub failure: Option<Failed>,
    /// Certificates are there.
    pub certificates: bool,
    /// What the server has against the files that it has loaded.
    pub configuration_error: Option<String>,
    /// Parameters that wait for a restart, of the server that was asked.
    pub pending_restart: Vec<String>,
    /// That server.
    pub asked: Option<Postmaster>,
    /// The tablespaces of the directive.
    pub tablespaces: Vec<TablespaceReport>,
}

impl Tended {
    /// Parameters that wait for a restart of this server: what an earlier one said is over.
    #[must_use]
    pub fn pending_restart(&self, postmaster: Postmaster) -> &[String] {
        if self.asked == Some(postmaster) { &self.pending_restart } else { &[] }
    }
}

/// The task.
pub struct Tender {
    /// Shared things.
    pub context: Context,
    /// The agent's port.
    pub server_tls: ServerTls,
    /// The way to other agents.
    pub peers: Peers,
    /// How PostgreSQL was seen last.
    pub seen: watch::Receiver<Seen>,
    /// Positions of the other members, by name.
    pub positions: Arc<Mutex<BTreeMap<String, Lsn>>>,
    /// Where the result goes.
    pub tended: watch::Sender<Tended>,
    /// True while the protocol says that this instance is primary.
    pub holder: watch::Receiver<bool>,
}

#[derive(Default)]
struct State {
    passwords: Passwords,
    material: Option<Material>,
    read_for: Option<(InstanceSpec, tokio::time::Instant)>,
    was_primary: bool,
    passwords_for: Option<(InstanceSpec, tokio::time::Instant)>,
    slots_at: Option<tokio::time::Instant>,
    /// PostgreSQL refused when they were looked at last.
    slots_failed: bool,
    copies: SlotCopies,
    tablespaces_for: Option<(Vec<Tablespace>, tokio::time::Instant)>,
    tried: Option<Accepted>,
    ldap_for: Option<(SecretKeySelector, tokio::time::Instant)>,
    /// The files are out of date although the configuration is the same.
    stale: bool,
}

/// True if `period` has gone by.
pub(super) fn due(last: Option<tokio::time::Instant>, period: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= period)
}

fn is_primary(seen: &Seen) -> bool {
    seen.observation.state == PostgresState::Primary
}

fn is_running(seen: &Seen) -> bool {
    is_primary(seen) || seen.observation.state == PostgresState::Standby
}

fn is_streaming(seen: &Seen) -> bool {
    matches!(seen.observation.receiver, Receiver::Streaming { .. })
}

impl Tender {
    /// Runs for as long as the agent lives.
    pub async fn run(mut self) {
        let mut state = State::default();
        let mut known = self.context.known.clone();
        self.begin_with_files();
        loop {
            self.pass(&mut state).await;
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                changed = known.changed() => if changed.is_err() { return },
                changed = self.holder.changed() => if changed.is_err() { return },
                // A new primary's passwords are awaited by clients.
                changed = self.seen.wait_for(|seen| is_primary(seen) != state.was_primary) => {
                    if changed.is_err() { return }
                }
            }
        }
    }

    /// The API may be away: what lies on the volume is used until it answers.
    fn begin_with_files(&self) {
        let Some(material) = Material::load(&self.context.options.root) else { return };
        match (material.server_tls(), material.client_tls()) {
            (Ok(server), Ok(client)) => {
                self.server_tls.set(server);
                self.peers.set_tls(client);
                self.tended.send_modify(|tended| tended.certificates = true);
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(error = chain(&error), "certificates of an earlier agent");
            }
        }
    }

    async fn pass(&mut self, state: &mut State) {
        let seen = self.seen.borrow().clone();
        let primary = is_primary(&seen);
        let running = is_running(&seen);
        if primary && !state.was_primary {
            state.passwords.forget();
            state.passwords_for = None;
        }
        state.was_primary = primary;
        let Ok(known) = self.context.known() else { return };
        let spec = &known.spec;
        let mut tended = self.tended.borrow().clone();
        tended.failure = None;
        if let Err(failed) = self.certificates(state, spec, &mut tended).await {
            tended.failure = Some(failed);
        }
        if primary && let Err(failed) = self.access(state, spec, &mut tended).await {
            tended.failure = tended.failure.or(Some(failed));
        }
        if let Err(failed) = self.ldap(state, spec).await {
            tended.failure = tended.failure.or(Some(failed));
        }
        self.tablespaces(state, spec, primary, &mut tended).await;
        if running {
            self.configuration(state, spec, &seen, &mut tended).await;
            self.slots(state, spec, primary).await;
            state.copies.pass(&self.context, &self.peers, &known, primary).await;
        }
        if running && !primary && !is_streaming(&seen) {
            let full = wal::lack_of_room(&self.context.options.root);
            let full = full.map(|why| Failed::because(failure::DISK_FULL, why));
            tended.failure = tended.failure.or(full);
        }
        self.tended.send_if_modified(|present| {
            let changed = *present != tended;
            *present = tended;
            changed
        });
    }

    async fn certificates(
        &self,
        state: &mut State,
        spec: &InstanceSpec,
        tended: &mut Tended,
    ) -> Result<(), Failed> {
        let fresh = state.read_for.as_ref().is_some_and(|(read_for, at)| {
            read_for.secrets == spec.secrets
                && read_for.access.secret_versions == spec.access.secret_versions
                && at.elapsed() < SECRETS_PERIOD
        });
        if fresh {
            return Ok(());
        }
        let api: Api<Secret> =
            Api::namespaced(self.context.client.clone(), &self.context.options.namespace);
        let material =
            Material::read(&api, &spec.secrets).await.map_err(|error| certificate(&error))?;
        if state.material.as_ref() != Some(&material) {
            // Both before anything is written: what makes no sense never takes the place of what
            // works.
            let server = material.server_tls().map_err(|error| certificate(&error))?;
            let client = material.client_tls().map_err(|error| certificate(&error))?;
            let changed =
                material.write(&self.context.options.root).map_err(|error| certificate(&error))?;
            self.server_tls.set(server);
            self.peers.set_tls(client);
            if changed && self.context.link.postmaster().is_running() {
                self.context.link.tell(Request::Signal(PostmasterSignal::Reload));
            }
        }
        tended.secret_versions.extend(material.versions.clone());
        tended.certificates = true;
        state.material = Some(material);
        state.read_for = Some((spec.clone(), tokio::time::Instant::now()));
        Ok(())
    }

    async fn access(
        &self,
        state: &mut State,
        spec: &InstanceSpec,
        tended: &mut Tended,
    ) -> Result<(), Failed> {
        let fresh = state.passwords_for.as_ref().is_some_and(|(set_for, at)| {
            set_for.secrets == spec.secrets
                && set_for.access == spec.access
                && at.elapsed() < SECRETS_PERIOD
        });
        if fresh {
            return Ok(());
        }
        let session = self
            .context
            .new_session()
            .await
            .map_err(|error| Failed::new(failure::SECRET_MISSING, &error))?;
        session
            .execute(&initdb::replication_role(), server::OBSERVATION_LIMIT)
            .await
            .map_err(|error| Failed::new(failure::SECRET_MISSING, &error))?;
        let api: Api<Secret> =
            Api::namespaced(self.context.client.clone(), &self.context.options.namespace);
        let versions = state
            .passwords
            .keep(&session, &api, &spec.secrets, &spec.access)
            .await
            .map_err(|error| Failed::new(failure::SECRET_MISSING, &error))?;
        tended.secret_versions.extend(versions);
        state.passwords_for = Some((spec.clone(), tokio::time::Instant::now()));
        Ok(())
    }

    /// Reads the password for LDAP anew where that is due.
    async fn ldap(&self, state: &mut State, spec: &InstanceSpec) -> Result<(), Failed> {
        let reference = ldap::reference(spec.configuration.ldap.as_ref());
        let Some(reference) = reference else { return Ok(()) };
        let fresh = state
            .ldap_for
            .as_ref()
            .is_some_and(|(read, at)| read == reference && at.elapsed() < SECRETS_PERIOD);
        if fresh {
            return Ok(());
        }
        let api: Api<Secret> =
            Api::namespaced(self.context.client.clone(), &self.context.options.namespace);
        let password = ldap::read(&api, reference)
            .await
            .map_err(|error| Failed::new(failure::SECRET_MISSING, &error))?;
        let known = Some(password.clone());
        if with(&self.context.ldap_password, |it| *it != known) {
            ldap::save(&self.context.options.root, &password)
                .map_err(|error| Failed::new(failure::DISK_FULL, &error))?;
            with(&self.context.ldap_password, |it| *it = known);
            state.stale = true;
        }
        state.ldap_for = Some((reference.clone(), tokio::time::Instant::now()));
        Ok(())
    }

    /// Brings a changed configuration to the running server.
    async fn configuration(
        &self,
        state: &mut State,
        spec: &InstanceSpec,
        seen: &Seen,
        tended: &mut Tended,
    ) {
        let wished = Accepted::of(spec);
        let loaded = seen.server.as_ref().map(|server| server.configuration.as_str());
        let differs = loaded.is_some_and(|loaded| loaded != wished.hash);
        let stale = std::mem::take(&mut state.stale);
        if stale || differs && state.tried.as_ref() != Some(&wished) {
            state.tried = Some(wished.clone());
            if let Err(failed) = operation::reload(&self.context).await {
                if is_running(&self.seen.borrow()) {
                    tracing::warn!("{}", failed.message);
                }
                state.tried = None;
            }
            let (accepted, rejected) =
                with(&self.context.configured, |it| (it.accepted.clone(), it.rejected.is_some()));
            if !rejected && accepted.as_ref() != Some(&wished) {
                // PostgreSQL could not be asked for its rules.
                state.tried = None;
            }
        }
        let rejected = with(&self.context.configured, |it| it.rejected.clone());
        let postmaster = self.context.link.postmaster();
        let answers = self
            .context
            .in_session(async |session| {
                Ok((
                    server::configuration_errors(session).await?,
                    server::pending_restart(session).await?,
                ))
            })
            .await;
        if let Ok((errors, pending)) = answers {
            let said = (!errors.is_empty()).then(|| errors.join("; "));
            tended.configuration_error = rejected.map(|(_, words)| words).or(said);
            tended.pending_restart = pending;
            tended.asked = Some(postmaster);
        }
    }

    /// Their places on every instance; on a primary the tablespaces themselves.
    async fn tablespaces(
        &self,
        state: &mut State,
        spec: &InstanceSpec,
        primary: bool,
        tended: &mut Tended,
    ) {
        let fresh = state.tablespaces_for.take().filter(|(kept, at)| {
            primary && *kept == spec.tablespaces && at.elapsed() < TABLESPACES_PERIOD
        });
        if fresh.is_some() {
            state.tablespaces_for = fresh;
            return;
        }
        if spec.tablespaces.is_empty() {
            tended.tablespaces.clear();
            return;
        }
        let options = &self.context.options;
        let at = options.tablespaces;
        let prepared = match at {
            TablespacePlace::Volumes => tablespaces::prepare(&options.root),
            TablespacePlace::DataDirectory => Ok(()),
        };
        let error = prepared.err().map(|error| chain(&error));
        if primary && error.is_none() {
            // In a session of its own: making one may take its time.
            let asking = async {
                let session = self.context.new_session().await?;
                tablespaces::keep(&session, &options.root, at, &spec.tablespaces).await
            };
            match asking.await {
                Ok(reports) => {
                    if reports.iter().all(|report| report.reconciled) {
                        let now = tokio::time::Instant::now();
                        state.tablespaces_for = Some((spec.tablespaces.clone(), now));
                    }
                    return tended.tablespaces = reports;
                }
                Err(error) => error.tell("tablespaces"),
            }
        }
        let report = |wanted: &Tablespace| TablespaceReport {
            name: wanted.name.clone(),
            ready: tablespaces::is_ready(&options.root, at, &wanted.name),
            error: error.clone(),
            ..TablespaceReport::default()
        };
        tended.tablespaces = spec.tablespaces.iter().map(report).collect();
    }

    async fn slots(&self, state: &mut State, spec: &InstanceSpec, primary: bool) {
        let slots = &spec.configuration.high_availability_slots;
        let period = if primary {
            PERIOD
        } else {
            Duration::from_secs(u64::from(slots.update_interval_seconds.max(1)))
        };
        if !due(state.slots_at, period) {
            return;
        }
        let own = &self.context.options.instance;
        let others: Vec<&String> =
            spec.members.iter().filter(|name| *name != own && slots.enabled).collect();
        let wanted: Vec<String> = others.iter().map(|name| slots.slot_name(name)).collect();
        let known = with(&self.positions, |it| it.clone());
        let positions: Vec<(String, Lsn)> = others
            .iter()
            .filter_map(|name| {
                let lsn = *known.get(*name)?;
                Some((slots.slot_name(name), lsn))
            })
            .collect();
        let outcome = self
            .context
            .in_session(async |session| {
                let kept = server::keep_slots(session, &slots.slot_prefix, &wanted).await;
                if !primary {
                    server::advance_slots(session, &positions).await?;
                }
                kept
            })
            .await;
        match outcome {
            Ok(()) => {
                state.slots_at = Some(tokio::time::Instant::now());
                state.slots_failed = false;
            }
            // A slot may have come into use: what lasts is said.
            Err(error) if error.is_refusal() && state.slots_failed => {
                tracing::warn!(error = chain(&error), "cannot keep the replication slots");
            }
            Err(error) => state.slots_failed = error.is_refusal(),
        }
    }
}

fn certificate(error: &certificates::Error) -> Failed {
    let reason =
        if error.is_missing() { failure::SECRET_MISSING } else { failure::CERTIFICATE_INVALID };
    Failed::new(reason, error)
}
