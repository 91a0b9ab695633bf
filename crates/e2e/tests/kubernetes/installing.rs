//! The operator as it is installed, on a real kube-apiserver with RBAC: the real program with the
//! arguments of its Deployment and a token of its ServiceAccount. Each request that it makes is in
//! the server's audit log, and is compared with the table from which its Roles are made.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Node, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use matriarch_api::{Cluster, Identity, Instance};
use matriarch_e2e::agents::play_once;
use matriarch_e2e::apiserver::{self, ApiServer};
use matriarch_e2e::local::Machine;
use matriarch_e2e::turn;
use matriarch_operator::install::permissions::{self, Permission, Verb};
use matriarch_operator::install::{self, Options, Scope};
use serde_json::{Value, json};

use crate::operator::{bind, comes_back, freed, small, write_lease};

const PATIENCE: Duration = Duration::from_secs(90);
/// Namespace of the clusters.
const TEAM: &str = "team";
/// What the cluster of these tests does not ask for.
const ELSEWHERE: [&str; 4] = [
    "delete /services",
    "delete discovery.k8s.io/endpointslices",
    "get matriarch.dev/imagecatalogs",
    "get matriarch.dev/clusterimagecatalogs",
];

/// An operator that runs as its Deployment says; gone when it is dropped.
struct Operator {
    child: Child,
    log: PathBuf,
    /// Port of its metrics.
    port: u16,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Operator {
    async fn start(server: &ApiServer, options: &Options) -> Result<Self> {
        let free = || {
            Ok::<_, std::io::Error>(
                std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            )
        };
        let (port, agents) = (free()?, free()?);
        let client = server.client().await?;
        let deployment = install::deployment(options);
        let pod = own_pod(&client, options, &deployment).await?;
        let token = token(&client, &options.namespace, &options.name(), None).await?;
        let kubeconfig = server.kubeconfig_for(&pod, &token)?;
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().context("no arguments")?.iter().map(|it| {
            let text = it.as_str().unwrap_or_default();
            // What kubelet does with them; the ports are such that are free here.
            text.replace(install::OWN_NAMESPACE, &options.namespace)
                .replace(&install::METRICS_PORT.to_string(), &port.to_string())
                .replace(&install::AGENT_PORT.to_string(), &agents.to_string())
        });
        let log = kubeconfig.with_extension("log");
        let file = std::fs::File::create(&log)?;
        let child = Command::new(Machine::binary()?)
            .args(arguments)
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAME", &pod)
            .env("NAMESPACE", &options.namespace)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("cannot start the operator")?;
        let operator = Self { child, log, port };
        operator.wait_for("/readyz", "HTTP/1.1 200").await?;
        Ok(operator)
    }

    /// Waits until an answer has these words.
    async fn wait_for(&self, path: &'static str, words: &str) -> Result<()> {
        let (begun, port) = (Instant::now(), self.port);
        loop {
            let answer = tokio::task::spawn_blocking(move || http_get(port, path)).await?;
            if answer.as_ref().is_ok_and(|text| text.contains(words)) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{path} never says {words:?}: {answer:?}\n{}", self.said());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The end of its log.
    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

/// The pod that the Deployment would make, whose image the operator takes for its own.
async fn own_pod(client: &Client, options: &Options, deployment: &Value) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &options.namespace);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["generateName"] = json!("matriarch-operator-");
    let pod = pods.create(&PostParams::default(), &serde_json::from_value(template)?).await?;
    pod.metadata.name.context("a pod has a name")
}

/// A token of a ServiceAccount, bound to a pod if one is named.
async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    pod: Option<&Pod>,
) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let reference = pod.map(|pod| {
        json!({
            "kind": "Pod", "apiVersion": "v1",
            "name": pod.metadata.name, "uid": pod.metadata.uid,
        })
    });
    let mut spec = json!({ "audiences": [], "expirationSeconds": 3600 });
    if let Some(reference) = reference {
        spec["boundObjectRef"] = reference;
    }
    let spec: TokenRequestSpec = serde_json::from_value(spec)?;
    let request = TokenRequest { spec, ..TokenRequest::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    Ok(answer.status.context("a request for a token is answered with one")?.token)
}

/// One installation: a server of its own, the operator, and agents played.
struct Installation {
    server: ApiServer,
    client: Client,
    options: Options,
    operator: Operator,
    agents: tokio::task::JoinHandle<()>,
    _turn: turn::Turn,
}

impl Installation {
    async fn start(options: Options, manifests: Manifests) -> Result<Option<Self>> {
        let turn = turn::wait()?;
        let Some(tools) = apiserver::tools() else { return Ok(None) };
        let server = ApiServer::start(&tools)?;
        let client = server.client().await?;
        make_namespace(&client, TEAM).await?;
        manifests.apply(&server)?;
        let operator = Operator::start(&server, &options).await?;
        let playing = client.clone();
        let agents = tokio::spawn(async move {
            loop {
                // Objects change under its hands; the next round sees it.
                if let Err(error) = play_once(&playing, Identity::Matriarch, TEAM).await {
                    eprintln!("agents: {error:#}");
                }
                if let Err(error) = release_volumes(&playing).await {
                    eprintln!("volumes: {error:#}");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        Ok(Some(Self { server, client, options, operator, agents, _turn: turn }))
    }

    fn clusters(&self) -> Api<Cluster> {
        Api::namespaced_with(self.client.clone(), TEAM, &self.options.identity)
    }

    async fn patch(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.clusters().patch("c", &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn healthy(&self, ready: i32) -> Result<()> {
        let begun = Instant::now();
        loop {
            let status = self.clusters().get("c").await?.status.unwrap_or_default();
            if status.phase.as_deref() == Some("Cluster in healthy state")
                && status.ready_instances == Some(ready)
                && Ok(status.instance_names.len()) == usize::try_from(ready)
            {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{ready} instances are never ready: {status:#?}\n{}", self.operator.said());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn create(&self, instances: i32) -> Result<()> {
        let cluster: Cluster = serde_json::from_value(json!({
            "apiVersion": self.options.identity.api_version(),
            "kind": "Cluster",
            "metadata": {"name": "c"},
            "spec": small(instances),
        }))?;
        self.clusters().create(&PostParams::default(), &cluster).await?;
        self.healthy(instances).await
    }

    /// Requests of the operator so far.
    fn requests(&self) -> Result<Vec<Request>> {
        let user =
            format!("system:serviceaccount:{}:{}", self.options.namespace, self.options.name());
        let entries = self.server.audit()?;
        let own = entries.iter().filter(|entry| entry["user"]["username"] == user.as_str());
        Ok(own.map(Request::new).collect())
    }

    fn end(mut self) {
        self.agents.abort();
        let _ = self.operator.child.kill();
    }
}

/// As the controller does that is not running here: a volume that no pod uses may go.
async fn release_volumes(client: &Client) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), TEAM);
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for claim in claims.list(&ListParams::default()).await?.items {
        if let (Some(_), Some(name)) = (claim.metadata.deletion_timestamp, claim.metadata.name) {
            claims.patch(&name, &PatchParams::default(), &free).await?;
        }
    }
    Ok(())
}

async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {
        "name": name,
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

/// In which form the manifests come.
enum Manifests {
    /// `kubectl apply -k`, of this directory of `config/`.
    Kustomize(&'static str),
    /// `matriarch install generate`, with these arguments.
    Generated(&'static [&'static str]),
}

impl Manifests {
    /// Applies them twice, by plain client-side apply (traps K1).
    fn apply(&self, server: &ApiServer) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        for round in 0..2 {
            loop {
                let (arguments, input) = self.source()?;
                let mut kubectl = server.kubectl();
                kubectl.arg("apply").args(arguments).stdin(Stdio::piped());
                kubectl.stdout(Stdio::piped()).stderr(Stdio::piped());
                let mut child = kubectl.spawn()?;
                std::io::Write::write_all(
                    &mut child.stdin.take().context("kubectl has no input")?,
                    input.as_bytes(),
                )?;
                let output = child.wait_with_output()?;
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() {
                    let said = String::from_utf8_lossy(&output.stdout).into_owned();
                    let twice = round > 0 && said.contains(" created");
                    ensure!(!twice, "applied again: {said}");
                    break;
                }
                // Right after the start a namespace's defaults are still being made.
                ensure!(Instant::now() < deadline, "kubectl apply: {told}");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        Ok(())
    }

    fn source(&self) -> Result<(Vec<String>, String)> {
        match self {
            Self::Kustomize(directory) => {
                let path = workspace().join("config").join(directory);
                Ok((vec!["-k".to_owned(), path.display().to_string()], String::new()))
            }
            Self::Generated(arguments) => {
                Ok((vec!["-f".to_owned(), "-".to_owned()], generated(arguments)?))
            }
        }
    }
}

/// The root of the clone.
pub fn workspace() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `matriarch install generate` prints.
pub fn generated(arguments: &[&str]) -> Result<String> {
    let output = Command::new(Machine::binary()?)
        .args(["install", "generate"])
        .args(arguments)
        .env_remove("MATRIARCH_API_IDENTITY")
        .output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "install generate {arguments:?}: {told}");
    Ok(String::from_utf8(output.stdout)?)
}

fn http_get(port: u16, path: &str) -> std::io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A request as the audit log shows it.
#[derive(Debug)]
struct Request {
    verb: String,
    group: String,
    resource: String,
    namespace: String,
    name: String,
    code: u64,
}

impl Request {
    fn new(entry: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let object = &entry["objectRef"];
        let (resource, part) = (text(&object["resource"]), text(&object["subresource"]));
        Self {
            verb: text(&entry["verb"]),
            group: text(&object["apiGroup"]),
            resource: if part.is_empty() { resource } else { format!("{resource}/{part}") },
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
        }
    }

    /// What the API server asked the authorizer for: an apply that makes an object is a creation
    /// too.
    fn verbs(&self) -> Vec<&str> {
        if self.verb == "patch" && self.code == 201 {
            return vec!["patch", "create"];
        }
        vec![&self.verb]
    }
}

/// Every verb that requests showed, as `verb group/resource`.
fn shown(requests: &[Request], keep: impl Fn(&Request) -> bool) -> BTreeSet<String> {
    let kept = requests.iter().filter(|request| keep(request));
    kept.flat_map(|request| {
        request
            .verbs()
            .into_iter()
            .map(|verb| format!("{verb} {}/{}", request.group, request.resource))
    })
    .collect()
}

/// Every verb of these rows that a request has to show.
fn needed(rows: &[Permission], scope: &Scope, identity: Identity) -> BTreeSet<String> {
    let verbs = |row: &Permission| -> Vec<Verb> {
        match scope {
            Scope::ClusterWide => row.used.to_vec(),
            Scope::Namespaces(_) => [row.used, row.namespaced].concat(),
        }
    };
    rows.iter()
        .flat_map(|row| {
            verbs(row).into_iter().map(|verb| {
                format!("{} {}/{}", verb.name(), row.group.name(identity), row.resource)
            })
        })
        .collect()
}

/// Everything that the operator does to a cluster, once.
async fn live(world: &Installation) -> Result<()> {
    let client = &world.client;
    world.create(3).await?;
    comes_back::<Service>(client, TEAM, "c-rw").await?;
    comes_back::<EndpointSlice>(client, TEAM, "c-rw").await?;
    comes_back::<ConfigMap>(client, TEAM, "c-passwd").await?;
    comes_back::<PodDisruptionBudget>(client, TEAM, "c").await?;
    comes_back::<ServiceAccount>(client, TEAM, "c").await?;
    comes_back::<Role>(client, TEAM, "c").await?;
    comes_back::<RoleBinding>(client, TEAM, "c").await?;
    comes_back::<Pod>(client, TEAM, "c-2").await?;
    world.healthy(3).await?;
    // A new authority makes new leaves, which are applied.
    let secrets: Api<Secret> = Api::namespaced(client.clone(), TEAM);
    secrets.delete("c-ca", &DeleteParams::default()).await?;
    // What lost its owner is adopted.
    let orphan = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    let params = PatchParams::default();
    Api::<Pod>::namespaced(client.clone(), TEAM).patch("c-2", &params, &orphan).await?;
    Api::<PersistentVolumeClaim>::namespaced(client.clone(), TEAM)
        .patch("c-2", &params, &orphan)
        .await?;
    let begun = Instant::now();
    while secrets.get_opt("c-ca").await?.is_none() {
        if begun.elapsed() > PATIENCE {
            bail!("-ca does not come back\n{}", world.operator.said());
        }
        world.patch(json!({"description": format!("{:?}", begun.elapsed())})).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.healthy(3).await?;
    world.patch(json!({"instances": 2})).await?;
    world.healthy(2).await
}

/// A machine is lost: the operator reads its Node and frees the Lease. Only where it may read Nodes.
async fn lose_a_node(world: &Installation) -> Result<()> {
    let client = &world.client;
    world.agents.abort();
    let nodes: Api<Node> = Api::all(client.clone());
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "spec": {"taints": [
            {"key": "node.kubernetes.io/out-of-service", "value": "off", "effect": "NoExecute"},
        ]}}))?;
    nodes.create(&PostParams::default(), &node).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), TEAM);
    bind(&pods, "c-1", "n1").await?;
    let members = ["c-1", "c-2"].map(str::to_owned);
    write_lease(client, TEAM, "c-1", &members).await?;
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    pods.patch_status("c-1", &PatchParams::default(), &Patch::Merge(&unready)).await?;
    freed(client, TEAM).await
}

/// A second operator waits, ready, and works once the first has been told to stop.
async fn change_leader(world: &mut Installation) -> Result<()> {
    world.operator.wait_for("/metrics", "matriarch_operator_leader 1").await?;
    let second = Operator::start(&world.server, &world.options).await?;
    second.wait_for("/metrics", "matriarch_operator_leader 0").await?;
    let first = std::mem::replace(&mut world.operator, second);
    let pid = rustix::process::Pid::from_child(&first.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let begun = Instant::now();
    world.operator.wait_for("/metrics", "matriarch_operator_leader 1").await?;
    // Leadership that nobody gives up lasts fifteen seconds.
    let seconds = begun.elapsed().as_secs();
    ensure!(seconds < 10, "the leader did not give up: {seconds} s");
    Ok(())
}

/// What a cluster no longer wants is removed.
async fn shrink(world: &Installation) -> Result<()> {
    world.patch(json!({"enablePDB": false})).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(world.client.clone(), TEAM);
    let begun = Instant::now();
    while budgets.get_opt("c").await?.is_some() {
        if begun.elapsed() > PATIENCE {
            bail!("the budget is never removed\n{}", world.operator.said());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// What a user made under a name of ours, and said so, stays.
async fn spare_what_is_not_ours(world: &Installation) -> Result<()> {
    let client = &world.client;
    let named = json!({"metadata": {"name": "d"}, "spec": {"maxUnavailable": 1}});
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), TEAM);
    let account = serde_json::from_value(json!({"metadata": {"name": "d"}}))?;
    let account = accounts.create(&PostParams::default(), &account).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), TEAM);
    let budget = budgets.create(&PostParams::default(), &serde_json::from_value(named)?).await?;
    let mut spec = small(1);
    spec["serviceAccountName"] = json!("d");
    spec["enablePDB"] = json!(false);
    let cluster: Cluster = serde_json::from_value(json!({
        "apiVersion": world.options.identity.api_version(),
        "kind": "Cluster",
        "metadata": {"name": "d"},
        "spec": spec,
    }))?;
    world.clusters().create(&PostParams::default(), &cluster).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), TEAM);
    let begun = Instant::now();
    while pods.get_opt("d-1").await?.is_none() {
        if begun.elapsed() > PATIENCE {
            bail!("d-1 is never made\n{}", world.operator.said());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let account_now = accounts.get("d").await.context("the user's ServiceAccount")?;
    ensure!(account_now.metadata.uid == account.metadata.uid, "another ServiceAccount is there");
    let budget_now = budgets.get("d").await.context("the user's budget")?;
    ensure!(budget_now.metadata.uid == budget.metadata.uid, "another budget is there");
    Ok(())
}

/// Nothing was forbidden; every request is in the table; every verb of the table was needed.
fn judge(world: &Installation, rows: &[Permission]) -> Result<()> {
    let requests = world.requests()?;
    let forbidden: Vec<&Request> = requests.iter().filter(|request| request.code == 403).collect();
    ensure!(forbidden.is_empty(), "forbidden: {forbidden:#?}");
    let options = &world.options;
    let own = |request: &Request| request.namespace == options.namespace;
    let mut shown_there = shown(&requests, |request| !own(request));
    let mut wanted = needed(rows, &options.scope, options.identity);
    // A repetition of an event within six minutes is a patch; whether one comes is chance here.
    for set in [&mut shown_there, &mut wanted] {
        set.remove("patch events.k8s.io/events");
    }
    // The Services of a user's and catalogs of images are provoked by rollout.rs, with other rights.
    for verb in ELSEWHERE {
        wanted.remove(verb);
    }
    let idle: Vec<_> = wanted.difference(&shown_there).collect();
    ensure!(idle.is_empty(), "the Role allows what no request needed: {idle:?}");
    let strange: Vec<_> = shown_there.difference(&wanted).collect();
    ensure!(strange.is_empty(), "requests that the table does not name: {strange:?}");
    let election = shown(&requests, |request| {
        own(request) && (request.resource != "leases" || request.verb == "create")
            || request.name == options.identity.leader_lease()
    });
    let wanted =
        ["create", "get", "update"].map(|verb| format!("{verb} coordination.k8s.io/leases"));
    let core = ["get /pods", "get /secrets", "create /secrets"].map(str::to_owned);
    let wanted = BTreeSet::from_iter(wanted.into_iter().chain(core));
    ensure!(election == wanted, "in its own namespace: {election:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_wide_operator_needs_its_role_and_no_more() -> Result<()> {
    let started = Installation::start(Options::default(), Manifests::Kustomize("default")).await?;
    let Some(mut world) = started else { return Ok(()) };
    live(&world).await?;
    change_leader(&mut world).await?;
    shrink(&world).await?;
    lose_a_node(&world).await?;
    spare_what_is_not_ours(&world).await?;
    let rows = [permissions::SERVED.as_slice(), permissions::CLUSTER_SCOPED.as_slice()].concat();
    judge(&world, &rows)?;
    world.end();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespaced_operator_needs_its_roles_and_no_more() -> Result<()> {
    let scope = Scope::Namespaces(vec![TEAM.to_owned()]);
    let options = Options { scope, identity: Identity::Matriarch, ..Options::default() };
    let manifests = Manifests::Generated(&["--watch-namespace", TEAM, "--admission-policy"]);
    let Some(world) = Installation::start(options, manifests).await? else { return Ok(()) };
    live(&world).await?;
    agents_write_their_own_instance(&world).await?;
    shrink(&world).await?;
    release_by_report(&world).await?;
    spare_what_is_not_ours(&world).await?;
    judge(&world, &permissions::SERVED)?;
    world.end();
    Ok(())
}

/// The pod of the primary goes, and kubelet reports the end of its container: the operator frees the
/// Lease.
async fn release_by_report(world: &Installation) -> Result<()> {
    let client = &world.client;
    world.agents.abort();
    let members = ["c-1", "c-2"].map(str::to_owned);
    write_lease(client, TEAM, "c-1", &members).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), TEAM);
    let ended = json!({"status": {
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": "postgres", "ready": false, "restartCount": 0, "image": "x", "imageID": "x",
            "state": {"terminated": {"exitCode": 137, "message": "container container of c-1\n"}},
        }],
    }});
    pods.patch_status("c-1", &PatchParams::default(), &Patch::Merge(&ended)).await?;
    // Kubelet starts it again as long as the pod is to be there.
    pods.delete("c-1", &DeleteParams::default()).await?;
    freed(client, TEAM).await
}

/// The agents of a cluster share one ServiceAccount; the policy tells their pods apart (traps K5).
async fn agents_write_their_own_instance(world: &Installation) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), TEAM);
    let pod = pods.get("c-1").await?;
    let token = token(&world.client, TEAM, "c", Some(&pod)).await?;
    let agent = apiserver::client(&world.server.kubeconfig_for("agent", &token)?).await?;
    let instances: Api<Instance> = Api::namespaced_with(agent, TEAM, &world.options.identity);
    let report = Patch::Merge(json!({"status": {"timeline": 1}}));
    let params = PatchParams::default();
    instances.patch_status("c-1", &params, &report).await.context("the own Instance")?;
    let begun = Instant::now();
    loop {
        match instances.patch_status("c-2", &params, &report).await {
            Err(kube::Error::Api(answer)) => {
                ensure!(answer.code == 403, "{answer:?}");
                let words = "the Instance of its own pod alone";
                ensure!(answer.message.contains(words), "{}", answer.message);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
            // The API server takes some time to see a new policy.
            Ok(_) => ensure!(begun.elapsed() < PATIENCE, "the Instance of another pod is written"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
