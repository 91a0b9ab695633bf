//! `matriarch operator`: what it was started with, and the start.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use matriarch_api::Identity;
use matriarch_operator::{AgentOptions, LeaderOptions, Options, Setup};
use tokio::signal::unix::{SignalKind, signal};

/// How the operator runs.
#[derive(Debug, Args)]
pub struct OperatorArguments {
    /// Under which names it serves: matriarch, cnpg, edb.
    #[arg(long, env = "MATRIARCH_API_IDENTITY", default_value = "matriarch")]
    api_identity: Identity,
    /// Serve these namespaces alone, separated by commas [default: all].
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',', value_parser = name)]
    watch_namespace: Vec<String>,
    /// Work only while holding the Lease of the operators: there may be several.
    #[arg(long)]
    leader_elect: bool,
    /// Where that Lease is [default: the namespace of the own pod].
    #[arg(long, value_name = "NAMESPACE", requires = "leader_elect", value_parser = name)]
    leader_election_namespace: Option<String>,
    /// Serve /metrics, /healthz and /readyz here, such as `[::]:8080` [default: nowhere].
    #[arg(long, value_name = "ADDRESS")]
    metrics_address: Option<SocketAddr>,
    /// The image that the init container of database pods copies this program from [default: that
    /// of the own pod].
    #[arg(long, value_name = "IMAGE")]
    operator_image: Option<String>,
    /// PostgreSQL's image where a Cluster names none.
    #[arg(long, value_name = "IMAGE", default_value_t = Setup::default().postgres_image)]
    postgres_image: String,
    /// The Kubernetes cluster's DNS domain.
    #[arg(long, value_name = "DOMAIN", default_value_t = Setup::default().cluster_domain)]
    cluster_domain: String,
    /// How agents get this program.
    #[command(flatten)]
    upgrades: AgentUpgrades,
    /// Name of the own pod, which the downward API gives.
    #[arg(long, env = "POD_NAME", hide = true)]
    pod_name: Option<String>,
    /// Its namespace.
    #[arg(long, env = "NAMESPACE", hide = true)]
    pod_namespace: Option<String>,
}

/// How the agents of running databases get the operator's own program.
#[derive(Debug, Args)]
struct AgentUpgrades {
    /// Where agents reach this operator, for example
    /// https://matriarch-operator.matriarch-system.svc:8443; without it agents are upgraded
    /// only when their pods are made anew.
    #[arg(long, env = "MATRIARCH_AGENT_URL", value_name = "URL")]
    agent_url: Option<String>,
    /// Where this operator listens for them.
    #[arg(
        long,
        env = "MATRIARCH_AGENT_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8443"
    )]
    agent_listen: SocketAddr,
}

impl AgentUpgrades {
    /// None if agents are not upgraded in place.
    fn options(self, namespace: Option<String>) -> Option<AgentOptions> {
        let listen = self.agent_listen;
        self.agent_url.map(|url| AgentOptions { url, listen, namespace })
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("a namespace has a name") } else { Ok(text.to_owned()) }
}

impl OperatorArguments {
    fn leader(&self) -> anyhow::Result<Option<LeaderOptions>> {
        if !self.leader_elect {
            return Ok(None);
        }
        let namespace = self.leader_election_namespace.as_ref().or(self.pod_namespace.as_ref());
        let namespace = namespace
            .context("where is the Lease of the operators? Give --leader-election-namespace")?;
        // Two processes of one name would both lead. A pod's name is taken again only after the pod
        // is gone.
        let name = self.pod_name.as_ref().context("who of the operators is this? Set POD_NAME")?;
        Ok(Some(LeaderOptions { namespace: namespace.clone(), name: name.clone() }))
    }

    async fn image(&self, client: &kube::Client) -> anyhow::Result<String> {
        if let Some(image) = &self.operator_image {
            return Ok(image.clone());
        }
        let (Some(namespace), Some(pod)) = (&self.pod_namespace, &self.pod_name) else {
            return Ok(Setup::default().operator_image);
        };
        Ok(matriarch_operator::own_image(client, namespace, pod).await?)
    }
}

/// Runs until it is told to stop, or another operator leads.
pub async fn run(arguments: OperatorArguments) -> anyhow::Result<()> {
    // Before anything that may wait: as process 1 it would not even be killed by them.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut shutdown = Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let config = kube::Config::infer().await.context("cannot find the Kubernetes API")?;
    let client =
        matriarch_agent::kubernetes::client(&config).context("cannot reach the Kubernetes API")?;
    let leader = arguments.leader()?;
    let operator_image = tokio::select! {
        image = arguments.image(&client) => image?,
        () = &mut shutdown => return Ok(()),
    };
    let options = Options {
        operator_image,
        identity: arguments.api_identity,
        postgres_image: arguments.postgres_image,
        cluster_domain: arguments.cluster_domain,
        // Who may list Secrets in all namespaces may read them all (traps K4).
        watch_secrets: !arguments.watch_namespace.is_empty(),
        namespaces: arguments.watch_namespace,
        leader,
        metrics: arguments.metrics_address,
        agents: arguments.upgrades.options(arguments.pod_namespace),
        ..Options::default()
    };
    Ok(matriarch_operator::run(client, options, shutdown).await?)
}
