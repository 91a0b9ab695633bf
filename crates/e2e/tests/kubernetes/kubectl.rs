//! The real kubectl against `local`'s API server.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use matriarch_e2e::apiserver::{kubectl, tools};
use matriarch_local::apiserver::{ApiServer, LogOptions, LogStream, Options, PodLogs};
use matriarch_store::Refusal;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;

const DEFINITION: &str = r#"{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
"metadata": {"name": "widgets.kubectl.test"},
"spec": {"group": "kubectl.test", "scope": "Namespaced",
  "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"]},
  "versions": [{"name": "v1", "served": true, "storage": true,
    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
    "additionalPrinterColumns": [{"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"}],
    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
      "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "maximum": 9}, "color": {"type": "string"}}},
      "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}}"#;

struct Logs;

impl PodLogs for Logs {
    fn read(
        &self,
        _namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<LogStream, Refusal>> {
        let text = format!("log of {pod} {:?} {:?}\n", options.container, options.tail);
        let stream: LogStream = futures::stream::iter([Ok(text.into())]).boxed();
        async move { Ok(stream) }.boxed()
    }
}

/// A served API server and kubectl for it.
struct Cluster {
    directory: PathBuf,
    tools: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn certificate(directory: &Path) -> rustls::ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    fs::write(directory.join("ca.crt"), ca.pem()).unwrap();
    rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![leaf.der().clone()],
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    )
    .unwrap()
}

impl Cluster {
    async fn start(name: &str) -> Option<Self> {
        let tools = tools()?;
        let directory =
            std::env::temp_dir().join(format!("matriarch-kubectl-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let mut options = Options::new(directory.join("objects"));
        options.definitions = vec![serde_json::from_str(DEFINITION).unwrap()];
        let server = ApiServer::open(options).unwrap();
        server.set_logs(Arc::new(Logs));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let config = certificate(&directory);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener, config, stopped.map(|_| ())).await });
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": url, "certificate-authority": directory.join("ca.crt")}}],
            "users": [{"name": "test", "user": {"token": server.admin_token()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        fs::write(directory.join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Some(Self { directory, tools, stop: Some(stop) })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = kubectl(&self.tools, &self.directory.join("kubeconfig"), &self.directory);
        command.args(arguments);
        command
    }

    async fn output(&self, mut command: Command) -> Output {
        command.stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// The output of a command that must succeed.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(self.command(arguments)).await;
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The complaint of a command that must fail.
    async fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(self.command(arguments)).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeds");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn widget(replicas: u32, color: &str) -> String {
    format!(
        "apiVersion: kubectl.test/v1\nkind: Widget\nmetadata:\n  name: w\n  labels: {{app: w}}\nspec:\n  replicas: {replicas}\n  color: {color}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_shows_scales_and_deletes() {
    let Some(cluster) = Cluster::start("apply").await else { return };
    let file = cluster.file("w.yaml", &widget(1, "red"));
    assert_eq!(cluster.run(&["apply", "-f", &file]).await, "widget.kubectl.test/w created\n");
    assert_eq!(cluster.run(&["apply", "-f", &file]).await, "widget.kubectl.test/w unchanged\n");
    cluster.file("w.yaml", &widget(2, "blue"));
    assert_eq!(cluster.run(&["apply", "-f", &file]).await, "widget.kubectl.test/w configured\n");

    let table = cluster.run(&["get", "wd"]).await;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words, ["NAME", "REPLICAS", "w", "2"]);
    assert!(cluster.run(&["get", "widgets", "-l", "app=w", "-o", "name"]).await.contains("/w"));
    assert_eq!(cluster.run(&["get", "widgets", "-l", "app=x", "-o", "name"]).await, "");
    assert!(cluster.run(&["get", "widget", "w", "-o", "yaml"]).await.contains("color: blue"));
    let color = ["get", "widget", "w", "-o", "jsonpath={.spec.color}"];
    assert_eq!(cluster.run(&color).await, "blue");
    assert!(cluster.run(&["describe", "widget", "w"]).await.contains("Events:"));
    assert!(cluster.run(&["explain", "widget.spec"]).await.contains("replicas"));

    cluster.run(&["scale", "widget", "w", "--replicas=3"]).await;
    let replicas = ["get", "widget", "w", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(cluster.run(&replicas).await, "3");

    cluster.file("w.yaml", &widget(99, "blue"));
    let refused = cluster.fail(&["apply", "-f", &file]).await;
    assert!(refused.contains("should be less than or equal to 9"), "{refused}");
    let typo = cluster.file("typo.yaml", &widget(1, "red").replace("color:", "colour:"));
    let refused = cluster.fail(&["apply", "-f", &typo]).await;
    assert!(refused.contains("unknown field \"spec.colour\""), "{refused}");

    cluster.run(&["delete", "widget", "w", "--wait"]).await;
    assert!(cluster.fail(&["get", "widget", "w"]).await.contains("NotFound"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_side_apply_shows_its_conflict() {
    let Some(cluster) = Cluster::start("ssa").await else { return };
    let file = cluster.file("w.yaml", &widget(1, "red"));
    let apply = |manager: &'static str| {
        ["apply", "--server-side", "--field-manager", manager, "-f"].map(str::to_owned).to_vec()
    };
    let mut first = apply("one");
    first.push(file.clone());
    cluster.run(&first.iter().map(String::as_str).collect::<Vec<_>>()).await;
    cluster.file("w.yaml", &widget(2, "red"));
    let mut second = apply("two");
    second.push(file.clone());
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    let refused = cluster.fail(&second).await;
    assert!(refused.contains("conflict with \"one\": .spec.replicas"), "{refused}");
    let mut forced = second.clone();
    forced.push("--force-conflicts");
    cluster.run(&forced).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editor_edits() {
    let Some(cluster) = Cluster::start("edit").await else { return };
    let file = cluster.file("w.yaml", &widget(1, "red"));
    cluster.run(&["apply", "-f", &file]).await;
    let editor = cluster.file("editor", "#!/bin/sh\nsed -i 's/color: red/color: green/' \"$1\"\n");
    let mut permissions = fs::metadata(&editor).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&editor, permissions).unwrap();
    let mut command = cluster.command(&["edit", "widget", "w"]);
    command.env("EDITOR", &editor).env_remove("KUBE_EDITOR");
    let output = cluster.output(command).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let color = ["get", "widget", "w", "-o", "jsonpath={.spec.color}"];
    assert_eq!(cluster.run(&color).await, "green");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_described_logged_and_watched() {
    let Some(cluster) = Cluster::start("pods").await else { return };
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "main", "image": "i:1"}]}});
    let file = cluster.file("p.json", &pod.to_string());
    cluster.run(&["apply", "-f", &file]).await;
    cluster.run(&["label", "pod", "p", "role=primary"]).await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": "e"}, "eventTime": "2025-01-01T00:00:00.000000Z",
        "reason": "Started", "type": "Normal", "action": "Start", "note": "it has started",
        "reportingController": "t", "reportingInstance": "t",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default"}});
    let file = cluster.file("e.json", &event.to_string());
    cluster.run(&["create", "-f", &file]).await;
    assert!(cluster.run(&["get", "events"]).await.contains("it has started"));
    assert!(cluster.run(&["events", "--for", "pod/p"]).await.contains("it has started"));
    assert!(cluster.run(&["describe", "pod", "p"]).await.contains("role=primary"));
    let table = cluster.run(&["get", "pods", "-o", "wide"]).await;
    assert!(table.contains("READY") && table.contains("0/1"), "{table}");
    let log = cluster.run(&["logs", "p", "--tail=3"]).await;
    assert_eq!(log, "log of p Some(\"main\") Some(3)\n");
    assert_eq!(cluster.run(&["auth", "can-i", "get", "pods"]).await, "yes\n");

    // `get -w` until a change has come.
    let mut watching = cluster.command(&["get", "pods", "-w", "--no-headers"]);
    let output = cluster.directory.join("watch");
    let mut child = watching.stdout(fs::File::create(&output).unwrap()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.run(&["delete", "pod", "p"]).await;
    let mut seen = String::new();
    for _ in 0..50 {
        seen = fs::read_to_string(&output).unwrap();
        if seen.lines().count() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(seen.lines().count() >= 2, "{seen}");
}
