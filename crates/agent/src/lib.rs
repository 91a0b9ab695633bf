//! The database pod: the keeper and the agent.
//!
//! The keeper ([`keeper`]) is PID 1: small, synchronous, it starts and reaps PostgreSQL and the
//! agent and stops PostgreSQL when the right to accept writes has run out. The agent ([`run`]) is
//! its child: it carries out the commands of the protocol's state machine
//! (`matriarch_plan::protocol`), configures PostgreSQL and reports.

pub mod access;
pub mod binary;
pub mod certificates;
pub mod configuration;
pub mod container;
pub mod driver;
pub mod endpoint;
pub mod error;
pub mod health;
pub mod keeper;
pub mod kubernetes;
pub mod ldap;
pub mod lease;
pub mod ledger;
pub mod logs;
pub mod metrics;
pub mod options;
pub mod peers;
pub mod postgres;
pub mod report;
pub mod root;
pub mod scripts;
pub mod settings;
pub mod stall;
pub mod status;

pub use error::Error;
pub use keeper::KeeperOptions;
pub use options::AgentOptions;
pub use root::Root;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use matriarch_api::identity::Identity;
use matriarch_plan::protocol as plan;
use tokio::sync::{mpsc, watch};

use driver::context::{Context, with};
use driver::link::{Hello, KeeperLink};
use driver::tend::{Tended, Tender};
use driver::{Driver, Input, Outlets, Parts};
use postgres::data;

/// Why the agent has ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The pod ends.
    Pod,
    /// Another program has taken the place of its own: the keeper is to start it. To be told by the
    /// exit code [`keeper::REPLACED`].
    Replaced,
}

/// How long connecting to the Kubernetes API, and each write to it, may take, the Lease's apart.
const API_LIMIT: Duration = Duration::from_secs(5);

/// Runs the agent until the pod ends. Standard input is the socket to the keeper. To be called
/// inside a `LocalSet`: operations hold borrowed closures across waits.
///
/// # Errors
/// If it cannot go on; the keeper then starts a new one.
pub async fn run(options: AgentOptions) -> Result<Ended, Error> {
    // A provider that is already installed is this one.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    logs::begin(&options.root, &options.instance);
    tracing::info!(instance = options.instance, version = matriarch_api::VERSION, "agent");
    let identity: Identity =
        options.identity.parse().map_err(|_| Error::Identity(options.identity.clone()))?;
    let root = &options.root;
    for directory in [root.volume(), root.state(), root.run(), root.log(), root.certificates()] {
        data::make_directory(&directory).map_err(Error::Directories)?;
    }
    let (inputs, received) = mpsc::unbounded_channel();
    let (link, hello) = open_link(&inputs).await?;
    let client = kubernetes::connect(&options, API_LIMIT).map_err(Error::Kubernetes)?;
    let (known_sender, known) = watch::channel(settings::Known::load(root).map(Arc::new));
    let context = Context::new(options.clone(), identity, client.clone(), link, known);
    let (ledger_file, ledger) = ledger::LedgerFile::open(root).map_err(Error::Ledger)?;
    let incarnation = incarnation(root).map_err(Error::Directories)?;
    with(&context.incarnation, |it| it.clone_from(&incarnation));
    let config = plan::Config {
        name: plan::InstanceName(options.instance.clone()),
        pod_uid: plan::PodUid(options.pod_uid.clone()),
        container_id: container::given().ok_or(Error::KeeperGone)?,
        address: plan::Address {
            host: options.address.to_string(),
            postgres_port: options::POSTGRES_PORT,
            agent_port: options::AGENT_PORT,
        },
        seed: rand::random(),
    };
    let ledger = ledger.unwrap_or_else(|| plan::Ledger {
        incarnation: incarnation.map(plan::Incarnation),
        ..plan::Ledger::default()
    });
    let protocol = plan::Protocol::new(config, ledger, driver::now());
    tokio::spawn(driver::directive::follow(
        options.clone(),
        identity,
        client.clone(),
        known_sender,
    ));
    let endpoint = endpoint::ReadWriteEndpoint::new(&options, identity, context.known.clone());
    let parts = prepare(context, protocol, (ledger_file, hello), endpoint, inputs).await?;
    Box::pin(Driver::new(parts).run(received, hello.terminating)).await
}

