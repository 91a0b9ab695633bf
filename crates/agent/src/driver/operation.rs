//! Carrying out the protocol's actions. No choice is made here.

use std::ffi::OsString;
use std::time::Duration;

use matriarch_api::causes::chain;
use matriarch_api::reasons::failure;
use matriarch_plan::protocol::{
    Action, Incarnation, Member, Outcome, Span, StandbyNames, StopMode, TimelineId,
};

use super::context::{Context, Failed, Replication, with};
use super::link::Postmaster;
use super::wal;
use crate::certificates::Files;
use crate::keeper::message::{
    ALREADY_RUNNING, BAD_START_FILE, Ending, NOT_LOCKED, PostmasterSignal, Request,
};
use crate::keeper::start_file::StartFile;
use crate::logs::tail;
use crate::postgres::{clone, data, initdb, rewind, server, sql, tablespaces};
use crate::root::Root;

/// How often something awaited is looked at.
const PERIOD: Duration = Duration::from_millis(20);
/// How long a reload may take to be in force.
const RELOAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a start waits for the pod's certificates.
const CERTIFICATES_LIMIT: Duration = Duration::from_secs(10);
/// How long a walsender may take to show that it has seen a reload, before it is ended: the one
/// that takes its place has seen it.
const WALSENDER_LIMIT: Duration = Duration::from_millis(1500);
/// A server in recovery that has not come up after this time recovers: it refuses sessions until
/// it is consistent, which may take long.
const RECOVERY_BEGUN: Duration = Duration::from_secs(2);
/// How long SIGQUIT has before the kill in an immediate stop.
const KILL_GRACE: Duration = Duration::from_millis(300);

/// Carries out one action that touches the postmaster, the data directory or the configuration.
pub async fn run(context: &Context, action: &Action) -> Outcome {
    let outcome = match action {
        Action::Initialize => return initialize(context).await,
        Action::Clone { from } => return clone(context, from).await,
        Action::StartPrimary { names } => start_primary(context, names).await,
        Action::StartStandby { follow } => start_standby(context, follow.as_ref()).await,
        Action::Follow { member } => follow(context, member.as_ref()).await,
        Action::Stop { mode, limit } => stop(context, *mode, *limit).await,
        Action::Checkpoint => checkpoint(context).await.map_err(refused(failure::STOP_FAILED)),
        Action::Promote { above, names } => promote(context, *above, names).await,
        Action::SetNames { names } => set_names(context, names).await,
        Action::Rewind { from } => rewind(context, from).await,
        Action::PointService { .. } | Action::UnpointService { .. } => {
            Err(Failed::because(failure::START_FAILED, "not an operation on PostgreSQL"))
        }
    };
    match outcome {
        Ok(()) => Outcome::Done,
        Err(failed) => fail(&failed),
    }
}

fn fail(failed: &Failed) -> Outcome {
    tracing::warn!(reason = failed.reason, "{}", failed.message);
    Outcome::Failed { message: format!("{}: {}", failed.reason, failed.message) }
}

fn volume(error: &data::Error) -> Failed {
    let reason = if error.is_full() { failure::DISK_FULL } else { failure::DATA_DIRECTORY_DAMAGED };
    Failed::new(reason, error)
}

fn refused(reason: &'static str) -> impl Fn(sql::Error) -> Failed {
    move |error| Failed::new(reason, &error)
}

async fn installed(context: &Context) -> Result<crate::postgres::program::Installation, Failed> {
    let major = match data::look(&context.options.root).map_err(|error| volume(&error))? {
        data::Found::Empty => {
            return Err(Failed::because(failure::START_FAILED, "there is no data directory"));
        }
        data::Found::Data { major } => major,
        data::Found::HalfRewound { .. } => {
            return Err(Failed::because(
                failure::REWIND_FAILED,
                "pg_rewind was interrupted: the data directory must be cloned anew",
            ));
        }
        data::Found::WithoutTablespace { path, .. } => {
            let message = format!("the tablespace at {} is not there any more", path.display());
            return Err(Failed::because(failure::DATA_DIRECTORY_DAMAGED, message));
        }
    };
    context.installation(Some(major)).await
}

