//! The protocol's actions against a real PostgreSQL.

use std::time::Duration;

use matriarch_agent::driver::context::with;
use matriarch_agent::driver::{observe, operation, wal};
use matriarch_agent::postgres::sql::{SearchPath, Session};
use matriarch_agent::postgres::{data, statistics};
use matriarch_pg::wal::SegmentName;
use matriarch_plan::protocol::{
    Action, Outcome, PostgresState, Span, StandbyNames, StopMode, TimelineId,
};

use crate::bench::{Authority, Pod, eventually};
use crate::unprivileged;

fn stop(mode: StopMode) -> Action {
    Action::Stop { mode, limit: Span::seconds(20) }
}

#[tokio::test]
async fn an_interrupted_initdb_leaves_nothing_that_is_taken_for_data() {
    if !unprivileged("operations::an_interrupted_initdb_leaves_nothing_that_is_taken_for_data") {
        return;
    }
    let pod = Pod::start("initdb", 11, &Authority::new()).await;
    for wait in [150, 900, 1500] {
        let attempt = pod.run(Action::Initialize);
        let ended = tokio::time::timeout(Duration::from_millis(wait), attempt).await;
        // Either nothing or the whole: that it is whole is seen below.
        match data::look(&pod.root).unwrap() {
            data::Found::Empty => assert!(ended.is_err(), "{ended:?}\n{}", pod.log()),
            data::Found::Data { .. } => break,
            half @ (data::Found::HalfRewound { .. } | data::Found::WithoutTablespace { .. }) => {
                panic!("{half:?}")
            }
        }
    }
    if data::look(&pod.root).unwrap() == data::Found::Empty {
        pod.done(Action::Initialize).await;
    }
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert_eq!(pod.sql("SHOW data_checksums").await, "on");
    let owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'app'";
    assert_eq!(pod.sql(owner).await, "app");
    assert_eq!(pod.sql("SHOW search_path").await, "pg_catalog,pg_temp");
}

#[tokio::test]
async fn a_value_that_postgresql_rejects_is_reported_in_its_words_and_the_old_one_goes_on() {
    if !unprivileged(
        "operations::a_value_that_postgresql_rejects_is_reported_in_its_words_and_the_old_one_goes_on",
    ) {
        return;
    }
    let pod = Pod::start("reject", 12, &Authority::new()).await;
    pod.direct(|known| {
        known.spec.configuration.parameters.insert("work_mem".into(), "7MB".into());
    });
    pod.done(Action::Initialize).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert_eq!(pod.sql("SHOW work_mem").await, "7MB");
    pod.direct(|known| {
        known.spec.configuration_hash = "two".to_owned();
        known.spec.configuration.parameters.insert("work_mem".into(), "many".into());
    });
    operation::reload(&pod.context).await.unwrap();
    let words = with(&pod.context.configured, |it| it.rejected.clone().unwrap().1);
    println!("PostgreSQL's words: {words}");
    assert!(words.contains("invalid value for parameter \"work_mem\": \"many\""), "{words}");
    assert_eq!(pod.sql("SHOW work_mem").await, "7MB");
    // Also over a restart.
    pod.done(stop(StopMode::Fast)).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert_eq!(pod.sql("SHOW work_mem").await, "7MB");
    assert_eq!(pod.sql("SHOW matriarch.configuration_sha256").await, "one");
    pod.direct(|known| {
        known.spec.configuration_hash = "three".to_owned();
        known.spec.configuration.parameters.insert("work_mem".into(), "9MB".into());
    });
    operation::reload(&pod.context).await.unwrap();
    assert_eq!(with(&pod.context.configured, |it| it.rejected.clone()), None);
    eventually("the new value is in force", async || pod.sql("SHOW work_mem").await == "9MB").await;
}

