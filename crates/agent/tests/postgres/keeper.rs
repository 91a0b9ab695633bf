//! Rule 5 and the agent's death, against live backends.

use std::time::{Duration, Instant};

use matriarch_agent::driver::link::{KeeperLink, News, Postmaster};
use matriarch_agent::keeper::message::{BootTime, PROTOCOL, PostmasterSignal, Request};
use matriarch_agent::postgres::sql::{SearchPath, Session};
use matriarch_plan::protocol::{Action, Outcome, Right, Span, StandbyNames, StopMode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::mpsc;

use crate::bench::{Authority, Pod, eventually};
use crate::unprivileged;

async fn primary(name: &str, host: u8) -> Pod {
    let pod = Pod::start(name, host, &Authority::new()).await;
    pod.done(Action::Initialize).await;
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
    pod
}

fn postmaster(pod: &Pod) -> Pid {
    let Postmaster::Running { pid } = pod.context.link.postmaster() else { panic!("not running") };
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

#[tokio::test]
async fn rule_five_ends_every_backend_in_time_also_under_a_frozen_postmaster() {
    if !unprivileged("keeper::rule_five_ends_every_backend_in_time_also_under_a_frozen_postmaster")
    {
        return;
    }
    let pod = primary("five", 1).await;
    let session = Session::open(&pod.root, "app", SearchPath::User).await.unwrap();
    let busy = tokio::spawn(async move {
        session
            .execute("INSERT INTO t SELECT generate_series(1, 2000000000)", Duration::from_secs(60))
            .await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // It does not act on SIGQUIT any more: only the kill is left.
    kill_process(postmaster(&pod), Signal::STOP).unwrap();
    let duration = Duration::from_secs(2);
    let right = Right { from: BootTime::now().moment(), duration: Span::millis(2000) };
    let given = Instant::now();
    pod.context.link.tell(Request::Arm(right));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(pod.context.link.postmaster().is_running(), "stopped before its right ran out");
    assert!(pod.processes().len() > 3);
    tokio::time::timeout(Duration::from_secs(5), pod.context.link.ended()).await.unwrap();
    let taken = given.elapsed();
    assert_eq!(pod.processes(), [], "a backend lives on");
    assert!(taken > duration.mul_f64(0.74), "{taken:?}");
    println!("all gone {taken:?} after a right of {duration:?} was given\n{}", pod.log());
    assert!(busy.await.unwrap().is_err(), "the statement has ended");
    // And nothing starts again without a right.
    let outcome = pod.run(Action::StartPrimary { names: StandbyNames::none() }).await;
    assert!(matches!(outcome, Outcome::Failed { .. }), "{outcome:?}");
    pod.context.link.tell(Request::Disarm);
    pod.done(Action::StartStandby { follow: None }).await;
}

#[tokio::test]
async fn postgresql_runs_on_when_the_agent_is_killed_and_the_next_agent_learns_all() {
    if !unprivileged(
        "keeper::postgresql_runs_on_when_the_agent_is_killed_and_the_next_agent_learns_all",
    ) {
        return;
    }
    let pod = primary("agent", 2).await;
    let right = Right { from: BootTime::now().moment(), duration: Span::seconds(100) };
    pod.context.link.tell(Request::Arm(right));
    let session = Session::open(&pod.root, "app", SearchPath::User).await.unwrap();
    let before = postmaster(&pod);
    let keeper = pod.keeper.id();
    let relay = children(keeper)
        .into_iter()
        .find(|pid| *pid != before)
        .expect("the agent is the keeper's other child");
    kill_process(relay, Signal::KILL).unwrap();
    let (news, _heard) = mpsc::unbounded_channel();
    let (link, hello) = KeeperLink::over(pod.accept(), news).await.unwrap();
    let running = Postmaster::Running { pid: before.as_raw_nonzero().get().unsigned_abs() };
    assert_eq!(link.postmaster(), running);
    assert!(!hello.terminating);
    assert_eq!(hello.right, Some(right));
    let answer = session.value("SELECT 7", Duration::from_secs(5)).await.unwrap();
    assert_eq!(answer.as_deref(), Some("7"), "the session goes on");
}

#[tokio::test]
async fn a_killed_postmaster_takes_its_backends_with_it_before_the_agent_hears_of_it() {
    if !unprivileged(
        "keeper::a_killed_postmaster_takes_its_backends_with_it_before_the_agent_hears_of_it",
    ) {
        return;
    }
    let pod = primary("sweep", 3).await;
    let session = Session::open(&pod.root, "app", SearchPath::User).await.unwrap();
    let busy = tokio::spawn(async move {
        session
            .execute("INSERT INTO t SELECT generate_series(1, 2000000000)", Duration::from_secs(60))
            .await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    kill_process(postmaster(&pod), Signal::KILL).unwrap();
    tokio::time::timeout(Duration::from_secs(5), pod.context.link.ended()).await.unwrap();
    println!("told {:?} after the kill", begun.elapsed());
    assert_eq!(pod.processes(), [], "a backend lives on");
    assert!(busy.await.unwrap().is_err());
    // Backends are groups of their own, and are collected all the same: only the relay is left.
    eventually("all are collected", async || children(pod.keeper.id()).len() == 1).await;
    // Reaped: it starts again at once.
    pod.done(Action::StartPrimary { names: StandbyNames::none() }).await;
}

/// Found on a real Kubernetes: certificates changed within 46 ms of a start, and SIGHUP ended a
/// PostgreSQL that did not handle it yet.
#[tokio::test]
async fn a_reload_ends_no_postgresql_that_has_only_begun() {
    if !unprivileged("keeper::a_reload_ends_no_postgresql_that_has_only_begun") {
        return;
    }
    let pod = primary("early", 5).await;
    for period in [1, 1, 10_000, 10_000] {
        pod.done(Action::Stop { mode: StopMode::Fast, limit: Span::seconds(20) }).await;
        let insist = async {
            while !pod.context.link.postmaster().is_running() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            loop {
                pod.context.link.tell(Request::Signal(PostmasterSignal::Reload));
                tokio::time::sleep(Duration::from_millis(period)).await;
            }
        };
        tokio::select! {
            done = pod.run(Action::StartPrimary { names: StandbyNames::none() }) => {
                assert!(matches!(done, Outcome::Done), "{done:?}\n{}", pod.log());
            }
            () = insist => {}
        }
        // Nor is one lost that came too early.
        let reloaded = "SELECT pg_conf_load_time() > pg_postmaster_start_time()";
        eventually("it is reloaded", async || pod.sql(reloaded).await == "t").await;
    }
}

/// The process stays, its program is another: PostgreSQL, its clients and the right notice nothing.
#[tokio::test]
async fn a_keeper_becomes_another_program_while_postgresql_runs_on() {
    if !unprivileged("keeper::a_keeper_becomes_another_program_while_postgresql_runs_on") {
        return;
    }
    let pod = primary("renew", 4).await;
    let right = Right { from: BootTime::now().moment(), duration: Span::seconds(100) };
    pod.context.link.tell(Request::Arm(right));
    let before = postmaster(&pod);
    let session = Session::open(&pod.root, "app", SearchPath::User).await.unwrap();
    let limit = Duration::from_secs(5);
    session
        .execute("CREATE TABLE written (at timestamptz DEFAULT clock_timestamp())", limit)
        .await
        .unwrap();
    let writer = tokio::spawn(async move {
        for _ in 0..300 {
            session.execute("INSERT INTO written DEFAULT VALUES", limit).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<_, matriarch_agent::postgres::sql::Error>(session)
    });
    pod.context.link.tell(Request::Renew);
    let (news, mut heard) = mpsc::unbounded_channel();
    let (link, hello) = KeeperLink::over(pod.accept(), news).await.unwrap();
    let number = before.as_raw_nonzero().get().unsigned_abs();
    assert_eq!(link.postmaster(), Postmaster::Running { pid: number });
    assert_eq!((hello.right, hello.locked, hello.stays), (Some(right), true, false));
    assert_eq!(hello.protocol, PROTOCOL);
    let environment = std::fs::read(format!("/proc/{}/environ", pod.keeper.id())).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains("MATRIARCH_KEEPER_STATE={"), "it was not executed anew");
    let session = writer.await.unwrap().unwrap();
    let gap = "SELECT max(gap) < interval '1 second' FROM (SELECT at - lag(at) OVER (ORDER BY at) AS gap FROM written) AS gaps";
    assert_eq!(session.value(gap, limit).await.unwrap().as_deref(), Some("t"));

    // Also the second time, and it still ends PostgreSQL when the right runs out.
    link.tell(Request::Renew);
    let (news, mut heard_again) = mpsc::unbounded_channel();
    let (link, hello) = KeeperLink::over(pod.accept(), news).await.unwrap();
    assert_eq!((hello.right, hello.locked), (Some(right), true));
    assert!(heard.recv().await.is_some(), "the former socket has ended");
    let short = Right { from: BootTime::now().moment(), duration: Span::seconds(1) };
    link.tell(Request::Arm(short));
    tokio::time::timeout(Duration::from_secs(5), link.ended()).await.unwrap();
    assert_eq!(pod.processes(), [], "a backend lives on");
    // SIGTERM reaches the new program.
    kill_process(Pid::from_raw(i32::try_from(pod.keeper.id()).unwrap()).unwrap(), Signal::TERM)
        .unwrap();
    loop {
        let news = tokio::time::timeout(limit, heard_again.recv()).await.unwrap().unwrap();
        if news == News::Terminate {
            break;
        }
    }
}

fn children(of: u32) -> Vec<Pid> {
    let path = format!("/proc/{of}/task");
    std::fs::read_dir(path)
        .unwrap()
        .flatten()
        .flat_map(|task| {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .filter_map(Pid::from_raw)
        .collect()
}
