//! A real kube-apiserver with its etcd: no root, loopback only, gone with the process that
//! started it.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// Longest time until the server answers.
const READY: Duration = Duration::from_secs(90);

/// Runs a program until standard input ends, which is when the test process is gone; then its
/// directory goes as well.
const GUARD: &str = r#""$@" </dev/null & child=$!
while read -r _; do :; done
kill -9 $child
rm -rf "$MATRIARCH_TEST_DIRECTORY""#;

/// What ServiceAccounts ask for is logged, without contents.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
"omitStages": ["RequestReceived"],
"rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]}"#;

/// The token of an administrator.
pub const ADMIN_TOKEN: &str = "test-admin";

/// Programs that are needed.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// A running API server; dropping it stops it.
pub struct ApiServer {
    url: String,
    directory: PathBuf,
    tools: PathBuf,
    children: Vec<Child>,
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Closing its input makes the guard end the program.
            drop(child.stdin.take());
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where etcd, kube-apiserver and kubectl are, if all of them are there.
///
/// # Panics
/// In CI, where they have to be there.
#[must_use]
pub fn tools() -> Option<PathBuf> {
    let directory = env::var_os("MATRIARCH_TOOLS").map(PathBuf::from).or_else(|| {
        let cache = env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
        Some(cache.join("matriarch/tools/kubernetes-1.34/bin"))
    })?;
    if PROGRAMS.iter().all(|program| directory.join(program).is_file()) {
        return Some(directory);
    }
    assert!(
        env::var_os("CI").is_none_or(|value| value != "true"),
        "{PROGRAMS:?} are not in {}: run `cargo xtask setup`",
        directory.display()
    );
    eprintln!(
        "\n*** SKIPPED: {PROGRAMS:?} are not in {}: run `cargo xtask setup` ***\n",
        directory.display()
    );
    None
}

/// Where Helm is, if it is there.
///
/// # Panics
/// In CI, where it has to be there.
#[must_use]
pub fn helm() -> Option<PathBuf> {
    let program = env::var_os("MATRIARCH_HELM").map(PathBuf::from).or_else(|| {
        let directories = tools()?.ancestors().nth(2)?.read_dir().ok()?;
        let mut found: Vec<PathBuf> =
            directories.flatten().map(|entry| entry.path().join("helm")).collect();
        found.sort();
        found.into_iter().rfind(|path| path.is_file())
    });
    let program = program.filter(|path| path.is_file());
    if program.is_none() {
        let text = "helm is not there: run `cargo xtask setup`";
        assert!(env::var_os("CI").is_none_or(|value| value != "true"), "{text}");
        eprintln!("\n*** SKIPPED: {text} ***\n");
    }
    program
}

/// The API server that all tests of one binary share; `None`, loudly, where its programs are not
/// installed.
///
/// # Errors
/// Where the programs are there but do not start.
pub fn shared() -> Result<Option<&'static ApiServer>> {
    static SHARED: OnceLock<Result<Option<ApiServer>, String>> = OnceLock::new();
    let started = SHARED.get_or_init(|| {
        let started = tools().map(|tools| ApiServer::start(&tools)).transpose();
        started.map_err(|error| format!("{error:#}"))
    });
    match started {
        Ok(server) => Ok(server.as_ref()),
        Err(error) => bail!("{error}"),
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?.port())
}

impl ApiServer {
    /// Starts etcd and kube-apiserver and waits until they are ready.
    ///
    /// # Errors
    /// Where one does not start; the end of its log is part of the error.
    pub fn start(tools: &Path) -> Result<Self> {
        let directory = env::temp_dir().join(format!(
            "matriarch-apiserver-{}-{}",
            std::process::id(),
            free_port()?
        ));
        fs::create_dir_all(&directory)?;
        let (etcd, peer, port) = (free_port()?, free_port()?, free_port()?);
        let mut server = Self {
            url: format!("https://127.0.0.1:{port}"),
            directory,
            tools: tools.to_owned(),
            children: Vec::new(),
        };
        server.write_files()?;
        let etcd = format!("http://127.0.0.1:{etcd}");
        server.start_etcd(&etcd, &format!("http://127.0.0.1:{peer}"))?;
        server.start_apiserver(&etcd, port)?;
        server.wait_ready()?;
        Ok(server)
    }

