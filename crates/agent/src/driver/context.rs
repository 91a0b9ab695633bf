//! What the tasks of one agent share.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use matriarch_api::causes::chain;
use matriarch_api::identity::Identity;
use matriarch_pg::control::StandbyFloor;
use matriarch_plan::protocol::{Incarnation, Member, Observation, StandbyNames};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::link::KeeperLink;
use crate::configuration::{self, Accepted, Rendered};
use crate::ldap;
use crate::options::AgentOptions;
use crate::postgres::clone::Source;
use crate::postgres::program::{self, Installation};
use crate::postgres::sql::{self, SearchPath, Session};
use crate::postgres::{data, server};
use crate::root::Root;
use crate::settings::Known;

/// What PostgreSQL is to replicate. Kept on the data volume: a new agent that writes the
/// configuration for any other reason must not change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Replication {
    /// As a primary, or about to be one: who must have a commit.
    Primary(StandbyNames),
    /// As a standby: whom to follow, if anybody.
    Standby(Option<Source>),
}

impl Replication {
    /// What was asked of PostgreSQL last, by this agent or one before it.
    fn load(root: &Root) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(root)).ok()?).ok()
    }

    fn path(root: &Root) -> PathBuf {
        root.state().join("replication.json")
    }
}

/// How the configuration stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Configured {
    /// The user's part that PostgreSQL took last.
    pub accepted: Option<Accepted>,
    /// The one that it did not take, with what it has against it.
    pub rejected: Option<(Accepted, String)>,
    /// What standbys depend on, as wished for.
    pub floor: Option<StandbyFloor>,
}

/// Shared by the tasks of one agent.
#[derive(Clone)]
pub struct Context {
    /// Who this pod is.
    pub options: Arc<AgentOptions>,
    /// Names in the API.
    pub identity: Identity,
    /// The API, for everything but the Lease.
    pub client: Client,
    /// The keeper.
    pub link: KeeperLink,
    /// What the API says; none before anything is known.
    pub known: watch::Receiver<Option<Arc<Known>>>,
    /// The installation in use.
    pub installation: Arc<Mutex<Option<Installation>>>,
    replication: Arc<Mutex<Replication>>,
    /// What the last look at the stopped directory saw, until PostgreSQL answers.
    pub stopped: Arc<Mutex<Observation>>,
    /// The names that every walsender has seen, if this agent knows.
    pub names_in_force: Arc<Mutex<Option<StandbyNames>>>,
    /// How the configuration stands.
    pub configured: Arc<Mutex<Configured>>,
    /// The incarnation of the data directory.
    pub incarnation: Arc<Mutex<Option<String>>>,
    /// The password with which users are searched by LDAP, once it was read.
    pub ldap_password: Arc<Mutex<Option<String>>>,
    session: Arc<tokio::sync::Mutex<Option<Session>>>,
    /// Held while the files are written, so that an older text never takes the place of a newer.
    writing: Arc<tokio::sync::Mutex<()>>,
}