/// With rules that it refuses PostgreSQL would not start: they never lie where it reads them.
#[tokio::test]
async fn rules_that_postgresql_rejects_are_reported_in_its_words_and_do_not_stop_a_start() {
    if !unprivileged(
        "operations::rules_that_postgresql_rejects_are_reported_in_its_words_and_do_not_stop_a_start",
    ) {
        return;
    }
    let pod = Pod::start("rules", 13, &Authority::new()).await;
    pod.done(Action::Initialize).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    let rules = "SELECT count(*) FROM pg_hba_file_rules WHERE address = '10.9.0.0'";
    let refused = |hash: &str| {
        pod.direct(|known| {
            known.spec.configuration_hash = hash.to_owned();
            known.spec.configuration.pg_hba =
                vec!["hostssl all all 10.9.0.0/16 scram-sha-256 map=nowhere".to_owned()];
        });
    };
    refused("two");
    operation::reload(&pod.context).await.unwrap();
    let words = with(&pod.context.configured, |it| it.rejected.clone().unwrap().1);
    println!("PostgreSQL's words: {words}");
    assert!(words.contains("authentication option \"map\" is only valid for"), "{words}");
    assert_eq!(pod.sql(rules).await, "0");
    pod.done(stop(StopMode::Fast)).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;

    // New while PostgreSQL is down: it starts with the former rules, and then judges the new ones.
    pod.done(stop(StopMode::Fast)).await;
    refused("three");
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert_eq!(with(&pod.context.configured, |it| it.rejected.clone()), None);
    assert_eq!(pod.sql("SHOW matriarch.configuration_sha256").await, "three-former-rules");
    operation::reload(&pod.context).await.unwrap();
    assert!(with(&pod.context.configured, |it| it.rejected.is_some()));

    pod.direct(|known| {
        known.spec.configuration_hash = "four".to_owned();
        known.spec.configuration.pg_hba =
            vec!["hostssl all all 10.9.0.0/16 scram-sha-256".to_owned()];
    });
    operation::reload(&pod.context).await.unwrap();
    assert_eq!(with(&pod.context.configured, |it| it.rejected.clone()), None);
    assert_eq!(pod.sql(rules).await, "1");
}

/// Without its pg_ident.conf PostgreSQL starts, and lets nobody in by a map, the agent included.
#[tokio::test]
async fn maps_that_postgresql_rejects_lock_nobody_out() {
    if !unprivileged("operations::maps_that_postgresql_rejects_lock_nobody_out") {
        return;
    }
    let pod = Pod::start("maps", 14, &Authority::new()).await;
    let maps = |hash: &str, line: &str| {
        pod.direct(|known| {
            known.spec.configuration_hash = hash.to_owned();
            known.spec.configuration.pg_ident = vec![line.to_owned()];
        });
    };
    let rejected = || with(&pod.context.configured, |it| it.rejected.clone().map(|it| it.1));
    // Wrong from the first moment: the cluster comes up without them.
    maps("one", "people /(ann app");
    pod.done(Action::Initialize).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert_eq!(pod.sql("SHOW matriarch.configuration_sha256").await, "one-former-rules");
    operation::reload(&pod.context).await.unwrap();
    let words = rejected().unwrap();
    println!("PostgreSQL's words: {words}");
    assert!(words.contains("pg_ident.conf line 2: invalid regular expression"), "{words}");
    pod.done(stop(StopMode::Fast)).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert_eq!(pod.sql("SELECT 1").await, "1");

    maps("two", "people /^(ann)$ app");
    operation::reload(&pod.context).await.unwrap();
    assert_eq!(rejected(), None);
    let listed = "SELECT count(*) FROM pg_ident_file_mappings WHERE map_name = 'people'";
    assert_eq!(pod.sql(listed).await, "1");
    assert_eq!(pod.sql("SHOW matriarch.configuration_sha256").await, "two");
}

#[tokio::test]
async fn postgresql_15_is_cloned_promoted_and_rewound() {
    if unprivileged("operations::postgresql_15_is_cloned_promoted_and_rewound") {
        cloned_promoted_and_rewound(15, [21, 22]).await;
    }
}

#[tokio::test]
async fn postgresql_17_is_cloned_promoted_and_rewound() {
    if unprivileged("operations::postgresql_17_is_cloned_promoted_and_rewound") {
        cloned_promoted_and_rewound(17, [23, 24]).await;
    }
}

#[tokio::test]
async fn postgresql_18_is_cloned_promoted_and_rewound() {
    if unprivileged("operations::postgresql_18_is_cloned_promoted_and_rewound") {
        cloned_promoted_and_rewound(18, [25, 26]).await;
    }
}

async fn statistics_are_told(primary: &Pod, standby: &Pod, incarnation: &str) {
    let told = async |pod: &Pod| {
        let asking = async |session: &Session| Ok(statistics::read(session).await.unwrap());
        pod.context.in_session(asking).await.unwrap()
    };
    let (primary, standby) = (told(primary).await, told(standby).await);
    assert_eq!(primary.senders[0].application_name, incarnation);
    assert_eq!(primary.senders[0].sync_state.as_deref(), Some("quorum"));
    assert!(primary.senders[0].flush_lsn.is_some() && primary.wal_file.is_some());
    assert!(primary.database_bytes > 1 << 20 && primary.wal_bytes >= 1 << 24, "{primary:?}");
    assert!(standby.lsn.is_some() && standby.wal_file.is_none() && standby.senders.is_empty());
}

