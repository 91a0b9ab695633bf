use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::*;
use crate::apiserver::ApiServer;
use crate::processes::{self, Mark};

struct Machine {
    state: PathBuf,
    shared: Arc<Shared>,
    kubelet: Kubelet,
    pods: Api<Pod>,
}

impl Machine {
    fn start(name: &str) -> Self {
        let state = std::env::temp_dir().join(format!("m-{name}-{}", std::process::id()));
        let layout = Layout::make(&state).unwrap();
        let server = ApiServer::open(crate::apiserver::Options::new(layout.objects())).unwrap();
        let shared = Arc::new(Shared {
            client: server.client(),
            network: Arc::new(Network::open(&layout).unwrap()),
            layout,
            run_as: RunAs::choose(None).unwrap(),
            servers: InstalledServers::find(),
            program: PathBuf::from("/bin/true"),
            own_image: "own".to_owned(),
            api_server: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            ca_certificate: "certificate".to_owned(),
            tokens: Arc::new(|subject| format!("token of {}", subject.pod)),
            claims: Mutex::new(BTreeMap::new()),
        });
        let pods = Api::default_namespaced(server.client());
        let kubelet = Kubelet::start(shared.clone());
        Self { state, shared, kubelet, pods }
    }

    async fn create(&self, name: &str, spec: Value) -> Pod {
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.pods.create(&PostParams::default(), &pod).await.unwrap()
    }

    async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Pod) -> bool) -> Pod {
        for _ in 0..400 {
            if let Some(pod) = self.pods.get_opt(name).await.unwrap()
                && holds(&pod)
            {
                return pod;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is never {what}: {:#?}", self.pods.get_opt(name).await);
    }

    async fn wait_gone(&self, name: &str) {
        for _ in 0..400 {
            if self.pods.get_opt(name).await.unwrap().is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{name} is still there");
    }

    fn processes(&self) -> Vec<processes::Process> {
        let mark =
            Mark { root: self.shared.layout.pods(), root_is_prefix: true, directories: vec![] };
        processes::find(&mark).unwrap()
    }

    async fn end(self) {
        self.kubelet.halt(&[]).await;
        assert_eq!(self.processes(), []);
        std::fs::remove_dir_all(&self.state).unwrap();
    }
}

fn shell(script: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": 20,
        "containers": [{
            "name": "main", "image": "own",
            "command": ["/bin/sh", "-c", script],
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "volumeMounts": [{"name": "scratch", "mountPath": "/controller", "subPath": "c"}],
        }],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    })
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.map_or(0, |statuses| statuses[0].restart_count)
}

#[tokio::test]
async fn a_pod_runs_as_a_process_and_ends_with_everything_of_it() {
    let machine = Machine::start("run");
    let script = "echo $POD_NAME at $POD_IP; echo made > $MATRIARCH_ROOT/controller/file; \
        cat $MATRIARCH_ROOT/var/run/secrets/kubernetes.io/serviceaccount/token; \
        sleep 1000 & trap 'exit 0' TERM; wait";
    machine.create("one", shell(script)).await;
    let pod = machine.wait("one", "ready", ready).await;
    let address = pod.status.as_ref().unwrap().pod_ip.clone().unwrap();
    assert!(address.starts_with("127."), "{address}");
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some(NODE_NAME));
    assert_eq!(machine.processes().len(), 2, "the shell and its child");
    let log = machine.shared.layout.log("default", "one", &pod.uid().unwrap(), "main");
    let text = std::fs::read_to_string(log).unwrap();
    assert_eq!(text, format!("one at {address}\ntoken of one"));

    machine.pods.delete("one", &DeleteParams::default()).await.unwrap();
    machine.wait_gone("one").await;
    assert_eq!(machine.processes(), [], "the child as well");
    machine.end().await;
}

#[tokio::test]
async fn a_killed_container_is_started_again_with_a_new_id() {
    let machine = Machine::start("again");
    machine.create("one", shell("sleep 1000")).await;
    let id = |pod: &Pod| {
        pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].container_id.clone()
    };
    let before = machine.wait("one", "ready", ready).await;
    let process = machine.processes().remove(0);
    processes::signal(&process, rustix::process::Signal::KILL);
    let after = machine.wait("one", "restarted", |pod| restarts(pod) == 1 && ready(pod)).await;
    assert_ne!(id(&before), id(&after));
    assert_eq!(before.status.unwrap().pod_ip, after.status.unwrap().pod_ip);
    machine.end().await;
}

#[tokio::test]
async fn a_force_deleted_pod_has_two_seconds() {
    let machine = Machine::start("force");
    machine.create("one", shell("trap '' TERM; while true; do sleep 1; done")).await;
    machine.wait("one", "ready", ready).await;
    let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    machine.pods.delete("one", &parameters).await.unwrap();
    let start = std::time::Instant::now();
    while !machine.processes().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", machine.processes());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(start.elapsed() > Duration::from_millis(1500), "{:?}", start.elapsed());
    machine.end().await;
}

#[tokio::test]
async fn init_containers_come_first_and_share_volumes() {
    let machine = Machine::start("init");
    let mut spec = shell("test -f $MATRIARCH_ROOT/controller/made && exec sleep 1000");
    spec["initContainers"] = json!([{
        "name": "first", "image": "own",
        "command": ["/bin/sh", "-c", "touch $MATRIARCH_ROOT/controller/made"],
        "volumeMounts": [{"name": "scratch", "mountPath": "/controller", "subPath": "c"}],
    }]);
    machine.create("one", spec).await;
    let pod = machine.wait("one", "ready", ready).await;
    assert_eq!(restarts(&pod), 0);
    machine.end().await;
}

#[tokio::test]
async fn a_server_that_is_not_installed_is_said_in_the_status() {
    let machine = Machine::start("image");
    let mut spec = shell("sleep 1000");
    spec["containers"][0]["image"] = json!("postgres:99");
    machine.create("one", spec).await;
    machine
        .wait("one", "refused", |pod| {
            let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref());
            let waiting = statuses.and_then(|s| s[0].state.as_ref()?.waiting.clone());
            waiting.is_some_and(|waiting| {
                waiting.reason.as_deref() == Some("ErrImagePull")
                    && waiting.message.unwrap().contains("PostgreSQL 99 is not installed")
            })
        })
        .await;
    machine.end().await;
}

#[tokio::test]
async fn pods_run_again_after_a_restart_of_the_kubelet() {
    let machine = Machine::start("halt");
    machine.create("one", shell("sleep 1000")).await;
    let before = machine.wait("one", "ready", ready).await;
    machine.kubelet.halt(&[]).await;
    assert_eq!(machine.processes(), []);
    let Machine { state, shared, kubelet, pods } = machine;
    drop(kubelet);
    let kubelet = Kubelet::start(shared.clone());
    let machine = Machine { state, shared, kubelet, pods };
    let after = machine.wait("one", "restarted", |pod| restarts(pod) == 1 && ready(pod)).await;
    assert_eq!(before.status.unwrap().pod_ip, after.status.unwrap().pod_ip);
    machine.end().await;
}
