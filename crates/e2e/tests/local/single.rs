//! One instance under `matriarch local`, with real PostgreSQL.

use std::time::Duration;

use matriarch_e2e::local::{Machine, example};

const READY: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

#[tokio::test]
async fn one_instance_comes_up_and_a_restart_keeps_its_data() -> anyhow::Result<()> {
    let mut machine = Machine::new("single", 15432)?;
    machine.up(&[&example("cluster-single.yaml")])?;
    machine.wait_for("is ready", READY).await?;
    machine.wait_for("Ctrl-C stops everything", READY).await?;
    machine.sql("create table kept (value int); insert into kept values (42)").await?;
    // PostgreSQL's own words are in the pod's log, a line of JSON each.
    let log = machine.verb(&["logs", "cluster-single"])?;
    let ready = |line: &str| {
        line.contains("\"logger\":\"postgres\"") && line.contains("ready to accept connections")
    };
    assert!(log.lines().any(ready), "{log}");
    machine.stop(STOP).await?;
    assert!(machine.processes()?.is_empty(), "nothing outlives it: {:?}", machine.processes()?);

    machine.up(&[])?;
    machine.wait_for("Ctrl-C stops everything", READY).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");

    machine.kill_everything().await?;
    machine.up(&[])?;
    machine.wait_for("Ctrl-C stops everything", READY).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");

    // Only `matriarch local` is killed: its children are found, asked to stop, and started anew.
    machine.kill_local()?;
    assert!(!machine.processes()?.is_empty(), "the database runs on");
    machine.up(&[])?;
    machine.wait_for("processes of an earlier run", Duration::from_secs(20)).await?;
    machine.wait_for("Ctrl-C stops everything", READY).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");
    machine.stop(STOP).await
}

#[tokio::test]
async fn a_second_start_on_the_same_state_says_who_runs_it() -> anyhow::Result<()> {
    let mut machine = Machine::new("twice", 15532)?;
    machine.up(&[])?;
    machine.wait_for("API server on", Duration::from_secs(20)).await?;
    let mut second = std::process::Command::new(Machine::binary()?);
    second.args(["local", "up", "--state"]).arg(machine.state());
    let refused = second.output()?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(text.contains("runs already on"), "{text}");
    assert!(text.contains("process "), "{text}");
    machine.stop(STOP).await
}
