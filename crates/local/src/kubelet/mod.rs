//! Pods as processes.
//!
//! What kubelet, the container runtime, the scheduler and a provisioner of volumes do on a real
//! node, as far as Matriarch's pods need it. Talks to the API server like any client.

mod container;
mod environment;
pub mod logs;
mod node;
mod pod;
mod probes;
mod status;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use matriarch_api::causes::chain;
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

pub use self::environment::EnvironmentError;
use self::pod::{Wish, Worker};
pub use self::volumes::VolumeError;
use crate::layout::Layout;
use crate::network::Network;
use crate::postgres::InstalledServers;
use crate::user::RunAs;

/// Name of the one node.
pub const NODE_NAME: &str = "local";

/// Whom a service account token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSubject {
    /// The pod's namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub pod_uid: String,
}

/// Makes service account tokens that the API server accepts.
pub type TokenSource = Arc<dyn Fn(&TokenSubject) -> String + Send + Sync>;

/// What the kubelet works with.
pub struct Shared {
    /// The API server.
    pub client: kube::Client,
    /// Where everything lies.
    pub layout: Layout,
    /// Addresses.
    pub network: Arc<Network>,
    /// Whose rights containers get.
    pub run_as: RunAs,
    /// Servers installed.
    pub servers: InstalledServers,
    /// Our own binary, which Matriarch's image would hold.
    pub program: PathBuf,
    /// Name of Matriarch's image, which holds no PostgreSQL.
    pub own_image: String,
    /// Where containers reach the API server.
    pub api_server: SocketAddr,
    /// The API server's CA, PEM.
    pub ca_certificate: String,
    /// Makes tokens.
    pub tokens: TokenSource,
    /// Claims in use.
    pub claims: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Shared {
    pub(crate) fn claim(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.entry(name.to_owned()).or_default().clone()
    }

    fn is_own_image(&self, image: &str) -> bool {
        image == self.own_image
    }

    fn drop_rights(&self, command: &mut Command) {
        if let RunAs::Dropped(user) = &self.run_as {
            command.uid(user.uid).gid(user.gid);
        }
    }
}

fn service_account_token(shared: &Shared, pod: &Pod) -> String {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    (shared.tokens)(&TokenSubject {
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        service_account: account.unwrap_or_else(|| "default".to_owned()),
        pod: pod.metadata.name.clone().unwrap_or_default(),
        pod_uid: pod.metadata.uid.clone().unwrap_or_default(),
    })
}

/// A running kubelet.
pub struct Kubelet {
    halts: mpsc::Sender<Halt>,
    task: JoinHandle<()>,
    heartbeat: JoinHandle<()>,
}

/// A wish to halt pods.
struct Halt {
    /// Names (`namespace/name`) of pods that go on; none: the kubelet ends too.
    except: Vec<String>,
    done: oneshot::Sender<()>,
}

struct Entry {
    name: String,
    wishes: watch::Sender<Wish>,
    worker: JoinHandle<()>,
}

struct Pods {
    shared: Arc<Shared>,
    by_uid: HashMap<String, Entry>,
}

impl Kubelet {
    /// Starts watching pods.
    #[must_use]
    pub fn start(shared: Arc<Shared>) -> Self {
        let (halts, wanted) = mpsc::channel(4);
        let heartbeat = tokio::spawn(node::keep(shared.clone()));
        let pods = Pods { shared, by_uid: HashMap::new() };
        Self { halts, task: tokio::spawn(pods.run(wanted)), heartbeat }
    }

