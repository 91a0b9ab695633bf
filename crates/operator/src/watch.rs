//! The controller: what wakes a pass. Only what carries our labels is watched, of most kinds only
//! the metadata, and nothing of it is kept but the Clusters themselves.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::DynamicResourceScope;
use kube::core::{PartialObjectMeta, Selector, SelectorExt};
use kube::runtime::controller::{Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use matriarch_api::labels::Label;
use matriarch_api::{Cluster, ClusterImageCatalog, Identity, ImageCatalog, Instance};
use matriarch_render::references::CatalogName;
use tokio::sync::watch;

use crate::ended::Ended;
use crate::pass::{Passes, after_error};
use crate::{Options, Work};

/// Tells all parts to end.
#[derive(Clone)]
pub struct Shutdown {
    begin: Arc<watch::Sender<bool>>,
    begun: watch::Receiver<bool>,
}

impl Shutdown {
    /// Ends when the future resolves, or when one of the parts says so.
    pub fn new(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        let (begin, begun) = watch::channel(false);
        let begin = Arc::new(begin);
        let sender = Arc::downgrade(&begin);
        tokio::spawn(async move {
            signal.await;
            if let Some(sender) = sender.upgrade() {
                sender.send_replace(true);
            }
        });
        Self { begin, begun }
    }

    /// End now.
    pub fn begin(&self) {
        self.begin.send_replace(true);
    }

    /// Waits for the end.
    pub async fn wait(&self) {
        let mut begun = self.begun.clone();
        // The sender lives as long as this value.
        if begun.wait_for(|begun| *begun).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The APIs to watch: that of each namespace, or one for all of them.
pub fn places(options: &Options) -> Vec<Option<String>> {
    if options.namespaces.is_empty() {
        return vec![None];
    }
    options.namespaces.iter().cloned().map(Some).collect()
}

/// So long a pass that is under way may take once the end has begun: an API that does not answer
/// would hold it for ever.
const LAST_PASS: Duration = Duration::from_secs(10);

/// Watches and passes until shut down; passes under way are finished.
pub(crate) async fn run(work: &Work, shutdown: Shutdown) {
    let (client, options) = (work.client.clone(), &work.options);
    let identity = options.identity;
    let reporter = Reporter { controller: identity.operator_name().to_owned(), instance: None };
    let recorder = Recorder::new(client.clone(), reporter);
    let ended = Ended::default();
    let passes = Passes::new(work, recorder, ended.clone());
    let passes = Arc::new(passes);
    let controllers = places(options).into_iter().map(|namespace| {
        let source = Source {
            ended: ended.clone(),
            client: client.clone(),
            namespace,
            identity,
            secrets: options.watch_secrets,
        };
        control(source, passes.clone(), shutdown.clone())
    });
    tokio::select! {
        _ended = futures::future::join_all(controllers) => {}
        // A controller that has not yet seen all Clusters once does not hear of the end.
        () = ending(&passes, shutdown.clone()) => {}
    }
}

/// The end has begun, and no pass is under way any more.
async fn ending(passes: &Passes, shutdown: Shutdown) {
    shutdown.wait().await;
    if tokio::time::timeout(LAST_PASS, passes.none_under_way()).await.is_err() {
        tracing::warn!("passes that are under way are left: the API does not answer them");
    }
}

/// One controller for each place: a store of Clusters that two watches filled would lose those of
/// the one when the other begins anew.
async fn control(source: Source, passes: Arc<Passes>, shutdown: Shutdown) {
    let clusters: Api<Cluster> = source.own();
    // A burst of events (three pods start at once) is one pass; the first one need not wait long.
    let config = Config::default().debounce(Duration::from_millis(20)).concurrency(16);
    let all = watcher::Config::default().any_semantic();
    let controller = Controller::new_with(clusters, all, source.identity)
        .with_config(config)
        .graceful_shutdown_on(async move { shutdown.wait().await });
    source
        .watch_all(controller)
        .run(
            |cluster, passes: Arc<Passes>| async move { Box::pin(passes.run(&cluster)).await },
            |cluster, error, passes| after_error(&cluster, error, &passes),
            passes,
        )
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(error = %matriarch_api::causes::chain(&error), "controller");
            }
        })
        .await;
}

