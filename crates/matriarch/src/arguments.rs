//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use matriarch_api::Identity;
use matriarch_cli as cli;

use crate::operator::OperatorArguments;
use crate::plugin::LocalPlugin;

/// PostgreSQL on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "matriarch", version = matriarch_api::VERSION, about)]
pub struct Arguments {
    /// What to be.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to be.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Process 1 of a database pod.
    #[command(hide = true)]
    Keeper,
    /// The agent of a database pod, started by the keeper.
    #[command(hide = true)]
    Agent {
        /// Something else than to run.
        #[command(subcommand)]
        verb: Option<AgentVerb>,
    },
    /// The operator.
    Operator(OperatorArguments),
    /// Copies this program to DESTINATION (what the init container of a pod does).
    #[command(hide = true, alias = "install-binary")]
    Bootstrap {
        /// Path in the pod.
        destination: PathBuf,
    },
    /// Clusters on this machine, without Kubernetes.
    Local {
        /// What to do.
        #[command(subcommand)]
        verb: LocalVerb,
    },
    /// Installs the operator in a Kubernetes cluster.
    Install {
        /// What to do.
        #[command(subcommand)]
        verb: cli::install::Verb,
    },
    /// The verbs of the kubectl plugin.
    #[command(flatten)]
    Plugin(cli::Verb),
}

/// Verbs for a running agent.
#[derive(Debug, Subcommand)]
pub enum AgentVerb {
    /// Prints the status of the agent of this pod.
    Status {
        /// As one JSON document, which is the only form there is.
        #[arg(long, required = true)]
        json: bool,
    },
}

/// Verbs of one-machine mode.
#[derive(Debug, Subcommand)]
pub enum LocalVerb {
    /// Starts everything and applies FILES; Ctrl-C stops it, and the next start brings it back.
    Up {
        /// Manifests.
        files: Vec<PathBuf>,
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Started as root: run the databases as this user [default: postgres].
        #[arg(long)]
        user: Option<String>,
        /// First port of 127.0.0.1 to try for the primaries.
        #[arg(long, default_value_t = 5432)]
        port: u16,
        /// Under which names the operator serves: matriarch, cnpg, edb.
        #[arg(long, env = "MATRIARCH_API_IDENTITY", default_value = "matriarch")]
        api_identity: Identity,
        /// Delay changes of endpoints by a second, as kube-proxy does.
        #[arg(long)]
        like_kube_proxy: bool,
        /// Do not run the operator: what is there must do without it.
        #[arg(long)]
        no_operator: bool,
    },
    /// Shows what runs, or one cluster closely.
    Status {
        /// The cluster to show closely.
        cluster: Option<String>,
        /// Of one cluster: -v for roles and budgets, -vv for configuration and certificates.
        #[arg(short, long, action = clap::ArgAction::Count)]
        verbose: u8,
        /// Of one cluster: the form.
        #[arg(short, long, value_enum, default_value_t = cli::status::Form::Text)]
        output: cli::status::Form,
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Under which names the operator serves.
        #[arg(long, env = "MATRIARCH_API_IDENTITY", default_value = "matriarch")]
        api_identity: Identity,
    },
    /// Connects psql to the primary.
    Psql {
        /// The cluster, if there are several.
        cluster: Option<String>,
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Under which names the operator serves.
        #[arg(long, env = "MATRIARCH_API_IDENTITY", default_value = "matriarch")]
        api_identity: Identity,
        /// Arguments of psql, after `--`.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Stops everything; the data stays.
    Stop {
        /// Where.
        #[command(flatten)]
        place: Place,
        /// Seconds to wait.
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Lets the API server play dead, to see what the databases do without it.
    Api {
        /// What it is to do.
        #[arg(value_enum)]
        wish: ApiState,
        /// Where.
        #[command(flatten)]
        place: Place,
    },
    /// The verbs of the kubectl plugin.
    #[command(flatten)]
    Plugin(LocalPlugin),
}

/// What the API server is to do.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum ApiState {
    /// Break all connections, and answer nothing.
    Pause,
    /// Answer again.
    Resume,
}

/// Which state directory.
#[derive(Debug, Args)]
pub struct Place {
    /// State directory [default: /var/lib/matriarch/local for root, else
    /// $XDG_STATE_HOME/matriarch or ~/.local/state/matriarch].
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
}

impl Place {
    /// True if the user named it.
    pub fn is_named(&self) -> bool {
        self.state.is_some()
    }

    /// The state directory.
    pub fn state(self) -> PathBuf {
        self.state.unwrap_or_else(matriarch_local::up::default_state)
    }
}
