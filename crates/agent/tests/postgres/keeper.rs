//! Rule 5 and the agent's death, against live backends.

use std::time::{Duration, Instant};

use matriarch_agent::driver::link::{KeeperLink, Postmaster};
use matriarch_agent::keeper::message::{BootTime, Request};
use matriarch_agent::postgres::sql::{SearchPath, Session};
use matriarch_plan::protocol::{Action, Right, Span, StandbyNames};
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
    assert!(matches!(outcome, matriarch_plan::protocol::Outcome::Failed { .. }), "{outcome:?}");
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
