//! Tablespaces on volumes and in the data directory, against a real PostgreSQL. A directory stands
//! for a volume; two pods have two roots here, where on Kubernetes the path is the same in all.

use std::path::PathBuf;

use matriarch_agent::driver::context::{Context, with};
use matriarch_agent::driver::observe;
use matriarch_agent::options::TablespacePlace;
use matriarch_agent::postgres::{clone, data, tablespaces};
use matriarch_api::instance::{Tablespace, TablespaceReport};
use matriarch_plan::protocol::{
    Action, Outcome, PostgresState, Span, StandbyNames, StopMode, TimelineId,
};

use crate::bench::{Authority, Pod, eventually};
use crate::unprivileged;

const COUNT: &str = "SELECT count(*) FROM public.kept";
const STREAMING: &str = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";

fn stop() -> Action {
    Action::Stop { mode: StopMode::Fast, limit: Span::seconds(20) }
}

fn wanted(owner: &str, create: bool) -> [Tablespace; 1] {
    [Tablespace { name: "fast".to_owned(), owner: owner.to_owned(), create }]
}

async fn keep(pod: &Pod, owner: &str, create: bool) -> TablespaceReport {
    let session = pod.context.new_session().await.unwrap();
    let at = pod.context.options.tablespaces;
    let wanted = wanted(owner, create);
    let reports = tablespaces::keep(&session, &pod.root, at, &wanted).await.unwrap();
    reports.into_iter().next().unwrap()
}

async fn pods(at: TablespacePlace, major: u32, hosts: [u8; 2]) -> (Pod, Pod) {
    let authority = Authority::new();
    let one = Pod::with_tablespaces(at, major, "one", hosts[0], &authority).await;
    let two = Pod::with_tablespaces(at, major, "two", hosts[1], &authority).await;
    for pod in [&one, &two] {
        pod.direct(|known| {
            known.spec.members = vec!["one".to_owned(), "two".to_owned()];
            known.spec.configuration.high_availability_slots.enabled = false;
        });
    }
    one.done(Action::Initialize).await;
    one.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    (one, two)
}

async fn fill(pod: &Pod) {
    pod.sql("CREATE TABLE public.kept TABLESPACE fast AS SELECT generate_series(1, 1000) AS n")
        .await;
}

/// The standby is promoted, the primary has what nobody else has, and becomes its standby: by
/// pg_rewind, where that can do it.
async fn change_places(one: &Pod, two: &Pod, rewind: bool) {
    two.done(Action::Follow { member: None }).await;
    one.sql("INSERT INTO public.kept SELECT generate_series(1, 500)").await;
    one.done(Action::Stop { mode: StopMode::Immediate, limit: Span::seconds(20) }).await;
    let above = TimelineId::new(1).unwrap();
    two.done(Action::Promote { above, names: StandbyNames::none() }).await;
    two.sql("INSERT INTO public.kept VALUES (0)").await;
    eventually("the checkpoint of the new timeline", async || {
        two.sql("SELECT timeline_id FROM pg_control_checkpoint()").await == "2"
    })
    .await;
    if rewind {
        one.done(Action::Rewind { from: two.member() }).await;
    } else {
        let outcome = one.run(Action::Rewind { from: two.member() }).await;
        assert!(
            matches!(outcome, Outcome::Failed { .. }),
            "docs/decisions/tablespaces.md is out of date: {outcome:?}"
        );
        one.done(Action::Clone { from: two.member() }).await;
    }
    one.done(Action::StartStandby { follow: Some(two.member()) }).await;
    eventually("the former primary has what the new one wrote", async || {
        one.sql(COUNT).await == "1001"
    })
    .await;
    two.sql("INSERT INTO public.kept VALUES (0)").await;
    eventually("and what it goes on to write", async || one.sql(COUNT).await == "1002").await;
}

/// Clones as the agent does, told where the other pod has its tablespaces.
async fn clone_from(pod: &Pod, source: &Pod) -> Option<PathBuf> {
    let installation = pod.context.installation(None).await.unwrap();
    let from = pod.context.source(&source.member());
    clone::make(&pod.root, &installation, &from, &source.root, "two").await.unwrap();
    let incarnation = data::new_incarnation();
    let aside = data::complete(&pod.root, &incarnation).unwrap();
    with(&pod.context.incarnation, |it| *it = Some(incarnation));
    aside
}

async fn follows(two: &Pod, one: &Pod) {
    two.done(Action::StartStandby { follow: Some(one.member()) }).await;
    eventually("the clone streams", async || one.sql(STREAMING).await == "1").await;
    eventually("it has the rows", async || two.sql(COUNT).await == "1000").await;
}

async fn state(context: &Context) -> PostgresState {
    observe::look(context, false).await.observation.state
}

