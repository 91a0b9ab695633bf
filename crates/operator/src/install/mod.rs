//! What is applied to a Kubernetes cluster to install the operator: every object, from one set of
//! options. `install generate` prints these objects; `config/` is written from them, and the Helm
//! chart is compared with them (docs/decisions/installing.md).

use matriarch_api::Identity;
use matriarch_api::crd::{self, UnknownPath};
use serde_json::{Value, json};

mod admission;
mod network;
pub mod permissions;
mod roles;
#[cfg(test)]
mod tests;
mod workload;

use crate::Setup;

pub use admission::own_instance_policy;
pub use network::{CLUSTER_POLICY, cluster_policy, operator_policy};
pub use roles::{
    leader_role, leader_role_binding, operator_cluster_role, operator_cluster_role_binding,
    operator_role, operator_role_binding, user_roles,
};
pub use workload::{
    deployment, disruption_budget, flow_schema, namespace, service, service_account,
    service_monitor,
};

/// The operator's namespace where the user names none.
pub const NAMESPACE: &str = "matriarch-system";

/// Name of the operator's container: it finds its own image under it.
pub const CONTAINER: &str = "operator";

/// Port of metrics and health.
pub const METRICS_PORT: u16 = 8080;

/// Port at which agents get the operator's program.
pub const AGENT_PORT: u16 = 8443;

/// Stands for the operator's own namespace in the arguments of its container; kubelet fills it in,
/// so that a copy of the manifests for another namespace needs no other argument.
pub const OWN_NAMESPACE: &str = "$(NAMESPACE)";

/// Which namespaces the operator serves, and so which rights it needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All: a ClusterRole, without list and watch on Secrets.
    #[default]
    ClusterWide,
    /// These: a Role in each.
    Namespaces(Vec<String>),
}

/// What a user may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the operator runs.
    pub namespace: String,
    /// What it serves.
    pub scope: Scope,
    /// Under which names it serves.
    pub identity: Identity,
    /// The operator's image.
    pub image: String,
    /// PostgreSQL's image where a Cluster names none; the operator's own choice if absent.
    pub postgres_image: Option<String>,
    /// The Kubernetes cluster's DNS domain; the usual one if absent.
    pub cluster_domain: Option<String>,
    /// So many operators, of which one works at a time.
    pub replicas: u32,
    /// PriorityClass of the operator's pods.
    pub priority_class: Option<String>,
    /// With a ServiceMonitor of the Prometheus operator.
    pub service_monitor: bool,
    /// With a ValidatingAdmissionPolicy that lets an agent write its own Instance alone.
    pub admission_policy: bool,
    /// Namespaces whose database pods get a NetworkPolicy.
    pub cluster_policies: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            namespace: NAMESPACE.to_owned(),
            scope: Scope::default(),
            identity: Identity::default(),
            image: Setup::default().operator_image,
            postgres_image: None,
            cluster_domain: None,
            // A pod of a lost node is replaced after five minutes; rule 20 should not wait for it.
            replicas: 2,
            priority_class: None,
            service_monitor: false,
            admission_policy: false,
            cluster_policies: Vec::new(),
        }
    }
}

impl Options {
    /// The name of the operator's objects. Those without a namespace must differ between operators
    /// of two identities.
    pub fn name(&self) -> String {
        match self.identity {
            Identity::Matriarch => "matriarch-operator".to_owned(),
            Identity::Cnpg | Identity::Edb => format!("matriarch-operator-{}", self.identity),
        }
    }

    /// True if database pods run in the operator's namespace: then it is the user's, and none of
    /// the objects here.
    pub fn serves_own_namespace(&self) -> bool {
        match &self.scope {
            Scope::ClusterWide => false,
            Scope::Namespaces(names) => names.contains(&self.namespace),
        }
    }

    /// Metadata of an object in the operator's namespace.
    fn metadata(&self) -> Value {
        self.metadata_in(&self.namespace)
    }

    fn metadata_in(&self, namespace: &str) -> Value {
        let mut metadata = self.metadata_named(&self.name());
        metadata["namespace"] = json!(namespace);
        metadata
    }

    /// Metadata of an object without a namespace.
    fn metadata_named(&self, name: &str) -> Value {
        json!({ "name": name, "labels": self.labels() })
    }

    fn labels(&self) -> Value {
        let mut labels = self.selector();
        labels["app.kubernetes.io/component"] = json!("operator");
        labels
    }

    /// Labels by which the operator's pods are selected; they never change.
    fn selector(&self) -> Value {
        json!({ "app.kubernetes.io/name": self.name() })
    }
}

/// The definitions of all kinds.
///
/// # Errors
/// If a definition cannot be made from the types.
pub fn definitions(identity: Identity) -> Result<Vec<Value>, UnknownPath> {
    matriarch_api::Kind::ALL.into_iter().map(|kind| crd::json(kind, identity)).collect()
}

/// Every object, in an order in which they can be made.
///
/// # Errors
/// If a definition cannot be made from the types.
pub fn objects(options: &Options) -> Result<Vec<Value>, UnknownPath> {
    let mut objects = Vec::new();
    if !options.serves_own_namespace() {
        objects.push(namespace(options));
    }
    objects.extend(definitions(options.identity)?);
    objects.push(service_account(options));
    objects.push(leader_role(options));
    objects.push(leader_role_binding(options));
    match &options.scope {
        Scope::ClusterWide => {
            objects.push(operator_cluster_role(options));
            objects.push(operator_cluster_role_binding(options));
        }
        Scope::Namespaces(names) => {
            for name in names {
                objects.push(operator_role(options, name));
                objects.push(operator_role_binding(options, name));
            }
        }
    }
    objects.extend(user_roles(options));
    objects.push(flow_schema(options));
    objects.push(operator_policy(options));
    objects.push(disruption_budget(options));
    objects.push(service(options));
    objects.push(deployment(options));
    if options.service_monitor {
        objects.push(service_monitor(options));
    }
    if options.admission_policy {
        objects.extend(own_instance_policy(options));
    }
    objects.extend(options.cluster_policies.iter().map(|name| cluster_policy(options, name)));
    Ok(objects)
}