async fn open_link(inputs: &mpsc::UnboundedSender<Input>) -> Result<(KeeperLink, Hello), Error> {
    let (news, mut heard) = mpsc::unbounded_channel();
    let inputs = inputs.clone();
    tokio::spawn(async move {
        while let Some(news) = heard.recv().await {
            if inputs.send(Input::News(news)).is_err() {
                return;
            }
        }
    });
    KeeperLink::open(news).await
}

/// The incarnation of the data directory; one is made for a directory that has none.
fn incarnation(root: &Root) -> Result<Option<String>, data::Error> {
    if data::look(root)? == data::Found::Empty {
        return Ok(None);
    }
    if let Some(found) = data::incarnation(root)? {
        return Ok(Some(found));
    }
    let made = data::new_incarnation();
    data::adopt(root, &made)?;
    Ok(Some(made))
}

/// The way of peers' questions to the loop.
fn questions(
    inputs: mpsc::UnboundedSender<Input>,
) -> mpsc::Sender<peers::server::IncomingQuestion> {
    let (questions, mut asked) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(question) = asked.recv().await {
            if inputs.send(Input::Question(question)).is_err() {
                return;
            }
        }
    });
    questions
}

/// Starts everything that runs beside the loop.
async fn prepare(
    context: Context,
    protocol: plan::Protocol,
    (ledger, keeper): (ledger::LedgerFile, Hello),
    endpoint: endpoint::ReadWriteEndpoint,
    inputs: mpsc::UnboundedSender<Input>,
) -> Result<Parts, Error> {
    let options = context.options.clone();
    let (health, health_seen) = watch::channel(health::Health::default());
    let (status, status_seen) = watch::channel(bytes::Bytes::from_static(b"{}"));
    let (report, reports) = watch::channel(Default::default());
    let (figures, figures_seen) = watch::channel(metrics::Figures::default());
    let (seen, seen_now) = watch::channel(driver::observe::Seen::default());
    let (holder, holder_now) = watch::channel(false);
    let (tended_sender, tended) = watch::channel(Tended::default());
    let positions = Arc::new(Mutex::new(std::collections::BTreeMap::new()));
    let peers = peers::client::Peers::new(plan::InstanceName(options.instance.clone()));
    let server_tls = peers::server::ServerTls::default();
    let server = peers::server::Server {
        tls: server_tls.clone(),
        questions: questions(inputs.clone()),
        health: health_seen,
        status: status_seen.clone(),
        context: context.clone(),
    };
    let address = SocketAddr::new(options.address, options::AGENT_PORT);
    let taken =
        |address: SocketAddr| move |source| Error::Listen { address: address.to_string(), source };
    server.listen(address).await.map_err(taken(address))?;
    let address = SocketAddr::new(options.address, options::METRICS_PORT);
    let installation = context.installation.clone();
    let version = move || with(&installation, |it| it.as_ref().map(|it| it.version.to_string()));
    let cluster = options.cluster.clone();
    metrics::listen(address, context.identity, cluster, figures_seen, version)
        .await
        .map_err(taken(address))?;
    status::serve(context.clone(), status_seen).map_err(|source| Error::Listen {
        address: options.root.agent_socket().display().to_string(),
        source,
    })?;
    tokio::spawn(report::publish(context.clone(), reports));
    let upgrade = driver::upgrade::start(&context, keeper, &inputs);
    tokio::spawn(driver::watch_for_hanging(context.clone(), seen_now.clone(), inputs.clone()));
    let tender = Tender {
        context: context.clone(),
        server_tls,
        peers: peers.clone(),
        seen: seen_now,
        positions: positions.clone(),
        tended: tended_sender,
        holder: holder_now,
    };
    tokio::spawn(tender.run());
    let outlets = Outlets { health, status, report, figures, seen, holder };
    Ok(Parts {
        context,
        protocol,
        ledger,
        peers,
        endpoint,
        inputs,
        outlets,
        tended,
        upgrade,
        keeper,
        positions,
    })
}
