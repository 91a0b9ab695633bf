//! Whether the operator could do its work: the API answers, knows our kinds and lets us list them.
//! An operator that waits for leadership is as ready as the one that leads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client};
use matriarch_api::causes::chain;
use matriarch_api::{Cluster, Kind};

use crate::{Options, watch};

/// Time between two attempts.
const RETRY: Duration = Duration::from_secs(2);

/// What stands in the way, if anything; clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Some("the Kubernetes API has not answered yet".to_owned()))))
    }
}

impl Readiness {
    /// Why it is not ready.
    pub fn obstacle(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, obstacle: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }

    /// Asks until everything that is served can be listed, and says so once: an API server that is
    /// away later makes nobody unready, because another operator would do no better.
    pub async fn seek(self, client: Client, options: Options) {
        let mut said = None;
        while let Err(obstacle) = look(&client, &options).await {
            if said.as_ref() != Some(&obstacle) {
                tracing::warn!(obstacle, "not ready");
            }
            self.set(Some(obstacle.clone()));
            said = Some(obstacle);
            tokio::time::sleep(RETRY).await;
        }
        self.set(None);
    }
}

async fn look(client: &Client, options: &Options) -> Result<(), String> {
    let identity = options.identity;
    for namespace in watch::places(options) {
        let clusters: Api<Cluster> = match &namespace {
            Some(name) => Api::namespaced_with(client.clone(), name, &identity),
            None => Api::all_with(client.clone(), &identity),
        };
        if let Err(error) = clusters.list(&ListParams::default().limit(1)).await {
            let place = namespace.map_or_else(String::new, |name| format!(" in namespace {name}"));
            let cause = match &error {
                kube::Error::Api(answer) if answer.code == 404 => {
                    "the API server does not know them: install the CustomResourceDefinitions of \
                     this --api-identity"
                        .to_owned()
                }
                _ => chain(&error),
            };
            return Err(format!(
                "cannot list {}{place}: {cause}",
                Kind::Cluster.crd_name(identity)
            ));
        }
    }
    Ok(())
}