/// Reads or changes something shared. No holder of these locks waits for anything.
pub fn with<T, R>(shared: &Mutex<T>, change: impl FnOnce(&mut T) -> R) -> R {
    change(&mut shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Why an operation failed, in the words of what failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// One of `matriarch_api::reasons::failure`.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

impl Failed {
    /// With all sources of the error.
    pub fn new(reason: &'static str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { reason, message: chain(error) }
    }

    /// In words of our own.
    pub fn because(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Context {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(
        options: AgentOptions,
        identity: Identity,
        client: Client,
        link: KeeperLink,
        known: watch::Receiver<Option<Arc<Known>>>,
    ) -> Self {
        let replication = Replication::load(&options.root).unwrap_or(Replication::Standby(None));
        let ldap_password = Arc::new(Mutex::new(ldap::load(&options.root)));
        Self {
            options: Arc::new(options),
            identity,
            client,
            link,
            known,
            installation: Arc::default(),
            replication: Arc::new(Mutex::new(replication)),
            stopped: Arc::default(),
            names_in_force: Arc::default(),
            configured: Arc::default(),
            incarnation: Arc::default(),
            ldap_password,
            session: Arc::default(),
            writing: Arc::default(),
        }
    }

    /// What PostgreSQL replicates.
    #[must_use]
    pub fn replication(&self) -> Replication {
        with(&self.replication, |it| it.clone())
    }

    /// Says what PostgreSQL is to replicate from the next time on that its configuration is
    /// written.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub fn set_replication(&self, wanted: Replication) -> Result<(), Failed> {
        if self.replication() == wanted {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&wanted).unwrap_or_default();
        data::write_atomically(&Replication::path(&self.options.root), &bytes)
            .map_err(|error| Failed::new(matriarch_api::reasons::failure::DISK_FULL, &error))?;
        with(&self.replication, |it| *it = wanted);
        Ok(())
    }

    /// What the API says.
    ///
    /// # Errors
    /// Before anything is known.
    pub fn known(&self) -> Result<Arc<Known>, Failed> {
        self.known.borrow().clone().ok_or_else(|| {
            Failed::because(matriarch_api::reasons::failure::START_FAILED, "no directive yet")
        })
    }

    /// The name by which a standby tells the primary who it is.
    #[must_use]
    pub fn application_name(&self) -> String {
        with(&self.incarnation, |it| it.clone()).unwrap_or_else(|| self.options.instance.clone())
    }

    /// The connection to another instance.
    #[must_use]
    pub fn source(&self, member: &Member) -> Source {
        Source {
            name: member.name.as_str().to_owned(),
            host: member.address.host.clone(),
            port: member.address.postgres_port,
        }
    }

    /// The installation for the data directory, or the preferred one.
    ///
    /// # Errors
    /// If none fits.
    pub async fn installation(&self, major: Option<u32>) -> Result<Installation, Failed> {
        use matriarch_api::reasons::failure;
        if let Some(found) = with(&self.installation, |it| it.clone())
            && major.is_none_or(|major| found.version.major.number() == major)
        {
            return Ok(found);
        }
        let all = program::installations(&self.options.path).await;
        let found = program::choose(all, major).map_err(|error| match &error {
            program::Error::WrongMajor { .. } => Failed::new(failure::OTHER_MAJOR, &error),
            _ => Failed::new(failure::POSTGRES_NOT_INSTALLED, &error),
        })?;
        with(&self.installation, |it| *it = Some(found.clone()));
        Ok(found)
    }

    /// Writes all configuration files into a data directory: with the user's part as it is wished
    /// for if PostgreSQL takes it, else with the last one that it took.
    ///
    /// # Errors
    /// If it takes neither, or the files cannot be written.
    pub async fn configure(
        &self,
        directory: &Path,
        installation: &Installation,
    ) -> Result<Rendered, Failed> {
        use matriarch_api::reasons::failure;
        let _writing = self.writing.lock().await;
        let wished = Accepted::of(&self.known()?.spec);
        let configured = with(&self.configured, |it| it.clone());
        let accepted = configured.accepted.clone().or_else(|| Accepted::load(&self.options.root));
        let known_bad = configured.rejected.filter(|(rejected, _)| *rejected == wished);
        let taken = match known_bad {
            Some((_, words)) => Err(words),
            None => self.try_out(directory, installation, &wished, accepted.as_ref()).await,
        };
        let (used, rendered) = match (taken, accepted) {
            (Ok((taken, rendered)), before) => {
                if before.as_ref() != Some(&taken)
                    && let Err(error) = taken.save(&self.options.root)
                {
                    tracing::warn!(error = chain(&error), "cannot keep the configuration");
                }
                with(&self.configured, |it| it.rejected = None);
                (taken, rendered)
            }
            (Err(words), before) => {
                tracing::error!("PostgreSQL does not take the configuration: {words}");
                with(&self.configured, |it| it.rejected = Some((wished, words.clone())));
                let Some(before) = before else {
                    return Err(Failed::because(failure::START_FAILED, words));
                };
                let rendered = self
                    .render(directory, installation, &before)
                    .map_err(|words| Failed::because(failure::START_FAILED, words))?;
                (before, rendered)
            }
        };
        configuration::write(directory, &rendered, used.configuration.enable_alter_system)
            .map_err(|error| Failed::new(failure::START_FAILED, &error))?;
        with(&self.configured, |it| {
            it.accepted = Some(used);
            it.floor = rendered.floor;
        });
        Ok(rendered)
    }

    async fn try_out(
        &self,
        directory: &Path,
        installation: &Installation,
        wished: &Accepted,
        accepted: Option<&Accepted>,
    ) -> Result<(Accepted, Rendered), String> {
        let rendered = self.render(directory, installation, wished)?;
        // Nothing of the user's changed: no time is lost on the way to a promotion.
        if accepted == Some(wished) {
            return Ok((wished.clone(), rendered));
        }
        configuration::check(directory, installation, &rendered).await?;
        if wished.has_rules_of(accepted) || self.judges_rules(directory, &rendered).await? {
            return Ok((wished.clone(), rendered));
        }
        let mixed = wished.with_rules_of(accepted);
        let rendered = self.render(directory, installation, &mixed)?;
        Ok((mixed, rendered))
    }

    /// Has PostgreSQL judge the rules, which it does only while it runs and where they lie. With a
    /// pg_hba.conf that it refuses it would not start again, and without its pg_ident.conf it would
    /// let nobody in by a map, the agent included. False if it cannot be asked now. An error is what
    /// it has against them; then the former files are back.
    async fn judges_rules(&self, directory: &Path, rendered: &Rendered) -> Result<bool, String> {
        let own = directory == self.options.root.pgdata();
        if !own || !self.link.postmaster().is_running() {
            return Ok(false);
        }
        let paths = rendered.rules().map(|(name, text)| (directory.join(name), text.as_bytes()));
        let before = paths.each_ref().map(|(path, _)| std::fs::read(path));
        let [Ok(hba), Ok(ident)] = before else { return Ok(false) };
        let write = |path: &Path, content: &[u8]| {
            data::write_atomically(path, content).map_err(|error| chain(&error))
        };
        for (path, text) in &paths {
            write(path, text)?;
        }
        let judged = self.in_session(server::rule_errors).await;
        if judged.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(true);
        }
        for ((path, _), before) in paths.iter().zip([hba, ident]) {
            write(path, &before)?;
        }
        match judged {
            Ok(errors) => Err(errors.join("; ")),
            Err(error) => {
                error.tell("PostgreSQL cannot be asked for its rules");
                Ok(false)
            }
        }
    }

    fn render(
        &self,
        directory: &Path,
        installation: &Installation,
        user: &Accepted,
    ) -> Result<Rendered, String> {
        let replication = self.replication();
        let ldap_password = with(&self.ldap_password, |it| it.clone());
        let input = configuration::Input {
            options: &self.options,
            configuration: &user.configuration,
            hash: &user.hash,
            major: installation.version.major,
            replication: &replication,
            application_name: &self.application_name(),
            ldap_password: ldap_password.as_deref(),
        };
        configuration::render(&input, configuration::floor(directory).as_ref())
    }

    /// Runs something in the agent's own session; opens it first if need be.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn in_session<T>(
        &self,
        run: impl AsyncFnOnce(&Session) -> Result<T, sql::Error>,
    ) -> Result<T, sql::Error> {
        let mut kept = self.session.lock().await;
        if kept.as_ref().is_none_or(Session::is_closed) {
            *kept = None;
            let opening = Session::open(&self.options.root, "postgres", SearchPath::Catalog);
            let limit = server::OBSERVATION_LIMIT;
            let opened = tokio::time::timeout(limit, opening)
                .await
                .map_err(|_| sql::Error::Limit(limit))??;
            *kept = Some(opened);
        }
        let Some(session) = kept.as_ref() else { return Err(sql::Error::Limit(Duration::ZERO)) };
        let outcome = run(session).await;
        if outcome.as_ref().is_err_and(|error| !error.is_answer()) {
            *kept = None;
        }
        outcome
    }

    /// A session of its own, for what takes long.
    ///
    /// # Errors
    /// If PostgreSQL does not answer.
    pub async fn new_session(&self) -> Result<Session, sql::Error> {
        Session::open(&self.options.root, "postgres", SearchPath::Catalog).await
    }

    /// True if this incarnation is who `application_name` names.
    #[must_use]
    pub fn incarnation_of(application_name: &str) -> Incarnation {
        Incarnation::from(application_name)
    }
}
