//! Everything that `status` and `explain` show, read at one time. What cannot be read is an error
//! in the output and never a reason to show nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use matriarch_api::causes::chain;
use matriarch_api::statistics::Statistics;
use matriarch_api::{Cluster, Instance, names};
use matriarch_plan::protocol::Lease;
use matriarch_render::lease_record;

use crate::error::Error;
use crate::session::Session;

/// A cluster and what belongs to it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// When it was read.
    pub now: Timestamp,
    /// The Cluster.
    pub cluster: Cluster,
    /// Its Instances: directives and reports.
    pub instances: Vec<Instance>,
    /// Its pods by name.
    pub pods: BTreeMap<String, Pod>,
    /// Its Lease, if it was filled.
    pub lease: Option<Lease>,
    /// Its PodDisruptionBudgets.
    pub budgets: Vec<PodDisruptionBudget>,
    /// What agents measured when they were asked, by instance.
    pub statistics: BTreeMap<String, Statistics>,
    /// What could not be read: of these nothing is known, not even that there is none.
    pub unread: BTreeSet<Part>,
    /// Why not.
    pub errors: Vec<String>,
}

/// What belongs to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its Instances.
    Instances,
    /// Its pods.
    Pods,
    /// Its Lease.
    Lease,
    /// Its PodDisruptionBudgets.
    Budgets,
}

impl Part {
    const fn resource(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Pods => "pods",
            Self::Lease => "leases",
            Self::Budgets => "poddisruptionbudgets",
        }
    }
}

impl Observed {
    /// Reads it.
    ///
    /// # Errors
    /// If the Cluster itself cannot be read.
    pub async fn read(session: &Session, name: &str) -> Result<Self, Error> {
        let cluster = session.cluster(name).await?;
        let params = session.of(name);
        let leases: Api<LeaseObject> = Api::namespaced(session.client.clone(), &session.namespace);
        let budgets: Api<PodDisruptionBudget> =
            Api::namespaced(session.client.clone(), &session.namespace);
        let (instance_api, pod_api) = (session.instances(), session.pods());
        let lease_name = names::lease(name);
        let (instances, pods, lease, budgets) = futures::join!(
            instance_api.list(&params),
            pod_api.list(&params),
            leases.get_opt(&lease_name),
            budgets.list(&params),
        );
        let (mut unread, mut errors) = (BTreeSet::new(), Vec::new());
        let mut note = |part: Part, error: kube::Error| {
            unread.insert(part);
            errors.push(chain(&session.refused("read", part.resource(), error)));
        };
        let instances = instances.map_err(|error| note(Part::Instances, error));
        let mut instances = instances.map_or_else(|()| Vec::new(), |list| list.items);
        instances.sort_by_key(|instance| instance.spec.serial);
        let pods = pods.map_err(|error| note(Part::Pods, error));
        let pods = pods.map_or_else(|()| Vec::new(), |list| list.items);
        let pods = pods.into_iter().map(|pod| (pod.name_any(), pod)).collect();
        let budgets = budgets.map_err(|error| note(Part::Budgets, error));
        let budgets = budgets.map_or_else(|()| Vec::new(), |list| list.items);
        let lease = lease.map_err(|error| note(Part::Lease, error)).unwrap_or_default();
        let lease = match lease.map(|lease| lease_record(&lease, session.identity).decode()) {
            None => None,
            Some(Ok(lease)) => lease,
            Some(Err(error)) => {
                unread.insert(Part::Lease);
                errors.push(format!("the Lease {lease_name} makes no sense: {}", chain(&error)));
                None
            }
        };
        Ok(Self {
            now: Timestamp::now(),
            cluster,
            instances,
            pods,
            lease,
            budgets,
            statistics: BTreeMap::new(),
            unread,
            errors,
        })
    }
}

/// The last events about a cluster, oldest first: when, reason, note.
///
/// # Errors
/// If they cannot be listed.
pub async fn events(
    session: &Session,
    cluster: &str,
    most: usize,
) -> Result<Vec<(Option<Timestamp>, String, String)>, Error> {
    let api: Api<Event> = Api::namespaced(session.client.clone(), &session.namespace);
    let all = api.list(&ListParams::default()).await;
    let all = all.map_err(|error| session.refused("list", "events", error))?;
    let about = |event: &Event| {
        event.regarding.as_ref().is_some_and(|regarding| {
            regarding.kind.as_deref() == Some("Cluster")
                && regarding.name.as_deref() == Some(cluster)
        })
    };
    let mut events: Vec<_> = all
        .items
        .into_iter()
        .filter(about)
        .map(|event| {
            let first = event.event_time.map(|time| time.0);
            let last = event.series.map(|series| series.last_observed_time.0);
            (last.or(first), event.reason.unwrap_or_default(), event.note.unwrap_or_default())
        })
        .collect();
    events.sort();
    let surplus = events.len().saturating_sub(most);
    Ok(events.split_off(surplus))
}