/// Writes configuration and signal file, then has the keeper start PostgreSQL.
async fn start(context: &Context, standby: bool) -> Result<(), Failed> {
    let root = &context.options.root;
    if context.link.postmaster().is_running() {
        return Err(Failed::because(failure::START_FAILED, "PostgreSQL already runs"));
    }
    wal::free_timelines(root).map_err(|error| volume(&error))?;
    let installation = installed(context).await?;
    for segment in wal::uncover(root).map_err(|error| volume(&error))? {
        tracing::info!(kept = %segment.display(), "a segment that was cut off hid WAL of an older timeline");
    }
    // Before WAL is replayed that has a tablespace made. Where it cannot be, that is no reason to
    // stay down: no primary makes one before this instance has its place.
    if let Err(error) = tablespaces::prepare(root) {
        tracing::warn!(error = chain(&error), "the place of a tablespace");
    }
    certificates_are_there(root).await?;
    let pgdata = root.pgdata();
    let signal = pgdata.join("standby.signal");
    if standby {
        data::write_atomically(&signal, b"").map_err(|error| volume(&error))?;
    } else {
        data::remove_file(&signal).map_err(|error| volume(&error))?;
    }
    data::remove_file(&pgdata.join("recovery.signal")).map_err(|error| volume(&error))?;
    context.configure(&pgdata, &installation).await?;
    let mut environment: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(name, _)| name != "PGDATA" && name != "LC_MESSAGES").collect();
    environment.push(("PGDATA".into(), pgdata.clone().into()));
    environment.push(("LC_MESSAGES".into(), "C".into()));
    // Backends are given up before the postmaster, and that before the agent.
    environment.push(("PG_OOM_ADJUST_FILE".into(), "/proc/self/oom_score_adj".into()));
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    let raised = own.trim().parse::<i32>().unwrap_or(0).saturating_add(50).min(1000);
    environment.push(("PG_OOM_ADJUST_VALUE".into(), raised.to_string().into()));
    let file = StartFile {
        data_directory: pgdata.clone(),
        standard_error: root.log().join(tail::STANDARD_ERROR),
        arguments: vec![installation.program("postgres").into(), "-D".into(), pgdata.into()],
        environment,
    };
    file.write(&root.start_file()).map_err(|error| {
        Failed::because(failure::START_FAILED, format!("cannot write the start file: {error}"))
    })?;
    let mut state = context.link.watch();
    state.mark_unchanged();
    context.link.tell(Request::Start);
    if state.changed().await.is_err() {
        return Err(Failed::because(failure::START_FAILED, "the keeper is gone"));
    }
    started(*state.borrow())
}

/// A new pod begins without the files that PostgreSQL needs for TLS; the tender writes them as soon
/// as the Secrets are read.
async fn certificates_are_there(root: &Root) -> Result<(), Failed> {
    // The last one that is written.
    let file = Files::new(root).replication_certificate();
    let begun = tokio::time::Instant::now();
    while !file.exists() {
        if begun.elapsed() > CERTIFICATES_LIMIT {
            let message = "the certificates of the pod are not there: their Secrets cannot be read";
            return Err(Failed::because(failure::START_FAILED, message));
        }
        tokio::time::sleep(PERIOD).await;
    }
    Ok(())
}

fn started(state: Postmaster) -> Result<(), Failed> {
    let (reason, message) = match state {
        Postmaster::Running { .. } | Postmaster::None { .. } => return Ok(()),
        Postmaster::NotStarted { error: NOT_LOCKED } => {
            (failure::VOLUME_IN_USE, "another pod holds the data volume".to_owned())
        }
        Postmaster::NotStarted { error: ALREADY_RUNNING } => (
            failure::START_FAILED,
            "a process of the data directory is still there, or the right has ended".to_owned(),
        ),
        Postmaster::NotStarted { error: BAD_START_FILE } => {
            (failure::START_FAILED, "the start file cannot be read".to_owned())
        }
        Postmaster::NotStarted { error } => {
            let code = i32::try_from(error).unwrap_or(0);
            (failure::START_FAILED, std::io::Error::from_raw_os_error(code).to_string())
        }
    };
    Err(Failed { reason, message })
}

