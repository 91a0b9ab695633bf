//! Which API server, which namespace, under which names; and reading what all verbs read.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use matriarch_api::labels::Label;
use matriarch_api::{Cluster, Identity, Instance, Kind};

use crate::error::{Error, known};

/// How to reach the API server.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Namespace [default: that of the context].
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: the current one].
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The kubeconfig [default: KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Under which names the operator serves: matriarch, cnpg, edb.
    #[arg(long, env = "MATRIARCH_API_IDENTITY", default_value = "matriarch")]
    pub api_identity: Identity,
}

/// A connection that stands.
#[derive(Clone)]
pub struct Session {
    /// The client.
    pub client: Client,
    /// The namespace of all objects.
    pub namespace: String,
    /// Under which names the operator serves.
    pub identity: Identity,
    /// How a program that we start reaches the same server.
    pub connection: Connection,
}

impl Session {
    /// Connects as the kubeconfig says.
    ///
    /// # Errors
    /// If there is no kubeconfig that can be used.
    pub async fn open(connection: &Connection) -> Result<Self, Error> {
        let failed = |error| Error::Kubeconfig(Box::new(error));
        let options =
            KubeConfigOptions { context: connection.context.clone(), ..Default::default() };
        let config = match &connection.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(failed)?
            }
            None => Config::from_kubeconfig(&options).await.map_err(failed)?,
        };
        let namespace =
            connection.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))?;
        Ok(Self::new(client, namespace, connection.clone()))
    }

    /// With a client that is there already.
    pub fn new(client: Client, namespace: String, connection: Connection) -> Self {
        Self { client, namespace, identity: connection.api_identity, connection }
    }

    /// Clusters of the namespace.
    pub fn clusters(&self) -> Api<Cluster> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &self.identity)
    }

    /// Instances of the namespace.
    pub fn instances(&self) -> Api<Instance> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &self.identity)
    }

    /// Pods of the namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// What belongs to a cluster.
    pub fn of(&self, cluster: &str) -> ListParams {
        ListParams::default().labels(&format!("{}={cluster}", Label::Cluster.key(self.identity)))
    }

    /// Who writes, in `managedFields`.
    pub fn patch_params() -> PatchParams {
        PatchParams { field_manager: Some("kubectl-matriarch".to_owned()), ..Default::default() }
    }

    /// The full name of a resource of ours.
    pub fn resource(&self, kind: Kind) -> String {
        kind.crd_name(self.identity)
    }

    /// What a refusal of the API means.
    pub fn refused(&self, verb: &'static str, resource: &str, error: kube::Error) -> Error {
        let (resource, namespace) = (resource.to_owned(), self.namespace.clone());
        match &error {
            kube::Error::Api(answer) if answer.code == 403 && !answer.message.is_empty() => {
                Error::Forbidden { verb, resource, namespace, answer: answer.message.clone() }
            }
            _ => Error::Api { verb, resource, namespace, source: Box::new(error) },
        }
    }

    /// A cluster.
    ///
    /// # Errors
    /// If there is none of this name: the text lists those that there are.
    pub async fn cluster(&self, name: &str) -> Result<Cluster, Error> {
        let resource = self.resource(Kind::Cluster);
        let found = self.clusters().get_opt(name).await;
        if let Some(cluster) = found.map_err(|error| self.refused("get", &resource, error))? {
            return Ok(cluster);
        }
        let all = match self.clusters().list(&ListParams::default()).await {
            Ok(all) => all.items,
            Err(kube::Error::Api(answer)) if answer.code == 404 => {
                return Err(Error::NotInstalled { resource });
            }
            Err(error) => return Err(self.refused("list", &resource, error)),
        };
        Err(Error::NoCluster {
            wanted: name.to_owned(),
            namespace: self.namespace.clone(),
            known: known(all.iter().map(Cluster::name)),
        })
    }

    /// Changes a cluster's annotations or spec, as a JSON merge patch.
    ///
    /// # Errors
    /// If the API refuses.
    pub async fn patch_cluster(&self, name: &str, patch: &serde_json::Value) -> Result<(), Error> {
        let patch = kube::api::Patch::Merge(patch);
        let written = self.clusters().patch(name, &Self::patch_params(), &patch).await;
        let resource = self.resource(Kind::Cluster);
        written.map(drop).map_err(|error| self.refused("patch", &resource, error))
    }
}

/// The names of all instances that a cluster has, as its status knows them.
pub fn instance_names(cluster: &Cluster) -> Vec<String> {
    cluster.status.as_ref().map(|status| status.instance_names.clone()).unwrap_or_default()
}

/// Refuses a name that is no instance of the cluster.
///
/// # Errors
/// If it is none: the text lists those that there are.
pub fn require_instance(cluster: &Cluster, name: &str) -> Result<(), Error> {
    let names = instance_names(cluster);
    if names.iter().any(|known| known == name) {
        return Ok(());
    }
    Err(Error::NoInstance {
        wanted: name.to_owned(),
        cluster: cluster.name().to_owned(),
        known: known(names.iter().map(String::as_str)),
    })
}
