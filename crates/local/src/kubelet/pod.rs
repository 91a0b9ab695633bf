//! The worker of one pod: volumes, init containers, containers, status, end.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use matriarch_api::causes::chain;
use matriarch_api::statistics::LOCAL_DIRECTORY;
use tokio::sync::{OwnedMutexGuard, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::container::{Duty, Report, Restart, Stop, Supervisor};
use super::status::{PodReport, initial};
use super::volumes::{self, Volumes};
use crate::processes;

/// How long a force-deleted pod's processes have between SIGTERM and SIGKILL (traps H3).
const FORCED_GRACE: Duration = Duration::from_secs(2);

/// What is to become of a pod.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    /// It runs.
    Run(Arc<Pod>),
    /// It was deleted, with so many seconds of grace; its object waits for us.
    Delete(Arc<Pod>, Duration),
    /// Its object is gone already.
    Gone,
    /// The machine stops: the containers end, the object stays.
    Halt,
}

/// One pod's worker.
pub(super) struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    wishes: watch::Receiver<Wish>,
    address: Ipv4Addr,
    restart: Restart,
    init: Vec<ContainerStatus>,
    main: Vec<ContainerStatus>,
    written: Option<PodStatus>,
    stop: watch::Sender<Option<Stop>>,
    claims: Vec<OwnedMutexGuard<()>>,
}

/// How a stage of a pod's life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Done,
    Interrupted,
}