async fn cloned_promoted_and_rewound(major: u32, hosts: [u8; 2]) {
    let authority = Authority::new();
    let one = Pod::of_major(major, "one", hosts[0], &authority).await;
    let two = Pod::of_major(major, "two", hosts[1], &authority).await;
    for pod in [&one, &two] {
        pod.direct(|known| {
            known.spec.members = vec!["one".to_owned(), "two".to_owned()];
            known.spec.configuration.high_availability_slots.enabled = false;
        });
    }
    one.done(Action::Initialize).await;
    one.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert!(one.sql("SHOW server_version").await.starts_with(&major.to_string()));
    two.done(Action::Clone { from: one.member() }).await;
    two.done(Action::StartStandby { follow: Some(one.member()) }).await;
    eventually("the clone streams", async || {
        one.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").await == "1"
    })
    .await;

    // Synchronous: a commit needs the standby.
    let incarnation = data::incarnation(&two.root).unwrap().unwrap();
    let names = StandbyNames {
        need: 1,
        members: [incarnation.as_str().into()].into(),
        outside: std::collections::BTreeSet::new(),
    };
    one.done(Action::SetNames { names }).await;
    let state = "SELECT sync_state FROM pg_stat_replication";
    assert_eq!(one.sql(state).await, "quorum");
    statistics_are_told(&one, &two, &incarnation).await;

    // The walreceiver ends, then writes go on where nobody sees them.
    two.done(Action::Follow { member: None }).await;
    one.done(Action::SetNames { names: StandbyNames::none() }).await;
    one.sql("CREATE TABLE public.lost AS SELECT 1 AS n").await;
    one.done(stop(StopMode::Immediate)).await;
    assert_eq!(one.processes(), []);
    let crashed = observe::look(&one.context, false).await.observation;
    assert_eq!(crashed.state, PostgresState::Stopped { clean: false });

    let above = TimelineId::new(4).unwrap();
    two.done(Action::Promote { above, names: StandbyNames::none() }).await;
    let promoted = observe::look(&two.context, false).await.observation;
    assert_eq!(promoted.state, PostgresState::Primary);
    assert_eq!(promoted.timeline, TimelineId::new(5), "above every number that is taken");
    let (timeline, begins) = *promoted.timelines.last().unwrap();
    assert_eq!(promoted.timeline, Some(timeline));
    assert!(crashed.flushed > Some(begins), "it has what nobody has");
    eventually("the checkpoint of the new timeline", async || {
        two.sql("SELECT timeline_id FROM pg_control_checkpoint()").await == "5"
    })
    .await;

    one.done(Action::Rewind { from: two.member() }).await;
    one.done(Action::StartStandby { follow: Some(two.member()) }).await;
    eventually("the former primary streams", async || {
        two.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").await == "1"
    })
    .await;
    two.sql("CREATE TABLE public.kept AS SELECT 1 AS n").await;
    eventually("it has what the new primary wrote", async || {
        one.sql("SELECT to_regclass('public.kept')").await == "public.kept"
    })
    .await;
    assert_eq!(one.sql("SELECT to_regclass('public.lost')").await, "");

    // What an interrupted promotion leaves behind does not keep it from starting.
    one.done(stop(StopMode::Fast)).await;
    wal::take_timeline(&one.root, 9).unwrap();
    one.done(Action::StartStandby { follow: Some(two.member()) }).await;

    // A new clone over the old directory: it is kept, and the incarnation is another.
    let before = data::incarnation(&one.root).unwrap();
    one.done(stop(StopMode::Fast)).await;
    one.done(Action::Clone { from: two.member() }).await;
    assert_ne!(data::incarnation(&one.root).unwrap(), before);
    assert_eq!(data::kept(&one.root).len(), 1);
}

/// What was asked when a switchover began was logged as a warning, and CI failed on that line.
#[tokio::test]
async fn that_postgresql_ends_is_no_refusal() {
    if !unprivileged("operations::that_postgresql_ends_is_no_refusal") {
        return;
    }
    let pod = Pod::start("ends", 57, &Authority::new()).await;
    pod.done(Action::Initialize).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    let limit = Duration::from_secs(30);
    let session = pod.context.new_session().await.unwrap();
    let refused = session.execute("SELECT 1/0", limit).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused}");
    let nowhere = Session::open(&pod.root, "nowhere", SearchPath::Catalog).await.unwrap_err();
    assert!(nowhere.is_refusal(), "{nowhere:?}");

    let asking = session.execute("SELECT pg_sleep(30)", limit);
    let (asked, ()) = tokio::join!(asking, pod.done(stop(StopMode::Fast)));
    let ended = asked.unwrap_err();
    assert!(ended.is_answer() && !ended.is_refusal(), "{ended}");
    let absent = pod.context.new_session().await.unwrap_err();
    assert!(!absent.is_answer() && !absent.is_refusal(), "{absent}");
}

