//! How PostgreSQL is, for the protocol.

use matriarch_api::causes::chain;
use matriarch_plan::protocol::{Observation, PostgresState, Receiver, Span, TimelineId, WalSender};

use super::context::{Context, Replication, with};
use super::wal;
use crate::postgres::{data, server};

/// An observation with what only the report needs.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// When the look began: what it tells may be as old as that.
    pub began: Option<tokio::time::Instant>,
    /// For the protocol.
    pub observation: Observation,
    /// From the server itself, if it answered.
    pub server: Option<server::Observation>,
    /// The server refuses sessions: it starts, recovers or shuts down.
    pub refuses: bool,
}

/// Looks at PostgreSQL and its data directory. `stopping` while a stop is being carried out.
pub async fn look(context: &Context, stopping: bool) -> Seen {
    let began = Some(tokio::time::Instant::now());
    Seen { began, ..see(context, stopping).await }
}

async fn see(context: &Context, stopping: bool) -> Seen {
    if !context.link.postmaster().is_running() {
        return stopped(context).await;
    }
    let outcome = context.in_session(server::observe).await;
    match outcome {
        Ok(found) => {
            with(&context.stopped, |it| *it = Observation::default());
            running(context, found, stopping).await
        }
        Err(error) => {
            let refuses = error.is_cannot_connect_now();
            let state = if stopping { PostgresState::Stopping } else { PostgresState::Starting };
            let mut seen = Seen { refuses, ..Seen::default() };
            // Nothing is received: it has what it had when it was down.
            if state == PostgresState::Starting
                && context.replication() == Replication::Standby(None)
            {
                seen.observation = with(&context.stopped, |it| it.clone());
            }
            seen.observation.state = state;
            if let Ok(control) = wal::control(&context.options.root) {
                seen.observation.system_id = Some(control.system_id);
            }
            seen
        }
    }
}

/// The directory is read in a thread of its own: it may hold gigabytes since the last checkpoint.
async fn stopped(context: &Context) -> Seen {
    let root = context.options.root.clone();
    let reading = tokio::task::spawn_blocking(move || {
        let mut observation = Observation::default();
        match data::look(&root) {
            Ok(data::Found::Empty) => observation.state = PostgresState::Empty,
            Ok(data::Found::Data { .. } | data::Found::HalfRewound { .. }) => {
                let Ok(control) = wal::control(&root) else { return observation };
                let (timeline, end) = wal::end(&root, &control);
                observation.state = PostgresState::Stopped { clean: control.state.is_clean() };
                observation.system_id = Some(control.system_id);
                observation.timeline = Some(timeline);
                observation.timelines = wal::timelines(&root, timeline);
                observation.flushed = Some(end);
                observation.since_checkpoint = Some(end.saturating_distance(control.redo));
            }
            // What is there is no whole copy: it takes part as if nothing were, until another copy
            // is made and this one moved aside.
            Ok(data::Found::WithoutTablespace { path, .. }) => {
                tracing::warn!("the tablespace at {} is not there any more", path.display());
                observation.state = PostgresState::Empty;
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot read the volume");
            }
        }
        observation
    });
    let observation = reading.await.unwrap_or_default();
    with(&context.stopped, |it| it.clone_from(&observation));
    Seen { observation, ..Seen::default() }
}

async fn running(context: &Context, found: server::Observation, stopping: bool) -> Seen {
    let root = &context.options.root;
    let control = wal::control(root).ok();
    let timeline = found.timeline.or(control.as_ref().map(|it| it.checkpoint_timeline));
    let timelines = timeline.map(|it| wal::timelines(root, it)).unwrap_or_default();
    let receiver = match (&found.receiver, context.replication()) {
        (Some(receiver), _) if receiver.streaming => Receiver::Streaming {
            silent: Span::millis(u64::try_from(receiver.silent.as_millis()).unwrap_or(u64::MAX)),
        },
        (_, Replication::Standby(Some(_))) if found.in_recovery => Receiver::Connecting,
        (Some(_), _) => Receiver::Connecting,
        (None, _) => Receiver::None,
    };
    let synchronous = context.known().is_ok_and(|it| it.spec.configuration.synchronous.is_some());
    // Every walsender counts for itself. Only a slot keeps a standby from having two, its new one
    // and one whose time-out has not come yet (simulator, seed 829).
    let once = |name: &str| {
        !synchronous
            || found.senders.iter().all(|other| other.application_name != name || other.slot)
    };
    let observation = Observation {
        state: match (stopping, found.in_recovery) {
            (true, _) => PostgresState::Stopping,
            (false, true) => PostgresState::Standby,
            (false, false) => PostgresState::Primary,
        },
        system_id: control.as_ref().map(|it| it.system_id),
        timeline: timeline.or(TimelineId::new(1)),
        timelines,
        flushed: Some(found.flushed).filter(|it| it.is_valid()),
        replayed: Some(found.replayed).filter(|it| found.in_recovery && it.is_valid()),
        since_checkpoint: control.map(|it| found.flushed.saturating_distance(it.redo)),
        receiver,
        walsenders: found
            .senders
            .iter()
            .map(|sender| WalSender {
                incarnation: Context::incarnation_of(&sender.application_name),
                streaming: sender.streaming && once(&sender.application_name),
                flushed: sender.flushed,
            })
            .collect(),
    };
    Seen { observation, server: Some(found), ..Seen::default() }
}
