//! kube-apiserver in little: `store` behind the requests that kubectl, kube-rs clients and the
//! agents make, in process and over HTTPS, durable in a directory.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use jiff::Timestamp;
use matriarch_store::{Moment, Options as StoreOptions, Refusal, Store};
use serde_json::{Value, json};
use tokio::sync::watch;

mod answer;
mod form;
mod identity;
mod journal;
mod logs;
mod plain;
mod protobuf;
mod request;
mod resources;
mod serve;
mod watching;

pub use identity::Caller;
pub use journal::JournalError;
pub use logs::{LogOptions, LogStream, PodLogs};
pub use serve::ServeError;

use journal::Journal;

#[cfg(test)]
mod tests;

/// Where the time comes from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How an API server is opened.
#[derive(Clone)]
pub struct Options {
    /// Where the objects are kept.
    pub directory: PathBuf,
    /// CustomResourceDefinitions that are there from the start; changed ones are updated.
    pub definitions: Vec<Value>,
    /// The time.
    pub clock: Clock,
    /// Addresses of Services: the network as a number and its prefix length.
    pub service_network: (u32, u8),
}

impl Options {
    /// A server that keeps its objects in a directory, with the system's clock.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            definitions: Vec::new(),
            clock: Arc::new(Timestamp::now),
            service_network: StoreOptions::default().service_network,
        }
    }
}

/// Why an API server cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("cannot open the objects' directory")]
    Journal(#[source] JournalError),
    /// A first object or a definition is not accepted.
    #[error("cannot install {what}")]
    Install {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: Box<Refusal>,
    },
}

/// A running API server; clones are the same server.
#[derive(Clone)]
pub struct ApiServer {
    inner: Arc<Inner>,
}

struct Inner {
    store: Mutex<Store>,
    journal: Journal,
    /// The newest revision in the store.
    written: watch::Sender<u64>,
    /// True while it plays dead.
    paused: watch::Sender<bool>,
    clock: Clock,
    key: identity::SigningKey,
    logs: RwLock<Option<Arc<dyn PodLogs>>>,
}

impl ApiServer {
    /// Opens a server on a directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`OpenError`] where the directory is in use, damaged or cannot be written.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let store_options =
            StoreOptions { service_network: options.service_network, ..StoreOptions::default() };
        let (journal, kept) = Journal::open(&options.directory).map_err(OpenError::Journal)?;
        let key = identity::SigningKey::open(&options.directory).map_err(OpenError::Journal)?;
        let store = Store::restore(store_options, kept.revision, kept.objects);
        let server = Self {
            inner: Arc::new(Inner {
                written: watch::Sender::new(store.revision()),
                paused: watch::Sender::new(false),
                store: Mutex::new(store),
                journal,
                clock: options.clock,
                key,
                logs: RwLock::new(None),
            }),
        };
        for namespace in ["default", "kube-system"] {
            server.install(&json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}
            }))?;
        }
        for definition in &options.definitions {
            server.install(definition)?;
        }
        Ok(server)
    }

    /// Where pod logs come from.
    pub fn set_logs(&self, logs: Arc<dyn PodLogs>) {
        *self.inner.logs.write().unwrap_or_else(PoisonError::into_inner) = Some(logs);
    }

    fn logs(&self) -> Option<Arc<dyn PodLogs>> {
        self.inner.logs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.inner.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the store and hands what changed to the journal; the answer may be given
    /// only after [`ApiServer::settle`].
    fn write<T>(&self, act: impl FnOnce(&mut Store, &mut Moment<'_>) -> T) -> (T, u64) {
        let mut store = self.store();
        let before = store.revision();
        let mut random = rand::random::<u64>;
        let mut moment = Moment { now: (self.inner.clock)(), random: &mut random };
        let result = act(&mut store, &mut moment);
        let after = store.revision();
        if after > before {
            self.inner.journal.append(store.changes_since(before).cloned().collect());
            self.inner.written.send_replace(after);
        }
        (result, after)
    }

    /// Waits until everything up to a revision is durable.
    async fn settle(&self, revision: u64) -> Result<(), Refusal> {
        self.inner.journal.durable(revision).await
    }

    /// Creates an object, or replaces its spec where it differs.
    fn install(&self, object: &Value) -> Result<(), OpenError> {
        let what = format!(
            "{} {}",
            object["kind"].as_str().unwrap_or_default(),
            object["metadata"]["name"].as_str().unwrap_or_default()
        );
        let (result, _) = self.write(|store, moment| resources::install(store, object, moment));
        result.map_err(|source| OpenError::Install { what, source: Box::new(source) })
    }

    /// Removes what owners and finalizers leave to the garbage collector; `true` if there was
    /// something. A server that serves does this by itself.
    pub async fn collect(&self) -> Result<bool, Refusal> {
        let (did, revision) = self.write(Store::collect);
        self.settle(revision).await?;
        Ok(did)
    }

    /// A client in this process, with all rights.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client_as(Caller::Admin)
    }

    /// A client in this process with the rights of a caller.
    #[must_use]
    pub fn client_as(&self, caller: Caller) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (server, caller) = (server.clone(), caller.clone());
            async move { Ok::<_, std::convert::Infallible>(server.handle(request, caller).await) }
        });
        kube::Client::new(service, "default")
    }

    /// The bearer token with all rights.
    #[must_use]
    pub fn admin_token(&self) -> String {
        self.inner.key.token(&Caller::Admin)
    }

    /// The bearer token of a service account; it is valid while the ServiceAccount exists.
    #[must_use]
    pub fn token_for_service_account(&self, namespace: &str, name: &str) -> String {
        self.inner.key.token(&Caller::ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}
