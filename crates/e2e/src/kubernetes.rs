//! The three-node Kubernetes that `cargo xtask kube up` starts, as a test sees it: a namespace of its
//! own for each test, clusters in it, clients on its nodes, and ways to break things.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::FutureExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace as NamespaceObject, Node, Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use matriarch_api::{Cluster, Identity};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::evidence;
use crate::podlogs::PodLogs;
use crate::writer::{self, Place, Writer};

/// How long anything of a test may take that has no goal of its own.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// The namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "matriarch-system";

/// How long a client waits for a connection or a statement.
const CLIENT_PATIENCE: Duration = Duration::from_secs(1);
/// kube-proxy writes its rules at most once a second, later under load.
const SERVICE_DELAY: Duration = Duration::from_secs(5);

/// The running cluster of machines.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
    directory: PathBuf,
    xtask: PathBuf,
}

impl Kubernetes {
    /// The one that `cargo xtask e2e` has started and told of.
    ///
    /// # Errors
    /// If there is none.
    pub async fn open() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set: run this by cargo xtask e2e"))
        };
        let directory = variable("MATRIARCH_KUBE")?;
        let xtask = variable("MATRIARCH_XTASK")?;
        // A provider that is already installed is this one.
        let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = directory.join("pki/admin.conf");
        let kubeconfig = kube::config::Kubeconfig::read_from(&kubeconfig)
            .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Self { client: Client::try_from(config)?, directory, xtask })
    }

    /// A client with the administrator's rights.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The state directory of the cluster of machines.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("pki/admin.conf")
    }

    /// Runs a verb of `cargo xtask kube`: `cut 2`, `heal 2`, `stop-api`.
    ///
    /// # Errors
    /// What it says.
    pub async fn verb(&self, words: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(&self.xtask);
        command.arg("kube").args(words).env("KUBE_DIR", &self.directory).stdin(Stdio::null());
        let output = command.output().await.context("cannot run xtask")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kube {}: {said}", words.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a program with the administrator's kubeconfig: kubectl, or the plugin.
    ///
    /// # Errors
    /// What it says.
    pub async fn run(&self, program: &Path, words: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::new(program);
        command.args(words).env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        let output = command.output().await;
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", words.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// A program of Kubernetes, as `cargo xtask setup` has built it.
    ///
    /// # Errors
    /// If it is not known where they are.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let directory =
            std::env::var_os("MATRIARCH_TOOLS").context("MATRIARCH_TOOLS is not set")?;
        Ok(PathBuf::from(directory).join(name))
    }

    /// Where a client on this node stands.
    #[must_use]
    pub fn place(node: &str) -> Place {
        Place(Some(PathBuf::from(format!("/run/netns/matriarch-{node}"))))
    }

    /// The names of the nodes.
    ///
    /// # Errors
    /// The API's.
    pub async fn nodes(&self) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let all = nodes.list(&ListParams::default()).await?.items;
        Ok(all.iter().map(ResourceExt::name_any).collect())
    }
}

/// A namespace of a test: with Pod Security `restricted`, deleted when the test is over.
pub struct Namespace {
    kubernetes: Kubernetes,
    name: String,
    expected: Mutex<Vec<&'static str>>,
}

impl Namespace {
    /// Makes the namespace, does the work, looks for errors that nobody expected in the logs, and
    /// deletes the namespace. What a failed test leaves is written down first.
    ///
    /// # Errors
    /// The test's own, or an unexpected line in a log.
    pub async fn with(name: &str, work: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let (namespace, begun) = (Self::open(name).await?, jiff::Timestamp::now());
        let logs = PodLogs::follow(namespace.kubernetes.directory(), namespace.places())?;
        let outcome = namespace.attempt(work).await;
        let outcome = outcome.and_then(|()| evidence::expect_quiet(&namespace, &logs, begun));
        if let Err(reason) = &outcome {
            match evidence::collect(&namespace, &logs, reason).await {
                Ok(directory) => eprintln!("what it left is in {}", directory.display()),
                Err(error) => eprintln!("what it left cannot be collected: {error:#}"),
            }
        }
        let removed = namespace.delete().await;
        outcome.and(removed)
    }

    /// Makes the namespace, does the work and deletes the namespace, whatever the logs say.
    ///
    /// # Errors
    /// The work's own.
    pub async fn without_verdict(
        name: &str,
        work: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let namespace = Self::open(name).await?;
        let outcome = namespace.attempt(work).await;
        outcome.and(namespace.delete().await)
    }

