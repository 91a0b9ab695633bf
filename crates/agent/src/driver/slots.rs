//! Copies of users' physical slots on a standby: what `plan::slots` decides, carried out.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use matriarch_api::causes::chain;
use matriarch_api::instance::InstanceSpec;
use matriarch_api::slot_patterns::{PatternError, SlotPatterns};
use matriarch_plan::protocol::{Address, InstanceName};
use matriarch_plan::slots::{self as plan, Decision, Slot};
use serde::{Deserialize, Serialize};

use super::context::{Context, Replication, with};
use super::tend::due;
use crate::peers::client::{self, Peers};
use crate::postgres::{data, slots, sql};
use crate::root::Root;
use crate::settings::Known;

/// How long the primary may take to answer.
const LIMIT: Duration = Duration::from_secs(3);
/// How often a primary takes note of its slots.
const NOTE_PERIOD: Duration = Duration::from_secs(2);

/// Why the copies are as they were.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("which slots are left alone is not known")]
    Pattern(#[from] PatternError),
    #[error("the agent of {0} has not told where it is")]
    Address(String),
    #[error("the slots of {primary} are not known")]
    Primary {
        primary: String,
        #[source]
        source: client::Error,
    },
    #[error("{0} is no primary")]
    Standby(String),
    #[error("the own slots are not known")]
    Here(#[from] sql::Error),
    #[error("cannot keep which slots are copies")]
    Record(#[from] data::Error),
}

impl Error {
    /// True if the primary or the own server cannot be asked now.
    fn is_unknown(&self) -> bool {
        match self {
            Self::Address(_) | Self::Primary { .. } | Self::Standby(_) => true,
            Self::Here(error) => !error.is_refusal(),
            Self::Pattern(_) | Self::Record(_) => false,
        }
    }
}

/// Which slots of this data directory are copies, kept on the data volume: only these may be
/// dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    incarnation: String,
    names: BTreeSet<String>,
}

impl Record {
    fn path(root: &Root) -> PathBuf {
        root.state().join("slot-copies.json")
    }

    /// That of the data directory as it is now: a new one has no slots.
    fn load(root: &Root, incarnation: &str) -> Self {
        let read = std::fs::read(Self::path(root)).ok();
        read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|record| record.incarnation == incarnation)
            .unwrap_or_else(|| Self { incarnation: incarnation.to_owned(), ..Self::default() })
    }

    fn save(&self, root: &Root) -> Result<(), data::Error> {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        data::write_atomically(&Self::path(root), &bytes)
    }
}

/// The copies of this instance.
#[derive(Default)]
pub struct SlotCopies {
    record: Record,
    done_at: Option<(bool, tokio::time::Instant)>,
}

impl SlotCopies {
    /// Brings the copies up to date where that is due.
    pub async fn pass(&mut self, context: &Context, peers: &Peers, known: &Known, primary: bool) {
        let spec = &known.spec;
        let seconds = spec.configuration.high_availability_slots.update_interval_seconds.max(1);
        let period = if primary { NOTE_PERIOD } else { Duration::from_secs(u64::from(seconds)) };
        let done = self.done_at.filter(|(as_primary, _)| *as_primary == primary);
        let Some(wish) = &spec.slot_copies else { return };
        if !due(done.map(|(_, at)| at), period) {
            return;
        }
        let incarnation = with(&context.incarnation, |it| it.clone()).unwrap_or_default();
        if self.record.incarnation != incarnation {
            self.record = Record::load(&context.options.root, &incarnation);
        }
        let outcome = match (primary, wish.enabled) {
            (true, enabled) => self.note(context, spec, enabled).await,
            (false, true) => self.follow(context, peers, known).await,
            (false, false) => self.undo(context).await,
        };
        match outcome {
            Ok(()) => self.done_at = Some((primary, tokio::time::Instant::now())),
            // Unknown is not absent: they stay as they are until both can be asked.
            Err(error) if error.is_unknown() => {
                tracing::debug!(error = chain(&error), "copies of slots");
            }
            Err(error) => tracing::warn!(error = chain(&error), "copies of slots"),
        }
    }

