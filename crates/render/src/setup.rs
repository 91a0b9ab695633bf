//! What the operator was started with.

use matriarch_api::Identity;
use matriarch_plan::AgentBinary;
use serde_json::{Map, Value, json};

use matriarch_api::annotations::Annotation;
use matriarch_api::cluster::InheritedMetadata;
use matriarch_api::labels::{self, Label};
use matriarch_api::{Cluster, names};

/// What the operator was started with, as far as objects depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Under which names it serves.
    pub identity: Identity,
    /// Image with this binary in it: the init container copies it from there.
    pub operator_image: String,
    /// PostgreSQL's image where the user names none.
    pub postgres_image: String,
    /// The Kubernetes cluster's DNS domain.
    pub cluster_domain: String,
    /// The operator's own binary, where it is served to agents.
    pub agent: Option<AgentBinary>,
    /// No further agent of this cluster is to be told of it now: enough of other clusters are.
    pub agents_wait: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            identity: Identity::default(),
            operator_image: format!("ghcr.io/matriarch/matriarch:{}", matriarch_api::VERSION),
            postgres_image: "ghcr.io/cloudnative-pg/postgresql:18".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            agent: None,
            agents_wait: false,
        }
    }
}

/// Whose objects are made: the setup, and the Cluster that owns them.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The operator's setup.
    pub setup: &'a Setup,
    /// The Cluster.
    pub cluster: &'a Cluster,
}

impl Owner<'_> {
    /// The Cluster's name.
    pub fn name(&self) -> &str {
        self.cluster.name()
    }

    /// The label or annotation key of ours.
    pub fn label(&self, label: Label) -> String {
        label.key(self.setup.identity)
    }

    /// The annotation key of ours.
    pub fn annotation(&self, annotation: Annotation) -> String {
        annotation.key(self.setup.identity)
    }

    /// What the user has given the Cluster's annotation of ours.
    pub fn given(&self, annotation: Annotation) -> Option<&str> {
        let annotations = self.cluster.metadata.annotations.as_ref()?;
        annotations.get(&self.annotation(annotation)).map(String::as_str)
    }

    fn inherited(&self) -> InheritedMetadata {
        self.cluster.spec.inherited_metadata.clone().unwrap_or_default()
    }

    /// Labels of every object of the cluster.
    pub fn labels(&self) -> Map<String, Value> {
        let mut labels = Map::new();
        for (key, value) in self.inherited().labels {
            labels.insert(key, json!(value));
        }
        let own = [
            (self.label(Label::Cluster), self.name()),
            (labels::MANAGED_BY.to_owned(), self.setup.identity.managed_by()),
            (labels::APP_NAME.to_owned(), labels::APP_NAME_POSTGRESQL),
            (labels::APP_INSTANCE.to_owned(), self.name()),
            (labels::APP_COMPONENT.to_owned(), labels::APP_COMPONENT_DATABASE),
        ];
        for (key, value) in own {
            labels.insert(key, json!(value));
        }
        labels
    }

    /// The metadata of an object of the cluster, owned by it.
    pub fn metadata(&self, name: &str) -> Value {
        let mut metadata = self.metadata_unowned(name);
        if let Some(owner) = self.cluster.owner_reference(self.setup.identity) {
            metadata["ownerReferences"] = json!([owner]);
        }
        metadata
    }

    /// The metadata of an object that outlives the Cluster.
    pub fn metadata_unowned(&self, name: &str) -> Value {
        let mut metadata = json!({
            "name": name,
            "namespace": self.cluster.namespace(),
            "labels": self.labels(),
        });
        let annotations = self.inherited().annotations;
        if !annotations.is_empty() {
            metadata["annotations"] = json!(annotations);
        }
        metadata
    }

    /// Labels by which the instances' pods are selected.
    pub fn pod_selector(&self) -> Map<String, Value> {
        let mut selector = Map::new();
        selector.insert(self.label(Label::Cluster), json!(self.name()));
        selector.insert(self.label(Label::PodRole), json!(labels::POD_ROLE_INSTANCE));
        selector
    }
}

/// Names of all members that a memory knows.
pub fn member_names(memory: &matriarch_plan::Memory) -> Vec<String> {
    memory.members.keys().map(|name| name.as_str().to_owned()).collect()
}

/// The name of an object without state.
pub fn object_name(cluster: &str, object: matriarch_plan::world::Object) -> String {
    use matriarch_plan::world::Object;
    match object {
        Object::ServiceAccount | Object::Role | Object::RoleBinding => {
            names::service_account(cluster)
        }
        Object::DisruptionBudget => names::pdb(cluster),
        Object::Passwd => names::config_map_passwd(cluster),
        Object::ServiceReadWrite => names::service_rw(cluster),
        Object::ServiceReadOnly => names::service_ro(cluster),
        Object::ServiceRead => names::service_r(cluster),
        Object::ServicePrimary => names::service_primary(cluster),
        Object::EndpointsReadWrite => names::endpoint_slice_rw(cluster),
    }
}
