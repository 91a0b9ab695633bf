//! kubelet, scheduler and agents of many clusters in one process: pods that nobody runs become
//! ready, every directive is followed and reported at once, holders renew their Leases. One worker
//! sees to a cluster at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, PartialObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, ResourceExt};
use matriarch_api::instance::InstanceStatus;
use matriarch_api::labels::Label;
use matriarch_api::{Cluster, Identity, Instance, names};
use matriarch_e2e::agents;
use serde_json::{Value, json};
use tokio::sync::mpsc;

const IDENTITY: Identity = Identity::Matriarch;
/// So many clusters are seen to at once.
const WORKERS: usize = 16;
/// From the pod to its readiness: what a node that has the images takes for it.
const START: Duration = Duration::from_millis(500);
/// How often the holder of a Lease renews it.
pub const RENEWAL: Duration = Duration::from_secs(2);
/// How often an agent writes its whole report although nothing has changed.
pub const REPEAT: Duration = Duration::from_secs(60);

/// Namespace and name.
type Key = (String, String);

/// All clusters as they were last seen, and what was written for them.
#[derive(Default)]
struct Scene {
    clusters: BTreeMap<Key, Played>,
    /// When an Instance or a pod of a name was first seen.
    instances: BTreeMap<Key, Instant>,
    pods: BTreeMap<Key, Instant>,
    /// When a cluster was first seen with all its instances ready.
    ready: BTreeMap<Key, Instant>,
}

#[derive(Default)]
struct Played {
    lease: Option<Lease>,
    instances: BTreeMap<String, Instance>,
    pods: BTreeMap<String, PodSeen>,
    /// Uids of pods that run.
    started: BTreeSet<String>,
    /// Holder and members as they were written to the Lease.
    led: Option<(String, Vec<String>)>,
    reported: BTreeMap<String, InstanceStatus>,
}

#[derive(Clone)]
struct PodSeen {
    uid: String,
    ending: bool,
}

/// The crowd; clones are the same one.
#[derive(Clone)]
pub struct Crowd {
    client: Client,
    nodes: usize,
    scene: Arc<Mutex<Scene>>,
    writes: Arc<AtomicU64>,
    workers: Arc<Vec<mpsc::UnboundedSender<Key>>>,
}

impl Crowd {
    /// Begins to play, for as long as the program runs.
    pub fn start(client: &Client, nodes: usize) -> Self {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..WORKERS).map(|_| mpsc::unbounded_channel()).unzip();
        let crowd = Self {
            client: client.clone(),
            nodes,
            scene: Arc::default(),
            writes: Arc::default(),
            workers: Arc::new(senders),
        };
        for receiver in receivers {
            tokio::spawn(crowd.clone().work(receiver));
        }
        tokio::spawn(crowd.clone().watch_instances());
        tokio::spawn(crowd.clone().watch_pods());
        tokio::spawn(crowd.clone().watch_leases());
        tokio::spawn(crowd.clone().watch_clusters());
        tokio::spawn(crowd.clone().renew());
        tokio::spawn(crowd.clone().repeat());
        crowd
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that changed something, so far.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// When these were first seen with all their instances ready.
    pub fn ready(&self) -> BTreeMap<Key, Instant> {
        self.scene().ready.clone()
    }

    /// When an Instance of this name was first seen, and when its pod.
    pub fn appeared(&self, namespace: &str, name: &str) -> (Option<Instant>, Option<Instant>) {
        let key = (namespace.to_owned(), name.to_owned());
        let scene = self.scene();
        (scene.instances.get(&key).copied(), scene.pods.get(&key).copied())
    }

