//! Containers whose end kubelet has reported. A pod that is deleted is gone from the API moments
//! after that report, so a pass would hardly ever see it; the watch does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use matriarch_plan::world::EndedContainer;
use matriarch_render::ended;

/// So many ends are remembered of each cluster: the Lease names one container, and its end is
/// looked for at once.
const MOST: usize = 32;

/// What was reported since this process began, by `namespace/name` of the cluster. Losing it costs
/// time, never safety: without proof the Lease expires.
#[derive(Clone, Debug, Default)]
pub struct Ended(Arc<Mutex<BTreeMap<String, VecDeque<EndedContainer>>>>);

impl Ended {
    /// Takes note of what a pod of the cluster says.
    pub fn note(&self, cluster: &str, pod: &Pod) {
        let reported = ended(pod);
        if reported.is_empty() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(cluster.to_owned()).or_default();
        for end in reported {
            if !known.contains(&end) {
                known.push_back(end);
            }
        }
        while known.len() > MOST {
            known.pop_front();
        }
    }

    /// What was reported of the cluster.
    pub fn of(&self, cluster: &str) -> BTreeSet<EndedContainer> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(cluster).into_iter().flatten().cloned().collect()
    }

    /// The cluster is gone.
    pub fn forget(&self, cluster: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, container: &str) -> Pod {
        let terminated = serde_json::json!({
            "exitCode": 137, "message": format!("container {container}\n"),
        });
        serde_json::from_value(serde_json::json!({
            "metadata": { "name": "c-1", "namespace": "n", "uid": uid },
            "status": { "containerStatuses": [{
                "name": "postgres", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": { "terminated": terminated },
            }]},
        }))
        .unwrap()
    }

    #[test]
    fn an_end_outlives_the_pod_and_the_oldest_go_first() {
        let ended = Ended::default();
        for number in 0..40 {
            ended.note("n/c", &pod("u", &format!("keeper-{number}")));
            ended.note("n/c", &pod("u", &format!("keeper-{number}")));
        }
        let known = ended.of("n/c");
        assert_eq!(known.len(), MOST);
        assert!(known.iter().all(|end| end.pod.0 == "u"));
        assert!(known.iter().any(|end| end.container.0 == "keeper-39"));
        assert!(!known.iter().any(|end| end.container.0 == "keeper-0"));
        assert!(ended.of("n/other").is_empty());
        ended.forget("n/c");
        assert!(ended.of("n/c").is_empty());
    }
}
