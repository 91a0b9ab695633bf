//! Status of PodDisruptionBudgets: how many pods are healthy, how many may be evicted.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use matriarch_api::causes::chain;
use serde_json::{Value, json};

use crate::mirror::Mirror;

pub(super) async fn run(client: kube::Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let budgets: Api<PodDisruptionBudget> = Api::all(client.clone());
    let mut pod_events = watcher::watcher(pods, watcher::Config::default()).boxed();
    let mut budget_events = watcher::watcher(budgets, watcher::Config::default()).boxed();
    let (mut pods, mut budgets) = (Mirror::default(), Mirror::default());
    let mut written: BTreeMap<String, Value> = BTreeMap::new();
    loop {
        let failed = tokio::select! {
            event = pod_events.next() => match event {
                Some(event) => event.map(|event| pods.take(event)).err(),
                None => return,
            },
            event = budget_events.next() => match event {
                Some(event) => event.map(|event| budgets.take(event)).err(),
                None => return,
            },
        };
        if let Some(error) = failed {
            tracing::warn!(error = chain(&error), "watching failed");
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let (Some(pods), Some(budgets)) = (pods.objects(), budgets.objects()) else { continue };
        for (key, budget) in budgets {
            let Some(status) = status_of(budget, pods) else { continue };
            if written.get(key) == Some(&status) {
                continue;
            }
            let api: Api<PodDisruptionBudget> =
                Api::namespaced(client.clone(), &budget.namespace().unwrap_or_default());
            let patch = json!({"metadata": {"uid": budget.uid()}, "status": status});
            let answer = api
                .patch_status(&budget.name_any(), &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            match answer {
                Ok(_) => drop(written.insert(key.clone(), status)),
                Err(error) => tracing::debug!(error = chain(&error), "cannot write a budget"),
            }
        }
        written.retain(|key, _| budgets.contains_key(key));
    }
}

fn status_of(budget: &PodDisruptionBudget, pods: &BTreeMap<String, Pod>) -> Option<Value> {
    let spec = budget.spec.as_ref()?;
    let labels = spec.selector.as_ref()?.match_labels.as_ref()?;
    let chosen: Vec<&Pod> = pods
        .values()
        .filter(|pod| {
            pod.namespace() == budget.namespace()
                && labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        })
        .collect();
    let healthy = chosen
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(|pod| pod.status.as_ref())
        .filter(|status| {
            status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
        })
        .count();
    let expected = chosen.len();
    let number = |value: &IntOrString| match value {
        IntOrString::Int(number) => usize::try_from(*number).ok(),
        IntOrString::String(text) => {
            let percent: usize = text.strip_suffix('%')?.parse().ok()?;
            Some((expected * percent).div_ceil(100))
        }
    };
    let desired = match (&spec.min_available, &spec.max_unavailable) {
        (Some(least), _) => number(least)?,
        (None, Some(most)) => expected.saturating_sub(number(most)?),
        (None, None) => expected.saturating_sub(1),
    };
    let allowed = healthy.saturating_sub(desired);
    Some(json!({
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "disruptionsAllowed": allowed,
        "observedGeneration": budget.metadata.generation,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_evicted_is_what_is_healthy_beyond_what_is_wanted() {
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "default"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"role": "replica"}}},
        }))
        .unwrap();
        let pods: BTreeMap<String, Pod> = [("a", "True"), ("b", "True"), ("c", "False")]
            .into_iter()
            .map(|(name, ready)| {
                let pod = serde_json::from_value(json!({
                    "metadata": {"name": name, "namespace": "default", "labels": {"role": "replica"}},
                    "status": {"conditions": [{"type": "Ready", "status": ready}]},
                }))
                .unwrap();
                (name.to_owned(), pod)
            })
            .collect();
        let status = status_of(&budget, &pods).unwrap();
        assert_eq!(status["currentHealthy"], 2);
        assert_eq!(status["disruptionsAllowed"], 1);
    }
}