    fn wake(&self, key: Key) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let worker = usize::try_from(hasher.finish() % WORKERS as u64).unwrap_or_default();
        if let Some(worker) = self.workers.get(worker) {
            // The workers run for as long as the program does.
            let _ended = worker.send(key);
        }
    }

    async fn watch_instances(self) {
        let api: Api<Instance> = Api::all_with(self.client.clone(), &IDENTITY);
        let events = watcher::watcher(api, watcher::Config::default());
        self.follow(events, |scene, instance, gone| {
            let namespace = instance.namespace().to_owned();
            let name = instance.name().to_owned();
            let key = (namespace.clone(), instance.spec.cluster_name.clone());
            let played = scene.clusters.entry(key.clone()).or_default();
            if gone {
                played.instances.remove(&name);
                played.reported.remove(&name);
            } else {
                played.instances.insert(name.clone(), instance);
                scene.instances.entry((namespace, name)).or_insert_with(Instant::now);
            }
            Some(key)
        })
        .await;
    }

    async fn watch_pods(self) {
        let api: Api<PartialObjectMeta<Pod>> = Api::all(self.client.clone());
        let events = watcher::watcher(api, labelled());
        self.follow(events, |scene, pod: PartialObjectMeta<Pod>, gone| {
            let key = cluster_of(pod.labels(), pod.namespace())?;
            let name = pod.name_any();
            let played = scene.clusters.entry(key.clone()).or_default();
            if gone {
                played.pods.remove(&name);
            } else {
                let seen = PodSeen {
                    uid: pod.uid().unwrap_or_default(),
                    ending: pod.metadata.deletion_timestamp.is_some(),
                };
                played.pods.insert(name.clone(), seen);
                scene.pods.entry((key.0.clone(), name)).or_insert_with(Instant::now);
            }
            Some(key)
        })
        .await;
    }

    async fn watch_leases(self) {
        let api: Api<Lease> = Api::all(self.client.clone());
        let events = watcher::watcher(api, labelled());
        self.follow(events, |scene, lease: Lease, gone| {
            let key = cluster_of(lease.labels(), lease.namespace())?;
            let played = scene.clusters.entry(key.clone()).or_default();
            let holder = |lease: &Lease| lease.spec.as_ref()?.holder_identity.clone();
            let lease = (!gone).then_some(lease);
            let news = played.lease.as_ref().map(holder) != lease.as_ref().map(holder);
            played.lease = lease;
            news.then_some(key)
        })
        .await;
    }

    async fn watch_clusters(self) {
        let api: Api<Cluster> = Api::all_with(self.client.clone(), &IDENTITY);
        let events = watcher::watcher(api, watcher::Config::default());
        self.follow(events, |scene, cluster: Cluster, gone| {
            let status = cluster.status.as_ref();
            let healthy = status.and_then(|status| status.phase.as_deref())
                == Some("Cluster in healthy state");
            let ready = status.and_then(|status| status.ready_instances);
            let key = (cluster.namespace().to_owned(), cluster.name().to_owned());
            if healthy && !gone && ready == cluster.spec.instances {
                scene.ready.entry(key).or_insert_with(Instant::now);
            } else {
                scene.ready.remove(&key);
            }
            None
        })
        .await;
    }

    /// Takes note of everything that a watch tells; what is told may be a cluster to see to.
    async fn follow<K>(
        &self,
        events: impl Stream<Item = watcher::Result<Event<K>>>,
        note: impl Fn(&mut Scene, K, bool) -> Option<Key>,
    ) where
        K: Clone,
    {
        let events = events.default_backoff();
        let mut events = std::pin::pin!(events);
        loop {
            let (object, gone) = match events.try_next().await {
                Ok(Some(Event::Apply(object) | Event::InitApply(object))) => (object, false),
                Ok(Some(Event::Delete(object))) => (object, true),
                Ok(Some(Event::Init | Event::InitDone)) => continue,
                Ok(None) => return,
                Err(error) => {
                    eprintln!("watch of {}: {error}", std::any::type_name::<K>());
                    continue;
                }
            };
            let key = note(&mut self.scene(), object, gone);
            if let Some(key) = key {
                self.wake(key);
            }
        }
    }

    async fn work(self, mut keys: mpsc::UnboundedReceiver<Key>) {
        let mut waiting = Vec::new();
        while keys.recv_many(&mut waiting, 1_000).await > 0 {
            let due: BTreeSet<Key> = waiting.drain(..).collect();
            for key in due {
                if let Err(error) = self.see_to(&key).await {
                    let again = self.clone();
                    tokio::spawn(async move {
                        complain(&format!("{}/{}", key.0, key.1), &error);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        again.wake(key);
                    });
                }
            }
        }
    }

    /// Does what is due in one cluster.
    async fn see_to(&self, key: &Key) -> Result<()> {
        let pods = self.scene().clusters.get(key).map(|it| it.pods.clone()).unwrap_or_default();
        for (name, pod) in &pods {
            self.see_to_pod(key, name, pod).await?;
        }
        let (lease, instances, started) = {
            let scene = self.scene();
            let Some(played) = scene.clusters.get(key) else { return Ok(()) };
            let runs =
                |(_, pod): &(&String, &PodSeen)| !pod.ending && played.started.contains(&pod.uid);
            let pods = played.pods.iter().filter(runs);
            let started: BTreeMap<String, String> =
                pods.map(|(name, pod)| (name.clone(), pod.uid.clone())).collect();
            let instances: Vec<Instance> = played.instances.values().cloned().collect();
            (played.lease.clone(), instances, started)
        };
        let Some(lease) = lease else { return Ok(()) };
        let all: Vec<&Instance> = instances.iter().collect();
        let members: Vec<String> = instances
            .iter()
            .filter(|instance| !instance.spec.leaving && started.contains_key(instance.name()))
            .map(|instance| instance.name().to_owned())
            .collect();
        let held_by = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        let Some(holder) = agents::next_holder(held_by, &all, &members) else { return Ok(()) };
        let uid = started.get(&holder).cloned().unwrap_or_default();
        self.lead(key, &lease, &holder, &uid, &members).await?;
        for instance in all {
            let Some(uid) = started.get(instance.name()) else { continue };
            let report = agents::report(instance, uid, instance.name() == holder);
            self.report(key, instance.name(), report).await?;
        }
        Ok(())
    }

    async fn see_to_pod(&self, key: &Key, name: &str, pod: &PodSeen) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &key.0);
        if pod.ending {
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            return self.unless_gone(pods.delete(name, &now)).await;
        }
        if self.scene().clusters.get(key).is_some_and(|it| it.started.contains(&pod.uid)) {
            return Ok(());
        }
        let first = self.scene().pods.get(&(key.0.clone(), name.to_owned())).copied();
        if let Some(left) = first.and_then(|first| START.checked_sub(first.elapsed())) {
            let (again, key) = (self.clone(), key.clone());
            tokio::spawn(async move {
                tokio::time::sleep(left).await;
                again.wake(key);
            });
            return Ok(());
        }
        let number = pod.uid.bytes().fold(0_usize, |sum, byte| sum + usize::from(byte));
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {
                "apiVersion": "v1", "kind": "Node", "name": format!("n{}", number % self.nodes),
            },
        });
        let parameters = PostParams::default();
        let bound = pods.create_subresource::<Value, Value>("binding", name, &parameters, &binding);
        self.unless_gone(bound).await?;
        self.bind_volume(key, name).await?;
        let status = Patch::Merge(agents::pod_status(&address(number)));
        self.unless_gone(pods.patch_status(name, &PatchParams::default(), &status)).await?;
        if let Some(played) = self.scene().clusters.get_mut(key) {
            played.started.insert(pod.uid.clone());
        }
        Ok(())
    }

    async fn bind_volume(&self, key: &Key, instance: &str) -> Result<()> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.0);
        let bound = Patch::Merge(json!({"status": {
            "phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        }}));
        let name = names::data_claim(instance);
        self.unless_gone(claims.patch_status(&name, &PatchParams::default(), &bound)).await
    }

    /// Takes the Lease, and the EndpointSlice after it.
    async fn lead(
        &self,
        key: &Key,
        lease: &Lease,
        holder: &str,
        uid: &str,
        members: &[String],
    ) -> Result<()> {
        let wanted = (holder.to_owned(), members.to_vec());
        let before = self.scene().clusters.get(key).and_then(|it| it.led.clone());
        if before.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &key.0);
        let patch = agents::lease_patch(IDENTITY, lease, holder, uid.to_owned(), members);
        let parameters = PatchParams::default();
        self.unless_gone(leases.patch(&key.1, &parameters, &Patch::Merge(&patch))).await?;
        if before.is_none_or(|before| before.0 != holder) {
            let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.0);
            let slice = json!({
                "endpoints": [{
                    "addresses": [address(1)], "conditions": {"ready": true},
                    "targetRef": {
                        "kind": "Pod", "name": holder, "namespace": key.0, "uid": uid,
                    },
                }],
                "ports": [{"name": "postgres", "port": 5432, "protocol": "TCP"}],
            });
            let name = names::endpoint_slice_rw(&key.1);
            self.unless_gone(slices.patch(&name, &parameters, &Patch::Merge(&slice))).await?;
        }
        if let Some(played) = self.scene().clusters.get_mut(key) {
            played.led = Some(wanted);
        }
        Ok(())
    }

    /// Writes a report if it differs from the last one.
    async fn report(&self, key: &Key, name: &str, report: InstanceStatus) -> Result<()> {
        let before = self.scene().clusters.get(key).and_then(|it| it.reported.get(name).cloned());
        if before.as_ref() == Some(&report) {
            return Ok(());
        }
        self.write_report(&key.0, name, &report).await?;
        if let Some(played) = self.scene().clusters.get_mut(key) {
            played.reported.insert(name.to_owned(), report);
        }
        Ok(())
    }

    async fn write_report(&self, namespace: &str, name: &str, it: &InstanceStatus) -> Result<()> {
        let instances: Api<Instance> =
            Api::namespaced_with(self.client.clone(), namespace, &IDENTITY);
        let told = Patch::Merge(json!({ "status": it }));
        self.unless_gone(instances.patch_status(name, &PatchParams::default(), &told)).await
    }

    /// Counts a write; what is gone needs none.
    async fn unless_gone<T>(&self, write: impl Future<Output = kube::Result<T>>) -> Result<()> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        match write.await {
            Ok(_) => Ok(()),
            // Bound already, or gone.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every holder renews its Lease, evenly over the time.
    async fn renew(self) {
        loop {
            let round = Instant::now();
            let led: Vec<Key> = {
                let scene = self.scene();
                let led = scene.clusters.iter().filter(|(_, played)| played.led.is_some());
                led.map(|(key, _)| key.clone()).collect()
            };
            let pause = RENEWAL / u32::try_from(led.len().max(1)).unwrap_or(u32::MAX);
            // An API server that cannot keep up is asked less often, and not by ever more at once.
            let renewals = stream::iter(led.into_iter().zip(0_u32..));
            renewals
                .for_each_concurrent(WORKERS, |(key, number)| {
                    let crowd = &self;
                    async move {
                        let due = pause * number;
                        tokio::time::sleep(due.saturating_sub(round.elapsed())).await;
                        if let Err(error) = crowd.renew_one(&key).await {
                            complain(&format!("Lease of {}/{}", key.0, key.1), &error);
                        }
                    }
                })
                .await;
            tokio::time::sleep(RENEWAL.saturating_sub(round.elapsed())).await;
        }
    }

    async fn renew_one(&self, key: &Key) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &key.0);
        let now = MicroTime(jiff::Timestamp::now());
        let patch = Patch::Merge(json!({"spec": {"renewTime": now}}));
        let parameters = PatchParams::default();
        self.unless_gone(leases.patch(&key.1, &parameters, &patch)).await
    }

    /// Every agent writes its report again now and then, evenly over the time.
    async fn repeat(self) {
        loop {
            let round = Instant::now();
            let all: Vec<(Key, String)> = {
                let scene = self.scene();
                let of = |(key, played): (&Key, &Played)| {
                    let names = played.reported.keys();
                    names.map(|name| (key.clone(), name.clone())).collect::<Vec<_>>()
                };
                scene.clusters.iter().flat_map(of).collect()
            };
            let pause = REPEAT / u32::try_from(all.len().max(1)).unwrap_or(u32::MAX);
            for (key, name) in all {
                let report = {
                    let scene = self.scene();
                    scene.clusters.get(&key).and_then(|it| it.reported.get(&name).cloned())
                };
                let Some(report) = report else { continue };
                if let Err(error) = self.write_report(&key.0, &name, &report).await {
                    complain(&format!("report of {}/{name}", key.0), &error);
                }
                tokio::time::sleep(pause).await;
            }
            tokio::time::sleep(Duration::from_secs(5).saturating_sub(round.elapsed())).await;
        }
    }

    /// Waits until so many clusters are ready.
    ///
    /// # Errors
    /// With how many are, if it takes longer than `limit`.
    pub async fn wait_ready(&self, count: usize, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let ready = self.scene().ready.len();
            if ready >= count {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < limit, "{ready} of {count} clusters are ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A line about what failed: the API server's words may be whole objects.
fn complain(what: &str, error: &anyhow::Error) {
    let words: String = format!("{error:#}").chars().take(200).collect();
    eprintln!("{what}: {words}");
}

fn labelled() -> watcher::Config {
    watcher::Config::default().labels(&Label::Cluster.key(IDENTITY))
}

fn cluster_of(labels: &BTreeMap<String, String>, namespace: Option<String>) -> Option<Key> {
    Some((namespace?, labels.get(&Label::Cluster.key(IDENTITY))?.clone()))
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number / 62_500 % 250, number / 250 % 250, number % 250 + 1)
}
