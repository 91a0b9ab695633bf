//! Manifests as users of CloudNativePG have them, one for each feature that its documentation
//! shows, under its names before a real kube-apiserver: each is accepted, each of its fields has an
//! effect or is named by the condition `UnsupportedFields`, and what can come up does. kubelet and
//! agents are played; `local/samples.rs` runs some of them with real PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PartialObjectMeta, PostParams};
use kube::{Api, Client, ResourceExt};
use matriarch_api::support::{self, Support};
use matriarch_api::{Cluster, Identity, Instance};
use matriarch_e2e::agents::play_once;
use matriarch_e2e::{apiserver, turn};
use matriarch_operator::Options;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::crd::{Kubectl, install};

/// Longest time until all of them are where they are to be.
const PATIENCE: Duration = Duration::from_secs(300);
const IDENTITY: Identity = Identity::Cnpg;

/// A manifest and what its first lines say of it.
struct Sample {
    name: String,
    text: String,
    /// The spec as the user wrote it.
    spec: Value,
    /// Fields that the condition `UnsupportedFields` names.
    unsupported: BTreeSet<String>,
    /// Those of them for which nothing is created.
    blocks: BTreeSet<String>,
    /// Fields without effect that ask for nothing, and are not named.
    asks_for_nothing: BTreeSet<String>,
}

impl Sample {
    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a name")?.to_owned();
        let said = |what: &str| {
            let prefix = format!("# {what}: ");
            let line = text.lines().find_map(|line| line.strip_prefix(&prefix))?;
            Some(line.split(", ").filter(|it| *it != "none").map(str::to_owned).collect())
        };
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        let cluster = documents.into_iter().find(|it| it["kind"] == "Cluster");
        Ok(Self {
            spec: cluster.context("no Cluster")?["spec"].clone(),
            unsupported: said("unsupported").context("it does not say what is unsupported")?,
            blocks: said("blocks").unwrap_or_default(),
            asks_for_nothing: said("asks for nothing").unwrap_or_default(),
            name,
            text,
        })
    }

    fn all() -> Result<Vec<Self>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/samples");
        let mut paths: Vec<_> =
            folder.read_dir()?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        let all: Vec<Self> = paths
            .iter()
            .map(|path| Self::read(path).with_context(|| path.display().to_string()))
            .collect::<Result<_>>()?;
        ensure!(all.len() > 30, "the manifests in {} are not there", folder.display());
        Ok(all)
    }

    fn namespace(&self) -> String {
        format!("sample-{}", self.name)
    }

    /// Fields of the manifest that are neither effective nor named nor ask for nothing.
    fn unaccounted(&self) -> Vec<String> {
        let mut paths = Vec::new();
        leaves("", &self.spec, &mut paths);
        let told = |path: &String| {
            let path = format!("spec.{path}");
            let mut told = self.unsupported.iter().chain(&self.asks_for_nothing);
            told.any(|it| {
                path.strip_prefix(it).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            })
        };
        paths.retain(|path| !is_effective(path) && !told(path));
        paths
    }

    /// Fields of which its first lines say what has ceased to be true.
    fn outdated(&self) -> Vec<&String> {
        let told = self.unsupported.iter().chain(&self.asks_for_nothing);
        told.filter(|it| it.strip_prefix("spec.").is_some_and(is_effective)).collect()
    }
}

fn is_effective(path: &str) -> bool {
    support::entry_of(path).is_some_and(|entry| entry.support == Support::Effective)
}

/// Paths of all values, as the table of the API has them.
fn leaves(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(&below, field, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                leaves(&format!("{path}[]"), item, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            found.push(path.to_owned());
        }
    }
}

/// A certificate of a new authority, as cert-manager leaves it.
fn certificate(subject: &str, names: Vec<String>) -> Result<BTreeMap<String, String>> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let signed = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name.push(DnType::CommonName, subject);
    let leaf = leaf.signed_by(&key, &issuer)?.pem();
    let entries = [("ca.crt", signed), ("tls.crt", leaf), ("tls.key", key.serialize_pem())];
    Ok(entries.map(|(name, text)| (name.to_owned(), text)).into())
}