    async fn open(name: &str) -> Result<Self> {
        let kubernetes = Kubernetes::open().await?;
        let expected = Mutex::default();
        let namespace = Self { kubernetes, name: format!("e2e-{name}"), expected };
        namespace.delete().await?;
        namespace.create().await?;
        Ok(namespace)
    }

    /// A panic is a failure like any other: what it leaves is collected and removed as well.
    async fn attempt(&self, work: impl AsyncFnOnce(&Self) -> Result<()>) -> Result<()> {
        let outcome = std::panic::AssertUnwindSafe(work(self)).catch_unwind().await;
        outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the test panicked")))
    }

    async fn create(&self) -> Result<()> {
        let object: NamespaceObject = serde_json::from_value(json!({"metadata": {
            "name": self.name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }}))?;
        self.api().create(&PostParams::default(), &object).await?;
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        let api = self.api();
        if api.get_opt(&self.name).await?.is_none() {
            return Ok(());
        }
        // A namespace with pods of a long grace is looked at again only after half of that: its pods
        // go first.
        let clusters: Api<Cluster> =
            Api::namespaced_with(self.kubernetes.client.clone(), &self.name, &Identity::Matriarch);
        clusters.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        let pods: Api<Pod> = self.objects();
        until("the pods are gone", PATIENCE, async || {
            let there = pods.list(&ListParams::default()).await?.items;
            let ended = |pod: &Pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                matches!(phase, Some("Succeeded" | "Failed"))
            };
            Ok(there.iter().all(ended))
        })
        .await?;
        api.delete(&self.name, &DeleteParams::background()).await?;
        until("the namespace is gone", PATIENCE, async || {
            Ok(api.get_opt(&self.name).await?.is_none())
        })
        .await
    }

    /// Warnings that hold one of these parts belong to what this test does.
    pub fn expect_warnings(&self, parts: &[&'static str]) {
        // A poisoned list is of a test that has failed already.
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).extend(parts);
    }

    /// Those parts.
    #[must_use]
    pub fn expected_warnings(&self) -> Vec<&'static str> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn api(&self) -> Api<NamespaceObject> {
        Api::all(self.kubernetes.client.clone())
    }

    /// The cluster of machines.
    #[must_use]
    pub fn kubernetes(&self) -> &Kubernetes {
        &self.kubernetes
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its pods are, and those of operators that serve it: that of all tests, and one that a
    /// test installs for itself.
    #[must_use]
    pub fn places(&self) -> [String; 3] {
        [self.name.clone(), OPERATOR_NAMESPACE.to_owned(), format!("{}-operator", self.name)]
    }

    /// Objects of a kind in it.
    #[must_use]
    pub fn objects<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.kubernetes.client.clone(), &self.name)
    }

    /// Creates a Cluster of the given spec, image and storage being given if they are missing.
    ///
    /// # Errors
    /// The API's.
    pub async fn cluster(&self, name: &str, spec: Value) -> Result<Database<'_>> {
        let mut spec = spec;
        if spec.get("imageName").is_none() && spec.get("imageCatalogRef").is_none() {
            spec["imageName"] = json!("localhost/matriarch/postgresql:17");
        }
        if spec.get("storage").is_none() {
            spec["storage"] = json!({"size": "512Mi"});
        }
        let object: Cluster = serde_json::from_value(json!({
            "apiVersion": "matriarch.dev/v1", "kind": "Cluster",
            "metadata": {"name": name, "namespace": self.name}, "spec": spec,
        }))?;
        let database = self.existing(name);
        database.api().create(&PostParams::default(), &object).await?;
        Ok(database)
    }

    /// Creates a Cluster and waits until all of its instances are healthy.
    ///
    /// # Errors
    /// The API's, or if it does not come up.
    pub async fn healthy(&self, name: &str, spec: Value) -> Result<Database<'_>> {
        let instances = spec["instances"].as_u64().context("the spec names no instances")?;
        let database = self.cluster(name, spec).await?;
        database.healthy(usize::try_from(instances)?).await.with_context(|| name.to_owned())?;
        Ok(database)
    }

    /// A Cluster that is there.
    #[must_use]
    pub fn existing(&self, name: &str) -> Database<'_> {
        Database { namespace: self, name: name.to_owned() }
    }
}

/// A Cluster of Matriarch in a test's namespace.
pub struct Database<'a> {
    namespace: &'a Namespace,
    name: String,
}

