//! The namespaces that every cluster has, and what every namespace has.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use matriarch_api::causes::chain;

const ALWAYS: [&str; 3] = ["default", "kube-system", "kube-node-lease"];

/// Makes the first namespaces; called before anything else is applied.
pub async fn make_first(client: &kube::Client) -> Result<(), kube::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    for name in ALWAYS {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(answer)) if answer.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gives every namespace its default service account and the API server's CA.
pub(super) async fn run(client: kube::Client, ca_certificate: String) {
    let api: Api<Namespace> = Api::all(client.clone());
    let mut events = watcher::watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(namespace) | Event::InitApply(namespace)) => {
                if namespace.metadata.deletion_timestamp.is_none()
                    && let Err(error) = equip(&client, &namespace.name_any(), &ca_certificate).await
                {
                    tracing::warn!(error = chain(&error), "cannot equip a namespace");
                }
            }
            Ok(Event::Init | Event::InitDone | Event::Delete(_)) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "watching failed");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn equip(client: &kube::Client, namespace: &str, ca: &str) -> Result<(), kube::Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    if accounts.get_opt("default").await?.is_none() {
        let metadata = ObjectMeta { name: Some("default".to_owned()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        ignore_conflict(accounts.create(&PostParams::default(), &account).await)?;
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    if maps.get_opt("kube-root-ca.crt").await?.is_none() {
        let name = Some("kube-root-ca.crt".to_owned());
        let data = Some(BTreeMap::from([("ca.crt".to_owned(), ca.to_owned())]));
        let metadata = ObjectMeta { name, ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data, ..ConfigMap::default() };
        ignore_conflict(maps.create(&PostParams::default(), &map).await)?;
    }
    Ok(())
}

fn ignore_conflict<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}
