//! `matriarch local up`: everything on this machine, from an empty directory to databases that
//! accept connections, and back.

pub mod certificates;
pub mod clients;
pub mod kubeconfig;
pub mod leftovers;
mod logs;
pub mod manifests;
pub mod program;
pub mod progress;
pub mod verbs;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use matriarch_api::Identity;
use matriarch_api::causes::chain;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use self::progress::Progress;
use crate::apiserver::{self, ApiServer};
use crate::kubelet::{Kubelet, Shared, TokenSubject};
use crate::layout::{Layout, LayoutError, Lock};
use crate::network::{Network, NetworkError};
use crate::postgres::InstalledServers;
use crate::proxy::{self, Pace};
use crate::user::{RunAs, UserError};

/// Where the API server listens, on the state directory's own address.
const API_PORT: u16 = 6443;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Manifests to apply.
    pub files: Vec<PathBuf>,
    /// The state directory.
    pub state: PathBuf,
    /// The user that databases run as, when we are root.
    pub user: Option<String>,
    /// First port of 127.0.0.1 to try.
    pub port: u16,
    /// Under which names the operator serves.
    pub identity: Identity,
    /// How changes of endpoints come into force.
    pub pace: Pace,
    /// False to run without the operator: the databases must do without it.
    pub operator: bool,
}

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The user.
    #[error(transparent)]
    User(#[from] UserError),
    /// The state directory.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The manifests.
    #[error(transparent)]
    Manifest(#[from] manifests::ManifestError),
    /// Processes of an earlier run.
    #[error(transparent)]
    Leftovers(#[from] leftovers::LeftoverError),
    /// Addresses.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Certificates.
    #[error(transparent)]
    Certificate(#[from] certificates::CertificateError),
    /// No PostgreSQL at all.
    #[error("{0} installed on this machine: install one, for example apt-get install postgresql")]
    NoPostgres(String),
    /// The binary cannot be copied.
    #[error("cannot copy this program into the state directory")]
    Program(#[source] io::Error),
    /// The API server's port is taken.
    #[error(
        "cannot listen on {address}; if another program uses that port, choose another state \
         directory with --state DIRECTORY, which has another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The definitions of our kinds.
    #[error("cannot make the definitions of the kinds")]
    Definitions(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The API server.
    #[error("cannot start the API server")]
    ApiServer(#[from] apiserver::OpenError),
    /// The kubeconfig.
    #[error("cannot write {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// The state directory where none is named: a system directory for root, the user's own else.
#[must_use]
pub fn default_state() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/matriarch/local");
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_else(std::env::temp_dir)
        .join("matriarch")
}

/// Everything that runs.
struct Running {
    layout: Layout,
    client: Client,
    identity: Identity,
    kubelet: Kubelet,
    operator: Option<Operator>,
    api: ApiTask,
    _controllers: JoinSet<()>,
    _proxy: JoinSet<()>,
    _lock: Lock,
}

struct Operator {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

struct ApiTask {
    server: ApiServer,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Brings everything up, waits for SIGINT or SIGTERM, and takes everything down.
pub async fn run(options: UpOptions) -> Result<(), UpError> {
    let mut progress = Progress::default();
    let mut signals = Signals::new().map_err(UpError::Signals)?;
    let running = start(&options, &progress).await?;
    let mut told = Vec::new();
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal,
            () = follow(&running, &mut progress, &mut told) => break,
        };
        match signal {
            Asked::Stop => break,
            Asked::PauseApi => {
                running.api.server.pause(true);
                let state = running.layout.root().display();
                progress.say(&format!(
                    "the API server plays dead; matriarch local api resume --state {state}"
                ));
            }
            Asked::ResumeApi => {
                running.api.server.pause(false);
                progress.say("the API server answers again");
            }
        }
    }
    running.api.server.pause(false);
    progress.say("stopping: databases shut down, their data stays (a second signal kills them)");
    let stopped = tokio::select! {
        () = stop(running, &progress) => true,
        () = signals.stop() => false,
    };
    progress.say(if stopped {
        "stopped"
    } else {
        "killed: the databases recover at the next start"
    });
    Ok(())
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    pause: tokio::signal::unix::Signal,
    resume: tokio::signal::unix::Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    PauseApi,
    ResumeApi,
}

impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            pause: signal(SignalKind::user_defined1())?,
            resume: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.pause.recv() => Asked::PauseApi,
            _ = self.resume.recv() => Asked::ResumeApi,
        }
    }

    async fn stop(&mut self) {
        while !matches!(self.next().await, Asked::Stop) {}
    }
}

async fn start(options: &UpOptions, progress: &Progress) -> Result<Running, UpError> {
    let run_as = RunAs::choose(options.user.as_deref())?;
    let servers = installed_servers()?;
    let setup = matriarch_operator::Setup { identity: options.identity, ..Default::default() };
    let manifests = manifests::read(&options.files)?;
    manifests::check(&manifests, options.identity, &setup.postgres_image, &servers)?;
    let (layout, lock) = occupy(&options.state, progress).await?;
    progress.say(&format!(
        "state in {}, databases run as {}, PostgreSQL {}",
        layout.root().display(),
        run_as.user().name,
        servers.describe()
    ));
    let program = program::install(&layout, &run_as).map_err(UpError::Program)?;
    let network = Arc::new(Network::open(&layout)?);
    let api_address = SocketAddr::new(IpAddr::V4(network.api_server()), API_PORT);
    let certificate = certificates::open(&layout, network.api_server())?;
    let (server, api) =
        start_api_server(options, &layout, &network, api_address, certificate.server).await?;
    let path = layout.kubeconfig();
    kubeconfig::write(&layout, api_address, &certificate.ca, &server.admin_token())
        .map_err(|source| UpError::Kubeconfig { path: path.clone(), source })?;
    progress
        .say(&format!("API server on https://{api_address}; export KUBECONFIG={}", path.display()));
    let client = server.client();
    let tokens = server.clone();
    let shared = Arc::new(Shared {
        client: client.clone(),
        layout: layout.clone(),
        network,
        run_as,
        servers,
        program,
        own_image: setup.operator_image.clone(),
        api_server: api_address,
        ca_certificate: certificate.ca,
        tokens: Arc::new(move |subject: &TokenSubject| {
            tokens.token_for_service_account(&subject.namespace, &subject.service_account)
        }),
        claims: Mutex::new(BTreeMap::new()),
    });
    server.set_logs(Arc::new(logs::KubeletLogs::new(shared.clone())));
    let controllers = crate::controllers::start(&shared);
    let mut proxy = JoinSet::new();
    proxy.spawn(proxy::run(proxy::Options {
        client: client.clone(),
        ports_file: layout.root().join("ports.json"),
        first_port: options.port,
        pace: options.pace,
    }));
    let kubelet = Kubelet::start(shared);
    let operator = options.operator.then(|| start_operator(client.clone(), setup));
    for manifest in &manifests {
        let what = manifests::apply(&client, manifest).await?;
        progress.say(&format!("applied {what}"));
    }
    let identity = options.identity;
    Ok(Running {
        layout,
        client,
        identity,
        kubelet,
        operator,
        api,
        _controllers: controllers,
        _proxy: proxy,
        _lock: lock,
    })
}

fn installed_servers() -> Result<InstalledServers, UpError> {
    let servers = InstalledServers::find();
    if servers.newest().is_none() {
        return Err(UpError::NoPostgres(servers.describe()));
    }
    Ok(servers)
}

/// Takes the state directory for this run, and ends what an earlier one left running.
async fn occupy(state: &Path, progress: &Progress) -> Result<(Layout, Lock), UpError> {
    let layout = Layout::make(state)?;
    let lock = layout.lock(&format!("since {}", jiff::Timestamp::now().strftime("%F %T UTC")))?;
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::warn!(%error, "orphans of killed containers stay with init");
    }
    let cleared = leftovers::clear(&layout, |count| {
        progress
            .say(&format!("{count} processes of an earlier run are still there: stopping them"));
    })
    .await?;
    if cleared.found > 0 {
        progress.say(&format!("they have ended ({} had to be killed)", cleared.killed));
    }
    Ok((layout, lock))
}

async fn start_api_server(
    options: &UpOptions,
    layout: &Layout,
    network: &Network,
    address: SocketAddr,
    tls: rustls::ServerConfig,
) -> Result<(ApiServer, ApiTask), UpError> {
    let definitions = matriarch_api::crd::all(&options.identity)
        .map_err(|error| UpError::Definitions(error.into()))?;
    let mut server_options = apiserver::Options::new(layout.objects());
    server_options.definitions = definitions
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()
        .map_err(|error| UpError::Definitions(error.into()))?;
    server_options.service_network = network.services();
    let listener =
        TcpListener::bind(address).await.map_err(|source| UpError::Listen { address, source })?;
    let server = ApiServer::open(server_options)?;
    let (stop, mut stopped) = watch::channel(false);
    let serving = server.clone();
    let task = tokio::spawn(async move {
        let shutdown = async move {
            // An error means that whoever could stop it is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        if let Err(error) = serving.serve(listener, tls, shutdown).await {
            tracing::error!(error = chain(&error), "the API server ended");
        }
    });
    Ok((server.clone(), ApiTask { server, stop, task }))
}

fn start_operator(client: Client, setup: matriarch_operator::Setup) -> Operator {
    let (stop, mut stopped) = watch::channel(false);
    let matriarch_operator::Setup {
        identity, operator_image, postgres_image, cluster_domain, ..
    } = setup;
    let options = matriarch_operator::Options {
        identity,
        operator_image,
        postgres_image,
        cluster_domain,
        ..Default::default()
    };
    let task = tokio::spawn(async move {
        let shutdown = async move {
            // An error means that whoever could stop it is gone.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        if let Err(error) = matriarch_operator::run(client, options, shutdown).await {
            tracing::error!(error = chain(&error), "the operator ended");
        }
    });
    Operator { stop, task }
}

/// Says what changes, for ever; and once for each cluster, when it is ready, how to use it.
async fn follow(running: &Running, progress: &mut Progress, told: &mut Vec<String>) {
    let mut refreshed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let refresh = refreshed.elapsed() >= Duration::from_secs(1);
        if refresh {
            refreshed = tokio::time::Instant::now();
        }
        let (client, identity) = (&running.client, running.identity);
        let Ok(instances) = progress::instances(client, identity).await else { continue };
        for (name, line) in instances {
            progress.say_once(&name, &line);
        }
        let Ok(clusters) = progress::clusters(client, identity).await else { continue };
        for cluster in clusters {
            let key = format!("{}/{}", cluster.namespace, cluster.name);
            let name = &cluster.name;
            let access = || clients::access(client, &running.layout, &cluster);
            let known = told.contains(&key);
            if known || !cluster.is_ready() {
                progress.say_once(&key, &cluster.line());
                if known && refresh {
                    // The printed words stay true when a password or an authority is a new one.
                    let _later = access().await;
                }
                continue;
            }
            if !progress.has_come_up(client, &cluster).await {
                progress.say_once(&key, &format!("cluster {name}: its instances start"));
                continue;
            }
            progress.say_once(&key, &cluster.line());
            match access().await {
                Ok(access) if !access.answers().await => {}
                Ok(access) => {
                    told.push(key);
                    progress.say(&last_words(running, &cluster, &access, progress.seconds()).await);
                }
                Err(error) => progress.say_once("access", &chain(&error)),
            }
        }
    }
}

async fn last_words(
    running: &Running,
    cluster: &progress::ClusterView,
    access: &clients::Access,
    seconds: f64,
) -> String {
    let name = &cluster.name;
    let place = place(running.layout.root(), running.identity);
    let program = program::invocation();
    let kill = match verbs::postmaster(&running.client, &running.layout, cluster).await {
        Some(pid) => format!("kill -9 {pid}"),
        None => format!("{program} local status {place}   # shows its process"),
    };
    format!(
        "cluster {name} is ready, {seconds:.1} s after the start\n\n\
         Connect:\n  psql \"{}\"\n  {program} local psql {name} {place}\n\n\
         Try:\n  {kill:<40} # kill the primary {}: writes go on by themselves\n  \
         {program} local status {place}\n  \
         KUBECONFIG={} kubectl scale clusters.{}/{name} --replicas=5\n\n\
         Ctrl-C stops everything; the data stays, and `{program} local up {place}` brings it back.\n",
        access.connection_string(),
        cluster.primary,
        running.layout.kubeconfig().display(),
        running.identity.group(),
    )
}

/// The arguments with which the verbs find what runs here.
fn place(state: &Path, identity: Identity) -> String {
    match identity {
        Identity::Matriarch => format!("--state {}", state.display()),
        Identity::Cnpg | Identity::Edb => {
            format!("--state {} --api-identity {identity}", state.display())
        }
    }
}

/// Standbys first: a primary that stops while they stream would hand over to one that is about to
/// stop as well.
async fn stop(running: Running, progress: &Progress) {
    if let Some(operator) = running.operator {
        operator.stop.send_replace(true);
        if tokio::time::timeout(Duration::from_secs(10), operator.task).await.is_err() {
            tracing::warn!("the operator did not stop in ten seconds");
        }
    }
    let primaries = lease_holders(&running.client).await;
    running.kubelet.halt(&primaries).await;
    if !primaries.is_empty() {
        progress.say("the standbys have stopped");
    }
    running.kubelet.halt(&[]).await;
    running.api.stop.send_replace(true);
    if tokio::time::timeout(Duration::from_secs(5), running.api.task).await.is_err() {
        tracing::warn!("the API server did not stop in five seconds");
    }
}

/// Pods named by a Lease of their namespace: the primaries.
async fn lease_holders(client: &Client) -> Vec<String> {
    let leases: Api<Lease> = Api::all(client.clone());
    match leases.list(&ListParams::default()).await {
        Ok(list) => list
            .items
            .iter()
            .filter_map(|lease| {
                let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
                let name = holder.split(['/', ' ', '_', '@']).next()?;
                Some(format!("{}/{name}", lease.namespace()?))
            })
            .collect(),
        Err(error) => {
            tracing::debug!(error = chain(&error), "cannot read the leases");
            Vec::new()
        }
    }
}