async fn give_certificates(client: &Client, sample: &Sample) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &sample.namespace());
    let services = ["rw", "r", "ro"].map(|kind| format!("{}-{kind}", sample.name));
    for (name, subject, names) in [
        ("given-server", "server", services.to_vec()),
        ("given-client", "streaming_replica", Vec::new()),
    ] {
        let secret = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"cnpg.io/reload": ""}},
            "stringData": certificate(subject, names)?,
        }))?;
        secrets.create(&PostParams::default(), &secret).await?;
    }
    Ok(())
}

/// Where a cluster is, for the comparison with what its manifest says.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    phase: String,
    accepted: String,
    unsupported: BTreeSet<String>,
    ready: i64,
}

impl Found {
    fn wanted(sample: &Sample) -> Self {
        let blocked = !sample.blocks.is_empty();
        let phase = if blocked { "Invalid cluster definition" } else { "Cluster in healthy state" };
        let accepted = if blocked { "UnsupportedDataField" } else { "Accepted" };
        let instances = sample.spec["instances"].as_i64().unwrap_or(1);
        Self {
            phase: phase.to_owned(),
            accepted: accepted.to_owned(),
            unsupported: sample.unsupported.clone(),
            ready: if blocked { 0 } else { instances },
        }
    }

    async fn read(client: &Client, sample: &Sample) -> Result<Self> {
        let clusters: Api<Cluster> =
            Api::namespaced_with(client.clone(), &sample.namespace(), &IDENTITY);
        let cluster = clusters.get(&sample.name).await?;
        let status = cluster.status.unwrap_or_default();
        let condition = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind);
        let message = condition("UnsupportedFields").map(|it| it.message.clone());
        let named = message.unwrap_or_default();
        let paths = named.split("; ").filter_map(|it| Some(it.split_once(": ")?.0.to_owned()));
        Ok(Self {
            phase: status.phase.unwrap_or_default(),
            accepted: condition("SpecAccepted").map(|it| it.reason.clone()).unwrap_or_default(),
            unsupported: paths.collect(),
            ready: status.ready_instances.unwrap_or_default().into(),
        })
    }
}

/// Every object of a kind in the namespace that is the cluster's, by name.
async fn owned<K>(client: &Client, sample: &Sample) -> Result<BTreeMap<String, ObjectMeta>>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone,
    K: std::fmt::Debug + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), &sample.namespace());
    let params = ListParams::default().labels(&format!("cnpg.io/cluster={}", sample.name));
    let items = api.list_metadata(&params).await?.items;
    Ok(items.into_iter().map(|it| (it.name_any(), it.metadata)).collect())
}

/// Names, labels and annotations are CloudNativePG's, and none is ours.
async fn names_are_those_of_cnpg(client: &Client, sample: &Sample) -> Result<()> {
    let name = &sample.name;
    let pods = owned::<Pod>(client, sample).await?;
    let first = pods.get(&format!("{name}-1")).context("no pod has the first name")?;
    for (label, value) in [
        ("cnpg.io/instanceName", format!("{name}-1")),
        ("cnpg.io/instanceRole", "primary".to_owned()),
        ("cnpg.io/podRole", "instance".to_owned()),
        ("role", "primary".to_owned()),
        ("app.kubernetes.io/managed-by", "cloudnative-pg".to_owned()),
    ] {
        let found = first.labels.as_ref().and_then(|labels| labels.get(label));
        ensure!(found == Some(&value), "{label} of the first pod is {found:?}");
    }
    let claims = owned::<PersistentVolumeClaim>(client, sample).await?;
    let claim = claims.get(&format!("{name}-1")).context("no claim has the pod's name")?;
    let role = claim.labels.as_ref().and_then(|labels| labels.get("cnpg.io/pvcRole"));
    ensure!(role.is_some_and(|role| role == "PG_DATA"), "pvcRole is {role:?}");
    let secrets = owned::<Secret>(client, sample).await?;
    let services = owned::<Service>(client, sample).await?;
    ensure!(services.contains_key(&format!("{name}-rw")), "{:?}", services.keys());
    let mut all = vec![pods, claims, secrets, services];
    all.push(owned::<ConfigMap>(client, sample).await?);
    all.push(owned::<Lease>(client, sample).await?);
    all.push(owned::<PodDisruptionBudget>(client, sample).await?);
    for (object, metadata) in all.iter().flatten() {
        ensure!(object.starts_with(name.as_str()) || object == "outside", "{object} is made");
        let labels = metadata.labels.iter().flatten();
        let mut keys = labels.chain(metadata.annotations.iter().flatten()).map(|(key, _)| key);
        let ours = keys.find(|key| key.contains("matriarch"));
        ensure!(ours.is_none(), "{object} carries {ours:?}");
    }
    Ok(())
}