/// Found by a change of images on a real Kubernetes: a pod ended when its walreceiver had begun the
/// new timeline's first segment, and its PostgreSQL never let a session in.
#[tokio::test]
async fn a_standby_cut_off_at_a_new_timeline_lacks_nothing() {
    if !unprivileged("operations::a_standby_cut_off_at_a_new_timeline_lacks_nothing") {
        return;
    }
    let authority = Authority::new();
    let one = Pod::start("one", 51, &authority).await;
    let two = Pod::start("two", 52, &authority).await;
    for pod in [&one, &two] {
        pod.direct(|known| {
            known.spec.members = vec!["one".to_owned(), "two".to_owned()];
            known.spec.configuration.high_availability_slots.enabled = false;
        });
    }
    let look = async |pod: &Pod| observe::look(&pod.context, false).await.observation;
    one.done(Action::Initialize).await;
    one.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    two.done(Action::Clone { from: one.member() }).await;
    two.done(Action::StartStandby { follow: Some(one.member()) }).await;
    one.sql("CHECKPOINT").await;
    one.sql("SELECT pg_switch_wal()").await;
    one.sql("CREATE TABLE public.t AS SELECT n FROM generate_series(1, 20000) AS t(n)").await;
    let written = one.sql("SELECT pg_current_wal_flush_lsn()").await;
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    eventually("the standby has all", async || two.sql(&replayed).await == "t").await;
    two.done(stop(StopMode::Fast)).await;
    let before = look(&two).await;
    one.done(stop(StopMode::Fast)).await;
    one.done(Action::StartStandby { follow: None }).await;
    let above = TimelineId::new(1).unwrap();
    one.done(Action::Promote { above, names: StandbyNames::none() }).await;

    // What its walreceiver leaves when it ends after the first page.
    let wal = |pod: &Pod, name: &str| pod.root.pgdata().join("pg_wal").join(name);
    let begins = look(&one).await.timelines.last().unwrap().1;
    assert!(before.flushed.unwrap() < begins, "{before:?}");
    let size = wal::control(&one.root).unwrap().segment_size;
    let names = [1, 2].map(|timeline| {
        let timeline = TimelineId::new(timeline).unwrap();
        SegmentName::holding(timeline, begins, size).to_string()
    });
    let [old, new] = &names;
    let history = "00000002.history";
    std::fs::copy(wal(&one, history), wal(&two, history)).unwrap();
    let mut cut = std::fs::read(wal(&one, new)).unwrap();
    cut[8192..].fill(0);
    std::fs::write(wal(&two, new), &cut).unwrap();
    assert_eq!(look(&two).await, before, "the new file has nothing that it did not have");

    // Without WAL that it needs it lets nobody in, which is no failure, and its position stays.
    std::fs::rename(wal(&two, old), wal(&two, "away")).unwrap();
    let lacking = look(&two).await;
    two.done(Action::StartStandby { follow: None }).await;
    let starting = look(&two).await;
    assert_eq!(starting.state, PostgresState::Starting);
    assert_eq!(starting.flushed, lacking.flushed);
    two.done(stop(StopMode::Fast)).await;
    std::fs::rename(wal(&two, "away"), wal(&two, old)).unwrap();

    two.done(Action::StartStandby { follow: None }).await;
    eventually("it lets sessions in, and follows nobody", async || {
        look(&two).await.state == PostgresState::Standby
    })
    .await;
    assert_eq!(two.sql("SELECT count(*) FROM public.t").await, "20000");
    assert_eq!(look(&two).await.flushed, before.flushed);
    assert_eq!(std::fs::read(wal(&two, &format!("{new}.partial"))).unwrap(), cut, "it is kept");
    one.sql("INSERT INTO public.t VALUES (0)").await;
    two.done(Action::Follow { member: Some(one.member()) }).await;
    eventually("it goes on to the new timeline", async || {
        two.sql("SELECT count(*) FROM public.t").await == "20001"
    })
    .await;
}

#[tokio::test]
async fn what_stops_a_start_is_said_where_it_is_looked_for() {
    if !unprivileged("operations::what_stops_a_start_is_said_where_it_is_looked_for") {
        return;
    }
    let failed = |outcome: Outcome| match outcome {
        Outcome::Failed { message } => message,
        other => panic!("{other:?}"),
    };
    let pod = Pod::start("start", 31, &Authority::new()).await;
    pod.done(Action::Initialize).await;
    let taken = std::net::TcpListener::bind((pod.address, 5432)).unwrap();
    for _ in 0..10 {
        // Each time: the log's writer is slower than the end of the server.
        let message = failed(pod.run(Action::StartPrimary { names: StandbyNames::none() }).await);
        println!("{message}");
        assert!(message.starts_with("PortTaken: "), "{message}");
    }
    drop(taken);
    std::fs::write(pod.root.pgdata().join("PG_VERSION"), "12\n").unwrap();
    let message = failed(pod.run(Action::StartPrimary { names: StandbyNames::none() }).await);
    println!("{message}");
    assert!(message.starts_with("DataDirectoryOfAnotherMajor: "), "{message}");
}