    /// Ends the containers of all pods but `except` (`namespace/name`), and waits. The pods'
    /// objects stay: the next start runs them again. No pod is started afterwards.
    pub async fn halt(&self, except: &[String]) {
        let (done, ended) = oneshot::channel();
        if self.halts.send(Halt { except: except.to_vec(), done }).await.is_ok() {
            // An error means that the kubelet has ended, and with it all pods.
            let _ = ended.await;
        }
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
        self.heartbeat.abort();
    }
}

impl Pods {
    async fn run(mut self, mut halts: mpsc::Receiver<Halt>) {
        let api: Api<Pod> = Api::all(self.shared.client.clone());
        let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
        let mut listed: Option<Vec<String>> = None;
        let mut logs = tokio::time::interval(Duration::from_secs(10));
        let mut orphans = tokio::time::interval(Duration::from_millis(500));
        let mut halting = false;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event, &mut listed, halting),
                    Some(Err(error)) => {
                        // Unknown is not gone: pods run on until the API server answers.
                        tracing::debug!(error = chain(&error), "watching pods failed");
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                    None => return,
                },
                halt = halts.recv() => {
                    let Some(halt) = halt else { return };
                    halting = true;
                    self.halt(halt).await;
                }
                _ = logs.tick() => {
                    if let Err(error) = logs::rotate(&self.shared.layout) {
                        tracing::debug!(%error, "cannot rotate logs");
                    }
                }
                _ = orphans.tick() => {
                    if let Err(error) = crate::processes::reap_adopted() {
                        tracing::debug!(%error, "cannot reap orphans");
                    }
                }
            }
        }
    }

    fn take(&mut self, event: Event<Pod>, listed: &mut Option<Vec<String>>, halting: bool) {
        match event {
            Event::Init => *listed = Some(Vec::new()),
            Event::InitApply(pod) => {
                if let Some(listed) = listed {
                    listed.extend(pod.metadata.uid.clone());
                }
                self.apply(pod, halting);
            }
            Event::InitDone => {
                if let Some(listed) = listed.take() {
                    let gone = self.by_uid.keys().filter(|uid| !listed.contains(uid));
                    for uid in gone.cloned().collect::<Vec<_>>() {
                        self.wish(&uid, Wish::Gone);
                    }
                }
            }
            Event::Apply(pod) => self.apply(pod, halting),
            Event::Delete(pod) => {
                self.wish(pod.metadata.uid.as_deref().unwrap_or_default(), Wish::Gone);
            }
        }
        self.by_uid.retain(|_, entry| !entry.worker.is_finished());
    }

    fn wish(&self, uid: &str, wish: Wish) {
        if let Some(entry) = self.by_uid.get(uid) {
            entry.wishes.send_replace(wish);
        }
    }

    fn apply(&mut self, pod: Pod, halting: bool) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(pod);
        let deleted = pod.metadata.deletion_timestamp.is_some();
        let wish = if deleted {
            let seconds = pod.metadata.deletion_grace_period_seconds.unwrap_or(30);
            let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            Wish::Delete(pod.clone(), grace)
        } else {
            Wish::Run(pod.clone())
        };
        if let Some(entry) = self.by_uid.get(&uid) {
            // Each write of a status comes back here; only a deletion outlives a halt.
            if deleted || !halting {
                entry.wishes.send_replace(wish);
            }
            return;
        }
        let over = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if halting || (!deleted && matches!(over, Some("Succeeded" | "Failed"))) {
            return;
        }
        let Some(address) = self.address(&pod) else { return };
        let name = format!(
            "{}/{}",
            pod.metadata.namespace.as_deref().unwrap_or_default(),
            pod.metadata.name.as_deref().unwrap_or_default()
        );
        let (wishes, receiver) = watch::channel(wish);
        let worker = Worker::new(self.shared.clone(), pod, address, receiver);
        let worker = tokio::spawn(worker.run());
        self.by_uid.insert(uid, Entry { name, wishes, worker });
    }

    fn address(&self, pod: &Pod) -> Option<Ipv4Addr> {
        let given = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
        if let Some(address) = given.and_then(|text| text.parse().ok()) {
            self.shared.network.keep(address);
            return Some(address);
        }
        match self.shared.network.pod() {
            Ok(address) => Some(address),
            Err(error) => {
                tracing::error!(error = chain(&error), "no address for a pod");
                None
            }
        }
    }

    async fn halt(&mut self, halt: Halt) {
        let mut ending = Vec::new();
        let uids: Vec<String> = self.by_uid.keys().cloned().collect();
        for uid in uids {
            let stays =
                self.by_uid.get(&uid).is_some_and(|entry| halt.except.contains(&entry.name));
            if !stays && let Some(entry) = self.by_uid.remove(&uid) {
                entry.wishes.send_if_modified(|wish| {
                    let running = matches!(wish, Wish::Run(_));
                    if running {
                        *wish = Wish::Halt;
                    }
                    running
                });
                ending.push(entry);
            }
        }
        for entry in ending {
            // A panic of a worker is in the log already.
            let _ = entry.worker.await;
        }
        let _ = halt.done.send(());
    }
}