impl Worker {
    pub(super) fn new(
        shared: Arc<Shared>,
        pod: Arc<Pod>,
        address: Ipv4Addr,
        wishes: watch::Receiver<Wish>,
    ) -> Self {
        let spec = pod.spec.as_ref();
        let restart = match spec.and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Restart::Never,
            Some("OnFailure") => Restart::OnFailure,
            Some(_) | None => Restart::Always,
        };
        let written = pod.status.clone();
        let old_init = written.as_ref().and_then(|s| s.init_container_statuses.as_deref());
        let old_main = written.as_ref().and_then(|s| s.container_statuses.as_deref());
        let init = init_containers(&pod).iter().map(|c| initial(c, old_init)).collect();
        let main = main_containers(&pod).iter().map(|c| initial(c, old_main)).collect();
        let stop = watch::Sender::new(None);
        Self { shared, pod, wishes, address, restart, init, main, written, stop, claims: vec![] }
    }

    /// Lives the pod's life until it has ended, with everything of it.
    pub(super) async fn run(mut self) {
        self.annotate().await;
        self.bind().await;
        self.write_status().await;
        if self.live().await == Stage::Done {
            // It ended by itself (a job's pod): the object stays until somebody deletes it.
            self.interrupted().await;
        }
        self.end().await;
    }

    async fn live(&mut self) -> Stage {
        let Some(volumes) = self.make_volumes().await else { return Stage::Interrupted };
        for index in 0..self.init.len() {
            if self.run_containers(&volumes, Some(index)).await == Stage::Interrupted {
                return Stage::Interrupted;
            }
        }
        self.run_containers(&volumes, None).await
    }

    fn api(&self) -> Api<Pod> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        Api::namespaced(self.shared.client.clone(), namespace)
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Waits until the pod is to end.
    async fn interrupted(&mut self) {
        // An error means that the kubelet is gone, which ends the pod as well.
        let _ = self.wishes.wait_for(|wish| !matches!(wish, Wish::Run(_))).await;
    }

    /// Does what a scheduler does: names the node.
    async fn bind(&mut self) {
        let bound = self.pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        if bound {
            return;
        }
        let name = self.name().to_owned();
        let binding = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "uid": self.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": super::NODE_NAME},
        });
        let (api, parameters) = (self.api(), PostParams::default());
        let answer: kube::Result<serde_json::Value> =
            api.create_subresource("binding", &name, &parameters, &binding).await;
        if let Err(error) = answer {
            tracing::warn!(pod = name, error = chain(&error), "cannot bind");
        }
        match api.get(&name).await {
            Ok(pod) if pod.metadata.uid == self.pod.metadata.uid => self.pod = Arc::new(pod),
            Ok(_) => {}
            Err(error) => tracing::debug!(pod = name, error = chain(&error), "cannot read it"),
        }
    }

    /// Says where the plugin finds the agent's socket, which it would reach by exec in a cluster. Also
    /// of a pod that a version before this one has bound.
    async fn annotate(&self) {
        let directory = self.shared.layout.pod(self.uid()).join("0");
        let annotated = serde_json::json!({
            "metadata": {"uid": self.uid(), "annotations": {LOCAL_DIRECTORY: directory}},
        });
        let known = self.pod.metadata.annotations.as_ref().and_then(|it| it.get(LOCAL_DIRECTORY));
        if known.is_some_and(|known| *known == directory.to_string_lossy()) {
            return;
        }
        let (api, params) = (self.api(), PatchParams::default());
        if let Err(error) = api.patch(self.name(), &params, &Patch::Merge(&annotated)).await {
            tracing::warn!(pod = self.name(), error = chain(&error), "cannot annotate");
        }
    }

    /// Makes the volumes, again and again until what they are made of is there.
    async fn make_volumes(&mut self) -> Option<Volumes> {
        if !self.take_claims().await {
            return None;
        }
        let mut delay = Duration::from_millis(50);
        loop {
            match volumes::prepare(&self.shared, &self.pod).await {
                Ok(volumes) => return Some(volumes),
                Err(error) => {
                    for status in self.init.iter_mut().chain(&mut self.main) {
                        super::status::note_waiting(status, &chain(&error));
                    }
                    self.write_status().await;
                }
            }
            tokio::select! {
                () = sleep(delay) => {}
                () = self.interrupted() => return None,
            }
            delay = (delay * 2).min(Duration::from_secs(1));
        }
    }

    /// A claim belongs to one pod at a time, as with ReadWriteOncePod (traps H5).
    async fn take_claims(&mut self) -> bool {
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let mut names: Vec<String> = self
            .pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
            .filter_map(|volume| volume.persistent_volume_claim.as_ref())
            .map(|claim| format!("{namespace}/{}", claim.claim_name))
            .collect();
        // In one order, so that two pods never wait for each other.
        names.sort();
        for name in names {
            let lock = self.shared.claim(&name);
            tokio::select! {
                guard = lock.lock_owned() => self.claims.push(guard),
                () = self.interrupted() => return false,
            }
        }
        true
    }

    /// Runs one init container, or all main containers, to their end.
    async fn run_containers(&mut self, volumes: &Volumes, init: Option<usize>) -> Stage {
        if !matches!(*self.wishes.borrow_and_update(), Wish::Run(_)) {
            return Stage::Interrupted;
        }
        let containers = match init {
            Some(index) => vec![init_containers(&self.pod)[index].clone()],
            None => main_containers(&self.pod).to_vec(),
        };
        let alone = containers.len() == 1;
        let (reports, mut news) = mpsc::unbounded_channel();
        let mut running = JoinSet::new();
        for (offset, container) in containers.into_iter().enumerate() {
            let index = init.unwrap_or(offset);
            let (duty, status) = match init {
                Some(_) => (Duty::Init, self.init[index].clone()),
                None => (Duty::Main(self.restart), self.main[index].clone()),
            };
            let own = if alone { volumes.directories.values().cloned().collect() } else { vec![] };
            let supervisor = Supervisor {
                shared: self.shared.clone(),
                pod: self.pod.clone(),
                container,
                duty,
                index,
                address: self.address,
                volumes: volumes.clone(),
                own_directories: own,
                stop: self.stop.subscribe(),
                reports: reports.clone(),
                status,
            };
            running.spawn(supervisor.run());
        }
        drop(reports);
        self.follow(&mut running, &mut news, init.is_some()).await
    }

    async fn follow(
        &mut self,
        running: &mut JoinSet<bool>,
        news: &mut mpsc::UnboundedReceiver<Report>,
        init: bool,
    ) -> Stage {
        let mut renewal = tokio::time::interval(Duration::from_secs(30));
        renewal.reset();
        loop {
            tokio::select! {
                report = news.recv() => match report {
                    Some(report) => {
                        self.note(report, init);
                        while let Ok(report) = news.try_recv() { self.note(report, init); }
                        self.write_status().await;
                    }
                    None => {
                        while running.join_next().await.is_some() {}
                        let stopped = self.stop.borrow().is_some();
                        return if stopped { Stage::Interrupted } else { Stage::Done };
                    }
                },
                changed = self.wishes.changed() => {
                    let halted = changed.is_err();
                    let wish = self.wishes.borrow_and_update().clone();
                    self.obey(if halted { Wish::Halt } else { wish });
                }
                _ = renewal.tick() => {
                    // Secrets, ConfigMaps and tokens in volumes follow their objects.
                    if let Err(error) = volumes::prepare(&self.shared, &self.pod).await {
                        tracing::debug!(pod = self.name(), error = chain(&error), "volumes");
                    }
                }
            }
        }
    }

    fn note(&mut self, report: Report, init: bool) {
        let statuses = if init { &mut self.init } else { &mut self.main };
        if let Some(status) = statuses.get_mut(report.index) {
            *status = report.status;
        }
    }

    fn obey(&mut self, wish: Wish) {
        let grace = match wish {
            Wish::Run(pod) => {
                self.pod = pod;
                return;
            }
            Wish::Delete(pod, grace) => {
                self.pod = pod;
                grace
            }
            Wish::Gone => FORCED_GRACE,
            Wish::Halt => self.grace(),
        };
        let deadline = Instant::now() + grace;
        self.stop.send_modify(|stop| {
            let earlier = stop.map_or(deadline, |stop| stop.deadline.min(deadline));
            *stop = Some(Stop { deadline: earlier });
        });
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
        Duration::from_secs(seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30))
    }

    async fn write_status(&mut self) {
        if matches!(*self.wishes.borrow(), Wish::Gone) {
            return;
        }
        let report = PodReport {
            pod: &self.pod,
            address: self.address,
            node_address: self.shared.network.node(),
            init: &self.init,
            main: &self.main,
            restart: self.restart,
            previous: self.written.as_ref(),
        };
        let status = report.status();
        if self.written.as_ref() == Some(&status) {
            return;
        }
        let patch = serde_json::json!({"metadata": {"uid": self.uid()}, "status": &status});
        let answer = self
            .api()
            .patch_status(self.name(), &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        match answer {
            // The containers get their downward API fields from here.
            Ok(pod) => {
                self.pod = Arc::new(pod);
                self.written = Some(status);
            }
            Err(error) => {
                tracing::debug!(
                    pod = self.name(),
                    error = chain(&error),
                    "cannot write the status"
                );
            }
        }
    }

    /// After the containers: nothing of the pod is left but, when the machine stops, its object
    /// and its directory.
    async fn end(&mut self) {
        let mut mark = processes::Mark {
            root: self.shared.layout.pod(self.uid()),
            root_is_prefix: true,
            directories: vec![],
        };
        mark.directories.push(mark.root.clone());
        match processes::kill_all(&mark, Duration::from_secs(30)).await {
            Ok(left) if left.is_empty() => {}
            Ok(left) => {
                tracing::error!(pod = self.name(), ?left, "processes cannot be killed");
                return;
            }
            Err(error) => tracing::warn!(%error, "cannot look for processes"),
        }
        self.claims.clear();
        let wish = self.wishes.borrow().clone();
        match wish {
            Wish::Halt | Wish::Run(_) => {
                self.write_status().await;
                return;
            }
            Wish::Gone => {}
            Wish::Delete(..) => self.delete_object().await,
        }
        let directory = self.shared.layout.pod(self.uid());
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(pod = self.name(), %error, "cannot remove the pod's directory");
        }
        self.shared.network.give_back(self.address);
    }

    async fn delete_object(&self) {
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid: Some(self.uid().to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let mut delay = Duration::from_millis(100);
        loop {
            match self.api().delete(self.name(), &parameters).await {
                Ok(_) => return,
                Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return,
                Err(error) => {
                    tracing::warn!(pod = self.name(), error = chain(&error), "cannot delete");
                }
            }
            sleep(delay).await;
            delay = (delay * 2).min(Duration::from_secs(2));
        }
    }
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

fn main_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}