impl Database<'_> {
    /// The Clusters of its namespace.
    #[must_use]
    pub fn api(&self) -> Api<Cluster> {
        let client = self.namespace.kubernetes.client.clone();
        Api::namespaced_with(client, &self.namespace.name, &Identity::Matriarch)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        self.namespace
    }

    /// The pods of its namespace.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        self.namespace.objects()
    }

    /// Changes it by a merge patch.
    ///
    /// # Errors
    /// The API's.
    pub async fn change(&self, patch: Value) -> Result<()> {
        self.api().patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// Its status, once that speaks of the spec as it is.
    async fn fresh_status(&self) -> Result<Option<Value>> {
        let cluster = self.api().get(&self.name).await?;
        let status = serde_json::to_value(&cluster.status)?;
        let fresh = status["observedGeneration"].as_i64() == cluster.metadata.generation;
        Ok(fresh.then_some(status))
    }

    /// Waits until its status is as it should be.
    ///
    /// # Errors
    /// If it never is: then with the status.
    pub async fn status(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let begun = Instant::now();
        let mut last = Value::Null;
        while begun.elapsed() < PATIENCE {
            // The API may be away in a test that takes it away.
            if let Ok(Some(status)) = self.fresh_status().await {
                if holds(&status) {
                    return Ok(status);
                }
                last = status;
            }
            sleep(Duration::from_millis(100)).await;
        }
        bail!("never: {what}\n{last:#}")
    }

    /// Waits until it has so many instances, all of them healthy.
    ///
    /// # Errors
    /// If it never has.
    pub async fn healthy(&self, instances: usize) -> Result<Value> {
        self.status(&format!("{instances} healthy instances"), |status| {
            status["phase"] == "Cluster in healthy state"
                && status["readyInstances"] == instances
                && status["instanceNames"].as_array().map(Vec::len) == Some(instances)
        })
        .await
    }

    /// The instance that the status names as primary.
    ///
    /// # Errors
    /// If it names none.
    pub async fn primary(&self) -> Result<String> {
        let cluster = self.api().get(&self.name).await?;
        let status = serde_json::to_value(&cluster.status)?;
        let primary = status["currentPrimary"].as_str().context("no primary")?;
        Ok(primary.to_owned())
    }

    /// Who holds the cluster's Lease.
    ///
    /// # Errors
    /// The API's.
    pub async fn lease_holder(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = self.namespace.objects();
        let spec = leases.get(&self.name).await?.spec.unwrap_or_default();
        Ok(spec.holder_identity.filter(|holder| !holder.is_empty()))
    }

    /// How many instances the Lease's quorum is of: 0 where it promises nothing.
    ///
    /// # Errors
    /// The API's, or what the Lease says cannot be read.
    pub async fn protected(&self) -> Result<usize> {
        let leases: Api<Lease> = self.namespace.objects();
        let lease = leases.get(&self.name).await?;
        let Some(text) = lease.annotations().get(&Identity::Matriarch.key("quorum")) else {
            return Ok(0);
        };
        let quorum: Value = serde_json::from_str(text)?;
        Ok(quorum["of"].as_array().map_or(0, Vec::len))
    }

    /// Some instance that is not the primary.
    ///
    /// # Errors
    /// If there is none.
    pub async fn standby(&self) -> Result<String> {
        let primary = self.primary().await?;
        let status = self.api().get(&self.name).await?.status;
        let status = serde_json::to_value(status)?;
        let names = status["instanceNames"].as_array().cloned().unwrap_or_default();
        let mut names = names.iter().filter_map(Value::as_str);
        Ok(names.find(|name| *name != primary).context("no standby")?.to_owned())
    }

    /// The node of a pod.
    ///
    /// # Errors
    /// If it has none.
    pub async fn node_of(&self, pod: &str) -> Result<String> {
        let pod = self.pods().get(pod).await?;
        pod.spec.and_then(|spec| spec.node_name).context("the pod has no node")
    }

    /// A place on another node than the primary's.
    ///
    /// # Errors
    /// If there is no other.
    pub async fn elsewhere(&self) -> Result<Place> {
        let near = self.node_of(&self.primary().await?).await?;
        let nodes = self.namespace.kubernetes.nodes().await?;
        let other = nodes.into_iter().find(|node| *node != near).context("no other node")?;
        Ok(Kubernetes::place(&other))
    }

    /// The connection string for the application, from its Secret and the Service `-rw`, with full
    /// verification. Address, password and authority are in files of the test's own, which each call
    /// writes anew.
    ///
    /// # Errors
    /// If the Secret or the Service is not there.
    pub async fn connection_string(&self) -> Result<String> {
        let secrets: Api<Secret> = self.namespace.objects();
        let secret = secrets.get(&format!("{}-app", self.name)).await?;
        let data = secret.data.unwrap_or_default();
        let value = |key: &str| -> Result<String> {
            let bytes = data.get(key).with_context(|| format!("the Secret has no {key}"))?;
            Ok(String::from_utf8(bytes.0.clone())?)
        };
        let directory = self.namespace.kubernetes.directory.join("clients");
        let directory = directory.join(&self.namespace.name).join(&self.name);
        std::fs::create_dir_all(&directory)?;
        let (passfile, authority) = (directory.join("pgpass"), directory.join("ca.crt"));
        let services: Api<Service> = self.namespace.objects();
        let service = services.get(&format!("{}-rw", self.name)).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("no cluster IP")?;
        let hostaddr = directory.join("address");
        for (path, text) in [
            (&passfile, format!("*:*:*:*:{}", value("password")?)),
            (&authority, value("ca.crt")?),
            (&hostaddr, address),
        ] {
            put(path, &text)?;
        }
        Ok(format!(
            "host={}-rw.{}.svc hostaddr={} port=5432 dbname={} user={} \
             sslmode=verify-full sslrootcert={} passfile={}",
            self.name,
            self.namespace.name,
            hostaddr.display(),
            value("dbname")?,
            value("username")?,
            authority.display(),
            passfile.display()
        ))
    }

    /// The same as libpq takes it.
    ///
    /// # Errors
    /// As [`Database::connection_string`].
    pub async fn libpq_string(&self) -> Result<String> {
        let string = self.connection_string().await?;
        let words = string.split_whitespace().map(|word| match word.strip_prefix("hostaddr=") {
            Some(path) => Ok(format!("hostaddr={}", std::fs::read_to_string(path)?)),
            None => Ok(word.to_owned()),
        });
        Ok(words.collect::<Result<Vec<_>>>()?.join(" "))
    }

    /// A client that writes, on another node than the primary's.
    ///
    /// # Errors
    /// If it cannot begin.
    pub async fn writer(&self) -> Result<Writer> {
        self.leads_to_primary().await?;
        let place = self.elsewhere().await?;
        let target = self.connection_string().await?;
        let writer = Writer::start_at(&place, &target, CLIENT_PATIENCE).await?;
        // An outage is the time between two acknowledgements: there has to be one before it.
        writer.goes_on(PATIENCE).await?;
        Ok(writer)
    }

    /// Asks through `-rw` from another node than the primary's.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn sql(&self, sql: &str) -> Result<String> {
        let place = self.elsewhere().await?;
        let begun = Instant::now();
        loop {
            let rows = writer::query(&place, &self.connection_string().await?, sql).await;
            match rows {
                // kube-proxy refuses a Service without endpoints, and is up to a second behind.
                Err(error) if is_unreached(&error) && begun.elapsed() < SERVICE_DELAY => {
                    sleep(Duration::from_millis(100)).await;
                }
                Ok(rows) => return Ok(rows.join("\n")),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until `-rw` leads to a primary: kube-proxy of a node that was cut off may still lead to
    /// the former one.
    ///
    /// # Errors
    /// If it never does.
    pub async fn leads_to_primary(&self) -> Result<()> {
        self.answer("select pg_is_in_recovery()", "f").await
    }

    /// Waits until SQL through `-rw` gives this answer.
    ///
    /// # Errors
    /// If it never does.
    pub async fn answer(&self, sql: &str, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            match self.sql(sql).await {
                Ok(answer) if answer == wanted => return Ok(()),
                Ok(answer) => last = answer,
                Err(error) => last = format!("{error:#}"),
            }
            sleep(Duration::from_millis(200)).await;
        }
        bail!("{sql}: {last:?}, not {wanted:?}")
    }
}

/// Writes a file in one step: a client may be reading it.
fn put(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)
        // libpq reads no password from a file that others may read.
        .and_then(|()| std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)))
        .and_then(|()| std::fs::rename(&new, path))?;
    Ok(())
}

/// Nobody listens or answers there, as the error's causes have it: then nothing was asked.
fn is_unreached(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind;
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| {
            matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::TimedOut)
        })
    })
}

/// Waits until something holds.
///
/// # Errors
/// If it never does, with the last reason why it could not be asked.
pub async fn until(
    what: &str,
    limit: Duration,
    holds: impl AsyncFn() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    loop {
        let last = match holds().await {
            Ok(true) => return Ok(()),
            Ok(false) => None,
            Err(error) => Some(error),
        };
        if begun.elapsed() > limit {
            let failure = anyhow::anyhow!("never: {what}");
            return Err(last.map_or(failure, |error| error.context(format!("never: {what}"))));
        }
        sleep(Duration::from_millis(100)).await;
    }
}