async fn nothing_is_made(client: &Client, sample: &Sample) -> Result<()> {
    let instances: Api<Instance> =
        Api::namespaced_with(client.clone(), &sample.namespace(), &IDENTITY);
    ensure!(instances.list(&ListParams::default()).await?.items.is_empty(), "an Instance is made");
    let claims = owned::<PersistentVolumeClaim>(client, sample).await?;
    ensure!(claims.is_empty(), "volumes are made: {:?}", claims.keys());
    let pods = owned::<Pod>(client, sample).await?;
    ensure!(pods.is_empty(), "pods are made: {:?}", pods.keys());
    Ok(())
}

async fn play(client: Client, namespaces: Vec<String>) {
    loop {
        for namespace in &namespaces {
            // Objects change under its hands; the next round sees it.
            if let Err(error) = play_once(&client, IDENTITY, namespace).await {
                eprintln!("agents in {namespace}: {error:#}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all are as their manifests say; else what the first of the others is.
async fn settled(client: &Client, samples: &[Sample]) -> Result<()> {
    let begun = Instant::now();
    for sample in samples {
        let wanted = Found::wanted(sample);
        loop {
            let found = Found::read(client, sample).await?;
            if found == wanted {
                break;
            }
            ensure!(begun.elapsed() < PATIENCE, "{}: {found:?}, not {wanted:?}", sample.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

#[test]
fn no_field_of_a_sample_is_ignored_in_silence() -> Result<()> {
    for sample in Sample::all()? {
        let left = sample.unaccounted();
        ensure!(left.is_empty(), "{}: {left:?} has no effect and is not named", sample.name);
        let outdated = sample.outdated();
        ensure!(outdated.is_empty(), "{}: {outdated:?} has an effect now", sample.name);
        ensure!(sample.blocks.is_subset(&sample.unsupported), "{}", sample.name);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sample_is_accepted_and_comes_up_or_says_what_is_missing() -> Result<()> {
    let _turn = turn::wait()?;
    let Some(server) = apiserver::shared()? else { return Ok(()) };
    let (kubectl, client) = (Kubectl(server), server.client().await?);
    install(&kubectl)?;
    let samples = Sample::all()?;
    for sample in &samples {
        let namespace = sample.namespace();
        kubectl.ok(&["create", "namespace", &namespace], "")?;
        if sample.name == "certificates" {
            give_certificates(&client, sample).await?;
        }
        kubectl
            .ok(&["apply", "--namespace", &namespace, "-f", "-"], &sample.text)
            .with_context(|| sample.name.clone())?;
    }
    let (stop, stopped) = oneshot::channel::<()>();
    let options = Options { identity: IDENTITY, watch_secrets: false, ..Options::default() };
    let operator = tokio::spawn(matriarch_operator::run(client.clone(), options, async move {
        stopped.await.ok();
    }));
    let namespaces = samples.iter().map(Sample::namespace).collect();
    let agents = tokio::spawn(play(client.clone(), namespaces));
    settled(&client, &samples).await?;
    for sample in &samples {
        let checked = if sample.blocks.is_empty() {
            names_are_those_of_cnpg(&client, sample).await
        } else {
            nothing_is_made(&client, sample).await
        };
        checked.with_context(|| sample.name.clone())?;
    }
    agents.abort();
    stop.send(()).ok();
    tokio::time::timeout(PATIENCE, operator).await.context("a graceful stop")???;
    Ok(())
}