struct Source {
    ended: Ended,
    client: Client,
    namespace: Option<String>,
    identity: Identity,
    secrets: bool,
}

impl Source {
    /// Objects of a kind that Kubernetes has of itself.
    fn builtin<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Objects of a kind of ours.
    fn own<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = Identity, Scope = DynamicResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &self.identity),
            None => Api::all_with(self.client.clone(), &self.identity),
        }
    }

    fn config(&self) -> watcher::Config {
        paged().labels(&Label::Cluster.key(self.identity))
    }

    fn watch_all(&self, controller: Controller<Cluster>) -> Controller<Cluster> {
        let mut controller = controller;
        controller = self.watch_metadata::<ServiceAccount>(controller);
        controller = self.watch_metadata::<Role>(controller);
        controller = self.watch_metadata::<RoleBinding>(controller);
        controller = self.watch_metadata::<ConfigMap>(controller);
        controller = self.watch_metadata::<Service>(controller);
        controller = self.watch_metadata::<EndpointSlice>(controller);
        controller = self.watch_metadata::<PodDisruptionBudget>(controller);
        controller = self.watch_metadata::<PersistentVolumeClaim>(controller);
        controller = self.watch_pods(controller);
        controller = self.watch_catalogs(controller);
        controller = self.watch_selected_pods(controller);
        if self.secrets {
            controller = self.watch_metadata::<Secret>(controller);
        }
        let key = Label::Cluster.key(self.identity);
        let identity = self.identity;
        let instances: Api<Instance> = self.own();
        controller = controller.watches_with(instances, identity, self.config(), move |instance| {
            owner_of(&instance, &key, identity)
        });
        let key = Label::Cluster.key(self.identity);
        let seen = Mutex::new(BTreeMap::new());
        let leases: Api<Lease> = self.builtin();
        controller.watches(leases, self.config(), move |lease: Lease| {
            let news = is_news(&seen, &lease, identity);
            owner_of(&lease, &key, identity).filter(|_| news)
        })
    }

    /// Image catalogs are nobody's: those that name one are looked for among the Clusters. Where one
    /// namespace is served, catalogs of the whole Kubernetes cluster may not be watched; they are
    /// looked at in each pass.
    fn watch_catalogs(&self, controller: Controller<Cluster>) -> Controller<Cluster> {
        let clusters = controller.store();
        let (identity, config) = (self.identity, paged());
        let catalogs: Api<ImageCatalog> = self.own();
        let of = clusters.clone();
        let controller = controller.watches_with(catalogs, identity, config, move |catalog| {
            naming(&of, identity, Some(catalog.namespace()), catalog.name())
        });
        if self.namespace.is_some() {
            return controller;
        }
        let config = paged();
        let catalogs: Api<ClusterImageCatalog> = Api::all_with(self.client.clone(), &identity);
        controller.watches_with(catalogs, identity, config, move |catalog| {
            naming(&clusters, identity, None, catalog.name())
        })
    }

    /// Pods that pg_hba names are anybody's; of these the metadata alone, which changes with the
    /// status as well.
    fn watch_selected_pods(&self, controller: Controller<Cluster>) -> Controller<Cluster> {
        let (clusters, identity) = (controller.store(), self.identity);
        let pods: Api<PartialObjectMeta<Pod>> = self.builtin();
        let config = paged();
        controller.watches(pods, config, move |pod| selecting(&clusters, identity, &pod))
    }

    /// Pods as a whole: how their containers ended is in their status.
    fn watch_pods(&self, controller: Controller<Cluster>) -> Controller<Cluster> {
        let key = Label::Cluster.key(self.identity);
        let (identity, ended) = (self.identity, self.ended.clone());
        let pods: Api<Pod> = self.builtin();
        controller.watches(pods, self.config(), move |pod: Pod| {
            let owner = owner_of(&pod, &key, identity)?;
            let namespace = owner.namespace.as_deref().unwrap_or_default();
            ended.note(&format!("{namespace}/{}", owner.name), &pod);
            Some(owner)
        })
    }

    fn watch_metadata<K>(&self, controller: Controller<Cluster>) -> Controller<Cluster>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + Send
            + Sync
            + 'static,
    {
        let key = Label::Cluster.key(self.identity);
        let identity = self.identity;
        let api: Api<PartialObjectMeta<K>> = self.builtin();
        controller.watches(api, self.config(), move |object| owner_of(&object, &key, identity))
    }
}

