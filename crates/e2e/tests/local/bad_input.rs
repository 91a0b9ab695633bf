//! The table of what people get wrong: the input, where they look first, and the words there.
//! Nothing is lost by any of it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::PostParams;
use kube::{Api, Client};
use matriarch_api::{Cluster, Identity};
use matriarch_e2e::local::{Machine, example};
use serde_json::{Value, json};
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "default";

/// A directory of this test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("m-bad-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn manifest(&self, name: &str, text: &str) -> Result<String> {
        let path = self.0.join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn cluster(name: &str, spec: &Value) -> Value {
    let mut whole = json!({
        "instances": 1, "storage": {"size": "1Gi"}, "imageName": "postgres:15",
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({
        "apiVersion": "matriarch.dev/v1", "kind": "Cluster",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": whole,
    })
}

/// Runs `matriarch local up`, which has to fail, and returns what it says.
fn refused(state: &Path, arguments: &[&str], path: Option<&str>) -> Result<String> {
    let mut command = Command::new(Machine::binary()?);
    command.args(["local", "up", "--state"]).arg(state).args(arguments).stdin(Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path).env("MATRIARCH_POSTGRESQL", "/nonexistent");
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "it starts: {said}");
    let (_, words) = said.split_once("matriarch: ").context("it says who speaks")?;
    Ok(words.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What `matriarch local up` refuses before anything runs.
#[test]
fn a_start_that_cannot_work_is_refused() -> Result<()> {
    let directory = Directory::new("start")?;
    let state = directory.0.join("state");
    let yaml = directory.manifest("yaml.yaml", "kind: Cluster\n  spec: [")?;
    let nameless = directory.manifest("nameless.yaml", "apiVersion: v1\nkind: Secret\n")?;
    let old = cluster("old", &json!({"imageName": "postgres:9.6"})).to_string();
    let old = directory.manifest("old.yaml", &old)?;
    let table: [(&str, &[&str], &str); 6] = [
        ("no such file", &["nowhere.yaml"], "cannot read nowhere.yaml: No such file"),
        ("not YAML", &[&yaml], "yaml.yaml is not valid YAML"),
        ("no name", &[&nameless], "document 1 of"),
        ("a PostgreSQL that is not installed", &[&old], "PostgreSQL 9 is not installed"),
        ("no such user", &["--user", "nobody-at-all"], "there is no user nobody-at-all"),
        ("root as the user", &["--user", "root"], "PostgreSQL refuses to run as root"),
    ];
    for (input, arguments, text) in table {
        let said = refused(&state, arguments, None)?;
        println!("| {input} | matriarch local up | {said} |");
        ensure!(said.contains(text), "{input}: not {text:?} but {said}");
    }
    Ok(())
}

/// What the API server or the status of the Cluster says.
#[tokio::test]
async fn a_wrong_cluster_is_told_what_is_wrong() -> Result<()> {
    let mut machine = Machine::new("bad", 19432)?;
    machine.up(&[&example("cluster-single.yaml")])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    let client = machine.client().await?;
    let long = "a".repeat(51);
    let required = json!({"method": "any", "number": 3});
    let table = [
        ("wrong type", cluster("t", &json!({"instances": "three"})), "spec.instances"),
        ("no instance", cluster("t", &json!({"instances": 0})), "spec.instances"),
        ("too long a name", cluster(&long, &json!({})), "50 characters"),
        (
            "impossible quorum",
            cluster("t", &json!({"instances": 3, "postgresql": {"synchronous": required}})),
            "synchronous",
        ),
        ("no size", cluster("t", &json!({"storage": {}})), "size"),
    ];
    for (input, object, text) in table {
        let said = refused_by_api(&client, &object).await?;
        println!("| {input} | kubectl apply | {said} |");
        ensure!(said.contains(text), "{input}: not {text:?} but {said}");
    }
    let table = [
        (
            "a PostgreSQL that is not installed",
            cluster("absent", &json!({"imageName": "postgres:14"})),
            "PostgreSQL 14 is not installed",
        ),
        (
            "a PostgreSQL that there is not",
            cluster("future", &json!({"imageName": "postgres:99"})),
            "PostgreSQL 99 of \"postgres:99\" is not known",
        ),
        (
            "a parameter that is ours",
            cluster("fixed", &json!({"postgresql": {"parameters": {"port": "6000"}}})),
            "spec.postgresql.parameters",
        ),
        (
            "an unknown parameter",
            cluster("unknown", &json!({"postgresql": {"parameters": {"no_such_thing": "1"}}})),
            "unrecognized configuration parameter \"no_such_thing\"",
        ),
        (
            "missing Secret",
            cluster("secret", &json!({"bootstrap": {"initdb": {"secret": {"name": "nowhere"}}}})),
            "nowhere",
        ),
        (
            "a field that would protect data and has no effect yet",
            cluster(
                "backup",
                &json!({"backup": {"barmanObjectStore": {"destinationPath": "s3://b"}}}),
            ),
            "spec.backup",
        ),
    ];
    let clusters: Api<Cluster> =
        Api::namespaced_with(client.clone(), NAMESPACE, &Identity::Matriarch);
    for (input, object, text) in table {
        let object: Cluster = serde_json::from_value(object)?;
        let name = object.metadata.name.clone().context("a name")?;
        clusters.create(&PostParams::default(), &object).await?;
        let said = told(&clusters, &name, text).await.with_context(|| input.to_owned())?;
        println!("| {input} | status of the Cluster | {said} |");
        clusters.delete(&name, &kube::api::DeleteParams::default()).await?;
    }
    // The good one beside them has noticed nothing.
    assert_eq!(machine.sql("select 1").await?, "1");
    machine.stop(PATIENCE).await
}

async fn refused_by_api(client: &Client, object: &Value) -> Result<String> {
    let resource = kube::api::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk("matriarch.dev", "v1", "Cluster"),
        "clusters",
    );
    let api: Api<kube::api::DynamicObject> =
        Api::namespaced_with(client.clone(), NAMESPACE, &resource);
    let object = serde_json::from_value(object.clone())?;
    match api.create(&PostParams::default(), &object).await {
        Ok(made) => anyhow::bail!("it is accepted: {}", serde_json::to_string(&made)?),
        // What kubectl prints.
        Err(kube::Error::Api(status)) => Ok(status.message),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the reason in the status has this text.
async fn told(clusters: &Api<Cluster>, name: &str, text: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        let status = clusters.get(name).await?.status.unwrap_or_default();
        let reason = status.phase_reason.clone().unwrap_or_default();
        if reason.contains(text) {
            return Ok(format!("{}: {reason}", status.phase.unwrap_or_default()));
        }
        ensure!(begun.elapsed() < PATIENCE, "never {text:?}: {:#}", serde_json::to_value(&status)?);
        sleep(Duration::from_millis(200)).await;
    }
}

/// The directory that holds the data of the only instance.
fn data(machine: &Machine) -> Result<PathBuf> {
    for volume in std::fs::read_dir(machine.state().join("volumes"))? {
        let path = volume?.path();
        for candidate in [path.join("pgdata"), path.join("data/pgdata")] {
            if candidate.join("PG_VERSION").exists() {
                return Ok(candidate);
            }
        }
    }
    anyhow::bail!("no data directory in {}", machine.state().display())
}

/// One instance with a row that no wrong input may cost.
async fn start_with_a_row(machine: &mut Machine) -> Result<()> {
    machine.up(&[&example("cluster-single.yaml")])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    machine.sql("create table kept (value int); insert into kept values (42)").await?;
    Ok(())
}

/// Starts it again, now that everything is right.
async fn comes_back_with_its_row(machine: &mut Machine) -> Result<()> {
    machine.up(&[])?;
    machine.wait_for("Ctrl-C stops everything", PATIENCE).await?;
    assert_eq!(machine.sql("select value from kept").await?, "42");
    machine.stop(PATIENCE).await
}

/// The data directory is that of another major version: nothing is started on it, and nothing
/// of it is touched.
#[tokio::test]
async fn data_of_another_major_is_left_alone() -> Result<()> {
    let mut machine = Machine::new("major", 19532)?;
    start_with_a_row(&mut machine).await?;
    machine.stop(PATIENCE).await?;
    let version = data(&machine)?.join("PG_VERSION");
    let right = std::fs::read_to_string(&version)?;
    std::fs::write(&version, "14\n")?;
    machine.up(&[])?;
    machine.wait_for("the data directory is of PostgreSQL 14", PATIENCE).await?;
    let told = machine.printed();
    let line = told.lines().find(|line| line.contains("is of PostgreSQL 14")).context("a line")?;
    println!("| data of another major | matriarch local up | {} |", line.trim());
    machine.stop(PATIENCE).await?;
    std::fs::write(&version, right)?;
    comes_back_with_its_row(&mut machine).await
}

/// A new data directory at `place`, of the owner of the directory `like`.
fn initdb(place: &Path, like: &Path) -> Result<()> {
    let owner = std::fs::metadata(like)?;
    let version = std::fs::read_to_string(like.join("PG_VERSION"))?;
    let program = format!("/usr/lib/postgresql/{}/bin/initdb", version.trim());
    let parent = place.parent().context("a parent")?;
    std::fs::create_dir(place)?;
    std::os::unix::fs::chown(place, Some(owner.uid()), Some(owner.gid()))?;
    let output = Command::new(&program)
        .arg("-D")
        .arg(place)
        .args(["-U", "postgres", "-A", "trust", "-N"])
        .uid(owner.uid())
        .gid(owner.gid())
        .current_dir(parent)
        .output()
        .context(program)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The port of the API is another program's, and the data directory another cluster's: both are
/// told, nothing is started on that data, and nothing of it is touched.
#[tokio::test]
async fn what_is_not_ours_is_left_alone() -> Result<()> {
    let mut machine = Machine::new("other", 19632)?;
    start_with_a_row(&mut machine).await?;
    let kubeconfig = std::fs::read_to_string(machine.kubeconfig())?;
    machine.stop(PATIENCE).await?;

    let (_, server) = kubeconfig.split_once("https://").context("the API's address")?;
    let address: String =
        server.chars().take_while(|it| it.is_ascii_digit() || ".:".contains(*it)).collect();
    let listener = std::net::TcpListener::bind(&address).context(address)?;
    let said = refused(machine.state(), &[], None)?;
    println!("| the API's port is taken | matriarch local up | {said} |");
    ensure!(said.contains("cannot listen on") && said.contains("--state"), "{said}");
    drop(listener);

    let ours = data(&machine)?;
    let aside = ours.with_extension("aside");
    std::fs::rename(&ours, &aside)?;
    initdb(&ours, &aside)?;
    let before = std::fs::read(ours.join("global/pg_control"))?;
    machine.up(&[])?;
    let text = "is of another PostgreSQL cluster";
    machine.wait_for(text, PATIENCE).await?;
    let told = machine.printed();
    let line = told.lines().find(|line| line.contains(text)).context("a line")?;
    println!("| data of another cluster | matriarch local up | {} |", line.trim());
    machine.stop(PATIENCE).await?;
    ensure!(std::fs::read(ours.join("global/pg_control"))? == before, "it was started");
    std::fs::rename(&ours, ours.with_extension("foreign"))?;
    std::fs::rename(&aside, &ours)?;
    comes_back_with_its_row(&mut machine).await
}

/// A small file system; unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    /// None where that is not allowed.
    fn new(place: PathBuf, size: &str) -> Result<Option<Self>> {
        std::fs::create_dir_all(&place)?;
        let options = format!("size={size},mode=0755");
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&place)
            .status()?;
        Ok(done.success().then_some(Self(place)))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The volume has no space left: PostgreSQL stops, status says so, and once there is space again
/// it goes on with all that was acknowledged.
#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing() -> Result<()> {
    let mut machine = Machine::new("full", 19732)?;
    let Some(mount) = Mount::new(machine.state().join("volumes"), "300m")? else {
        println!("not tried: a small file system cannot be mounted here");
        return Ok(());
    };
    start_with_a_row(&mut machine).await?;
    let clusters: Api<Cluster> =
        Api::namespaced_with(machine.client().await?, NAMESPACE, &Identity::Matriarch);

    let filler = mount.0.join("filler");
    let space = rustix::fs::statvfs(&mount.0)?;
    let free = space.f_bavail.saturating_mul(space.f_frsize).saturating_sub(1 << 20);
    std::fs::write(&filler, vec![0; usize::try_from(free)?])?;
    let mut acknowledged = 0;
    // A megabyte of WAL each; the one that gets no new segment is the last.
    let write = "insert into kept values (1); \
                 select pg_logical_emit_message(true, 'fill', repeat('x', 1000000)) is null";
    while machine.sql(write).await.is_ok() {
        acknowledged += 1;
        ensure!(acknowledged < 100, "the disk does not get full");
    }
    let said = told(&clusters, "cluster-single", "No space left on device").await?;
    println!("| full disk | status of the Cluster | {said} |");
    ensure!(said.contains("Not enough disk space"), "{said}");

    std::fs::remove_file(&filler)?;
    let begun = Instant::now();
    let stored = loop {
        match machine.sql("select count(*) from kept where value = 1").await {
            Ok(count) => break count.parse::<u32>()?,
            Err(error) => ensure!(begun.elapsed() < PATIENCE, "it does not go on: {error}"),
        }
        sleep(Duration::from_millis(500)).await;
    };
    // The last may have been written, although nobody was told.
    ensure!(stored == acknowledged || stored == acknowledged + 1, "{stored} of {acknowledged}");
    assert_eq!(machine.sql("select value from kept where value = 42").await?, "42");
    machine.stop(PATIENCE).await
}
