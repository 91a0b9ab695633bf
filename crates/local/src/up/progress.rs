//! What `up` says while it works: one line for each thing that changes, with the seconds since the
//! start.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use matriarch_api::cluster::ClusterSpec;
use matriarch_api::{Identity, Kind, names};
use serde_json::Value;

/// Lines on standard output.
#[derive(Debug)]
pub struct Progress {
    start: Instant,
    /// The start by the calendar, in whole seconds as Kubernetes has it.
    since: Timestamp,
    said: BTreeMap<String, String>,
}

impl Default for Progress {
    fn default() -> Self {
        let seconds = Timestamp::now().as_second();
        let since = Timestamp::from_second(seconds).unwrap_or(Timestamp::MIN);
        Self { start: Instant::now(), since, said: BTreeMap::new() }
    }
}

impl Progress {
    /// Seconds since the start.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// True if as many pods of the cluster as it wants have become ready since the start: its
    /// status alone may be that of an earlier run.
    pub async fn has_come_up(&self, client: &Client, cluster: &ClusterView) -> bool {
        let pods: Api<Pod> = Api::namespaced(client.clone(), &cluster.namespace);
        let Ok(pods) = pods.list(&ListParams::default()).await else { return false };
        let ready = pods.iter().filter(|pod| {
            names::serial_of(&cluster.name, &pod.name_any()).is_some()
                && ready_since(pod).is_some_and(|at| at >= self.since)
        });
        ready.count() as u64 >= cluster.instances
    }

    /// Says a line.
    pub fn say(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the databases go on all the same.
        let _ = writeln!(out, "{:7.1} s  {text}", self.seconds());
        let _ = out.flush();
    }

    /// Says a line about `subject` if it differs from the last one about it.
    pub fn say_once(&mut self, subject: &str, text: &str) {
        if self.said.get(subject).is_none_or(|last| last != text) {
            self.said.insert(subject.to_owned(), text.to_owned());
            self.say(text);
        }
    }
}

/// A cluster as its status tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Instances wanted.
    pub instances: u64,
    /// Instances ready.
    pub ready: u64,
    /// Phase, and why.
    pub phase: String,
    /// See `phase`.
    pub reason: String,
    /// Name of the primary.
    pub primary: String,
    /// Name of the Secret of the application's owner.
    pub secret: String,
    /// The application's database.
    pub database: String,
}

impl ClusterView {
    /// True if every instance is ready and there is a primary.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.instances > 0 && self.ready >= self.instances && !self.primary.is_empty()
    }

    /// The line about it.
    #[must_use]
    pub fn line(&self) -> String {
        let Self { name, ready, instances, phase, reason, .. } = self;
        let phase = if phase.is_empty() { "waiting for the operator" } else { phase };
        let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
        let primary = match self.primary.as_str() {
            "" => String::new(),
            primary => format!(", primary {primary}"),
        };
        format!("cluster {name}: {ready} of {instances} ready{primary}: {phase}{reason}")
    }
}

/// When a pod became ready; none if it is not.
fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|one| one.type_ == "Ready" && one.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// The resource of one of our kinds.
#[must_use]
pub fn resource(identity: Identity, kind: Kind) -> ApiResource {
    let gvk = GroupVersionKind::gvk(identity.group(), identity.version(), kind.name());
    ApiResource::from_gvk_with_plural(&gvk, kind.plural())
}

/// All clusters.
pub async fn clusters(
    client: &Client,
    identity: Identity,
) -> Result<Vec<ClusterView>, kube::Error> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(identity, Kind::Cluster));
    let list = api.list(&ListParams::default()).await?;
    Ok(list.items.iter().map(view).collect())
}

fn view(cluster: &DynamicObject) -> ClusterView {
    let text = |pointer: &str| {
        cluster.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let number =
        |pointer: &str| cluster.data.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    // What is no spec is told in the status.
    let spec: ClusterSpec =
        serde_json::from_value(cluster.data["spec"].clone()).unwrap_or_default();
    ClusterView {
        secret: spec.application_secret(&cluster.name_any()),
        database: spec.application_database(),
        namespace: cluster.namespace().unwrap_or_default(),
        name: cluster.name_any(),
        instances: cluster.data.pointer("/spec/instances").and_then(Value::as_u64).unwrap_or(1),
        ready: number("/status/readyInstances"),
        phase: text("/status/phase"),
        reason: text("/status/phaseReason"),
        primary: text("/status/currentPrimary"),
    }
}

/// What the instances are doing, by name.
pub async fn instances(
    client: &Client,
    identity: Identity,
) -> Result<BTreeMap<String, String>, kube::Error> {
    let api: Api<DynamicObject> =
        Api::all_with(client.clone(), &resource(identity, Kind::Instance));
    let list = api.list(&ListParams::default()).await?;
    let lines = list.items.iter().map(|instance| {
        let text = |pointer: &str| {
            instance.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
        };
        let name = instance.name_any();
        let (state, role) = (text("/status/state"), text("/status/role"));
        let failure = text("/status/failure/message");
        let mut line = format!("instance {name}: ");
        line.push_str(if state.is_empty() { "waiting for its agent" } else { state });
        if matches!(role, "primary" | "standby") {
            line.push_str(&format!(" as {role}"));
        }
        if !failure.is_empty() {
            line.push_str(&format!(": {failure}"));
        }
        (name, line)
    });
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_ready_with_all_its_instances_and_a_primary() {
        let mut view = ClusterView {
            name: "c".to_owned(),
            instances: 3,
            ready: 3,
            phase: "Cluster in healthy state".to_owned(),
            ..ClusterView::default()
        };
        assert!(!view.is_ready());
        view.primary = "c-1".to_owned();
        assert!(view.is_ready());
        assert_eq!(view.line(), "cluster c: 3 of 3 ready, primary c-1: Cluster in healthy state");
        view.ready = 2;
        assert!(!view.is_ready());
    }
}
