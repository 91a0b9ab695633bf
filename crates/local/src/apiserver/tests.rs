use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::*;

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("matriarch-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn secret(name: &str) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "db"}},
        "stringData": {"password": "x"},
    }))
    .unwrap()
}

#[tokio::test]
async fn a_kube_client_creates_patches_lists_and_deletes() {
    let directory = Directory::new("crud");
    let server = ApiServer::open(Options::new(&directory.0)).unwrap();
    let secrets: Api<Secret> = Api::default_namespaced(server.client());
    let made = secrets.create(&PostParams::default(), &secret("a")).await.unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some());
    let again = secrets.create(&PostParams::default(), &secret("a")).await.unwrap_err();
    assert!(matches!(again, kube::Error::Api(status) if status.reason == "AlreadyExists"));

    let patch = json!({"metadata": {"labels": {"app": null, "tier": "1"}}});
    let patched = secrets.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(patched.labels().get("tier").map(String::as_str), Some("1"));
    assert!(!patched.labels().contains_key("app"));

    let mut stale = made.clone();
    stale.labels_mut().insert("late".into(), "yes".into());
    let refused = secrets.replace("a", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.reason == "Conflict"));

    let found = secrets.list(&ListParams::default().labels("tier=1")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    secrets.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(secrets.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_watcher_sees_what_happens() {
    let directory = Directory::new("watch");
    let server = ApiServer::open(Options::new(&directory.0)).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(server.client());
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut seen = Box::pin(watcher(pods.clone(), config).applied_objects());
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "p-"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }))
        .unwrap();
        let made = pods.create(&PostParams::default(), &pod).await.unwrap();
        assert!(made.name_any().starts_with("p-"));
        let first = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            while let Some(pod) = seen.next().await {
                if pod.as_ref().is_ok_and(|pod| pod.name_any() == made.name_any()) {
                    return true;
                }
            }
            false
        });
        assert!(first.await.unwrap());
    }
    let events = pods.watch(&kube::api::WatchParams::default(), "0").await.unwrap();
    let first = Box::pin(events).try_next().await.unwrap();
    assert!(matches!(first, Some(kube::api::WatchEvent::Added(_))));
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let directory = Directory::new("restart");
    let server = ApiServer::open(Options::new(&directory.0)).unwrap();
    assert!(matches!(
        ApiServer::open(Options::new(&directory.0)),
        Err(OpenError::Journal(JournalError::InUse { .. }))
    ));
    let secrets: Api<Secret> = Api::default_namespaced(server.client());
    for name in ["a", "b"] {
        secrets.create(&PostParams::default(), &secret(name)).await.unwrap();
    }
    secrets.delete("a", &DeleteParams::default()).await.unwrap();
    let (before, token) = (server.store().revision(), server.admin_token());

    // What a kill leaves: the files as they are, and a torn line of an answer never given.
    let copy = Directory::new("restart-copy");
    std::fs::create_dir_all(&copy.0).unwrap();
    for name in ["log.jsonl", "snapshot.jsonl", "token.key"] {
        std::fs::copy(directory.0.join(name), copy.0.join(name)).unwrap();
    }
    let mut log = std::fs::OpenOptions::new().append(true).open(copy.0.join("log.jsonl")).unwrap();
    std::io::Write::write_all(&mut log, b"{\"revision\":99,\"key").unwrap();

    let server = ApiServer::open(Options::new(&copy.0)).unwrap();
    assert_eq!(server.store().revision(), before);
    assert_eq!(server.admin_token(), token);
    let secrets: Api<Secret> = Api::default_namespaced(server.client());
    let names: Vec<String> = secrets
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["b"]);
}