    /// A primary's own slots are copies once it is a standby.
    async fn note(
        &mut self,
        context: &Context,
        spec: &InstanceSpec,
        enabled: bool,
    ) -> Result<(), Error> {
        if !enabled {
            return self.remember(context, BTreeSet::new());
        }
        let left_alone = left_alone(spec)?;
        let (in_recovery, here) = context.in_session(slots::read).await?;
        if in_recovery {
            return Ok(());
        }
        self.remember(context, plan::own(&here, left_alone))
    }

    async fn follow(
        &mut self,
        context: &Context,
        peers: &Peers,
        known: &Known,
    ) -> Result<(), Error> {
        let left_alone = left_alone(&known.spec)?;
        let Replication::Standby(Some(source)) = context.replication() else { return Ok(()) };
        let primary = primarys_slots(peers, known, source.name).await?;
        let (in_recovery, here) = context.in_session(slots::read).await?;
        if !in_recovery {
            return Ok(());
        }
        let decision = plan::follow(&primary, &here, &self.record.names, left_alone);
        self.carry_out(context, decision).await
    }

    async fn undo(&mut self, context: &Context) -> Result<(), Error> {
        if self.record.names.is_empty() {
            return Ok(());
        }
        let (in_recovery, here) = context.in_session(slots::read).await?;
        if !in_recovery {
            return Ok(());
        }
        self.carry_out(context, plan::undo(&here, &self.record.names)).await
    }

    async fn carry_out(&mut self, context: &Context, decision: Decision) -> Result<(), Error> {
        // Before a slot is made; and one is forgotten only once it was looked for and not there.
        let both = self.record.names.union(&decision.copies).cloned().collect();
        self.remember(context, both)?;
        if decision.steps.is_empty() {
            return self.remember(context, decision.copies);
        }
        // In a session of its own: a slot is written to disk, which may take its time.
        let session = context.new_session().await?;
        let mut good = true;
        for step in &decision.steps {
            match slots::carry_out(&session, step).await {
                Ok(()) => tracing::debug!(?step, "copy of a slot"),
                Err(error) if error.is_refusal() => {
                    tracing::warn!(?step, error = chain(&error), "copy of a slot");
                    good = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        if good { self.remember(context, decision.copies) } else { Ok(()) }
    }

    fn remember(&mut self, context: &Context, names: BTreeSet<String>) -> Result<(), Error> {
        if self.record.names != names {
            let record = Record { incarnation: self.record.incarnation.clone(), names };
            record.save(&context.options.root)?;
            self.record = record;
        }
        Ok(())
    }
}

/// The names that are none of the copies': excluded by the user, or slots for high availability.
fn left_alone(spec: &InstanceSpec) -> Result<impl Fn(&str) -> bool, PatternError> {
    let wish = spec.slot_copies.clone().unwrap_or_default();
    let patterns = SlotPatterns::new(&wish.exclude_patterns)?;
    let prefix = spec.configuration.high_availability_slots.slot_prefix.clone();
    Ok(move |name: &str| name.starts_with(&prefix) || patterns.matches(name))
}

/// The slots of the instance that this one follows. It must be a primary: a standby's own copies
/// say nothing of what the user has dropped.
async fn primarys_slots(peers: &Peers, known: &Known, primary: String) -> Result<Vec<Slot>, Error> {
    let told = known.peers.iter().find(|peer| peer.name == primary);
    let Some(address) = told.and_then(|peer| peer.status.address.as_ref()) else {
        return Err(Error::Address(primary));
    };
    let address = Address {
        host: address.host.clone(),
        postgres_port: address.postgres_port,
        agent_port: address.agent_port,
    };
    let name = InstanceName(primary.clone());
    let answer = peers
        .slots(&name, &address, LIMIT)
        .await
        .map_err(|source| Error::Primary { primary: primary.clone(), source })?;
    if answer.in_recovery {
        return Err(Error::Standby(primary));
    }
    Ok(answer.slots)
}