/// Waits until `done` says so, as long as the postmaster lives.
async fn until(
    context: &Context,
    done: impl AsyncFn(Result<&server::Observation, &sql::Error>, Duration) -> bool,
) -> Result<(), Failed> {
    let begun = tokio::time::Instant::now();
    loop {
        if let Postmaster::None { ending } = context.link.postmaster() {
            return Err(died(context, ending));
        }
        let outcome = context.in_session(server::observe).await;
        if done(outcome.as_ref(), begun.elapsed()).await {
            return Ok(());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn died(context: &Context, ending: Option<Ending>) -> Failed {
    let words = tail::last_words(&context.options.root);
    let reason = if words.contains("Address already in use") {
        failure::PORT_TAKEN
    } else if words.contains("No space left on device") {
        failure::DISK_FULL
    } else {
        failure::START_FAILED
    };
    let how = match ending {
        Some(Ending::Code(code)) => format!("PostgreSQL ended with code {code}"),
        Some(Ending::Signal(signal)) => format!("PostgreSQL was ended by signal {signal}"),
        None => "PostgreSQL does not run".to_owned(),
    };
    Failed::because(reason, if words.is_empty() { how } else { format!("{how}: {words}") })
}

async fn start_primary(context: &Context, names: &StandbyNames) -> Result<(), Failed> {
    context.set_replication(Replication::Primary(names.clone()))?;
    start(context, false).await?;
    until(context, async |seen, _| seen.is_ok_and(|it| !it.in_recovery)).await
}

async fn start_standby(context: &Context, member: Option<&Member>) -> Result<(), Failed> {
    let source = member.map(|member| context.source(member));
    context.set_replication(Replication::Standby(source))?;
    start(context, true).await?;
    until(context, async |seen, elapsed| match seen {
        Ok(found) => found.in_recovery,
        Err(error) => error.is_cannot_connect_now() && elapsed > RECOVERY_BEGUN,
    })
    .await
}

async fn follow(context: &Context, member: Option<&Member>) -> Result<(), Failed> {
    wal::free_timelines(&context.options.root).map_err(|error| volume(&error))?;
    let source = member.map(|member| context.source(member));
    let before =
        context.in_session(server::observe).await.map_err(refused(failure::START_FAILED))?.receiver;
    context.set_replication(Replication::Standby(source.clone()))?;
    reload(context).await?;
    let old = before.map(|receiver| receiver.host);
    let gone = async |seen: Result<&server::Observation, &sql::Error>, _: Duration| {
        seen.is_ok_and(|found| match (&found.receiver, &source) {
            (None, _) => true,
            (Some(_), None) => false,
            // PostgreSQL calls it by the name that it verifies, and whom it followed before it follows
            // by another connection once the address is another.
            (Some(receiver), Some(source)) => {
                receiver.host == source.name || Some(&receiver.host) != old.as_ref()
            }
        })
    };
    until(context, gone).await
}

/// Writes the configuration and sees it in force.
///
/// # Errors
/// If it is not taken.
pub async fn reload(context: &Context) -> Result<(), Failed> {
    let installation = installed(context).await?;
    let pgdata = context.options.root.pgdata();
    let written = context.configure(&pgdata, &installation).await?;
    context.link.tell(Request::Signal(PostmasterSignal::Reload));
    let begun = tokio::time::Instant::now();
    loop {
        let seen = context.in_session(server::observe).await;
        if seen.is_ok_and(|it| it.replication == written.replication_hash) {
            return Ok(());
        }
        if begun.elapsed() > RELOAD_LIMIT {
            return Err(Failed::because(
                failure::START_FAILED,
                "PostgreSQL has not taken the new replication settings",
            ));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Goes by the steps of [`StandbyNames::next_towards`], each in force before the next; the first
/// is what stands in the files, unless this agent saw it in force.
async fn set_names(context: &Context, names: &StandbyNames) -> Result<(), Failed> {
    let mut present = match context.replication() {
        Replication::Primary(present) => present,
        Replication::Standby(_) => names.clone(),
    };
    if with(&context.names_in_force, |it| it.as_ref() != Some(&present)) {
        bring_into_force(context, &present).await?;
    }
    while let Some(next) = present.next_towards(names) {
        bring_into_force(context, &next).await?;
        present = next;
    }
    Ok(())
}

async fn bring_into_force(context: &Context, names: &StandbyNames) -> Result<(), Failed> {
    with(&context.names_in_force, |it| *it = None);
    context.set_replication(Replication::Primary(names.clone()))?;
    reload(context).await?;
    seen_by_walsenders(context).await?;
    with(&context.names_in_force, |it| *it = Some(names.clone()));
    Ok(())
}

/// Waits until every walsender has looked at the loaded configuration.
async fn seen_by_walsenders(context: &Context) -> Result<(), Failed> {
    let before =
        context.in_session(server::observe).await.map_err(refused(failure::START_FAILED))?;
    // A copy in the making, which shows its instance's name, is named nowhere and releases nobody.
    let members = context.known().map(|it| it.spec.members.clone()).unwrap_or_default();
    let releases =
        |sender: &&server::Sender| !sender.backup && !members.contains(&sender.application_name);
    let pids: Vec<u32> = before.senders.iter().filter(releases).map(|sender| sender.pid).collect();
    if before.in_recovery || pids.is_empty() {
        return Ok(());
    }
    // The signal of the reload was sent to every walsender before this record was written, so one
    // that has it flushed at its standby has looked at the configuration since.
    let record =
        context.in_session(server::emit_record).await.map_err(refused(failure::START_FAILED))?;
    let begun = tokio::time::Instant::now();
    loop {
        let now =
            context.in_session(server::observe).await.map_err(refused(failure::START_FAILED))?;
        let late: Vec<u32> = now
            .senders
            .iter()
            .filter(|sender| pids.contains(&sender.pid) && sender.flushed < record)
            .map(|sender| sender.pid)
            .collect();
        if late.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > WALSENDER_LIMIT {
            let list = late.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let statement =
                format!("SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{list}]) AS t(pid)");
            context
                .in_session(async |session| {
                    session.execute(&statement, server::OBSERVATION_LIMIT).await
                })
                .await
                .map_err(refused(failure::START_FAILED))?;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn stop(context: &Context, mode: StopMode, limit: Span) -> Result<(), Failed> {
    let ways = match mode {
        StopMode::Smart => vec![PostmasterSignal::Smart, PostmasterSignal::Fast],
        StopMode::Fast | StopMode::Short => vec![PostmasterSignal::Fast],
        StopMode::Immediate => Vec::new(),
    };
    for signal in ways {
        if !context.link.postmaster().is_running() {
            return Ok(());
        }
        context.link.tell(Request::Signal(signal));
        let ended = context.link.ended();
        if tokio::time::timeout(Duration::from_millis(limit.0), ended).await.is_ok() {
            return Ok(());
        }
    }
    let grace = match mode {
        StopMode::Short => Duration::ZERO,
        StopMode::Smart | StopMode::Fast | StopMode::Immediate => KILL_GRACE,
    };
    context.link.tell(Request::Fence { grace });
    context.link.ended().await;
    Ok(())
}

async fn checkpoint(context: &Context) -> Result<(), sql::Error> {
    server::checkpoint(&context.new_session().await?).await
}

async fn promote(context: &Context, above: TimelineId, names: &StandbyNames) -> Result<(), Failed> {
    let root = &context.options.root;
    let before =
        context.in_session(server::observe).await.map_err(refused(failure::PROMOTION_FAILED))?;
    // In force before it accepts the first write (rule 15); it also ends the walreceiver.
    context.set_replication(Replication::Primary(names.clone()))?;
    reload(context).await?;
    if before.in_recovery {
        // PostgreSQL takes the first number above its own for which it finds no history file.
        let own = before.timeline.map_or(0, TimelineId::get);
        for number in own.saturating_add(1)..=above.get() {
            wal::take_timeline(root, number).map_err(|error| volume(&error))?;
        }
        context.in_session(server::promote).await.map_err(refused(failure::PROMOTION_FAILED))?;
        until(context, async |seen, _| seen.is_ok_and(|it| !it.in_recovery)).await?;
    }
    wal::free_timelines(root).map_err(|error| volume(&error))?;
    let later = context.clone();
    tokio::spawn(async move {
        // pg_rewind reads the timeline from the control file, which only a checkpoint brings there.
        if let Err(error) = checkpoint(&later).await {
            // A switchover may end it before: the checkpoint of the shutdown does the same.
            error.tell("checkpoint after promotion");
        }
    });
    Ok(())
}

async fn rewind(context: &Context, from: &Member) -> Result<(), Failed> {
    let installation = installed(context).await?;
    let source = context.source(from);
    let name = context.application_name();
    rewind::run(&context.options.root, &installation, &source, &name)
        .await
        .map_err(|error| Failed::new(failure::REWIND_FAILED, &error))
}

async fn clone(context: &Context, from: &Member) -> Outcome {
    let outcome = try_clone(context, from).await;
    outcome.unwrap_or_else(|failed| fail(&failed))
}

async fn try_clone(context: &Context, from: &Member) -> Result<Outcome, Failed> {
    let root = &context.options.root;
    let major = match data::look(root).map_err(|error| volume(&error))? {
        data::Found::Empty => None,
        data::Found::Data { major }
        | data::Found::HalfRewound { major }
        | data::Found::WithoutTablespace { major, .. } => Some(major),
    };
    let installation = context.installation(major).await?;
    let source = context.source(from);
    let name = context.options.instance.clone();
    clone::make(root, &installation, &source, root, &name)
        .await
        .map_err(|error| Failed::new(failure::CLONE_FAILED, &error))?;
    complete(context)
}

async fn initialize(context: &Context) -> Outcome {
    let outcome = try_initialize(context).await;
    outcome.unwrap_or_else(|failed| fail(&failed))
}

async fn try_initialize(context: &Context) -> Result<Outcome, Failed> {
    let root = &context.options.root;
    if data::look(root).map_err(|error| volume(&error))? != data::Found::Empty {
        return Err(Failed::because(failure::INITDB_FAILED, "the volume is not empty"));
    }
    let known = context.known()?;
    let matriarch_api::instance::Bootstrap::Initdb(options) = &known.spec.bootstrap else {
        return Err(Failed::because(failure::INITDB_FAILED, "the directive says clone"));
    };
    let scripts = crate::scripts::read(context, &known.spec, options).await?;
    let installation = context.installation(None).await?;
    context.set_replication(Replication::Primary(StandbyNames::none()))?;
    let configure = async |directory: &std::path::Path| {
        context.configure(directory, &installation).await.map(|_| ()).map_err(|it| it.message)
    };
    initdb::make(root, &installation, options, &scripts, configure).await.map_err(|error| {
        let reason = match &error {
            initdb::Error::Statement { .. } => failure::BOOTSTRAP_SQL_FAILED,
            _ if chain(&error).contains("No space left on device") => failure::DISK_FULL,
            _ => failure::INITDB_FAILED,
        };
        Failed::new(reason, &error)
    })?;
    complete(context)
}

/// Gives the new directory its name and a new incarnation.
fn complete(context: &Context) -> Result<Outcome, Failed> {
    let root = &context.options.root;
    let incarnation = data::new_incarnation();
    if let Some(kept) = data::complete(root, &incarnation).map_err(|error| volume(&error))? {
        tracing::warn!(path = %kept.display(), "the old data directory is kept");
    }
    with(&context.incarnation, |it| *it = Some(incarnation.clone()));
    let control =
        wal::control(root).map_err(|error| Failed::new(failure::DATA_DIRECTORY_DAMAGED, &error))?;
    Ok(Outcome::NewDirectory {
        incarnation: Incarnation(incarnation),
        system_id: control.system_id,
    })
}