/// Lists come in pages, of which as many are decoded at once as there are kinds: with 500 objects in
/// a page, as is usual, an operator that began beside 300 clusters kept 31 MiB more than with 50.
fn paged() -> watcher::Config {
    watcher::Config::default().page_size(50)
}

fn owner_of<K: Resource>(object: &K, key: &str, identity: Identity) -> Option<ObjectRef<Cluster>> {
    let name = object.labels().get(key)?;
    let namespace = object.namespace()?;
    Some(ObjectRef::new_with(name, identity).within(&namespace))
}

/// The Clusters that name a catalog: of a namespace, or of the whole Kubernetes cluster.
fn naming(
    clusters: &Store<Cluster>,
    identity: Identity,
    namespace: Option<&str>,
    name: &str,
) -> Vec<ObjectRef<Cluster>> {
    let wanted = CatalogName { cluster_wide: namespace.is_none(), name: name.to_owned() };
    let names = |cluster: &Cluster| {
        namespace.is_none_or(|namespace| cluster.namespace() == namespace)
            && CatalogName::of(&cluster.spec).as_ref() == Some(&wanted)
    };
    let found = clusters.state().into_iter().filter(|cluster| names(cluster));
    found.map(|cluster| ObjectRef::from_obj_with(cluster.as_ref(), identity)).collect()
}

/// The Clusters whose pg_hba names a pod.
fn selecting(
    clusters: &Store<Cluster>,
    identity: Identity,
    pod: &PartialObjectMeta<Pod>,
) -> Vec<ObjectRef<Cluster>> {
    let selects = |cluster: &Cluster| {
        let mut entries = cluster.spec.pod_selector_refs.iter();
        pod.namespace().as_deref() == Some(cluster.namespace())
            && entries.any(|entry| {
                let selector = Selector::try_from(entry.selector.clone().unwrap_or_default());
                selector.is_ok_and(|selector| selector.matches(pod.labels()))
            })
    };
    let found = clusters.state().into_iter().filter(|cluster| selects(cluster));
    found.map(|cluster| ObjectRef::from_obj_with(cluster.as_ref(), identity)).collect()
}

/// A renewal is no news: it comes every two seconds from every cluster. Who holds the Lease and who
/// is counted on is.
fn is_news(
    seen: &Mutex<BTreeMap<(String, String), String>>,
    lease: &Lease,
    identity: Identity,
) -> bool {
    let name = (lease.namespace().unwrap_or_default(), lease.name_any());
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if lease.metadata.deletion_timestamp.is_some() {
        seen.remove(&name);
        return true;
    }
    let spec = lease.spec.clone().unwrap_or_default();
    let annotation = |suffix: &str| lease.annotations().get(&identity.key(suffix)).cloned();
    let gist = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        lease.metadata.uid,
        spec.holder_identity,
        spec.lease_transitions,
        annotation("cohort"),
        annotation("stragglers"),
        annotation("quorum"),
    );
    seen.insert(name, gist.clone()) != Some(gist)
}
