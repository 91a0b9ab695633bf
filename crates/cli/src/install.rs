//! `install generate`: everything that installs the operator, as YAML. It asks no API server.

use matriarch_api::Identity;
use matriarch_operator::Setup;
use matriarch_operator::install::{self, Options, Scope};

use crate::error::Error;

/// The version of this program, and of what it prints.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to do about the operator's installation.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Verb {
    /// Prints all objects, for `kubectl apply -f -`.
    Generate(Arguments),
}

/// Arguments of `install generate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Namespace of the operator.
    #[arg(short, long, value_name = "NAMESPACE", default_value = install::NAMESPACE)]
    pub namespace: String,
    /// Serve all namespaces, which is the default.
    #[arg(long, conflicts_with = "watch_namespace")]
    pub cluster_wide: bool,
    /// Serve these namespaces alone, separated by commas: the operator gets Roles in them, and no
    /// right outside.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub watch_namespace: Vec<String>,
    /// So many operators, of which one works at a time.
    #[arg(long, default_value_t = Options::default().replicas)]
    pub replicas: u32,
    /// The operator's image [default: the published one of this version].
    #[arg(long, value_name = "IMAGE", conflicts_with = "version")]
    pub image: Option<String>,
    /// The published image of another version; roles and definitions stay those of this program.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// Under which names it serves: matriarch, cnpg, edb.
    #[arg(long, env = "MATRIARCH_API_IDENTITY", default_value = "matriarch")]
    pub api_identity: Identity,
    /// PostgreSQL's image where a Cluster names none [default: the operator's choice].
    #[arg(long, value_name = "IMAGE")]
    pub postgres_image: Option<String>,
    /// The Kubernetes cluster's DNS domain [default: cluster.local].
    #[arg(long, value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// PriorityClass of the operator's pods.
    #[arg(long, value_name = "CLASS")]
    pub priority_class: Option<String>,
    /// With a ServiceMonitor, for the Prometheus operator.
    #[arg(long)]
    pub service_monitor: bool,
    /// With a ValidatingAdmissionPolicy by which an agent may write the status of its own Instance
    /// alone.
    #[arg(long)]
    pub admission_policy: bool,
    /// With a NetworkPolicy for the database pods of these namespaces.
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    pub cluster_network_policy: Vec<String>,
}

/// Does it.
///
/// # Errors
/// If an option cannot be, or the objects cannot be printed.
pub fn run(verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Generate(arguments) => {
            let text = yaml(&options(arguments)?)?;
            crate::text::say(text.trim_end())
        }
    }
}

fn options(arguments: Arguments) -> Result<Options, Error> {
    if let Some(version) = arguments.version.as_deref().filter(|version| *version != VERSION) {
        eprintln!(
            "matriarch: these roles and definitions are of version {VERSION}; where {version} needs \
             others, use its own program"
        );
    }
    for namespace in std::iter::once(&arguments.namespace)
        .chain(&arguments.watch_namespace)
        .chain(&arguments.cluster_network_policy)
    {
        if !is_namespace(namespace) {
            return Err(Error::NotANamespace { name: namespace.clone() });
        }
    }
    let image = arguments.image.unwrap_or_else(|| published(arguments.version.as_deref()));
    let scope = if arguments.watch_namespace.is_empty() {
        Scope::ClusterWide
    } else {
        Scope::Namespaces(arguments.watch_namespace)
    };
    Ok(Options {
        namespace: arguments.namespace,
        scope,
        identity: arguments.api_identity,
        image,
        postgres_image: arguments.postgres_image,
        cluster_domain: arguments.cluster_domain,
        replicas: arguments.replicas,
        priority_class: arguments.priority_class,
        service_monitor: arguments.service_monitor,
        admission_policy: arguments.admission_policy,
        cluster_policies: arguments.cluster_network_policy,
    })
}

/// A DNS label as in RFC 1123.
fn is_namespace(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
    text.len() <= matriarch_api::names::MAX_LABEL
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

fn published(version: Option<&str>) -> String {
    let own = Setup::default().operator_image;
    match (version, own.rsplit_once(':')) {
        (Some(version), Some((repository, _))) => format!("{repository}:{version}"),
        (Some(_) | None, _) => own,
    }
}

/// All objects as one stream of YAML documents.
///
/// # Errors
/// If an object cannot be made or written.
pub fn yaml(options: &Options) -> Result<String, Error> {
    let failed = |why: String| Error::Form { form: "YAML", why };
    let mut text = String::new();
    for object in install::objects(options).map_err(|error| failed(error.to_string()))? {
        text.push_str("---\n");
        text.push_str(
            &serde_saphyr::to_string(&object).map_err(|error| failed(error.to_string()))?,
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_the_tag_of_the_published_image() {
        assert_eq!(published(None), Setup::default().operator_image);
        let other = published(Some("9.8.7"));
        assert!(other.ends_with(":9.8.7"), "{other}");
        assert!(other.starts_with(Setup::default().operator_image.rsplit_once(':').unwrap().0));
    }

    #[test]
    fn a_namespace_is_a_dns_label() {
        for good in ["a", "team-a", "1st"] {
            assert!(is_namespace(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", &"a".repeat(64)] {
            assert!(!is_namespace(bad), "{bad}");
        }
    }
}