async fn on_volumes(major: u32, hosts: [u8; 2]) {
    let (one, two) = pods(TablespacePlace::Volumes, major, hosts).await;
    assert!(!keep(&one, "app", true).await.ready, "there is no volume");
    for pod in [&one, &two] {
        std::fs::create_dir_all(pod.root.tablespaces().join("fast/lost+found")).unwrap();
        tablespaces::prepare(&pod.root).unwrap();
    }
    let waits = keep(&one, "app", false).await;
    assert!(waits.ready && !waits.reconciled && waits.error.is_none(), "{waits:?}");
    let refused = keep(&one, "nobody", true).await;
    assert_eq!(refused.error.as_deref(), Some("there is no role nobody"));
    let made = keep(&one, "app", true).await;
    assert!(made.reconciled && made.owner.as_deref() == Some("app"), "{made:?}");
    let location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'";
    assert_eq!(PathBuf::from(one.sql(location).await), one.root.tablespace("fast"));
    let given = keep(&one, "postgres", true).await;
    assert!(given.reconciled && given.owner.as_deref() == Some("postgres"), "{given:?}");
    fill(&one).await;

    assert_eq!(clone_from(&two, &one).await, None);
    follows(&two, &one).await;
    assert_eq!(PathBuf::from(two.sql(location).await), two.root.tablespace("fast"));

    // Once more over what is there: the old content is kept beside the new, and whole.
    two.done(stop()).await;
    let aside = clone_from(&two, &one).await.unwrap();
    follows(&two, &one).await;
    let [link] = &tablespaces::links(&aside)[..] else {
        panic!("{:?}", tablespaces::links(&aside))
    };
    assert_ne!(link.target, two.root.tablespace("fast"));
    assert!(std::fs::read_dir(&link.target).unwrap().count() > 0, "{link:?}");

    // Its volume is a new one: PostgreSQL is not started on what is left.
    two.done(stop()).await;
    std::fs::rename(two.root.tablespace("fast"), two.root.tablespaces().join("gone")).unwrap();
    tablespaces::prepare(&two.root).unwrap();
    let message = match two.run(Action::StartStandby { follow: Some(one.member()) }).await {
        Outcome::Failed { message } => message,
        other => panic!("{other:?}"),
    };
    assert!(message.contains("is not there any more"), "{message}");
    assert_eq!(state(&two.context).await, PostgresState::Empty, "it is as good as empty");
    assert!(clone_from(&two, &one).await.is_some());
    follows(&two, &one).await;
    change_places(&one, &two, true).await;
}

async fn in_the_data_directory(major: u32, hosts: [u8; 2]) {
    let (one, two) = pods(TablespacePlace::DataDirectory, major, hosts).await;
    let made = keep(&one, "app", true).await;
    assert!(made.ready && made.reconciled, "{made:?}");
    let again = keep(&one, "app", true).await;
    assert_eq!(again, made, "it is found again");
    fill(&one).await;
    two.done(Action::Clone { from: one.member() }).await;
    follows(&two, &one).await;
    // Another one is made while the standby streams, which replays it.
    let late = [Tablespace { name: "late".to_owned(), owner: "app".to_owned(), create: true }];
    let session = one.context.new_session().await.unwrap();
    tablespaces::keep(&session, &one.root, TablespacePlace::DataDirectory, &late).await.unwrap();
    one.sql("CREATE TABLE public.late TABLESPACE late AS SELECT 1 AS n").await;
    eventually("the standby has it", async || {
        two.sql("SELECT to_regclass('public.late')").await == "public.late"
    })
    .await;
    assert_eq!(two.sql("SELECT n FROM public.late").await, "1");
    // pg_rewind of 15 takes a directory in pg_tblspc for a link.
    change_places(&one, &two, major > 15).await;
}

#[tokio::test]
async fn postgresql_15_has_tablespaces_on_volumes() {
    if unprivileged("tablespaces::postgresql_15_has_tablespaces_on_volumes") {
        on_volumes(15, [41, 42]).await;
    }
}

#[tokio::test]
async fn postgresql_18_has_tablespaces_on_volumes() {
    if unprivileged("tablespaces::postgresql_18_has_tablespaces_on_volumes") {
        on_volumes(18, [43, 44]).await;
    }
}

#[tokio::test]
async fn postgresql_15_has_tablespaces_in_the_data_directory() {
    if unprivileged("tablespaces::postgresql_15_has_tablespaces_in_the_data_directory") {
        in_the_data_directory(15, [45, 46]).await;
    }
}

#[tokio::test]
async fn postgresql_17_has_tablespaces_in_the_data_directory() {
    if unprivileged("tablespaces::postgresql_17_has_tablespaces_in_the_data_directory") {
        in_the_data_directory(17, [47, 48]).await;
    }
}

#[tokio::test]
async fn postgresql_18_has_tablespaces_in_the_data_directory() {
    if unprivileged("tablespaces::postgresql_18_has_tablespaces_in_the_data_directory") {
        in_the_data_directory(18, [49, 50]).await;
    }
}