    fn write_files(&self) -> Result<()> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate()?;
        let ca = params.self_signed(&ca_key)?;
        let issuer = Issuer::new(params, ca_key);
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
        let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let account = KeyPair::generate()?;
        for (name, text) in [
            ("ca.crt", ca.pem()),
            ("server.crt", leaf.pem()),
            ("server.key", key.serialize_pem()),
            ("account.key", account.serialize_pem()),
            ("account.pub", account.public_key_pem()),
            ("audit.yaml", AUDIT_POLICY.to_owned()),
            ("tokens.csv", format!("{ADMIN_TOKEN},admin,1,\"system:masters\"\n")),
            ("kubeconfig", self.kubeconfig_text(ADMIN_TOKEN)),
        ] {
            fs::write(self.directory.join(name), text)?;
        }
        Ok(())
    }

    fn kubeconfig_text(&self, token: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url, "certificate-authority": self.directory.join("ca.crt")}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        })
        .to_string()
    }

    fn spawn(&mut self, program: &str, arguments: &[String]) -> Result<()> {
        let log = fs::File::create(self.directory.join(format!("{program}.log")))?;
        let child = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(self.tools.join(program))
            .args(arguments)
            .env("MATRIARCH_TEST_DIRECTORY", &self.directory)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        self.children.push(child);
        Ok(())
    }

    fn start_etcd(&mut self, client: &str, peer: &str) -> Result<()> {
        let data = self.directory.join("etcd");
        self.spawn(
            "etcd",
            &[
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
            ],
        )
    }

    fn start_apiserver(&mut self, etcd: &str, port: u16) -> Result<()> {
        let file = |name: &str| self.directory.join(name).display().to_string();
        let arguments = [
            format!("--etcd-servers={etcd}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--cert-dir={}", file("certificates")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", file("account.key")),
            format!("--service-account-key-file={}", file("account.pub")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            // Its controller, which makes the accounts it asks for, is not running.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            // As OpenShift has it: who makes an object with an owner needs a right on the owner.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            format!("--audit-policy-file={}", file("audit.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
            // In megabytes; the log is read to its end before it would begin anew.
            "--audit-log-maxsize=100000".to_owned(),
            "--profiling=false".to_owned(),
        ];
        self.spawn("kube-apiserver", &arguments)
    }

    fn wait_ready(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.kubectl().args(["get", "--raw", "/readyz"]).output()?;
            if answer.status.success() {
                return Ok(());
            }
            if begun.elapsed() > READY {
                bail!(
                    "kube-apiserver is not ready: {}\n{}",
                    String::from_utf8_lossy(&answer.stderr),
                    self.log_tails()
                );
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn log_tails(&self) -> String {
        ["etcd.log", "kube-apiserver.log"]
            .iter()
            .map(|name| {
                let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                format!("{name}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
            })
            .collect()
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its files, gone when it is; `ca.crt` is the certificate of whoever signed its own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kubeconfig of an administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// A kubeconfig for a token, in a file of this name.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn kubeconfig_for(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{name}.kubeconfig"));
        fs::write(&path, self.kubeconfig_text(token))?;
        Ok(path)
    }

    /// The log of the requests of ServiceAccounts, an entry of JSON in each line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// Every request of a ServiceAccount that has been answered, oldest first.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text =
            fs::read_to_string(self.audit_log()).context("the API server writes no audit log")?;
        // The last line may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).context("no audit entry")).collect()
    }

    /// kubectl as an administrator.
    #[must_use]
    pub fn kubectl(&self) -> Command {
        kubectl(&self.tools, &self.kubeconfig(), &self.directory)
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// Where the kubeconfig cannot be used.
    pub async fn client(&self) -> Result<kube::Client> {
        client(&self.kubeconfig()).await
    }
}

/// A client for a kubeconfig.
///
/// # Errors
/// Where the kubeconfig cannot be used.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// kubectl for a kubeconfig, with its cache in a directory of the test.
#[must_use]
pub fn kubectl(tools: &Path, kubeconfig: &Path, home: &Path) -> Command {
    let mut command = Command::new(tools.join("kubectl"));
    command.env("KUBECONFIG", kubeconfig).env("HOME", home).env_remove("KUBECTL_EXTERNAL_DIFF");
    command
}
